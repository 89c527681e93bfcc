"""Texts of a generated corpus: problems, reasoning, programs, and their planted variants.

Every text follows from (seed, kind, row), so that a row can repeat any other without memory of it.
Words are the word pieces of the student's vocabulary in the order in which it learned them, which
is that of their frequency, drawn by Zipf's law; a long tail of compounds keeps caches honest.
Measured on these texts, a token has 3.5 characters or so, as in the reasoning of real models.
"""

from __future__ import annotations

import re
from textwrap import fill
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.matching import tokenize
from pipeline.student import processor

NGRAM = 3
"""Word n-grams by which likeness of problems is stated."""
_SHORT = ["a", "in", "to", "of", "is", "we", "it", "be", "on", "as", "so", "if", "by", "or", "no"]
_COMPOUNDS = 30_000
_DRAWS = 1 << 20
_STATEMENTS = (
    "Wait, let me check that again. If $x_{{{a}}} = {b}$ then $\\frac{{{c}}}{{x + {d}}} = {a}$, so",
    "So the number of ways is $\\binom{{{a}}}{{{b}}} = {c}$ and we need to subtract {d}.\n",
    "Therefore, by the triangle inequality, $AB + BC \\geq {a}$, which gives $k \\leq {b}$.\n\n",
    "Hmm, but that can't be right because {a} is odd while {b} is even… Alternatively,",
    "For n = {a}, the sum is {b} + {c} = {d}. That matches the {c}rd example.\n",
    "dp[i][j] = max(dp[i-1][j], dp[i-1][j-{a}] + v[i]) for j >= {b}, which is O(n * {c}).\n",
)
_FORMULAS = ("$x^2 + {a}x = {b}$", "$\\frac{{{a}}}{{{b}}}$", "{a}", "{b}", "$n \\le {a}$", "{a},")
_PROGRAM = (
    "import sys\n\n\ndef solve(values):\n    total = {a}\n    for i, value in enumerate(values):\n"
    "        if value % {b} == i % {c}:\n            total += value * {d}\n"
    "        else:\n            total -= i\n    return total\n\n\n"
    "def main():\n    data = sys.stdin.read().split()\n    n = int(data[0])\n"
    "    print(solve([int(x) for x in data[1 : n + {b}]]))\n\n\nmain()"
)
_PLAIN = re.compile(r"[A-Za-z]{3,}")

Random = np.random.Generator


