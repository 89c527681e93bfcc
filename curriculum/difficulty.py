"""Difficulty on one scale from 0 to 100: from the source's label, or estimated from lengths.

Labels come in the vocabularies of their sources. Where there is none, long reasoning and a long
question stand for a hard problem: weak, but better than the middle for all (docs/results.md has the
rank correlations). Phases order and filter by this number; the label itself stays text.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

from curriculum.candidates import PreparedRow

MIDDLE = 50.0
_LEVELS = {
    "easy": 10,
    "introductory": 10,
    "medium": 30,
    "medium_hard": 40,
    "interview": 40,
    "hard": 60,
    "competition": 70,
    "very_hard": 80,
    "ajhsme": 5,
    "amc8": 5,
    "amc10": 15,
    "ahsme": 25,
    "amc12": 25,
    "hmmt-nov": 45,
    "hmmt-feb": 55,
    "aime": 60,
    "usajmo": 75,
    "usamo": 85,
    "usojmo": 75,
    "usomo": 85,
    "level_1": 5,
    "level_2": 15,
    "level_3": 25,
    "level_4": 35,
    "level_5": 50,
}
"""Vocabularies of the sources."""
_CODE_CONTESTS = {1: 10.0, 2: 30.0, 3: 60.0, 4: 75.0, 5: 90.0}
"""Its enumeration; 7 to 28 are the letters of a contest's problems, A to V."""
_RATING = re.compile(r"(?:cf-)?(\d{1,5})")
_LETTER_A, _LETTER_V = 7, 28
_THINKING = (9.3, 0.9)
"""Mean and spread of the logarithm of a reasoning's characters: the median is 11,000."""
_QUESTION = (5.6, 0.9)
_THINKING_SHARE = 0.7


def rank_difficulty(label: str | None, *, of_code: bool = False) -> float:
    """A label on the scale; one that says nothing sits in the middle.

    Args:
        label: The source's word, number or contest rating.
        of_code: Small numbers are CodeContests' enumeration.
    """
    known = find_rank(label, of_code=of_code)
    return MIDDLE if known is None else known


@lru_cache(maxsize=1024)
def find_rank(label: str | None, *, of_code: bool = False) -> float | None:
    """As :func:`rank_difficulty`, but ``None`` for a label that says nothing."""
    text = (label or "").strip().lower().replace(" ", "_").removesuffix("_difficulty")
    if text in _LEVELS:
        return float(_LEVELS[text])
    rating = _RATING.fullmatch(text)
    if rating is None:
        return None
    number = int(rating.group(1))
    if number >= 500:
        # Contest ratings run to 3500.
        return min(100.0, number / 35)
    if of_code and number in _CODE_CONTESTS:
        return _CODE_CONTESTS[number]
    if of_code and _LETTER_A <= number <= _LETTER_V:
        return min(100.0, 10.0 * (number - _LETTER_A + 1))
    return None


def estimate_rank(question_chars: int, thinking_chars: int) -> float:
    """Difficulty by lengths, where nothing is stated."""
    share, asked = _THINKING_SHARE, _place(question_chars, *_QUESTION)
    score = share * _place(thinking_chars, *_THINKING) + (1 - share) * asked
    # Rounded, because the last bits of logarithms differ between machines.
    return round(100.0 / (1 + math.exp(-1.6 * score)), 6)


def _place(chars: int, mean: float, spread: float) -> float:
    return (math.log(max(1, chars)) - mean) / spread


def rank_row(row: PreparedRow) -> float:
    """Difficulty of a row: the rank its source gives, its label's, or the estimate."""
    candidate = row.candidate
    if candidate.difficulty_rank is not None:
        return candidate.difficulty_rank
    known = find_rank(candidate.difficulty, of_code=candidate.domain == "code")
    if known is not None:
        return known
    return estimate_rank(len(row.question), row.trace.num_thinking_chars)
