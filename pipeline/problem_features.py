"""What a problem consists of, for telling whether two texts pose the same one.

Features are forms of words (:mod:`pipeline.word_forms`), numbers, and triples of formula tokens
with variables levelled ("13 § -"). Each weighs as much as it is rare: the negative logarithm of
its share among ordinary problems, counted once over MATH train, AIME 1983-2023, Omni-MATH, SwS and
some 1,800 programming tasks (``data/feature_shares.json``).
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

from pipeline.matching import cut_figures, figures_of, marked_words, sentences_of, tokenize
from pipeline.word_forms import (
    OPERATORS,
    VARIABLE,
    content_form,
    gram_form,
    is_stop_word,
    is_variable,
)

_FORMULA_WORDS = (
    "sqrt sin cos tan cot sec csc log ln arcsin arccos arctan lfloor rfloor lceil rceil pi sum "
    "prod infty"
)
FORMULA_WORDS = frozenset(_FORMULA_WORDS.split())
"""Words that stand in formulas as operators do."""
RARE = 0.001
"""Share of features that the table does not hold."""
_LEAST_WEIGHT = 0.3
_TRIPLE_FACTOR = 0.6
"""Triples overlap, so that they count for less than their rarity says."""
_SHORT_WORD_WEIGHT = 3.0
"""Of unknown words up to four letters: mostly variables written together ("xyz")."""

_SHORT_FRACTIONS = (
    (re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)"), r" \1 \2 "),
    (re.compile(r"\\[dtc]?frac\s+([a-zA-Z])\s*([a-zA-Z])(?![a-zA-Z])"), r" \1 \2 "),
    (re.compile(r"\\[dtc]?frac\s*(\w)(?=\s*\{)"), r" \1 "),
)
r"""``\frac12`` is one half, not twelve."""
_MAY_BE_SHORT = re.compile(r"frac\s*\w")
_SIGNS = (("√", r" \sqrt "), ("π", r" \pi "), ("∠", " angle "), ("△", " triangle "))
_RAISED = re.compile("([⁰¹²³⁴-⁹]+)")
_PHRASES = (
    (re.compile(r"\b(?:side by side|next to (?:each other|one another))\b", re.I), "adjacent"),
    (re.compile(r"\bas small as possible\b", re.I), "smallest"),
    (re.compile(r"\bas (?:large|big|great|many) as possible\b", re.I), "largest"),
)
_FORMULA = re.compile(
    r"\$\$[^$]+\$\$"
    # A price is followed by a word or ends a sentence.
    r"|\$(?!\d[\d,.]*%?(?:\s+[A-Za-z]{2}|[.,;?!)]+\s|[.,;?!)]*\Z))(?:[^$\n]|\n(?!\s*\n))+\$"
    r"|\\\[.*?\\\]|\\\(.*?\\\)",
    re.DOTALL,
)
_GLUED = re.compile(
    r"\\(?:text|mbox|mathrm|textbf|textit|operatorname|begin|end)\s*\{[^}]*\}"
    r"|(?<![\\a-zA-Z])(?:[a-z]{2,4}|[A-Z]{2,5})(?![a-zA-Z])"
)
_GLUED_NAMES = re.compile(r"(?<![\\A-Za-z])(?<![A-Z]{2}\s)[A-Z]{2,5}(?![A-Za-z])(?!\s+[A-Z]{2})")
_BOUNDS = re.compile(r"(\[\s*-?\d+),(\s*-?\d+\s*[\])])")
"""The interval from -500 to 500 is no number of six digits."""
_CAPITALS, _SMALL = re.compile(r"\b[A-Z]{2,}\b"), re.compile(r"\b[A-Z]?[a-z]{2,}\b")
_FUNCTIONS = "gcd lcm mod max min deg exp det arg and or if for the sum int dim"
_NOT_GLUED = frozenset(_FUNCTIONS.split())
_BOUND_WORDS = frozenset(["least", "most"])
_INSTRUCTION = re.compile(
    r"\s*\(|"
    r"\s*\(?(?:express|write|enter|give|round|leave|note|assume|submit|state|put)\b.*"
    r"\b(?:answer|result|form|fraction|decimal|nearest|expression)\b",
    re.IGNORECASE | re.DOTALL,
)
"""A sentence that says how to write the answer, not what is asked."""
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_LEVELS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")


@dataclass(frozen=True)
class Reading:
    """A text read for comparing: its tokens, and at each the features that end there."""

    text: str
    tokens: Sequence[str]
    forms: Sequence[str]
    """Tokens as n-grams see them."""
    features: Sequence[tuple[str, ...]]

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each feature occurs."""
        return Counter(feature for here in self.features for feature in here)

    @cached_property
    def numbers(self) -> Counter[str]:
        """How often each number occurs."""
        return Counter({f: count for f, count in self.counts.items() if is_number(f)})

    @cached_property
    def figure_numbers(self) -> Counter[str]:
        """Numbers of the drawing code, which is no part of the tokens."""
        return Counter(_NUMBER.findall(" ".join(figures_of(self.text))))

    @cached_property
    def weight(self) -> float:
        """Of all distinct features."""
        return sum(map(weight_of, self.counts))

    @cached_property
    def last(self) -> Reading:
        """The last sentence that may ask."""
        sentences = sentences_of(open_up(self.text))
        asking = [s for s in sentences if not _INSTRUCTION.match(s)]
        return read_tokens(self.text, tokenize((asking or sentences or [""])[-1]))

    @cached_property
    def marked(self) -> frozenset[str]:
        """Words in capitals or quotes that are words of the text."""
        return marked_words(self.text) & frozenset(self.tokens)