class Texts:
    """Makes texts, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        rng = self.random("vocabulary", 0)
        pieces = [processor().id_to_piece(i) for i in range(processor().get_piece_size())]
        words = _SHORT + [
            piece[1:] for piece in pieces if piece.startswith("▁") and _PLAIN.fullmatch(piece[1:])
        ]
        pairs = rng.integers(0, len(words), (_COMPOUNDS, 2)).tolist()
        self._words = list(dict.fromkeys(words + [words[a] + words[b].lower() for a, b in pairs]))
        weights = np.cumsum(1 / (np.arange(len(self._words)) + 8.0))
        self._draws = np.searchsorted(weights, rng.random(_DRAWS) * weights[-1]).astype(np.int32)

    def random(self, kind: str, row: int) -> Random:
        """The numbers behind one text."""
        code = int.from_bytes(kind.encode()[:8], "big")
        return np.random.Generator(np.random.PCG64([self._seed, code, row]))

    def words(self, rng: Random, num: int) -> list[str]:
        """Words by their frequency."""
        places = self._draws[rng.integers(0, _DRAWS, num)].tolist()
        return [self._words[place] for place in places]

    def problem(self, kind: str, row: int, low: int = 200, high: int = 2000) -> list[str]:
        """A problem of ``low`` to ``high`` characters, word by word."""
        rng = self.random(kind, row)
        num = int(rng.integers(low, high)) // 7
        items = self.words(rng, num)
        numbers = rng.integers(2, 5000, (num // 9 + 1, 2)).tolist()
        for place, (a, b) in zip(range(5, num, 9), numbers, strict=False):
            items[place] = _FORMULAS[(a + b) % len(_FORMULAS)].format(a=a, b=b)
        for place in range(13, num, 17):
            items[place] += "."
        return items

    def trace(self, rng: Random, size: int) -> str:
        """Reasoning of about ``size`` characters: prose, formulas, recurrences."""
        items = self.words(rng, max(size // 9, 20))
        num = len(items) // 22 + 1
        numbers = rng.integers(1, 10 ** rng.integers(1, 5), (num, 4)).tolist()
        for place, (a, b, c, d) in zip(range(11, len(items), 22), numbers, strict=False):
            items[place] += ". " + _STATEMENTS[(a + c) % len(_STATEMENTS)].format(
                a=a, b=b, c=c, d=d
            )
        text = " ".join(items)
        return text if rng.random() < 1 / 3 else text.replace("…", "...")

    def program(self, rng: Random) -> str:
        """Python that parses."""
        a, b, c, d = rng.integers(1, 1000, 4).tolist()
        return _PROGRAM.format(a=a, b=b, c=c, d=d)


def recase(items: list[str], rng: Random) -> str:
    """The same words in capitals and with other spaces between them."""
    text = " ".join(items)
    return text.upper() if rng.random() < 0.5 else text.title().replace(" ", "  ", 40)


def plant_alike(items: list[str], target: float, texts: Texts, row: int) -> tuple[str, float]:
    """A problem whose n-grams are like those of another, near the target; and how like.

    Numbers and formulas stay. Half of the variants change one run of words, half change words
    everywhere.
    """
    original = " ".join(items)
    low, high, best = 0.0, 1.0, (original, 1.0)
    for _ in range(8):
        share = (low + high) / 2
        text = " ".join(_change(items, share, texts, texts.random("alike", row)))
        true = likeness(original, text)
        if abs(true - target) < abs(best[1] - target):
            best = (text, true)
        if abs(true - target) < 0.01:
            break
        low, high = (share, high) if true > target else (low, share)
    return best


def _change(items: list[str], share: float, texts: Texts, rng: Random) -> list[str]:
    """A share of the words replaced; with more of it, the same ones and others."""
    in_one_run = rng.random() < 0.5
    plain = [place for place, item in enumerate(items) if _PLAIN.fullmatch(item)]
    num = max(round(len(plain) * share), 1)
    chosen = rng.permutation(len(plain))[:num].tolist()
    if in_one_run:
        start = int(rng.integers(0, len(plain)))
        chosen = [(start + step) % len(plain) for step in range(num)]
    changed = list(items)
    for number, word in zip(chosen, texts.words(rng, num), strict=True):
        changed[plain[number]] = word + "ic"
    return changed


def renumber(items: list[str]) -> list[str]:
    """The same words with other numbers: another problem."""
    return [re.sub(r"\d+", lambda found: str(int(found[0]) + 1), item) for item in items]


def likeness(one: str, other: str) -> float:
    """True Jaccard of two problems' word n-grams, by the reference."""
    sets: list[set[Any]] = []
    for text in (one, other):
        words = tokenize(text)
        sets.append({tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)})
    return len(sets[0] & sets[1]) / max(len(sets[0] | sets[1]), 1)


CONTAMINATIONS = ("verbatim", "wrapped", "latex", "edited", "embedded")


def contaminate(item: str, kind: str, texts: Texts, rng: Random) -> str:
    """A benchmark item in another dress."""
    if kind == "wrapped":
        lines = fill(item, 60, break_long_words=False, break_on_hyphens=False)
        return f"Solve the following problem.\n\n{lines}\n\nExplain every step."
    if kind == "latex":
        item = item.replace("\\frac", "\\dfrac").replace("\\le ", "\\leq ")
        return re.sub(r"\$([^$]+)\$", r"\\( \1 \\)", item)
    if kind == "edited":
        words = item.split(" ")
        plain = [place for place, word in enumerate(words) if _PLAIN.fullmatch(word)]
        chosen: npt.NDArray[np.int64] = rng.permutation(len(plain))[: max(len(plain) // 16, 1)]
        for number, word in zip(chosen.tolist(), texts.words(rng, len(chosen)), strict=True):
            words[plain[number]] = word
        return " ".join(words)
    if kind == "embedded":
        before, after = texts.words(rng, 40), texts.words(rng, 40)
        return f"{' '.join(before)}. {item} {' '.join(after)}."
    return item
