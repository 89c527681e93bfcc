r"""Sets of reals: intervals, unions, points and inequalities in one variable, in one form.

``-1 < x \leq 2``, ``x \in (-1,2]`` and ``(-1,0] \cup (0,2]`` are the same region.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from promptcot.verification.math_forms import (
    Bracket,
    Form,
    Named,
    Region,
    Relation,
    Value,
    Values,
    is_name,
    parse_form,
    split_top,
)
from promptcot.verification.math_leaves import read_real
from promptcot.verification.math_text import Tokens, join_text

_INFINITY: Tokens = ("\\infty",)
_MINUS_INFINITY: Tokens = ("-", "\\infty")
_REALS = frozenset(("\\mathbb{r}", "\\r", "allrealnumbers", "allreals", "r", "realnumbers"))
_RISING = {"<": False, "<=": True}
_FALLING = {">": False, ">=": True}

Compare = Callable[[Tokens, Tokens], bool | None]


@dataclass(frozen=True, slots=True)
class Piece:
    """An interval; a single point is one whose ends are equal and closed."""

    low: Tokens
    low_closed: bool
    high: Tokens
    high_closed: bool


def as_region(form: Form) -> list[Piece] | None:
    """The pieces of a set of reals; none where a form is something else."""
    if isinstance(form, Bracket):
        return _from_bracket(form)
    if isinstance(form, Relation):
        return _from_relation(form)
    if isinstance(form, Named):
        return as_region(form.form)
    if isinstance(form, Value):
        return _from_value(form.tokens)
    if isinstance(form, Region | Values):
        parts = form.pieces if isinstance(form, Region) else form.items
        pieces = [_from_part(part) for part in parts]
        return None if None in pieces else [piece for part in pieces for piece in part or ()]
    return None


def _from_part(form: Form) -> list[Piece] | None:
    region = as_region(form)
    form = form.form if isinstance(form, Named) else form
    if region is None and isinstance(form, Value) and read_real(form.tokens) is not None:
        return [Piece(form.tokens, True, form.tokens, True)]
    return region


def _from_value(tokens: Tokens) -> list[Piece] | None:
    if join_text(tokens) in _REALS:
        return [Piece(_MINUS_INFINITY, False, _INFINITY, False)]
    for sign in ("\\setminus", "\\backslash", "-"):
        left, *right = split_top(tokens, frozenset((sign,)))
        if len(right) == 1 and join_text(left) in _REALS and right[0]:
            return _without_points(parse_form(right[0]))
    return None


def _without_points(form: Form) -> list[Piece] | None:
    """The reals without a finite set."""
    points = form.items if isinstance(form, Values) and form.is_set else ()
    ends = {read_real(p.tokens): p.tokens for p in points if isinstance(p, Value)}
    if not points or len(ends) != len(points) or None in ends:
        return None
    order = [ends[key] for key in sorted(ends, key=lambda value: value or 0.0)]
    lows, highs = [_MINUS_INFINITY, *order], [*order, _INFINITY]
    return [Piece(low, False, high, False) for low, high in zip(lows, highs, strict=True)]


def _from_bracket(form: Bracket) -> list[Piece] | None:
    ends = [item.tokens for item in form.items if isinstance(item, Value)]
    if len(form.items) != 2 or len(ends) != 2 or form.opening not in "([":
        return None
    closed = [form.opening == "[", form.closing == "]"]
    is_infinite = ["\\infty" in end for end in ends]
    return [
        Piece(ends[0], closed[0] and not is_infinite[0], ends[1], closed[1] and not is_infinite[1])
    ]


def _from_relation(form: Relation) -> list[Piece] | None:
    operands, signs = form.operands, form.signs
    if len(operands) == 2:
        if is_name(operands[1]) and not is_name(operands[0]):
            operands, signs = operands[::-1], tuple(_mirror(sign) for sign in signs[::-1])
        if not is_name(operands[0]) or is_name(operands[1]):
            return None
        return _half_line(signs[0], operands[1])
    if all(sign in _FALLING for sign in signs):
        operands, signs = operands[::-1], tuple(_mirror(sign) for sign in signs[::-1])
    if not all(sign in _RISING for sign in signs) or not is_name(operands[1]):
        return None
    return [Piece(operands[0], _RISING[signs[0]], operands[2], _RISING[signs[1]])]


def _half_line(sign: str, end: Tokens) -> list[Piece]:
    if sign in _RISING:
        return [Piece(_MINUS_INFINITY, False, end, _RISING[sign])]
    if sign in _FALLING:
        return [Piece(end, _FALLING[sign], _INFINITY, False)]
    return [Piece(_MINUS_INFINITY, False, end, False), Piece(end, False, _INFINITY, False)]


def _mirror(sign: str) -> str:
    return {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(sign, sign)


def same_pieces(gold: Sequence[Piece], predicted: Sequence[Piece], compare: Compare) -> bool | None:
    """Whether two regions are equal, whatever the order and the cuts of their pieces."""
    left, right = _merge(gold), _merge(predicted)
    if len(left) != len(right):
        return False
    verdicts: list[bool | None] = []
    for first in left:
        found = [_same_piece(first, second, compare) for second in right]
        verdicts.append(True if True in found else None if None in found else False)
    if False in verdicts:
        return False
    return None if None in verdicts else True


def _same_piece(gold: Piece, predicted: Piece, compare: Compare) -> bool | None:
    if (gold.low_closed, gold.high_closed) != (predicted.low_closed, predicted.high_closed):
        return False
    low = compare(gold.low, predicted.low)
    if low is False:
        return False
    high = compare(gold.high, predicted.high)
    return False if high is False else None if None in (low, high) else True


def _merge(pieces: Sequence[Piece]) -> list[Piece]:
    """Join pieces that overlap or touch, where all ends are numbers."""
    ends = [(read_real(piece.low), read_real(piece.high)) for piece in pieces]
    if any(low is None or high is None for low, high in ends):
        return list(dict.fromkeys(pieces))
    order = sorted(range(len(pieces)), key=lambda n: (ends[n][0], not pieces[n].low_closed))
    merged: list[Piece] = []
    reach = 0.0
    for number in order:
        piece, (low, high) = pieces[number], ends[number]
        assert low is not None and high is not None
        last = merged[-1] if merged else None
        touches = last is not None and (
            low < reach or (low == reach and (last.high_closed or piece.low_closed))
        )
        if last is None or not touches:
            merged.append(piece)
            reach = high
        elif high > reach or (high == reach and piece.high_closed and not last.high_closed):
            merged[-1] = replace(last, high=piece.high, high_closed=piece.high_closed)
            reach = high
    return merged
