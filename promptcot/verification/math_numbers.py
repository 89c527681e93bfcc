r"""Whether two expressions have the same value: evaluated, with as many digits as it takes.

Constants are evaluated once, expressions with variables at fixed points: at integers where floors,
factorials or signs like :math:`(-1)^n` make sense nowhere else, at positive reals where there are
roots or logarithms, at reals of both signs otherwise. Hundreds of bits beyond the cancellation that
occurs are compared, so that ``2^{1009}`` differs from ``2^{1009}+1``. The work is bounded: numbers
of more than some 5,000 digits are out of range, and the steps of one comparison have a budget.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from hashlib import sha256
from math import log2
from typing import Any

from promptcot.verification.math_expressions import Node, variables_of

_MAX_LOG2 = 16_384
"""Numbers beyond this power of two, or below its inverse, are out of range."""
_BASE_BITS = 320
_SMALL = 24
"""Up to this power of two the first precision suffices."""
_BUDGET = 20_000_000
"""Bits of arithmetic that one comparison may take: a quarter of a second at the worst."""
_ANSWER_BUDGET = 4 * _BUDGET
"""The same for all comparisons of one answer, however many items it lists."""
_MAX_ARGUMENT = 2000
"""Of factorials and binomials."""
_MAX_INTEGER_POWER = 100_000
"""Powers beyond are computed by logarithm: mpmath's products would take their time."""
_SIGNS = (0b000, 0b111, 0b001, 0b110, 0b010, 0b101)
"""Of the variables at each point: any product of the first three takes both signs."""
_INTEGERS = 13
_INTEGER_ONLY = frozenset(("factorial", "binomial", "floor", "ceil"))
_POSITIVE_ONLY = frozenset(("root", "ln", "log", "lg"))

Assignment = Mapping[str, Fraction]


class OutOfRangeError(Exception):
    """A number too large or too small to be anybody's answer."""


class UndefinedError(Exception):
    """No value: a division by zero, a factorial of one half."""


class TooCostlyError(Exception):
    """The budget is spent."""


_local = threading.local()


def _context() -> Any:
    """This thread's arithmetic; mpmath's own one has a precision that threads would share."""
    if not hasattr(_local, "context"):
        from mpmath import MPContext

        _local.context = MPContext()
    return _local.context


def begin_answer() -> None:
    """Give this thread a new answer's budget."""
    _local.left = _ANSWER_BUDGET


