r"""The shape of an answer: one value, several, a tuple, an interval, an equation, a matrix.

Only the shape is read here; what stands at its leaves stays a row of tokens. ``1 \pm \sqrt{2}`` are
two values, ``(0,1) \cup \{2\}`` is a region, ``x \in [0,1]`` a named interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from promptcot.verification.math_text import Tokens, is_number, is_word, word_set

_OPENERS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "\\langle": "\\rangle"}
_OPENERS |= {"\\lfloor": "\\rfloor", "\\lceil": "\\rceil", "\\begin": "\\end"}
_CLOSERS = frozenset(_OPENERS.values())
_SEPARATORS = frozenset((",", ";", "'and", "'or", "'And", "'Or"))
_COMPARISONS = frozenset(("<", ">", "<=", ">=", "!="))
_MATRICES = frozenset(("pmatrix", "bmatrix", "Bmatrix", "matrix", "array", "smallmatrix"))
_CONDITION_WORDS = frozenset(
    ("'where", "'for", "'with", "'if", "'when", "'such", "\\forall", "'any", "'all")
)
_EXPLAINING = frozenset(("'where", "'Where"))
_CONDITIONS = frozenset(("'for", "'with", "\\forall"))
_NUMBER_SETS = frozenset("ZRNQC")
_MAX_DEPTH = 12
_MAX_ITEMS = 200


@dataclass(frozen=True, slots=True)
class Value:
    """A number, an expression or words."""

    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Values:
    """Several answers, in no order."""

    items: tuple[Form, ...]
    is_set: bool = False
    """Whether braces stand around them."""


@dataclass(frozen=True, slots=True)
class Bracket:
    """A tuple, a point or an interval: items in order, and how the brackets look."""

    opening: str
    closing: str
    items: tuple[Form, ...]


@dataclass(frozen=True, slots=True)
class Region:
    """A union of intervals and sets."""

    pieces: tuple[Form, ...]


@dataclass(frozen=True, slots=True)
class Named:
    r"""``x = 5``, ``f(x) = 2x``, ``x \in [0,1]``: a name and what it stands for."""

    name: Tokens
    form: Form


@dataclass(frozen=True, slots=True)
class Equation:
    """Sides of which the first is no mere name."""

    sides: tuple[Tokens, ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """``0 < x <= 5``: operands and the signs between them."""

    operands: tuple[Tokens, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of entries."""

    rows: tuple[tuple[Form, ...], ...] = field(default=())


Form = Value | Values | Bracket | Region | Named | Equation | Relation | Matrix


def parse_form(tokens: Tokens, depth: int = 0) -> Form:
    """The shape of an answer; what has none of the shapes, or is nested too deep, is a value."""
    tokens = strip_edges(tokens)
    if depth > _MAX_DEPTH or not tokens:
        return Value(tokens)
    if "\\approx" in tokens:
        tokens = _cut_approximation(tokens)
    tokens = _cut_at(tokens, _EXPLAINING)
    parts = [part for part in split_top(tokens, _SEPARATORS) if part]
    if 1 < len(parts) <= _MAX_ITEMS:
        return _parse_list(parts, depth)
    tokens = strip_edges(parts[0]) if len(parts) == 1 else tokens
    return _parse_single(tokens, depth)


def strip_edges(tokens: Tokens) -> Tokens:
    """Without a full stop, a comma or the like at the end, and without braces around it all."""
    while True:
        if tokens and tokens[-1] in {".", ",", ";", ":", "\\\\", "!."}:
            tokens = tokens[:-1]
        elif tokens and tokens[0] in {".", ",", ";", ":", "\\\\"}:
            tokens = tokens[1:]
        elif len(tokens) > 1 and tokens[0] == "{" and _closes(tokens) == len(tokens) - 1:
            tokens = tokens[1:-1]
        else:
            return tokens


def _cut_approximation(tokens: Tokens) -> Tokens:
    r"""The exact side of ``\sqrt{2} \approx 1.414``."""
    sides = [side for side in split_top(tokens, frozenset(("\\approx",))) if side]
    return sides[0] if sides else ()


def _parse_list(parts: list[Tokens], depth: int) -> Form:
    kept = [part for part in parts if not _is_condition(part)]
    forms = [parse_form(part, depth + 1) for part in kept or parts]
    if len(forms) == 1:
        return forms[0]
    first, *others = forms
    is_function = isinstance(first, Named) and "(" in first.name
    if is_function and all(isinstance(form, Relation) for form in others):
        return first  # f(x) = 1/x, x > 0
    if all(isinstance(form, Relation | Region | Named) for form in forms) and any(
        isinstance(form, Relation | Region) for form in forms
    ):
        return Region(tuple(forms))
    return Values(tuple(_flatten(forms)))


def _cut_at(tokens: Tokens, words: frozenset[str]) -> Tokens:
    r"""Without the clause that begins with one of some words: ``x^2 \text{ for all } x``."""
    for position, token in enumerate(tokens):
        if position and token in words:
            return tokens[:position]
    return tokens


