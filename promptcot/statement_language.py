"""What is wrong with a text as language: another than English, loops, copies of another text."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

from promptcot.statement_text import (
    fold_formulas,
    plain_words,
    split_sentences,
    strip_code,
    strip_drawings,
    strip_formulas,
    strip_quotes,
)

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
_MIN_WORDS = 8
"""Fewer words than this say nothing about a language."""
_MIN_TRIPLES = 22
_LOOP_SHARE = 0.2
"""Part of a text that a repeated sentence must fill; notes to examples repeat a line rightly."""
_MIN_DISTINCT = 0.5
"""Share of word triples that differ. Real statements that tell of several like things in like words
reach down to 0.52; what runs in a circle stays below 0.4."""
_SENTENCE = re.compile(r"[.?!]+(?=\s|\Z)|\n+")
_TOKEN = re.compile(r"\w+")
_RUN = re.compile(r"\b([a-z]{3,})(?:[,;.]{0,3}\s+\1\b){4,}", re.IGNORECASE)
"""With blanks between: ``[true,true,true]`` is an output."""
_LISTED = re.compile(r"^[ \t]*(?:[-*•]|\(?\w{1,3}[.)])[ \t].*$", re.MULTILINE)
_MIN_REPEATED = 8
"""Words of a sentence that nobody writes twice by intent."""
_QUOTE = '""'
_PLAIN = re.compile(r"[^\W\d_]{2}")


def find_foreign(text: str) -> str | None:
    """The sign of a text that is not English, or none.

    Some words in a script without spaces (a model that changed its language), a tenth of the
    letters in another script, or hardly any of the commonest English words.
    """
    prose = strip_formulas(text)
    if not text.isascii():
        if len(found := _UNSPACED.findall(strip_code(text))) >= 4:
            return "letters of another script: " + "".join(found[:12])
        foreign = _FOREIGN.findall(prose)
        if foreign and len(foreign) > 0.1 * max(1, sum(map(str.isalpha, prose))):
            return "letters of another script: " + "".join(foreign[:12])
    words = _WORDS.findall(prose.lower())
    if len(words) < _MIN_WORDS:
        return None
    known = sum(map(_COMMON_WORDS.__contains__, words))
    if known < 0.15 * len(words):
        return f"{known} of {len(words)} words are common English ones"
    return None


def find_loop(text: str) -> str | None:
    """The sign of a text that runs in a circle, or none.

    A sentence said three times, one word five times in a row, or few distinct word triples. Only
    words count: rows of a matrix and examples of an input repeat themselves rightly.
    """
    folded = fold_formulas(text)
    if (often := _said_often(folded)) is not None:
        return often
    num_triples, num_distinct = _count_triples(text)
    # One word five times in a row is one triple three times.
    if num_distinct <= num_triples - 2 and (run := _RUN.search(folded)) is not None:
        return f"five times in a row: {run[1]}"
    if num_triples < _MIN_TRIPLES or num_distinct >= _MIN_DISTINCT * num_triples:
        return None
    return f"only {num_distinct / num_triples:.0%} of its word triples are distinct"


@lru_cache(maxsize=16)
def _count_triples(text: str) -> tuple[int, int]:
    """Runs of three words in the lines that hold words, a formula being one, and distinct ones."""
    text = fold_formulas(text).lower()
    if "\n" in text:
        text = "\n".join(line for line in text.splitlines() if _PLAIN.search(line))
    words = _TOKEN.findall(text)
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return len(triples), len(set(triples))


def _said_often(text: str) -> str | None:
    """A sentence that comes three times or more and fills a part of the text."""
    said = Counter(" ".join(part.split()) for part in _SENTENCE.split(text.lower()))
    often = ((part, count) for part, count in said.items() if count >= 3)
    often = ((part, count) for part, count in often if len(plain_words(part)) >= 4)
    part, count = max(often, key=lambda entry: entry[1], default=("", 0))
    if count * len(part) > _LOOP_SHARE * len(text):
        return f"said {count} times: {part[:60]}"
    return None


def find_repeat(text: str) -> str | None:
    """A long sentence that a statement makes twice, or none.

    The rounds of a game may follow the same rule, and two people may say the same: items of a list
    and quotes do not count.
    """
    num_triples, num_distinct = _count_triples(text)
    if num_distinct > num_triples - (_MIN_REPEATED - 2):
        return None
    prose = strip_quotes(strip_drawings(strip_code(text)), by=_QUOTE)
    seen: set[str] = set()
    for sentence in split_sentences(_LISTED.sub("\n\n", prose)):
        key = " ".join(sentence.casefold().split()).rstrip(".?!")
        is_long = len(plain_words(strip_formulas(sentence))) >= _MIN_REPEATED
        if key in seen and is_long and _QUOTE not in sentence:
            return f"said twice: {sentence[:60]}"
        seen.add(key)
    return None


def shingles(text: str, size: int = 4) -> frozenset[tuple[str, ...]]:
    """All runs of ``size`` words."""
    words = _TOKEN.findall(text.lower())
    return frozenset(zip(*(words[start:] for start in range(size)), strict=False))


def share_of(own: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    """Which part of a text's runs of words another one holds."""
    return len(own & other) / len(own) if own else 0.0
