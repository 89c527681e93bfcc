"""Benchmark items in the disguises that training data dress them in, made by rule."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

_FILLERS = ("also", "really", "clearly", "say", "certain", "exactly", "please")
_LATEX = (
    ("\\frac", "\\dfrac"),
    ("\\dfrac", "\\tfrac"),
    ("\\ldots", "\\dots"),
    ("\\leq ", "\\le "),
    ("\\geq ", "\\ge "),
    ("\\left(", "("),
    ("\\right)", ")"),
    ("\\cdot ", "\\times "),
    ("\\overline", "\\overline "),
)
_SHORT_FRACTION = re.compile(r"\\frac\{(\d)\}\{(\d)\}")
_BRACED_INDEX = re.compile(r"([_^])\{(\w)\}")
_HAS_CODE = re.compile(r"\\|\[asy\]|\w_\w|\w\(")
"""What capitals would break."""
_WORD = re.compile(r"[A-Za-z]{3,}")


def verbatim(text: str, _: random.Random, __: Sequence[str]) -> str:
    """As it is."""
    return text


def wrapped(text: str, rng: random.Random, _: Sequence[str]) -> str:
    """Between instructions, in other white space and case."""
    before = rng.choice(
        (
            "Return your final response within \\boxed{}. ",
            "Solve the following problem. Show your work step by step.\n\n",
            "QUESTION:\n",
        )
    )
    after = rng.choice(("", "\n\nPlease reason step by step.", "\nANSWER:\n"))
    body = rng.choice(
        (text, "  ".join(text.split()), text if _HAS_CODE.search(text) else text.upper())
    )
    return before + body + after


def latex_variant(text: str, rng: random.Random, _: Sequence[str]) -> str:
    """The same formulas in other macros."""
    for old, new in _LATEX:
        if rng.random() < 0.7:
            text = text.replace(old, new)
    if rng.random() < 0.5:
        text = _SHORT_FRACTION.sub(r"\\frac\1\2", text)
    text = _BRACED_INDEX.sub(r"\1\2", text)
    if "$$" not in text and text.count("$") % 2 == 0 and rng.random() < 0.6:
        parts = text.split("$")
        text = "".join(
            part if place % 2 == 0 else f"\\({part}\\)" for place, part in enumerate(parts)
        )
    return text.replace("\n", " ")


def edited(text: str, rng: random.Random, _: Sequence[str]) -> str:
    """A tenth of the words dropped, doubled or followed by another; no macros are touched."""

    def change(match: re.Match[str]) -> str:
        word = match[0]
        if rng.random() >= 0.1 or match.string[max(0, match.start() - 1)] == "\\":
            return word
        return rng.choice(("", f"{word} {word}", f"{word} {rng.choice(_FILLERS)}"))

    return _WORD.sub(change, text)


def embedded(text: str, rng: random.Random, others: Sequence[str]) -> str:
    """Between two other problems."""
    first, second = rng.sample(list(others), 2)
    return f"1. {first}\n\n2. {text}\n\n3. {second}"


KINDS: dict[str, Callable[[str, random.Random, Sequence[str]], str]] = {
    "verbatim": verbatim,
    "wrapped": wrapped,
    "latex": latex_variant,
    "edited": edited,
    "embedded": embedded,
}
