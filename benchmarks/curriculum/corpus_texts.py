"""Texts of a generated corpus: problems, reasoning, programs, and their planted variants.

Every text follows from (seed, kind, row), so that a row can repeat any other without memory of it.
Reasoning is cut in runs of 22 words out of one long stream, which costs a fifth of drawing its
words; the formula after each is one of 65,536, so no two texts share much more than a run.
Words are the word pieces of the student's vocabulary in the order in which it learned them, which
is that of their frequency, drawn by Zipf's law; a long tail of compounds keeps caches honest.
Measured on these texts, a token has 3.5 characters or so, as in the reasoning of real models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from textwrap import fill

import numpy as np
import numpy.typing as npt
import xxhash

from pipeline.matching import tokenize
from pipeline.student import processor

NGRAM = 3
"""Word n-grams by which likeness of problems is stated."""
_SHORT = ["a", "in", "to", "of", "is", "we", "it", "be", "on", "as", "so", "if", "by", "or", "no"]
_COMPOUNDS = 30_000
_DRAWS = 1 << 22
"""Words of the stream: 34 MB of text in each process that writes."""
_RUN = 22
_BANK = 1 << 16
"""Statements and formulas with their numbers, made once."""
_STATEMENTS = (
    ". Wait, let me check that again. If $x_{%d} = %d$ then $\\frac{%d}{x + %d}$ is too large, so",
    ". So the number of ways is $\\binom{%d}{%d} = %d$ and we need to subtract %d.\n",
    ". Therefore, by the triangle inequality, $A + %d BC \\geq %d$, which gives $%d k \\leq %d$.\n",
    ". Hmm, but that can't be right because %d is odd while %d is even… Alternatively, %d or %d,",
    ". For n = %d, the sum is %d + %d = %d. That matches the third example.\n",
    ". dp[i][j] = max(dp[i-%d][j], dp[i-1][j-%d] + v[i]) for j >= %d, which is O(n * %d).\n",
)
_FORMULAS = ("$x^2 + %dx = %d$", "$\\frac{%d}{%d}$", "%d", "$n \\le %d$", "%d,", "$%d^{%d}$")
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
        sizes = np.array([len(word) + 1 for word in self._words], np.int32)
        self._ends = np.concatenate([[0], np.cumsum(sizes[self._draws])]).astype(np.int32)
        self._stream = " ".join(map(self._words.__getitem__, self._draws.tolist()))
        most = 10 ** (1 + rng.random((_BANK, 1)) * 3)
        numbers = (1 + rng.random((_BANK, 4)) * most).astype(np.int64).tolist()
        self._statements = fill_in(_STATEMENTS, numbers)
        self._plain_statements = [text.replace("…", "...") for text in self._statements]
        self._formulas = fill_in(_FORMULAS, numbers)

    def random(self, kind: str, row: int) -> Random:
        """The numbers behind one text."""
        key = xxhash.xxh3_128_intdigest(f"{kind}/{row}".encode(), self._seed)
        return np.random.Generator(np.random.Philox(key=key))

    def draw(self, kind: str, row: int, below: int) -> int:
        """One number, for which a generator would be dear."""
        return int(xxhash.xxh3_64_intdigest(f"{kind}/{row}".encode(), self._seed)) % below

    def words(self, rng: Random, num: int) -> list[str]:
        """Words by their frequency."""
        places = self._draws[draw_numbers(rng, 0, _DRAWS, num)].tolist()
        return [self._words[place] for place in places]

    def runs(self, rng: Random, num: int, length: int = _RUN) -> list[str]:
        """Runs of words, each from its own place in the stream."""
        first = draw_numbers(rng, 0, _DRAWS - length, num)
        starts, ends = self._ends[first].tolist(), (self._ends[first + length] - 1).tolist()
        return [self._stream[a:b] for a, b in zip(starts, ends, strict=True)]

    def problem(self, kind: str, row: int, low: int = 200, high: int = 2000) -> list[str]:
        """A problem of ``low`` to ``high`` characters, word by word."""
        rng = self.random(kind, row)
        num = int(low + rng.random() * (high - low)) // 7
        items = self.words(rng, num)
        places = range(5, num, 9)
        picks = draw_numbers(rng, 0, _BANK, len(places)).tolist()
        for place, pick in zip(places, picks, strict=True):
            items[place] = self._formulas[pick]
        for place in range(13, num, 17):
            items[place] += "."
        return items

    def trace(self, rng: Random, size: int) -> str:
        """Reasoning of about ``size`` characters: prose, formulas, recurrences."""
        num = max(round(size / 9 / _RUN), 1)
        statements = self._statements if rng.random() < 1 / 3 else self._plain_statements
        picks = draw_numbers(rng, 0, _BANK, num).tolist()
        runs = zip(self.runs(rng, num), picks, strict=True)
        pieces = [run + statements[pick] for run, pick in runs]
        return " ".join(pieces)

    def program(self, rng: Random) -> str:
        """Python that parses."""
        a, b, c, d = draw_numbers(rng, 1, 1000, 4).tolist()
        return _PROGRAM.format(a=a, b=b, c=c, d=d)


@cache
def make_texts(seed: int) -> Texts:
    """This process's texts: making the stream takes over a second."""
    return Texts(seed)


def fill_in(templates: Sequence[str], numbers: list[list[int]]) -> list[str]:
    """The templates in turn, each with as many numbers as it has places for."""
    places = [template.count("%d") for template in templates]
    return [
        templates[row % len(templates)] % tuple(values[: places[row % len(templates)]])
        for row, values in enumerate(numbers)
    ]


def draw_numbers(rng: Random, low: int, high: int, num: int) -> npt.NDArray[np.int64]:
    """Whole numbers from ``low`` to below ``high``, for a third of what ``integers`` takes."""
    return (low + rng.random(num) * (high - low)).astype(np.int64)


def recase(items: list[str], rng: Random) -> str:
    """The same words in capitals and with other spaces between them."""
    text = " ".join(items)
    return text.upper() if rng.random() < 0.5 else text.title().replace(" ", "  ", 40)


def plant_alike(items: list[str], target: float, texts: Texts, row: int) -> tuple[str, float]:
    """A problem whose n-grams are like those of another, near the target; and how like.

    Numbers and formulas stay. Half of the variants change one run of words, half change words
    everywhere.
    """
    tokens = [
        (item.lower(),) if _PLAIN.fullmatch(item) else tuple(tokenize(item)) for item in items
    ]
    original = make_grams([token for some in tokens for token in some])
    low, high, best, nearest = 0.0, 1.0, items, 1.0
    for _ in range(8):
        share = (low + high) / 2
        changed = _change(items, share, texts, texts.random("alike", row))
        # Only plain words change, each of which is one token.
        pairs = zip(items, changed, tokens, strict=True)
        grams = make_grams(
            [x for old, new, some in pairs for x in (some if new == old else (new.lower(),))]
        )
        true = compare(original, grams)
        if abs(true - target) < abs(nearest - target):
            best, nearest = changed, true
        if abs(true - target) < 0.01:
            break
        low, high = (share, high) if true > target else (low, share)
    text = " ".join(best)
    return text, likeness(" ".join(items), text)


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
    return compare(make_grams(tokenize(one)), make_grams(tokenize(other)))


def make_grams(words: list[str]) -> set[tuple[str, ...]]:
    """The n-grams by which likeness is stated."""
    return set(zip(*(words[start:] for start in range(NGRAM)), strict=False))


def compare(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    """Jaccard of two sets."""
    shared = len(one & other)
    return shared / max(len(one) + len(other) - shared, 1)


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