def _drop_condition(tokens: Tokens) -> Tokens:
    r"""Without a condition in parentheses at the end: ``\frac{1}{x} (x > 0)``."""
    if tokens[-1:] != (")",):
        return tokens
    depth = 0
    for position in range(len(tokens) - 1, 0, -1):
        depth += (tokens[position] == ")") - (tokens[position] == "(")
        if depth == 0:
            inside = tokens[position + 1 : -1]
            is_condition = not (_COMPARISONS | {"\\in"}).isdisjoint(inside)
            return tokens[:position] if is_condition else tokens
    return tokens


def _read_label(tokens: Tokens) -> Tokens | None:
    r"""The words before a colon: ``\text{minimum: } 1``."""
    if ":" not in tokens[1:-1]:
        return None
    label = tokens[: tokens.index(":")]
    return label if all(is_word(token) for token in label) else None


def _flatten(forms: list[Form]) -> Iterator[Form]:
    for form in forms:
        if isinstance(form, Values):
            yield from form.items
        elif isinstance(form, Named) and isinstance(form.form, Values):
            yield from (Named(form.name, item) for item in form.form.items)
        else:
            yield form


def _is_condition(part: Tokens) -> bool:
    r"""``k \in \mathbb{Z}``, ``where n > 1``: about the answer, not one of the answers."""
    if part[0] in _CONDITION_WORDS:
        return True
    return "\\in" in part and ("\\mathbb" in part or part[-1] in _NUMBER_SETS)


def _parse_single(tokens: Tokens, depth: int) -> Form:
    tokens = _drop_condition(_cut_at(tokens, _CONDITIONS))
    label = _read_label(tokens)
    if label is not None:
        return Named(label, parse_form(tokens[len(label) + 1 :], depth + 1))
    if "=" in tokens:
        sides = [strip_edges(side) for side in split_top(tokens, frozenset("="))]
        if len(sides) > 1 and all(sides):
            return _parse_equation(sides, depth)
    if "\\in" in tokens:
        sides = [strip_edges(side) for side in split_top(tokens, frozenset(("\\in",)))]
        if len(sides) == 2 and all(sides):
            return Named(sides[0], parse_form(sides[1], depth + 1))
    if not _COMPARISONS.isdisjoint(tokens):
        relation = _parse_relation(tokens)
        if relation is not None:
            return relation
    if "\\cup" in tokens:
        pieces = [piece for piece in split_top(tokens, frozenset(("\\cup",))) if piece]
        if len(pieces) > 1:
            return Region(tuple(parse_form(piece, depth + 1) for piece in pieces))
    return _parse_enclosed(tokens, depth)


def _parse_equation(sides: list[Tokens], depth: int) -> Form:
    if is_name(sides[0]):
        # Of a chain ``C = 2 + 3 = 5`` the last side is the answer.
        return Named(sides[0], parse_form(sides[-1], depth + 1))
    if len(sides) == 2 and is_name(sides[1]) and not is_name(sides[0]):
        return Named(sides[1], parse_form(sides[0], depth + 1))
    return Equation(tuple(sides))


def _parse_relation(tokens: Tokens) -> Relation | None:
    operands = split_top(tokens, _COMPARISONS)
    signs = tuple(_top_level(tokens, _COMPARISONS))
    if not 2 <= len(operands) <= 3 or len(signs) != len(operands) - 1 or not all(operands):
        return None
    return Relation(tuple(strip_edges(side) for side in operands), signs)


def _parse_enclosed(tokens: Tokens, depth: int) -> Form:
    r"""Brackets around it all, a matrix, ``\pm``, or just a value."""
    first, last = tokens[0], tokens[-1]
    if first == "\\begin":
        matrix = _parse_matrix(tokens, depth)
        if matrix is not None:
            return matrix
    if first == "]" and last in {"[", "]"}:  # ]a,b[, as some countries write (a,b)
        tokens = ("(", *tokens[1:-1], ")" if last == "[" else "]")
        return parse_form(tokens, depth + 1)
    closing = _closes(tokens)
    if first == "[" and last == "[" and split_top(tokens[1:-1], frozenset(","))[1:]:
        return parse_form((*tokens[:-1], ")"), depth + 1)
    if closing == len(tokens) - 1:
        inside = tokens[1:-1]
        condition = _read_set_condition(inside) if first == "\\{" else ()
        if condition:
            return parse_form(condition, depth + 1)
        items = [part for part in split_top(inside, frozenset((",", ";"))) if part]
        if first == "\\{":
            forms = [parse_form(part, depth + 1) for part in items]
            return Values(tuple(_flatten(forms)), is_set=True)
        if first in {"(", "[", "\\langle"} and 1 < len(items) <= _MAX_ITEMS:
            return Bracket(first, last, tuple(parse_form(part, depth + 1) for part in items))
        if first == "(" and len(items) == 1:
            return parse_form(inside, depth + 1)
    if tokens == ("\\emptyset",):
        return Values((), is_set=True)
    if len(tokens) > 4 and _is_letter(first) and _is_pair(tokens[1:]):
        return Named(tokens[:1], parse_form(tokens[1:], depth + 1))
    signed = expand_signs(tokens)
    return Values(tuple(Value(choice) for choice in signed)) if signed else Value(tokens)