class _Evaluator:
    """Evaluates trees at one precision."""

    def __init__(self, bits: int, *, decimal_logarithm: bool = False) -> None:
        self._mp = _context()
        self._bits = bits
        self._decimal = decimal_logarithm
        self._in_function = 0
        self.spent = 0
        self.magnitude = 0
        """Largest \\|log2\\| of any number on the way."""

    def evaluate(self, node: Node, point: Assignment) -> Any:
        """The value of a tree, a real or complex number of mpmath.

        Raises:
            OutOfRangeError, UndefinedError, TooCostlyError: There is none to be had.
        """
        self._mp.prec = self._bits
        return self._value(node, point)

    def _value(self, node: Node, point: Assignment) -> Any:
        mp, operation = self._mp, node.operation
        self._spend(self._bits)
        if operation == "number":
            assert node.value is not None
            return self._note(mp.mpf(node.value.numerator) / node.value.denominator)
        if operation == "variable":
            return mp.mpf(point[node.name].numerator) / point[node.name].denominator
        if operation in _CONSTANTS:
            return getattr(mp, _CONSTANTS[operation]) * 1
        is_function = operation in _TRANSCENDENTAL
        self._in_function += is_function
        arguments = [self._value(argument, point) for argument in node.arguments]
        self._in_function -= is_function
        try:
            result = getattr(self, f"_{operation}", self._call)(*arguments, *self._extra(node))
        except (ZeroDivisionError, ValueError, OverflowError) as exc:
            raise UndefinedError from exc
        return self._note(result)

    def _extra(self, node: Node) -> tuple[str, ...]:
        return (node.operation,) if not hasattr(self, f"_{node.operation}") else ()

    def _spend(self, bits: int) -> None:
        self.spent += bits
        _local.left = getattr(_local, "left", _ANSWER_BUDGET) - bits
        if self.spent > _BUDGET or _local.left < 0:
            raise TooCostlyError

    def _note(self, value: Any) -> Any:
        """Check the range of an intermediate result and remember its size."""
        mp = self._mp
        if not (mp.isfinite(value.real) and mp.isfinite(value.imag)):
            raise UndefinedError
        for part in (value.real, value.imag):
            if part:
                magnitude = abs(int(mp.mag(part)))
                if magnitude > max(_MAX_LOG2, 2 * self._bits):
                    raise OutOfRangeError
                self.magnitude = max(self.magnitude, magnitude)
        return value

    def _add(self, *terms: Any) -> Any:
        return sum(terms[1:], terms[0])

    def _multiply(self, *factors: Any) -> Any:
        product = factors[0]
        for factor in factors[1:]:
            product = self._note(product * factor)
        return product

    def _divide(self, above: Any, below: Any) -> Any:
        return above / below

    def _invert(self, value: Any) -> Any:
        return 1 / value

    def _negate(self, value: Any) -> Any:
        return -value

    def _absolute(self, value: Any) -> Any:
        return abs(value)

    def _degree(self, value: Any) -> Any:
        """Within a sine degrees are an angle; an answer of 90° is the number 90."""
        return value * self._mp.pi / 180 if self._in_function else value

    def _floor(self, value: Any) -> Any:
        return self._mp.floor(self._settle(value))

    def _ceil(self, value: Any) -> Any:
        return self._mp.ceil(self._settle(value))

    def _settle(self, value: Any) -> Any:
        """A real number; one that rounding moved off an integer is that integer."""
        mp = self._mp
        if value.imag:
            raise UndefinedError
        nearest = mp.nint(value.real)
        return nearest if abs(value.real - nearest) < mp.ldexp(1, -100) else value.real

    def _integer(self, value: Any) -> int:
        settled = self._settle(value)
        if settled != self._mp.nint(settled) or settled < 0:
            raise UndefinedError
        if settled > _MAX_ARGUMENT:
            raise OutOfRangeError
        return int(settled)

    def _factorial(self, value: Any) -> Any:
        return self._mp.factorial(self._integer(value))

    def _binomial(self, above: Any, below: Any) -> Any:
        return self._mp.binomial(self._integer(above), self._integer(below))

    def _root(self, value: Any, degree: Any) -> Any:
        mp = self._mp
        order = self._integer(degree)
        if order == 0:
            raise UndefinedError
        self._spend(self._bits * self._bits // 256)
        if order % 2 and not value.imag and value.real < 0:
            return -mp.root(-value.real, order)  # the real root
        return mp.sqrt(value) if order == 2 else mp.root(value, order)

    def _power(self, base: Any, exponent: Any) -> Any:
        mp = self._mp
        if not base:
            if not exponent.imag and exponent.real > 0:
                return mp.mpf(0)
            raise UndefinedError
        self._check_power(base, exponent)
        if (
            not exponent.imag
            and mp.isint(exponent.real)
            and abs(exponent.real) < _MAX_INTEGER_POWER
        ):
            return base ** int(exponent.real)
        self._spend(self._bits * self._bits // 64)
        return mp.exp(exponent * mp.log(base))

    def _check_power(self, base: Any, exponent: Any) -> None:
        """Refuse a power before it is computed: ``9^{9^{9^9}}`` would fill the memory."""
        mp = self._mp
        if mp.mag(exponent) > 64:
            raise OutOfRangeError
        size = abs(base)
        bits = abs(mp.mag(size))
        if bits < 900:
            bits = abs(log2(float(size)))
        if bits * abs(exponent) > _MAX_LOG2 or mp.mag(exponent) > 40:
            raise OutOfRangeError

    def _log(self, value: Any, base: Any = None) -> Any:
        self._spend(self._bits * self._bits // 128)
        if not value:
            raise UndefinedError
        if base is None and self._decimal:
            base = self._mp.mpf(10)
        return self._mp.log(value) if base is None else self._mp.log(value) / self._mp.log(base)

    def _ln(self, value: Any) -> Any:
        self._spend(self._bits * self._bits // 128)
        if not value:
            raise UndefinedError
        return self._mp.log(value)

    def _lg(self, value: Any) -> Any:
        return self._log(value, self._mp.mpf(10))

    def _call(self, *arguments: Any) -> Any:
        """A function that mpmath has under nearly the same name."""
        *values, operation = arguments
        self._spend(self._bits * self._bits // 64)
        if len(values) != 1:
            raise UndefinedError
        mp = self._mp
        if operation in {"exp", "sinh", "cosh", "tanh"} and mp.mag(values[0]) > 13:
            raise OutOfRangeError
        return getattr(mp, _MPMATH_NAMES.get(operation, operation))(values[0])


_CONSTANTS = {"pi": "pi", "euler": "e", "imaginary": "j"}
_MPMATH_NAMES = {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}
_TRANSCENDENTAL = frozenset(["sin", "cos", "tan", "cot", "sec", "csc"])


def are_same(gold: Node, predicted: Node, *, decimal_logarithm: bool = False) -> bool | None:
    """Whether two expressions have the same value wherever both have one; none if unclear."""
    names = sorted(variables_of(gold) | variables_of(predicted))
    agreed = 0
    for point in choose_points(gold, predicted, names):
        try:
            pair = evaluate_both((gold, predicted), point, decimal_logarithm=decimal_logarithm)
        except TooCostlyError:
            return None
        except OutOfRangeError:
            return _is_one_in_range(gold, predicted, point)
        except UndefinedError:
            continue
        if not pair.equal(0, 1):
            return False
        agreed += 1
    if not names:
        # Something that has no value is nobody's answer.
        return agreed == 1
    return True if agreed >= 3 else None


def _is_one_in_range(gold: Node, predicted: Node, point: Assignment) -> bool | None:
    """False where the gold answer is an ordinary number and the other one is out of range."""
    try:
        _Evaluator(_BASE_BITS).evaluate(gold, point)
    except (OutOfRangeError, UndefinedError, TooCostlyError):
        return None
    try:
        _Evaluator(_BASE_BITS).evaluate(predicted, point)
    except OutOfRangeError:
        return False
    except (UndefinedError, TooCostlyError):
        return None
    return None


class Evaluated:
    """Values of several expressions at one point, and how exact they are."""

    def __init__(self, values: list[Any], bits: int, magnitude: int) -> None:
        self.values = values
        self._bits = bits
        self._magnitude = magnitude

    def is_zero(self, value: Any) -> bool:
        """Whether nothing but rounding is left of a value."""
        return bool(abs(value) <= _context().ldexp(1, -(150 + self._magnitude)))

    def equal(self, first: int, second: int) -> bool:
        """Whether two of the values are the same number."""
        return self.agree(self.values[first], self.values[second])

    def agree(self, left: Any, right: Any) -> bool:
        """Whether two numbers computed from the values are the same."""
        _context().prec = self._bits
        return self.is_zero(left - right)


def evaluate_both(
    nodes: tuple[Node, ...], point: Assignment, *, decimal_logarithm: bool = False
) -> Evaluated:
    """Values of expressions at a point, with bits to spare after all cancellation.

    Raises:
        OutOfRangeError, UndefinedError, TooCostlyError: One of them has no value to be had.
    """
    first = _Evaluator(_BASE_BITS, decimal_logarithm=decimal_logarithm)
    values = [first.evaluate(node, point) for node in nodes]
    if first.magnitude <= _SMALL:
        return Evaluated(values, _BASE_BITS, _SMALL)
    # Cancellation costs twice the magnitude, a product with what is left of it once more.
    bits = _BASE_BITS + 4 * first.magnitude
    second = _Evaluator(bits, decimal_logarithm=decimal_logarithm)
    second.spent = first.spent
    values = [second.evaluate(node, point) for node in nodes]
    return Evaluated(values, bits, first.magnitude)


def choose_points(gold: Node, predicted: Node, names: list[str]) -> list[Assignment]:
    """Where to compare two expressions: fixed, so that a verdict can be had again."""
    if not names:
        return [{}]
    if _has(gold, _INTEGER_ONLY) or _has(predicted, _INTEGER_ONLY) or _alternates(gold):
        return [
            {name: _choose_integer(name, place, n) for place, name in enumerate(names)}
            for n in range(_INTEGERS)
        ]
    positive = _has(gold, _POSITIVE_ONLY) or _has_fractional_power(gold)
    return [
        {
            name: Fraction(_draw(name, n, 10_007) + 500, 3001)
            * (1 if positive or not signs >> (place % 3) & 1 else -1)
            for place, name in enumerate(names)
        }
        for n, signs in enumerate(_SIGNS)
    ]


def _choose_integer(name: str, place: int, number: int) -> Fraction:
    """Each variable goes through all of 1 to 13, each with another stride."""
    stride = place % (_INTEGERS - 1) + 1
    return Fraction(1 + (number * stride + _draw(name, 0, _INTEGERS)) % _INTEGERS)


@lru_cache(maxsize=4096)
def _draw(name: str, number: int, below: int) -> int:
    return int.from_bytes(sha256(f"{name}/{number}".encode()).digest()[:8], "big") % below


def _has(node: Node, operations: frozenset[str]) -> bool:
    return node.operation in operations or any(_has(part, operations) for part in node.arguments)


def _has_fractional_power(node: Node) -> bool:
    """A power whose exponent is not a whole number."""
    if node.operation == "power":
        exponent = node.arguments[1]
        value = exponent.value
        if exponent.operation in {"divide", "multiply"} and not variables_of(exponent):
            return True
        if value is not None and value.denominator != 1:
            return True
    return any(_has_fractional_power(part) for part in node.arguments)


def _alternates(node: Node) -> bool:
    """``(-1)^n``: a power of a negative number with a variable in its exponent."""
    if node.operation == "power" and node.arguments[0].operation == "negate":
        return bool(variables_of(node.arguments[1])) and not variables_of(node.arguments[0])
    return any(_alternates(part) for part in node.arguments)
