"""When a program's output or result is the expected one, by the rules of each benchmark.

Results arrive as the parsed lines of :mod:`promptcot.verification.plain_values` and are compared in
that form: no value of an untrusted program is ever hashed, called or asked for equality here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from promptcot.verification.plain_values import canonical_text, digest_of, is_floats

_RELATIVE = 1e-7
_FLOAT_TOLERANCE = 1e-6


_CONTENTS: dict[str, Any] = {
    **dict.fromkeys(("int", "bytes", "opaque", "digest"), str),
    **dict.fromkeys(("tuple", "set", "frozenset", "dict", "iterator", "range", "complex"), list),
}


def parse_result(text: str) -> Any:
    """The parsed line of a result, which is trusted to be no more than text.

    Raises:
        ValueError: It is no line of :mod:`promptcot.verification.plain_values`.
        RecursionError: It is nested too deeply.
    """
    tree = json.loads(text)
    _validate(tree)
    return tree


def _validate(tree: Any) -> None:
    if isinstance(tree, list):
        for item in tree:
            _validate(item)
    elif isinstance(tree, dict):
        ((name, content),) = tree.items()
        if name not in _CONTENTS or not isinstance(content, _CONTENTS[name]):
            raise ValueError(f"not an encoded value: {str(tree)[:80]}")
        if name == "int":
            int(content, 16)
        elif name == "dict" and not all(isinstance(p, list) and len(p) == 2 for p in content):
            raise ValueError("not an encoded dict")
        if isinstance(content, list):
            _validate(content)


def output_matches(expected: str, found: str) -> bool:
    """Whether a standard output is right, by LiveCodeBench's rule.

    Spaces around the whole and around each line do not count; then there must be as many lines as
    expected, each the same text or the same decimal numbers ("1.0" is "1.00", but 0.1 is not
    0.1000001).
    """
    wanted, got = _stripped_lines(expected), _stripped_lines(found)
    if len(wanted) != len(got):
        return False
    return all(
        mine == right or _same_decimals(right, mine)
        for right, mine in zip(wanted, got, strict=True)
    )


def _stripped_lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_decimals(expected: str, found: str) -> bool:
    wanted, got = expected.split(), found.split()
    if len(wanted) != len(got):
        return False
    try:
        return all(Decimal(a) == Decimal(b) for a, b in zip(wanted, got, strict=True))
    except InvalidOperation:
        return False


def result_matches(expected: Any, found: Any) -> bool:
    """LiveCodeBench's rule: equal as in Python, and a tuple is taken for a list.

    Args:
        expected: Parsed line of the expected value.
        found: Parsed line of the result.
    """
    if isinstance(found, dict) and "tuple" in found:
        found = found["tuple"]
    return same_value(expected, found)


def result_is_close(expected: Any, found: Any, atol: float) -> bool:
    """EvalPlus's rule: equal as in Python, or close where the item or a float result allows it.

    Close is ``|found - expected| <= atol + 1e-7 |expected|`` for values of the same type and
    length. Results that are floats, or lists of nothing else, have at least ``atol`` 1e-6.
    """
    if same_value(expected, found):
        return True
    if atol == 0 and is_floats(expected):
        atol = _FLOAT_TOLERANCE
    return atol != 0 and _type_of(expected) is _type_of(found) and _all_close(expected, found, atol)


def is_root(coefficients: Sequence[Any], found: Any, atol: float) -> bool:
    """EvalPlus's rule for ``find_zero``, which may return any root.

    Args:
        coefficients: Of the polynomial, the constant first.
        found: Parsed line of the result.
        atol: Largest absolute value of the polynomial there.
    """
    number = _number(found)
    if number is None:
        return False
    try:
        value = sum(c * math.pow(number, power) for power, c in enumerate(coefficients))
    except (OverflowError, ValueError):
        return False
    return bool(abs(value) <= atol)


def same_value(expected: Any, found: Any) -> bool:
    """Python's ``==`` on parsed lines: numbers by value, containers by type and content."""
    if _is_digest(expected) or _is_digest(found):
        return _digest(expected) == _digest(found)
    first, second = _number(expected), _number(found)
    if first is not None or second is not None:
        return first is not None and second is not None and first == second
    if isinstance(expected, list):
        return isinstance(found, list) and _same_items(expected, found)
    if not isinstance(expected, dict):
        return type(expected) is type(found) and bool(expected == found)
    if not isinstance(found, dict):
        return False
    ((name, content),), ((other, found_content),) = expected.items(), found.items()
    if name in _UNORDERED:
        # As texts, not in a hash table: numbers can be chosen so that their hashes collide.
        return _UNORDERED[name] == _UNORDERED.get(other) and (
            canonical_text(expected) == canonical_text(found)
        )
    if name == "tuple":
        return other == "tuple" and _same_items(content, found_content)
    return name not in ("opaque", "iterator") and name == other and bool(content == found_content)


_UNORDERED = {"set": "set", "frozenset": "set", "dict": "dict"}


def _is_digest(tree: Any) -> bool:
    return isinstance(tree, dict) and "digest" in tree


def _digest(tree: Any) -> str:
    return str(tree["digest"]) if _is_digest(tree) else digest_of(tree)


def _same_items(expected: list[Any], found: list[Any]) -> bool:
    if len(expected) != len(found):
        return False
    if {int, float, str}.issuperset(map(type, expected)):
        return bool(expected == found)
    return all(map(same_value, expected, found))


def _number(tree: Any) -> int | float | None:
    if isinstance(tree, int | float):
        return tree
    if isinstance(tree, dict) and "int" in tree:
        return int(tree["int"], 16)
    return None


def _type_of(tree: Any) -> object:
    if isinstance(tree, dict):
        (name,) = tree
        return int if name == "int" else name
    return type(tree)


def _all_close(expected: Any, found: Any, atol: float) -> bool:
    first, second = _number(expected), _number(found)
    if first is not None and second is not None:
        return _is_close(first, second, atol)
    wanted, got = _items(expected), _items(found)
    if wanted is None or got is None or len(wanted) != len(got):
        return False
    return all(_all_close(a, b, atol) for a, b in zip(wanted, got, strict=True))


def _is_close(expected: float, found: float, atol: float) -> bool:
    if expected == found:
        return True
    try:
        return math.isfinite(expected) and abs(found - expected) <= atol + _RELATIVE * abs(expected)
    except OverflowError:
        return False


def _items(tree: Any) -> list[Any] | None:
    if isinstance(tree, dict):
        tree = tree.get("tuple")
    return tree if isinstance(tree, list) else None