def read(text: str) -> Reading:
    """A text's tokens and features."""
    return read_tokens(text, tokenize(open_up(text)))


def read_tokens(text: str, tokens: Sequence[str]) -> Reading:
    """The same from tokens that are there already."""
    parts = [formula_part(token) for token in tokens]
    features: list[tuple[str, ...]] = []
    run = 0
    for place, token in enumerate(tokens):
        is_bound = token in _BOUND_WORDS and _is_bound(tokens, place)
        form = "" if is_bound else content_form(token)
        run = run + 1 if parts[place] else 0
        triple = join_triple(parts[place - 2 : place + 1]) if run > 2 else ""
        if triple:
            features.append((form, triple) if form else (triple,))
        else:
            features.append((form,) if form else ())
    return Reading(text, tokens, [gram_form(token) for token in tokens], features)


def _is_bound(tokens: Sequence[str], place: int) -> bool:
    """Whether this is the end of "at least", which asks for an extreme only with "how many"."""
    if place == 0 or tokens[place - 1] != "at":
        return False
    return place + 1 >= len(tokens) or tokens[place + 1] != "how"


@lru_cache(maxsize=65536)
def formula_part(token: str) -> str:
    """What a token is in a formula; empty for words."""
    if is_variable(token):
        return VARIABLE
    is_part = token[0].isdigit() or token in OPERATORS or token in FORMULA_WORDS
    return token if is_part else ""


def join_triple(parts: Sequence[str]) -> str:
    """The feature of three formula tokens; empty when one is a word or none says anything."""
    says_something = any(part[:1].isdigit() or part in OPERATORS for part in parts)
    return " ".join(parts) if says_something and all(parts) else ""


def open_fractions(text: str) -> str:
    """A text whose short fractions are set apart; the cheap part of :func:`open_up`."""
    # The usual fraction goes on with a brace, which none of the three patterns knows.
    if "\\" in text and _MAY_BE_SHORT.search(text):
        for pattern, replacement in _SHORT_FRACTIONS:
            text = pattern.sub(replacement, text)
    return text


def open_up(text: str) -> str:
    """Notation that :func:`pipeline.matching.tokenize` would run together, set apart."""
    text = open_fractions(text)
    for phrase, word in _PHRASES:
        text = phrase.sub(word, text)
    text = _BOUNDS.sub(r"\1 , \2", text)
    if not text.isascii():
        text = _RAISED.sub(lambda match: f"^{match[1].translate(_LEVELS)} ", text)
        for sign, replacement in _SIGNS:
            text = text.replace(sign, replacement)
    text = _FORMULA.sub(lambda match: _GLUED.sub(_set_apart, match[0]), cut_figures(text))
    if _GLUED_NAMES.search(text) is None or _is_shouted(text):
        return text
    return _GLUED_NAMES.sub(_set_apart, text)


def _is_shouted(text: str) -> bool:
    """Whether names of points cannot be told from words, because those are in capitals too."""
    return len(_CAPITALS.findall(text)) > len(_SMALL.findall(text))


def _set_apart(match: re.Match[str]) -> str:
    word = match[0]
    lower = word.lower()
    if word[0] == "\\" or lower in _NOT_GLUED or lower in FORMULA_WORDS:
        return word
    if len(word) > 2 and is_stop_word(lower):
        return word
    is_name = len(set(word)) == len(word) and (len(word) <= 3 or lower not in shares())
    return f" {' '.join(word)} " if is_name else word


@cache
def shares() -> Mapping[str, float]:
    """Share of ordinary problems that hold each feature; rarer ones are left out."""
    path = Path(__file__).parent / "data" / "feature_shares.json"
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return found


@cache
def weight_of(feature: str) -> float:
    """How much a feature in common says."""
    share = shares().get(feature)
    if share is None and len(feature) <= 4 and feature.isalpha():
        return _SHORT_WORD_WEIGHT
    weight = max(_LEAST_WEIGHT, -math.log(share or RARE))
    return weight * _TRIPLE_FACTOR if " " in feature else weight


def is_number(feature: str) -> bool:
    """Whether a feature is a number by itself."""
    return feature[0].isdigit() and " " not in feature
