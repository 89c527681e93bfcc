r"""Parse an expression's tokens into a tree: arithmetic, roots, powers, common functions.

What the grammar does not know (``\sum``, ``\int``, words) makes an expression unsupported;
nothing is guessed. Implicit products, ``\frac12``, ``\sqrt2``, ``\sin 2x``, mixed numbers
(``1\frac{4}{5}``, ``1 4/5``), ``n!``, ``\binom{n}{k}``, ``|x|`` and floors are read as people mean
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from promptcot.verification.math_text import MAX_DIGITS, Tokens, is_number, is_word, word_set

_MAX_DEPTH = 50
_MAX_POSTFIXES = 8
_FUNCTIONS = word_set(
    """sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp"""
)
_GREEK = word_set(
    """alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau
    upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega infty
    ell hbar mho aleph"""
)
_PAIRS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}"}
_ROUNDING = {"\\lfloor": ("\\rfloor", "floor"), "\\lceil": ("\\rceil", "ceil")}
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
_ENDS = frozenset(
    ("\\choose", ")", "]", "}", "\\}", "\\rfloor", "\\rceil", "+", "-", ",", "&", "\\\\")
)


class UnsupportedError(Exception):
    """The tokens are no expression of this grammar."""


class TooDeepError(Exception):
    """Nested deeper than any answer is."""


@dataclass(frozen=True, slots=True)
class Node:
    """An operation, and what it is applied to.

    ``number`` holds its value and ``variable`` its name; both have no arguments.
    """

    operation: str
    arguments: tuple[Node, ...] = ()
    value: Fraction | None = None
    name: str = ""


def parse_expression(tokens: Tokens) -> Node | None:
    """The tree of an expression, or none when this grammar does not cover it.

    Raises:
        TooDeepError: Its brackets, fractions or powers are nested without end.
    """
    return _parse_cached(tokens)


@lru_cache(maxsize=2048)
def _parse_cached(tokens: Tokens) -> Node | None:
    try:
        return _Parser(tokens).parse()
    except (UnsupportedError, IndexError):
        return None


def read_numeral(token: str) -> Fraction:
    """The value of a number's token.

    Raises:
        UnsupportedError: It is too long, or no number.
    """
    if len(token) > MAX_DIGITS:
        raise UnsupportedError
    mantissa, marked, exponent = token.lower().partition("e")
    if marked and len(exponent) > 4:
        raise UnsupportedError
    try:
        value = Fraction(mantissa)
        return value * Fraction(10) ** int(exponent) if marked else value
    except ValueError as exc:
        raise UnsupportedError from exc


class _Parser:
    """Recursive descent over one expression."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._position = 0
        self._depth = 0
        self._bars = 0

    def parse(self) -> Node:
        if not self._tokens or any(is_word(token) and len(token) > 2 for token in self._tokens):
            raise UnsupportedError
        node = self._whole()
        if self._position != len(self._tokens):
            raise UnsupportedError
        return node

    def _whole(self) -> Node:
        r"""A sum, or ``n \choose k``, which takes all that is within its braces."""
        node = self._sum()
        if self._peek() != "\\choose":
            return node
        self._take()
        return Node("binomial", (node, self._sum()))

    def _peek(self, ahead: int = 0) -> str:
        place = self._position + ahead
        return self._tokens[place] if place < len(self._tokens) else ""

    def _take(self, expected: str | None = None) -> str:
        token = self._peek()
        if not token or (expected is not None and token != expected):
            raise UnsupportedError
        self._position += 1
        return token

    def _sum(self) -> Node:
        terms = [self._signed_product()]
        while self._peek() in {"+", "-"}:
            terms.append(self._signed_product())
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def _signed_product(self) -> Node:
        negative = False
        while self._peek() in {"+", "-"}:
            negative ^= self._take() == "-"
        node = self._product()
        return Node("negate", (node,)) if negative else node

    def _product(self) -> Node:
        factors = [self._implicit_product()]
        while self._peek() in {"*", "/", ":"}:
            operator = self._take()
            negative = False
            while self._peek() in {"+", "-"}:
                negative ^= self._take() == "-"
            # A slash takes one factor: 1/2 x is x/2, as it is written by hand.
            right = self._factor() if operator != "*" else self._implicit_product()
            right = Node("negate", (right,)) if negative else right
            factors.append(right if operator == "*" else Node("invert", (right,)))
            if operator != "*" and self._starts_factor():
                factors.append(self._implicit_product())
        return self._join(factors)

    def _implicit_product(self) -> Node:
        mixed = self._mixed_number()
        factors = [mixed or self._factor()]
        while self._starts_factor():
            if is_number(self._peek()) and factors[-1].operation == "number":
                raise UnsupportedError  # "3 4" is no product
            factors.append(self._factor())
        return self._join(factors)

    def _mixed_number(self) -> Node | None:
        r"""``1\frac{4}{5}`` or ``1 4/5``: a whole number and a proper fraction are a sum."""
        if not self._peek().isdecimal():
            return None
        start = self._position
        whole = read_numeral(self._take())
        above, below = self._plain_fraction()
        if above is None or below is None or not 0 < above < below:
            self._position = start
            return None
        return Node("number", value=whole + above / below)

    def _plain_fraction(self) -> tuple[Fraction | None, Fraction | None]:
        if self._peek() == "\\frac":
            self._take()
            pieces = [self._plain_argument(), self._plain_argument()]
            return pieces[0], pieces[1]
        if self._peek().isdecimal() and self._peek(1) == "/" and self._peek(2).isdecimal():
            above, _, below = self._take(), self._take(), self._take()
            return read_numeral(above), read_numeral(below)
        return None, None

    def _plain_argument(self) -> Fraction | None:
        node = self._argument()
        return node.value if node.operation == "number" else None

    def _starts_factor(self) -> bool:
        token = self._peek()
        if not token or token in _ENDS or token in {"*", "/", ":", "^", "_", "!", "=", "%"}:
            return False
        return not (token == "|" and self._bars)

    def _factor(self) -> Node:
        base = self._atom()
        for _ in range(_MAX_POSTFIXES):
            token = self._peek()
            if token == "^":
                self._take()
                base = Node("power", (base, self._exponent()))
            elif token == "!":
                self._take()
                base = Node("factorial", (base,))
            elif token == "\\degree":
                self._take()
                base = Node("degree", (base,))
            else:
                return base
        raise TooDeepError

    def _exponent(self) -> Node:
        """People write ``x^10`` and ``2^-3`` too."""
        negative = False
        while self._peek() in {"+", "-"}:
            negative ^= self._take() == "-"
        self._enter()
        node = self._factor()
        self._depth -= 1
        return Node("negate", (node,)) if negative else node

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise TooDeepError

    def _argument(self) -> Node:
        r"""Of ``\frac`` and ``\sqrt``: a group, or one digit or letter (``\frac12``)."""
        token = self._peek()
        if token == "{":
            return self._group("{")
        if token.isdecimal():
            if len(token) > 1:
                # The rest of the digits stays to be read.
                head, rest = token[0], token[1:]
                place = self._position
                self._tokens = (*self._tokens[:place], head, rest, *self._tokens[place + 1 :])
            return Node("number", value=Fraction(int(self._take())))
        return self._atom()

    def _group(self, opening: str) -> Node:
        self._take(opening)
        bars, self._bars = self._bars, 0
        node = self._whole()
        self._bars = bars
        self._take(_PAIRS[opening])
        return node

    def _atom(self) -> Node:
        self._enter()
        node = self._read_atom()
        self._depth -= 1
        return node

    def _read_atom(self) -> Node:
        token = self._peek()
        if is_number(token):
            return Node("number", value=read_numeral(self._take()))
        if token in _PAIRS:
            return self._group(token)
        if token == "|":
            return self._absolute()
        if token in _ROUNDING:
            closing, operation = _ROUNDING[token]
            self._take()
            node = self._sum()
            self._take(closing)
            return Node(operation, (node,))
        if token.startswith("\\"):
            return self._command()
        if len(token.lstrip("'")) == 1 and token.lstrip("'").isalpha():
            self._take()
            return self._letter(token.lstrip("'"))
        raise UnsupportedError

    def _absolute(self) -> Node:
        self._take("|")
        self._bars += 1
        node = self._sum()
        self._bars -= 1
        self._take("|")
        return Node("absolute", (node,))

    def _command(self) -> Node:
        token = self._take()
        name = token[1:]
        if token == "\\frac":
            return Node("divide", (self._argument(), self._argument()))
        if token == "\\binom":
            return Node("binomial", (self._argument(), self._argument()))
        if token == "\\sqrt":
            return self._root()
        if name in _FUNCTIONS:
            return self._function(name)
        if name == "pi":
            return Node("pi")
        if name in _GREEK:
            return self._letter(token)
        raise UnsupportedError

    def _root(self) -> Node:
        degree = Node("number", value=Fraction(2))
        if self._peek() == "[":
            degree = self._group("[")
        return Node("root", (self._whole_argument(), degree))

    def _function(self, name: str) -> Node:
        r"""``\sin^2 x``, ``\log_{10} 2``, ``\sin 2x``: the product that follows is its argument."""
        base = power = None
        while self._peek() in {"_", "^"}:
            if self._take() == "_":
                base = self._whole_argument()
            else:
                power = self._exponent()
        argument = self._function_argument()
        node = Node(name, (argument,) if base is None else (argument, base))
        if power is None:
            return node
        if power == Node("negate", (Node("number", value=Fraction(1)),)) and name in _INVERSES:
            return Node(_INVERSES[name], node.arguments)
        return Node("power", (node, power))

    def _whole_argument(self) -> Node:
        r"""As :meth:`_argument`, all digits taken: ``\log_10`` is as good as ``\log_{10}``."""
        if is_number(self._peek()):
            return Node("number", value=read_numeral(self._take()))
        return self._argument()

    def _function_argument(self) -> Node:
        if self._peek() == "(":
            return self._group("(")  # and a power behind it is the function's
        factors = [self._factor()]
        while self._starts_factor() and self._peek()[1:] not in _FUNCTIONS:
            factors.append(self._factor())
        if self._peek() == "/" and factors[-1].operation in {"pi", "variable", "number"}:
            self._take()  # \sin \pi/3
            factors = [Node("divide", (self._join(factors), self._factor()))]
        return self._join(factors)

    @staticmethod
    def _join(factors: list[Node]) -> Node:
        return factors[0] if len(factors) == 1 else Node("multiply", tuple(factors))

    def _letter(self, name: str) -> Node:
        """A constant or a variable with its subscript and primes."""
        if self._peek() == "_":
            self._take()
            name += "_" + self._subscript()
        while self._peek() == "'":
            name += self._take()
        if name == "i":
            return Node("imaginary")
        if name == "e":
            return Node("euler")
        return Node("variable", name=name)

    def _subscript(self) -> str:
        if self._peek() != "{":
            return self._take()
        self._take()
        pieces = []
        while self._peek() not in {"}", "{", ""}:
            pieces.append(self._take().lstrip("'\\"))
        self._take("}")
        return "".join(pieces)


def variables_of(node: Node) -> frozenset[str]:
    """Names of the variables in a tree."""
    if node.operation == "variable":
        return frozenset((node.name,))
    return frozenset().union(*(variables_of(argument) for argument in node.arguments))


def rename(node: Node, old: str, new: str) -> Node:
    """The tree with one variable renamed."""
    if node.operation == "variable":
        return Node("variable", name=new) if node.name == old else node
    arguments = tuple(rename(argument, old, new) for argument in node.arguments)
    return Node(node.operation, arguments, node.value)