def _read_set_condition(inside: Tokens) -> Tokens:
    r"""What stands behind the bar of ``\{x \mid x \geq 0\}``; nothing of another set."""
    for sign in ("\\mid", "|", ":"):
        sides = split_top(inside, frozenset((sign,)))
        if len(sides) == 2 and is_name(sides[0]) and not _COMPARISONS.isdisjoint(sides[1]):
            return sides[1]
    return ()


def _is_pair(tokens: Tokens) -> bool:
    """Whether a point or an interval follows its name: ``P(3,-2)``, ``t(0,4]``."""
    if tokens[0] not in {"(", "["} or _closes(tokens) != len(tokens) - 1:
        return False
    return len(split_top(tokens[1:-1], frozenset(","))) > 1


def expand_signs(tokens: Tokens) -> list[Tokens]:
    r"""Both readings of ``\pm`` and ``\mp``, all upper signs or all lower; none without them."""
    if "\\pm" not in tokens and "\\mp" not in tokens:
        return []
    upper, lower = {"\\pm": "+", "\\mp": "-"}, {"\\pm": "-", "\\mp": "+"}
    return [tuple(signs.get(token, token) for token in tokens) for signs in (upper, lower)]


def _parse_matrix(tokens: Tokens, depth: int) -> Form | None:
    """A matrix that is the whole of the tokens."""
    name_end = tokens.index("}") if "}" in tokens else 0
    name = "".join(token.lstrip("'") for token in tokens[2:name_end])
    if name not in _MATRICES or "\\end" not in tokens or _closes(tokens) is None:
        return None
    end = len(tokens) - 1 - tokens[::-1].index("\\end")
    body = tokens[name_end + 1 : end]
    if name == "array" and body[:1] == ("{",):
        body = body[body.index("}") + 1 :] if "}" in body else body
    rows = [row for row in split_top(body, frozenset(("\\\\",))) if row]
    entries = [split_top(row, frozenset("&")) for row in rows]
    return Matrix(tuple(tuple(parse_form(entry, depth + 1) for entry in row) for row in entries))


def is_name(tokens: Tokens) -> bool:
    r"""Whether tokens only name something: ``x``, ``m_{max}``, ``f(x)``, ``\angle ABC``, words."""
    if not tokens or not any(_is_letter(token) or is_word(token) for token in tokens):
        return False
    in_subscript, depth = False, 0
    for position, token in enumerate(tokens):
        depth += (token in {"{", "("}) - (token in {"}", ")"})
        in_subscript = position > 0 and (
            tokens[position - 1] == "_" or (in_subscript and depth > 0)
        )
        if is_number(token) and not in_subscript:
            return False
        if token in {"+", "-", "*", "/", "^", "!", "\\frac", "\\sqrt", "\\binom", "%", "\\degree"}:
            return False
        if token.startswith("\\") and token[1:] in _FUNCTION_NAMES:
            return False
    return True


_FUNCTION_NAMES = word_set("""sin cos tan cot sec csc ln log lg exp sum prod int lim""")


def names_quantity(tokens: Tokens) -> bool:
    """Whether tokens are made of names alone, though not one name: ``m + n``, ``a^2 + b^2``."""
    for position, token in enumerate(tokens):
        before = tokens[position - 1] if position else ""
        if is_number(token) and before not in {"^", "_"}:
            return False
    return any(_is_letter(token) for token in tokens)


def _is_letter(token: str) -> bool:
    return len(token) == 1 and token.isalpha()


def split_top(tokens: Tokens, separators: frozenset[str]) -> list[Tokens]:
    """Tokens between separators that stand outside all brackets."""
    parts: list[Tokens] = []
    depth, start = 0, 0
    for position, token in enumerate(tokens):
        if token in _OPENERS:
            depth += 1
        elif token in _CLOSERS:
            depth = max(0, depth - 1)
        elif depth == 0 and token in separators:
            parts.append(tokens[start:position])
            start = position + 1
    return [*parts, tokens[start:]]


def _top_level(tokens: Tokens, wanted: frozenset[str]) -> Iterator[str]:
    depth = 0
    for token in tokens:
        if token in _OPENERS:
            depth += 1
        elif token in _CLOSERS:
            depth = max(0, depth - 1)
        elif depth == 0 and token in wanted:
            yield token


def _closes(tokens: Tokens) -> int | None:
    """Position of the bracket that closes the first token; brackets of intervals may differ."""
    depth = 0
    for position, token in enumerate(tokens):
        if token in _OPENERS:
            depth += 1
        elif token in _CLOSERS:
            depth -= 1
            if depth == 0:
                return position if _fit(tokens[0], token) else None
    return None


def _fit(opening: str, closing: str) -> bool:
    return _OPENERS.get(opening) == closing or (opening in "([" and closing in ")]")
