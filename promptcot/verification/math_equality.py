r"""Whether an answer means the same as the gold answer: rules, led by what the gold answer is.

The shapes of both (:mod:`promptcot.verification.math_forms`) are matched; their leaves are compared
as words, exact numbers or expressions. What no rule decides is handed to ``settle``, which the
worker processes fill with math-verify; without it the verdict is none. docs/evaluation.md lists the
rules with examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.benchmark_items import MathGold
from promptcot.verification.math_forms import (
    Bracket,
    Equation,
    Form,
    Matrix,
    Named,
    Region,
    Relation,
    Value,
    Values,
    names_quantity,
    parse_form,
)
from promptcot.verification.math_leaves import LeafComparer, Settle
from promptcot.verification.math_numbers import begin_answer
from promptcot.verification.math_regions import as_region, same_pieces
from promptcot.verification.math_relations import same_equation, same_name, same_relation
from promptcot.verification.math_text import MAX_CHARS, Tokens, has_grouped_digits, tokenise

_MAX_CANDIDATES = 200


def is_equal_answer(gold: MathGold, predicted: str, settle: Settle | None = None) -> bool | None:
    """Whether the text of an answer equals the gold answer; none where no rule can tell.

    Args:
        gold: The item's answer.
        predicted: What was found within the box, or the boxes joined by commas.
        settle: Decides pairs of texts that the rules leave open.
    """
    if not predicted.strip() or len(predicted) > MAX_CHARS:
        return False
    begin_answer()
    # Only an item with several answers can mean two numbers by 1,234.
    readings = [True]
    if len(gold.parts) > 1 and has_grouped_digits(predicted):
        readings = [False, True]
    verdicts = [_compare_reading(gold, predicted, settle, grouped) for grouped in readings]
    if True in verdicts:
        return True
    return None if None in verdicts else False


def _compare_reading(
    gold: MathGold, predicted: str, settle: Settle | None, grouped: bool
) -> bool | None:
    comparer = _Comparer(LeafComparer(gold, settle))
    return comparer.compare(
        _read_gold(gold, grouped), parse_form(tokenise(predicted, grouped=grouped))
    )


def _read_gold(gold: MathGold, grouped: bool) -> Form:
    if len(gold.parts) < 2:
        return parse_form(tokenise(gold.parts[0] if gold.parts else gold.text, grouped=grouped))
    forms = [parse_form(tokenise(part, grouped=True)) for part in gold.parts]
    items: list[Form] = []
    for form in forms:
        items += form.items if isinstance(form, Values) else [form]
    return Values(tuple(items))


class _Comparer:
    """Compares shapes; the first argument is always the gold one."""

    def __init__(self, leaves: LeafComparer) -> None:
        self._leaves = leaves

    def compare(self, gold: Form, predicted: Form) -> bool | None:
        """Whether two shapes mean the same; none where a leaf is undecided."""
        if isinstance(gold, Named) or isinstance(predicted, Named):
            return self._compare_named(gold, predicted)
        if isinstance(gold, Equation):
            return isinstance(predicted, Equation) and same_equation(gold.sides, predicted.sides)
        if isinstance(predicted, Equation):
            return self._compare_chain(gold, predicted)
        if isinstance(gold, Region | Relation) or isinstance(predicted, Region | Relation):
            return self._compare_regions(gold, predicted)
        if isinstance(gold, Bracket):
            return self._compare_bracket(gold, predicted)
        if isinstance(gold, Matrix):
            return self._compare_matrix(gold, predicted)
        if isinstance(gold, Values) or isinstance(predicted, Values):
            return self._match(_items_of(gold), _items_of(_as_list(predicted)))
        if isinstance(predicted, Value):
            return self._leaves.compare(gold.tokens, predicted.tokens)
        return False

    def _compare_named(self, gold: Form, predicted: Form) -> bool | None:
        """A name may be left out; ``x``, ``y`` and ``z`` are told apart where both give one."""
        if isinstance(gold, Named) and isinstance(predicted, Named):
            renamed = same_name(gold.name, predicted.name)
            if renamed is None:
                return self._compare_as_equations(gold, predicted)
            verdict = self.compare(gold.form, _rename(predicted.form, renamed))
            return verdict or self._compare_as_equations(gold, predicted)
        if isinstance(gold, Named):
            if isinstance(predicted, Equation):
                return self._compare_as_equations(gold, predicted)
            return self.compare(gold.form, predicted)
        assert isinstance(predicted, Named)
        if isinstance(gold, Equation):
            return self._compare_as_equations(gold, predicted)
        return self.compare(gold, predicted.form)

    def _compare_as_equations(self, gold: Form, predicted: Form) -> bool | None:
        sides, other = _sides_of(gold), _sides_of(predicted)
        if sides is None or other is None:
            return False
        return same_equation(sides, other)

    def _compare_chain(self, gold: Form, predicted: Equation) -> bool | None:
        """``m + n = 5`` answers 5, and so does ``2 + 3 = 5``; ``4 = 5`` answers nothing."""
        last = predicted.sides[-1]
        if names_quantity(predicted.sides[0]):
            return self.compare(gold, parse_form(last))
        if not isinstance(gold, Value):
            return False
        for side in predicted.sides[:-1]:
            if self._leaves.compare(last, side) is not True:
                return False
        return self._leaves.compare(gold.tokens, last)

    def _compare_regions(self, gold: Form, predicted: Form) -> bool | None:
        if isinstance(predicted, Values) and any(isinstance(p, Value) for p in predicted.items):
            return False  # a number beside a set is another answer
        left, right = as_region(gold), as_region(predicted)
        if left is not None and right is not None:
            return same_pieces(left, right, self._leaves.compare)
        if isinstance(gold, Relation) and isinstance(predicted, Relation):
            return same_relation(gold, predicted)
        return False

    def _compare_bracket(self, gold: Bracket, predicted: Form) -> bool | None:
        if isinstance(predicted, Value) or _is_unbounded(predicted):
            return self._compare_regions(gold, predicted)  # "all real numbers", (2,\\infty]
        items = _in_order(gold, predicted)
        if items is None or len(items) != len(gold.items):
            return False
        return _all(self.compare(g, p) for g, p in zip(gold.items, items, strict=True))

    def _compare_matrix(self, gold: Matrix, predicted: Form) -> bool | None:
        if isinstance(predicted, Bracket):
            # A column or a row is often written as a point.
            entries = [entry for row in gold.rows for entry in row]
            is_vector = len(gold.rows) == 1 or all(len(row) == 1 for row in gold.rows)
            if not is_vector or len(entries) != len(predicted.items):
                return False
            pairs = zip(entries, predicted.items, strict=True)
            return _all(self.compare(g, p) for g, p in pairs)
        if not isinstance(predicted, Matrix) or len(gold.rows) != len(predicted.rows):
            return False
        if [len(row) for row in gold.rows] != [len(row) for row in predicted.rows]:
            return False
        rows = zip(gold.rows, predicted.rows, strict=True)
        return _all(self.compare(g, p) for a, b in rows for g, p in zip(a, b, strict=True))

    def _match(self, gold: Sequence[Form], predicted: Sequence[Form]) -> bool | None:
        """Whether each gold answer is among the predicted ones and each of these is a gold one."""
        distinct = tuple(dict.fromkeys(predicted))
        wanted = tuple(dict.fromkeys(gold))
        if len(distinct) > _MAX_CANDIDATES or len(distinct) > 3 * len(wanted) + 3:
            return False
        if not distinct or not wanted:
            return len(distinct) == len(wanted)
        table = [[self.compare(g, p) for p in distinct] for g in wanted]
        if len(wanted) < len(gold) == len(predicted) and len(distinct) <= len(wanted):
            # An item whose answers repeat: 16, 3, 1, 1 is not 16, 3, 3, 1.
            counts = [
                sum(predicted.count(p) for p, v in zip(distinct, row, strict=True) if v)
                for row in table
            ]
            if counts != [gold.count(g) for g in wanted]:
                return False
        rows = [_any(row) for row in table]
        columns = [_any(column) for column in zip(*table, strict=True)]
        return _all(rows + columns)


def _items_of(form: Form) -> tuple[Form, ...]:
    return form.items if isinstance(form, Values) else (form,)


def _is_unbounded(form: Form) -> bool:
    """Whether a bracket is an interval with an infinite end, which no bracket includes."""
    if not isinstance(form, Bracket) or len(form.items) != 2:
        return False
    return any(isinstance(item, Value) and "\\infty" in item.tokens for item in form.items)


def _as_list(form: Form) -> Form:
    """``[1, 3, 5]`` as several answers; two items in brackets may be an interval."""
    if isinstance(form, Bracket) and form.opening + form.closing == "[]" and len(form.items) > 2:
        return Values(form.items)
    return form


def _in_order(gold: Bracket, predicted: Form) -> tuple[Form, ...] | None:
    """The items of an answer to a tuple or an interval, in the order that counts."""
    if isinstance(predicted, Matrix):
        entries = tuple(entry for row in predicted.rows for entry in row)
        is_vector = len(predicted.rows) == 1 or all(len(row) == 1 for row in predicted.rows)
        return entries if is_vector else None
    if isinstance(predicted, Values):
        names = [item.name for item in predicted.items if isinstance(item, Named)]
        if len(names) == len(predicted.items) and len(set(names)) == len(names):
            ordered = sorted(predicted.items, key=lambda item: getattr(item, "name", ()))
            return tuple(item.form for item in ordered if isinstance(item, Named))
        is_point = (gold.opening, gold.closing) == ("(", ")") and not predicted.is_set
        return predicted.items if is_point else None
    if not isinstance(predicted, Bracket):
        return None
    alike = (gold.opening, gold.closing) == (predicted.opening, predicted.closing)
    # Two items may be an interval, whose brackets mean something; three are a list.
    loose = len(gold.items) > 2 or "\\langle" in {gold.opening, predicted.opening}
    return predicted.items if alike or loose else None


def _sides_of(form: Form) -> tuple[Tokens, ...] | None:
    if isinstance(form, Equation):
        return form.sides
    if isinstance(form, Named) and isinstance(form.form, Value):
        return (form.name, form.form.tokens)
    return None


def _rename(form: Form, names: Sequence[tuple[str, str]]) -> Form:
    """A value with the arguments of its function called as the gold answer calls them."""
    if not names or not isinstance(form, Value):
        return form
    new = dict(names)
    return Value(tuple(new.get(token, token) for token in form.tokens))


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    """False if any is false, else none if any is, else true."""
    found = list(verdicts)
    if False in found:
        return False
    return None if None in found else True


def _any(verdicts: Sequence[bool | None]) -> bool | None:
    if True in verdicts:
        return True
    return None if None in verdicts else False
