"""Reading a statement as text: prose without formulas and code, sentences, language, loops."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_MAX_MATH = 400
"""Characters between two dollar signs that can be one formula; beyond that they are prices."""

_DISPLAY = re.compile(
    # Each form stops at the next opening of its own, so that unclosed ones cost no second look.
    r"\$\$[^$]*\$\$|\\\[(?:[^\\]|\\\\|\\(?![\[\]\\]))*\\\]"
    r"|\\\((?:[^\\]|\\\\|\\(?![()\\]))*\\\)"
    r"|\\begin\{([a-z]+\*?)\}(?:[^\\]|\\(?!begin\{\1\}|end\{\1\}))*\\end\{\1\}"
)
_INLINE = re.compile(rf"\$(?:[^$\n.?!]|[.?!](?!\s+[A-Z])|\n(?!\n)){{1,{_MAX_MATH}}}\$")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_DRAWING = re.compile(r"\[asy\].*?(?:\[/asy\]|\Z)", re.DOTALL)
_MACRO = re.compile(r"\\[A-Za-z]+|[{}]")
_QUOTED = re.compile(r"[\"“][^\"“”]{0,300}[\"”]|``[^'`]{0,300}''")
_SENTENCE_END = re.compile(r"(?<=[.?!])[\"”')\]*]*\s+")

_UNSPACED = re.compile(r"[\u2e80-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f]")
_FOREIGN = re.compile(
    r"[^\W\d_\u0000-\u024f\u0370-\u03ff\u1e00-\u1eff\u2070-\u214f\U0001d400-\U0001d7ff]"
)
_WORDS = re.compile(r"[a-zà-öø-ÿ]+(?:['’][a-z]+)?")
_COMMON_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a all an and any are as at be been both but by can consider contains days does each end "
        "every exactly find first following for from given greatest has have he her his how if in "
        "input integer integers into is it its kilometers least length let line many may more most "
        "must no not number numbers of on one only or other out output over points positive print "
        "probability read real she smallest so solve some sum such suppose than that the their "
        "then there they this three to two value values was what when where which while whose will "
        "with without you your compute determine evaluate simplify express calculate",
    )
)
_LOOP_SHARE = 0.2
"""Part of a text that a repeated sentence must fill; notes to examples repeat a line rightly."""
_MIN_WORDS = 8
"""Fewer words than this say nothing about a language."""


def strip_formulas(text: str) -> str:
    """Prose alone: formulas, code and drawings become a space."""
    for pattern in (_DRAWING, _CODE, _DISPLAY, _INLINE):
        text = pattern.sub(" ", text)
    return _MACRO.sub(" ", text)


def strip_code(text: str) -> str:
    """Text without code, so that a program's words are not taken for the author's."""
    return _CODE.sub(" ", text)


def strip_quotes(text: str) -> str:
    """Text without what is said between quotation marks."""
    return _QUOTED.sub(" ", text)


def split_sentences(text: str) -> list[str]:
    """Sentences and paragraphs."""
    parts = (part for line in re.split(r"\n\s*\n", text) for part in _SENTENCE_END.split(line))
    return [part.strip() for part in parts if part.strip()]


def find_foreign(text: str) -> str | None:
    """The sign of a text that is not English, or none.

    Some words in a script without spaces (a model that changed its language), a tenth of the
    letters in another script, or hardly any of the commonest English words.
    """
    prose = strip_formulas(text)
    if len(found := _UNSPACED.findall(strip_code(text))) >= 4:
        return "letters of another script: " + "".join(found[:12])
    foreign = _FOREIGN.findall(prose)
    if len(foreign) > 0.1 * max(1, sum(map(str.isalpha, prose))):
        return "letters of another script: " + "".join(foreign[:12])
    words = _WORDS.findall(prose.lower())
    known = sum(1 for word in words if word in _COMMON_WORDS)
    if len(words) >= _MIN_WORDS and known < 0.15 * len(words):
        return f"{known} of {len(words)} words are common English ones"
    return None


def find_loop(text: str, *, min_words: int = 24, min_distinct: float = 0.6) -> str | None:
    """The sign of a text that runs in a circle, or none.

    A sentence said three times, one word five times in a row, or few distinct word triples. Only
    words count: rows of a matrix and examples of an input repeat themselves rightly.
    """
    text = _fold_formulas(text)
    said = Counter(
        " ".join(sentence.lower().split())
        for sentence in re.split(r"[.?!]+(?=\s|\Z)|\n+", text)
        if len(_plain_words(sentence)) >= 4
    )
    if said:
        sentence, count = said.most_common(1)[0]
        if count >= 3 and count * len(sentence) > _LOOP_SHARE * len(text):
            return f"said {count} times: {sentence[:60]}"
    if (run := re.search(r"\b([a-z]{3,})(?:[\s,;.]+\1\b){4,}", text, re.IGNORECASE)) is not None:
        return f"five times in a row: {run[1]}"
    lines = (line for line in text.lower().splitlines() if _plain_words(line))
    words = [word for line in lines for word in re.findall(r"\w+", line)]
    if len(words) < min_words:
        return None
    triples = list(zip(words, words[1:], words[2:], strict=False))
    share = len(set(triples)) / len(triples)
    return f"only {share:.0%} of its word triples are distinct" if share < min_distinct else None


def _fold_formulas(text: str) -> str:
    """Each formula as one word, so that its symbols do not count as repeated ones."""
    for pattern in (_DRAWING, _CODE):
        text = pattern.sub(" ", text)
    for pattern in (_DISPLAY, _INLINE):
        text = pattern.sub(lambda match: " m" + re.sub(r"\W+", "_", match[0]) + " ", text)
    return text


def _plain_words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{2,}", text)


def shingles(text: str, size: int = 4) -> frozenset[tuple[str, ...]]:
    """All runs of ``size`` words."""
    words = re.findall(r"\w+", text.lower())
    return frozenset(zip(*(words[start:] for start in range(size)), strict=False))


def share_of(own: frozenset[tuple[str, ...]], other: str) -> float:
    """Which part of ``own`` runs of words another text holds."""
    return len(own & shingles(other)) / len(own) if own else 0.0


def first_match(patterns: Sequence[re.Pattern[str]], text: str) -> str | None:
    """What the first pattern that is found matches."""
    for pattern in patterns:
        if (match := pattern.search(text)) is not None:
            return " ".join(match[0].split())
    return None
