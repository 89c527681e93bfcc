"""One name per concept: spellings are levelled and near-duplicates merged, with a record of both.

Three steps, each recorded as an :class:`Alias`:

* ``notation``: quotes, dashes, LaTeX, numbering and lead-ins are levelled (:func:`clean_name`);
* ``spelling``: names that then differ in case, plural, hyphens or articles are one;
* ``similar``: names whose trigrams are alike *and* whose every word agrees up to a spelling
  variant (:func:`same_words`), so that numbers, negations and technical words keep names apart.

The most frequent spelling stands for all. The result depends on the counts alone, never on the
order of names, and canonical names map to themselves.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Rule = Literal["same", "notation", "spelling", "similar"]

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ", "0123456789n")
_SUPERSCRIPT = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ]+")
_QUOTES_AND_DASHES = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032`\u00b4", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u200b\u200c\u200d\ufeff\u00ad", None),
        "×": "*",
        "·": "*",
        "≤": "<=",
        "≥": ">=",
        "≠": "!=",
        "π": "pi",
    }
)
_LATEX = (
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)"), r"\1/\2"),
    (re.compile(r"\\sqrt\s*\{([^{}]*)\}"), r"sqrt(\1)"),
    (re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf|bb|cal|it|sf)|mbox|operatorname)\s*"), ""),
    (re.compile(r"\\(?:left|right|displaystyle|[,;:! ])(?![a-zA-Z])"), " "),
    (re.compile(r"\\(?:cdot|times)(?![a-zA-Z])"), "*"),
    (re.compile(r"\\leq?(?:slant)?(?![a-zA-Z])"), "<="),
    (re.compile(r"\\geq?(?:slant)?(?![a-zA-Z])"), ">="),
    (re.compile(r"\\neq?(?![a-zA-Z])"), "!="),
    (re.compile(r"\\[()\[\]]|\$"), ""),
    (re.compile(r"\\([a-zA-Z]+)"), r"\1"),
    (re.compile(r"\\"), ""),
    (re.compile(r"([_^])\{([^{}]*)\}"), r"\1\2"),
    (re.compile(r"\{([^{}]*)\}"), r"\1"),
)
_LEAD_INS = re.compile(
    r"(?:knowledge point|concept|foundational concept)s?\s*(?:\d{1,3}\s*)?:\s*"
    r"|(?:\(?\d{1,3}[.)]|[-*+•])\s+"
    # "Knowledge of ratios" and "ratios" name one thing; "ability to add" names a skill and stays.
    r"|(?:a |an |the )?(?:(?:basic|good|strong) )?"
    r"(?:knowledge|understanding|comprehension|familiarity) (?:of|with) "
    r"(?:the )?(?:concepts? of (?:the )?)?(?!(?:how|why|when|what|that|which)\b)",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+(?:[.,]\d+)*|[^\w\s]")
_ARTICLES = frozenset({"the"})
_LINKING = frozenset({"the", "an", "of", "in", "for", "to", "and"})
"""Words that may come and go between two spellings of one concept; "or" and "a" may not."""


@dataclass(frozen=True, slots=True)
class Alias:
    """A spelling, the name that stands for it, and why."""

    alias: str
    canonical: str
    rule: Rule
    similarity: float
    """Trigram Jaccard of the two; 1 unless the rule is ``similar``."""


def clean_name(raw: str) -> str:
    """The readable form of a concept's name; may be empty. Cleaning twice changes nothing more."""
    text, before = raw, None
    while text != before:
        before = text
        text = _clean_once(text)
    return text


def _clean_once(text: str) -> str:
    text = _SUPERSCRIPT.sub(lambda match: "^" + match[0].translate(_SUPERSCRIPTS), text)
    text = unicodedata.normalize("NFKC", text.translate(_QUOTES_AND_DASHES))
    text = text.translate(_QUOTES_AND_DASHES)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    text = " ".join(text.replace("**", "").split())
    text = text.strip("\"'").rstrip(".,;: ").strip()
    lead_in = _LEAD_INS.match(text)
    # A name that is nothing but a lead-in ("Knowledge of") keeps it, rather than become empty.
    return text[lead_in.end() :] if lead_in and text[lead_in.end() :].strip() else text


def identity(name: str) -> str:
    """What spellings of one cleaned name share: words in their singular, without case."""
    words = [singular(word) for word in _words(name)]
    return " ".join(word for word in words if word not in _ARTICLES) or name.casefold()


def _words(name: str) -> list[str]:
    """Words, numbers and signs, caseless; a hyphen between letters parts words like a space."""
    text = re.sub(r"(?<=[^\W\d_])-(?=[^\W\d_])", " ", name.casefold())
    return _WORD.findall(text)


_KEPT_ENDINGS = ("ss", "us", "is", "ics", "ous", "'s")
_KEPT_WORDS = frozenset({"series", "species", "means", "always", "perhaps"})


@lru_cache(maxsize=65_536)
def singular(word: str) -> str:
    """A regular English plural's singular; irregular and doubtful words stay as they are."""
    if len(word) < 4 or word in _KEPT_WORDS or word.endswith(_KEPT_ENDINGS):
        return word
    if not word.endswith("s"):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("xes", "ches", "shes", "sses")):
        return word[:-2]
    return word[:-1]


