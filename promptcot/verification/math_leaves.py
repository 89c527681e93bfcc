r"""Compare two leaves of answers: words, numbers with units, expressions.

Exact throughout: ``0.333`` is not one third. Only an item's own tolerance allows a difference.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import groupby, pairwise
from math import inf

from pipeline.benchmark_items import MathGold
from promptcot.verification.math_expressions import (
    Node,
    TooDeepError,
    parse_expression,
    read_numeral,
    variables_of,
)
from promptcot.verification.math_forms import split_top
from promptcot.verification.math_numbers import (
    OutOfRangeError,
    TooCostlyError,
    UndefinedError,
    are_same,
    evaluate_both,
)
from promptcot.verification.math_text import (
    Tokens,
    is_number,
    is_word,
    join_text,
    spell,
    word_set,
)
from promptcot.verification.math_units import (
    PERCENT,
    Measured,
    canonical_unit,
    read_measured,
    read_unit,
)

Settle = Callable[[str, str], bool | None]
"""Decides a (gold, predicted) pair of texts that the rules leave open."""

_ARTICLES = frozenset(("'a", "'an", "'the", "'The", "'A", "'An"))
_ELLIPSES = frozenset((("\\ldots",), ("\\dots",), ("\\cdots",)))
_CHOICES = frozenset("ABCDEFGH")
_ROUNDING_ROOM = Fraction(1, 10**9)
_RATIO_ROOM = 1e-9
_BETWEEN_EXPRESSIONS = frozenset(("<", ">", "<=", ">=", "!=", "=", "\\in", ",", ";"))
_ARROWS = frozenset(("\\to", "\\rightarrow", "\\longrightarrow"))
_NO_OPERATIONS = _ARROWS | word_set(
    r"""\Rightarrow \Longrightarrow \implies \iff \Leftrightarrow \leftrightarrow \leftarrow
    \Leftarrow \mapsto \therefore \because \neg \lnot \forall \exists \nexists \setminus \cup \cap
    \subset \subseteq \supset \supseteq \notin \ni \mid \nmid \parallel \perp \propto \cong
    → ⇒ ⟹ ¬"""
)
"""What makes a statement or a set of numbers."""
_WITHOUT_LEFT = frozenset("*/^_!")
_PROSE_WORDS = 4
_WHOLE = Fraction(1)
_HUNDREDTH = Fraction(1, 100)
_HUNDRED = Fraction(100)


class LeafComparer:
    """Compares leaves of one item's answers.

    Args:
        gold: The item's answer: its unit and tolerance hold for every leaf.
        settle: Decides what the rules leave open; without it such a verdict is none.
    """

    def __init__(self, gold: MathGold, settle: Settle | None) -> None:
        self._unit = read_unit(gold.unit)
        self._tolerance = None if gold.tolerance is None else Fraction(str(gold.tolerance))
        self._settle = settle

    def compare(self, gold: Tokens, predicted: Tokens) -> bool | None:
        """Whether two leaves mean the same; none where no rule can tell."""
        if gold == predicted:
            return bool(gold)
        if not gold or not predicted:
            return False
        if predicted in _ELLIPSES:
            return False
        left, right = _read_plain(gold), _read_plain(predicted)
        if left is not None and right is not None and self._unit != PERCENT:
            return self._is_near(left, right, _WHOLE)
        if (choice := _read_choice(gold)) is not None:
            return choice == _read_choice(predicted, may_explain=True)
        measured, answer = read_measured(gold), read_measured(_drop_label(predicted))
        wanted = measured.unit or self._unit
        if wanted and not answer.unit:
            answer = _strip_letters(answer, wanted)
        if _has_words(measured.tokens) or _has_words(answer.tokens):
            return _compare_words(gold, predicted)
        if wanted and answer.unit and wanted != answer.unit:
            return False
        if measured.base or answer.base:
            return _is_same_numeral(measured, answer)
        scales = _choose_scales(wanted, answer.unit, measured.tokens)
        return self._compare_values(measured.tokens, answer.tokens, scales)

    def _compare_values(
        self, gold: Tokens, predicted: Tokens, scales: tuple[Fraction, ...]
    ) -> bool | None:
        if gold == predicted and _WHOLE in scales:
            return True
        if (ratio := _compare_ratios(gold, predicted)) is not None:
            return ratio
        try:
            right = parse_expression(predicted)
        except TooDeepError:
            return False
        try:
            left = parse_expression(gold)
        except TooDeepError:
            left = None
        if left is None or right is None:
            if _is_no_expression(gold) or _is_no_expression(predicted):
                return False
            return self._settle(spell(gold), spell(predicted)) if self._settle else None
        verdicts = [self._compare_scaled(left, right, scale) for scale in scales]
        if True in verdicts:
            return True
        if None not in verdicts:
            return False
        return self._settle(spell(gold), spell(predicted)) if self._settle else None

    def _compare_scaled(self, gold: Node, predicted: Node, scale: Fraction) -> bool | None:
        if scale != _WHOLE:
            predicted = Node("multiply", (Node("number", value=scale), predicted))
        if gold.operation == predicted.operation == "number":
            assert gold.value is not None and predicted.value is not None
            return self._is_near(gold.value, predicted.value, scale)
        if self._tolerance is not None and not variables_of(gold) | variables_of(predicted):
            return self._is_within(gold, predicted, scale)
        verdict = are_same(gold, predicted)
        if verdict is False and _may_be_decimal(gold, predicted):
            return are_same(gold, predicted, decimal_logarithm=True)
        return verdict

    def _is_near(self, gold: Fraction, predicted: Fraction, scale: Fraction) -> bool:
        allowed = (self._tolerance or Fraction(0)) * min(scale, _WHOLE)
        return abs(gold - predicted) <= allowed * (1 + _ROUNDING_ROOM)

    def _is_within(self, gold: Node, predicted: Node, scale: Fraction) -> bool | None:
        allowed = (self._tolerance or Fraction(0)) * min(scale, _WHOLE) * (1 + _ROUNDING_ROOM)
        try:
            found = evaluate_both((gold, predicted), {})
        except UndefinedError:
            return False
        except (OutOfRangeError, TooCostlyError):
            return None
        return bool(abs(found.values[0] - found.values[1]) <= float(allowed))


def read_real(tokens: Tokens) -> float | None:
    """The approximate value of a constant, infinities included; none of anything else."""
    if tokens and tokens[-1] == "\\infty" and len(tokens) <= 2:
        return -inf if tokens[0] == "-" else inf
    try:
        node = parse_expression(tokens)
        if node is None or variables_of(node):
            return None
        value = evaluate_both((node,), {}).values[0]
    except (TooDeepError, OutOfRangeError, UndefinedError, TooCostlyError):
        return None
    return None if value.imag else float(value.real)


def _read_plain(tokens: Tokens) -> Fraction | None:
    """The value of a plain numeral, with its sign; by far the most common answer."""
    sign, number = (tokens[0], tokens[1:]) if tokens[0] in {"-", "+"} else ("", tokens)
    if len(number) != 1 or not number[0].replace(".", "", 1).isdecimal() or len(number[0]) > 300:
        return None
    value = read_numeral(number[0])
    return -value if sign == "-" else value


def _read_choice(tokens: Tokens, *, may_explain: bool = False) -> str | None:
    r"""The letter of ``\text{(C)}`` or ``C``; with what it stands for after it, if that may be."""
    if tokens[0] == "(" and len(tokens) > 2 and tokens[2] == ")":
        letter, rest = tokens[1], tokens[3:]
    else:
        letter, rest = tokens[0], tokens[1:]
        if rest and rest[0] not in {")", ".", ":"}:
            return None
    letter = letter.removeprefix("'")
    if rest and not may_explain:
        return None
    return letter if letter in _CHOICES else None


def _drop_label(tokens: Tokens) -> Tokens:
    r"""The answer behind ``\textbf{(C)}``, set as text."""
    is_label = len(tokens) > 3 and (tokens[0], tokens[2]) == ("(", ")")
    return tokens[3:] if is_label and tokens[1].removeprefix("'") != tokens[1] else tokens


def _has_words(tokens: Tokens) -> bool:
    return any(is_word(token) and len(token) > 2 for token in tokens)


def _compare_words(gold: Tokens, predicted: Tokens) -> bool | None:
    """Words are compared as text; of two texts in prose nobody can say that they differ."""
    left = join_text(tuple(t for t in gold if t not in _ARTICLES and t not in "()"))
    right = join_text(tuple(t for t in predicted if t not in _ARTICLES and t not in "()"))
    if left == right:
        return True
    is_prose = [sum(map(is_word, tokens)) >= _PROSE_WORDS for tokens in (gold, predicted)]
    return None if all(is_prose) else False


def _strip_letters(answer: Measured, wanted: str) -> Measured:
    """``5 m``, whose unit is a bare letter, where metres are expected."""
    numbers = [
        place for place, token in enumerate(answer.tokens) if token == "}" or is_number(token)
    ]
    for place in reversed(numbers):
        tail = answer.tokens[place + 1 :]
        if tail and canonical_unit(tail) == wanted:
            return Measured(answer.tokens[: place + 1], wanted)
    return answer


def _is_same_numeral(gold: Measured, answer: Measured) -> bool:
    """The base may be left out like a unit; another base, or the value in another one, is wrong."""
    if gold.base and answer.base and gold.base != answer.base:
        return False
    if not gold.base and answer.base != "10":
        return False
    left, right = (
        "".join(tokens).replace("'", "").lstrip("0").upper()
        for tokens in (gold.tokens, answer.tokens)
    )
    return left == right


def _is_no_expression(tokens: Tokens) -> bool:
    """Statements, lists and fragments, which math-verify would make something of."""
    if len(split_top(tokens, _BETWEEN_EXPRESSIONS)) > 1 or tokens[0] in _WITHOUT_LEFT:
        return True
    strange = _NO_OPERATIONS - _ARROWS if "\\lim" in tokens else _NO_OPERATIONS
    if not strange.isdisjoint(tokens):
        return True
    return any(is_number(first) and is_number(second) for first, second in pairwise(tokens))


def _compare_ratios(gold: Tokens, predicted: Tokens) -> bool | None:
    """``2:3:4`` and ``4:6:8``; none unless one of them is a ratio of three or more."""
    if max(gold.count(":"), predicted.count(":")) < 2:
        return None
    left, right = (
        [read_real(tuple(part)) for is_sign, part in groupby(tokens, ":".__eq__) if not is_sign]
        for tokens in (gold, predicted)
    )
    if len(left) != len(right) or None in left or None in right:
        return False
    scale = [
        (a or 0.0) * (right[0] or 0.0) - (b or 0.0) * (left[0] or 0.0)
        for a, b in zip(left, right, strict=True)
    ]
    return all(abs(difference) < _RATIO_ROOM for difference in scale)


def _choose_scales(wanted: str, found: str, gold: Tokens) -> tuple[Fraction, ...]:
    """What the answer's number may be multiplied with: where percent signs stand.

    62.5% is 62.5 of the hundred asked for, or 0.625. Where the gold answer has no sign, 50% is 1/2;
    it is 50 only where the gold answer is no share of one.
    """
    if wanted == PERCENT:
        return (_WHOLE,) if found == PERCENT else (_WHOLE, _HUNDRED)
    if found != PERCENT:
        return (_WHOLE,)
    value = read_real(gold)
    return (_HUNDREDTH,) if value is not None and abs(value) < 1 else (_HUNDREDTH, _WHOLE)


def _may_be_decimal(gold: Node, predicted: Node) -> bool:
    """Whether a logarithm without a base is meant to be decimal: the other side shows one."""
    both = (gold, predicted)
    return any(_contains(n, "log", 1) for n in both) and any(
        _contains(n, "lg", 1) or _contains(n, "log", 2) for n in both
    )


def _contains(node: Node, operation: str, num_arguments: int) -> bool:
    if node.operation == operation and len(node.arguments) == num_arguments:
        return True
    return any(_contains(part, operation, num_arguments) for part in node.arguments)
