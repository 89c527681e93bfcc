"""Compare equations, inequalities and the names in front of them."""

from __future__ import annotations

from collections.abc import Iterator

from promptcot.verification.math_expressions import (
    Node,
    TooDeepError,
    parse_expression,
    variables_of,
)
from promptcot.verification.math_forms import Relation
from promptcot.verification.math_numbers import (
    Evaluated,
    OutOfRangeError,
    TooCostlyError,
    UndefinedError,
    choose_points,
    evaluate_both,
)
from promptcot.verification.math_text import Tokens, join_text

_COORDINATES = frozenset("xyz")
_DOWNWARD = {"<": ">", "<=": ">="}


def same_name(gold: Tokens, predicted: Tokens) -> tuple[tuple[str, str], ...] | None:
    """Renamings that turn one name's arguments into the other's; none where the names differ.

    ``x``, ``y`` and ``z`` are different answers (an asymptote x = 5 is not y = 5); any other names
    are the writer's choice.
    """
    if join_text(gold) == join_text(predicted):
        return ()
    if (
        gold[0] in _COORDINATES
        and predicted[0] in _COORDINATES
        and len(gold) == len(predicted) == 1
    ):
        return None
    arguments, others = _arguments(gold), _arguments(predicted)
    if len(arguments) != len(others):
        return ()
    pairs = zip(others, arguments, strict=True)
    return tuple((old, new) for old, new in pairs if old != new)


def _arguments(name: Tokens) -> list[str]:
    """``x`` and ``y`` of ``f(x, y)``."""
    if len(name) < 4 or name[1] != "(" or name[-1] != ")":
        return []
    return [token for token in name[2:-1] if len(token) == 1 and token.isalpha()]


def same_equation(gold: tuple[Tokens, ...], predicted: tuple[Tokens, ...]) -> bool:
    """Whether two equations differ by rearrangement or a constant factor at most."""
    if gold == predicted:
        return True
    left, right = _difference(gold), _difference(predicted)
    if left is None or right is None:
        return [join_text(side) for side in gold] == [join_text(side) for side in predicted]
    return _constant_ratio(left, right) is not None


def same_relation(gold: Relation, predicted: Relation) -> bool:
    """Whether two inequalities differ by rearrangement or a positive factor at most."""
    left, right = _difference(gold.operands), _difference(predicted.operands)
    if left is None or right is None:
        return gold == predicted
    signs = [gold.signs[0], predicted.signs[0]]
    nodes = []
    for node, sign in zip((left, right), signs, strict=True):
        nodes.append(Node("negate", (node,)) if sign in _DOWNWARD else node)
    if len({_DOWNWARD.get(sign, sign) for sign in signs}) > 1:
        return False
    ratio = _constant_ratio(nodes[0], nodes[1])
    return ratio is not None and (ratio > 0 or signs[0] == "!=")


def _difference(sides: tuple[Tokens, ...]) -> Node | None:
    """Left side minus right side; none where this is no expression."""
    if len(sides) != 2:
        return None
    try:
        left, right = parse_expression(sides[0]), parse_expression(sides[1])
    except TooDeepError:
        return None
    if left is None or right is None:
        return None
    return Node("add", (left, Node("negate", (right,))))


def _constant_ratio(gold: Node, predicted: Node) -> float | None:
    """The second expression as a multiple of the first; none where it is no constant one."""
    names = sorted(variables_of(gold) | variables_of(predicted))
    found = list(_evaluate_at(gold, predicted, names))
    if len(found) < 3:
        return None
    first = found[0].values
    for point in found:
        values = point.values
        if point.is_zero(values[0]) or point.is_zero(values[1]):
            return None
        if not point.agree(values[1] * first[0], first[1] * values[0]):
            return None
    return float((first[1] / first[0]).real)


def _evaluate_at(gold: Node, predicted: Node, names: list[str]) -> Iterator[Evaluated]:
    if not names:
        return
    for point in choose_points(gold, predicted, names):
        try:
            yield evaluate_both((gold, predicted), point)
        except (OutOfRangeError, UndefinedError, TooCostlyError):
            continue