def same_words(one: str, other: str) -> bool:
    """Whether two identities differ only in linking words, word breaks and spelling variants.

    The words are compared in order, so "sum of products" is not "product of sums".
    """
    a, b = _content_words(one), _content_words(other)
    if _joined(a) == _joined(b):
        return True
    return len(a) == len(b) and all(map(_is_variant, a, b))


def _content_words(key: str) -> list[str]:
    return [_level_english(word) for word in key.split() if word not in _LINKING]


def _joined(words: list[str]) -> str:
    """The words without breaks ("sub set" is "subset"), after the numbers, which keep theirs."""
    numbers = " ".join(word for word in words if word[0].isdigit())
    return f"{numbers}|{''.join(words)}"


_ENGLISH = (
    (re.compile(r"is(?=(e|ed|er|ing|ation)$)"), "iz"),
    (re.compile(r"our(?=($|al|ing|ed|able|hood))"), "or"),
    (re.compile(r"tre$"), "ter"),
    (re.compile(r"ogue$"), "og"),
    (re.compile(r"ll(?=(ed|ing|er)$)"), "l"),
    (re.compile(r"(?<=\w)'s$"), ""),
)
_MIN_TYPO_LENGTH = 7


def _is_variant(one: str, other: str) -> bool:
    """Whether two levelled words are one, but for a letter dropped, doubled or swapped.

    That counts only inside a long word: the first three letters and the last two must agree, so
    "cosine" is not "sine"; a replaced letter never counts, so "interval" is not "internal".
    """
    if one == other:
        return True
    return _outline(one) == _outline(other) and _is_one_slip(one, other)


def _outline(word: str) -> str:
    """What two variants of a word share."""
    is_long = word.isalpha() and len(word) >= _MIN_TYPO_LENGTH
    return f"{word[:3]}…{word[-2:]}" if is_long else word


def _level_english(word: str) -> str:
    """British as American spelling, and no possessive."""
    for pattern, replacement in _ENGLISH:
        word = pattern.sub(replacement, word)
    return word


def _is_one_slip(a: str, b: str) -> bool:
    """One letter more or less, or two neighbours swapped."""
    if len(a) == len(b):
        differing = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
        return (
            len(differing) == 2
            and differing[1] == differing[0] + 1
            and a[differing[0]] == b[differing[1]]
            and a[differing[1]] == b[differing[0]]
        )
    short, long = sorted((a, b), key=len)
    if len(long) != len(short) + 1:
        return False
    return any(long[:i] + long[i + 1 :] == short for i in range(len(long)))


def trigrams(key: str) -> frozenset[str]:
    """Character trigrams of an identity, its ends marked."""
    padded = f" {key} "
    return frozenset(padded[i : i + 3] for i in range(len(padded) - 2)) or frozenset({padded})


def canonicalize(counts: Mapping[str, int], similarity: float) -> dict[str, Alias]:
    """The canonical name of every spelling.

    Args:
        counts: How often each spelling occurs.
        similarity: Trigram Jaccard from which two names may be one; 1 merges no similar names.

    Returns:
        One entry per spelling that names anything at all.
    """
    cleaned = {raw: clean_name(raw) for raw in counts}
    classes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for raw, name in cleaned.items():
        if name:
            classes[identity(name)][name] += counts[raw]
    display = {key: min(names, key=lambda n: (-names[n], n)) for key, names in classes.items()}
    totals = {key: names.total() for key, names in classes.items()}
    heads = _merge_similar(totals, similarity) if similarity < 1 else {}
    aliases = {}
    for raw, name in cleaned.items():
        if not name:
            continue
        key = identity(name)
        head, score = heads.get(key, (key, 1.0))
        canonical = display[head]
        aliases[raw] = Alias(raw, canonical, _rule(raw, name, canonical, key == head), score)
    return aliases


def _rule(raw: str, name: str, canonical: str, is_same_key: bool) -> Rule:
    if not is_same_key:
        return "similar"
    if raw == canonical:
        return "same"
    return "notation" if name == canonical else "spelling"


def _merge_similar(totals: Mapping[str, int], similarity: float) -> dict[str, tuple[str, float]]:
    """Identity → the more frequent identity that stands for it, and how alike they are.

    Names come by falling frequency; each joins the most alike name that stands for itself, or
    stands for itself. So no chain of small steps joins what is not alike. Names are compared only
    where they share what :func:`same_words` asks for, which takes linear time.
    """
    blocks: defaultdict[str, list[str]] = defaultdict(list)
    merged: dict[str, tuple[str, float]] = {}
    for key in sorted(totals, key=lambda k: (-totals[k], k)):
        words = _content_words(key)
        places = (_joined(words), " ".join(map(_outline, words)))
        best = _most_alike(key, {name for place in places for name in blocks.get(place, ())})
        if best is not None and best[1] >= similarity:
            merged[key] = best
        else:
            for place in places:
                blocks[place].append(key)
    return merged


def _most_alike(key: str, candidates: Collection[str]) -> tuple[str, float] | None:
    """The candidate with the same words and the highest Jaccard; the smaller name on a tie."""
    own = trigrams(key)
    scored = []
    for name in candidates:
        if same_words(key, name):
            grams = trigrams(name)
            scored.append((-len(own & grams) / len(own | grams), name))
    if not scored:
        return None
    score, name = min(scored)
    return name, round(-score, 3)
