r"""Read the text of an answer as tokens, whatever spelling of LaTeX or plain text it uses.

A token is a number, a letter, an operator, a bracket, a LaTeX command (``\frac``) or a word (marked
by a leading apostrophe: ``'cm``). Spacing, size commands and dollar signs of mathematics are gone;
``\dfrac``, ``\cdot``, ``\leqslant``, ``√`` and their like have one spelling.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_CHARS = 2000
"""No benchmark's answer is nearly as long; a model's runaway one is wrong, not slow."""
MAX_DIGITS = 1000
"""Python refuses to convert longer numerals than 4,300 digits."""
WORD = "'"
"""What a word's token begins with."""

Tokens = tuple[str, ...]

_GROUP_SEPARATOR = r"(?:,\\!\s*|\{,\}|\\,|\\;|\\:|(?<=\d)\\ |\u2009|\u202f|(?<=\d) (?=\d{3}(?!\d)))"
_NUMBER = rf"\d{{1,3}}(?:{_GROUP_SEPARATOR}\d{{3}})+(?!\d)(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+"
_TOKEN = re.compile(
    rf"(?P<number>(?:{_NUMBER})(?:[eE][+-]?\d+(?![\d.]))?)|(?P<command>\\[A-Za-z]+\*?|\\[\s\S])"
    r"|(?P<letters>[A-Za-z]+)|(?P<symbol><=|>=|!=|\*\*|\S)"
)
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_NOT_DIGITS = re.compile(r"[^\d.eE+-]")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))")
_SILENT_DELIMITER = re.compile(r"\\(?:left|right)\s*\.(?!\d)")


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


_DROPPED = word_set(
    r"""\left \right \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr \biggl \biggr \Biggl \Biggr
    \displaystyle \textstyle \scriptstyle \limits \nolimits \, \! \; \: \> \quad \qquad $ ~ \( \) \[
    \] \rm \bf \it \mathstrut \strut \hfill \nonumber \middle"""
) | {"\\ ", "\\\n", "\\\t"}
_SPELLINGS = {
    **dict.fromkeys(("\\dfrac", "\\tfrac", "\\cfrac"), "\\frac"),
    **dict.fromkeys(("\\dbinom", "\\tbinom"), "\\binom"),
    **dict.fromkeys(("\\cdot", "\\times", "\\ast", "×", "·", "⋅", "∗", "∙", "•"), "*"),
    **dict.fromkeys(("\\div", "÷"), "/"),
    **dict.fromkeys(("\\le", "\\leq", "\\leqslant", "\\leqq", "≤", "⩽"), "<="),
    **dict.fromkeys(("\\ge", "\\geq", "\\geqslant", "\\geqq", "≥", "⩾"), ">="),
    **dict.fromkeys(("\\ne", "\\neq", "≠"), "!="),
    **dict.fromkeys(("\\equal", "\\equiv"), "="),
    **dict.fromkeys(("−", "–", "—"), "-"),
    **dict.fromkeys(("\\lbrace",), "\\{"),
    **dict.fromkeys(("\\rbrace",), "\\}"),
    **dict.fromkeys(("\\vert", "\\lvert", "\\rvert"), "|"),
    **dict.fromkeys(("\\infin", "∞", "'infinity", "'infty", "'inf"), "\\infty"),
    **dict.fromkeys(("\\approx", "\\simeq", "\\thickapprox", "\\sim", "≈", "≃"), "\\approx"),
    **dict.fromkeys(("\\or", "\\lor", "\\vee", "∨"), "'or"),
    **dict.fromkeys(("\\land", "\\wedge", "∧"), "'and"),
    **dict.fromkeys(("\\degree", "\\degrees", "°", "º", "∘"), "\\degree"),
    **dict.fromkeys(("\\%", "%", "％"), "%"),
    **dict.fromkeys(("\\varnothing", "\\emptyset", "∅"), "\\emptyset"),
    **dict.fromkeys(("\\bmatrix", "\\pmatrix"), "\\pmatrix"),
    "\\lt": "<",
    "\\gt": ">",
    "\\lbrack": "[",
    "\\rbrack": "]",
    "\\colon": ":",
    "**": "^",
    "∪": "\\cup",
    "∩": "\\cap",
    "∈": "\\in",
    "±": "\\pm",
    "∓": "\\mp",
    "π": "\\pi",
    "'pi": "\\pi",
    "θ": "\\theta",
    "√": "\\sqrt",
    "∠": "\\angle",
    "ℝ": "\\R",
    "′": "'",
    "\\prime": "'",
    "（": "(",
    "）": ")",
    "，": ",",
    "；": ";",
    "：": ":",
    "⌊": "\\lfloor",
    "⌋": "\\rfloor",
    "⌈": "\\lceil",
    "⌉": "\\rceil",
    "⟨": "\\langle",
    "⟩": "\\rangle",
    "\\varphi": "\\phi",
    "\\varepsilon": "\\epsilon",
    "\\mathchoice": "",
    "\\underline": "",
    "\\bold": "",
    "\\boldsymbol": "",
    "\\mathit": "",
    "\\mathbf": "",
    "\\vec": "",
    "\\displaylimits": "",
}
_TEXT_COMMANDS = word_set(
    r"""\text \textbf \textit \textrm \textsf \texttt \textnormal \mbox \hbox \mathrm \mathsf
    \emph \operatorname \operatorname* \mathtt"""
)
FUNCTIONS = word_set(
    """sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp sqrt"""
)
_WORDS = word_set(
    """and or if is no all not the for in of pi cm mm km kg mg ml sq ft lb oz hr min sec deg mph
    inf mod gcd lcm max frac cents cent day days per one two the"""
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUBSCRIPT = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_REPEATING = re.compile(
    r"(\d{0,50})\.(\d{0,50})\s*\\(?:overline|bar|dot|overset\{\.\})\s*\{(\d{1,50})\}"
)
_VULGAR = {"½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4)}


def tokenise(text: str, *, grouped: bool = True) -> Tokens:
    """Tokens of an answer of at most :data:`MAX_CHARS` characters; none of a longer one.

    Args:
        text: As found within a box, or in a benchmark's file.
        grouped: Whether ``1,234`` is one number rather than two.
    """
    # Before the cache, which would keep a huge text.
    return _tokenise(text, grouped) if len(text) <= MAX_CHARS else ()


@lru_cache(maxsize=1024)
def _tokenise(text: str, grouped: bool) -> Tokens:
    text = _DEGREES.sub(r"\\degree ", text)
    text = _SUPERSCRIPT.sub(lambda found: f"^{{{found[0].translate(_SUPERSCRIPTS)}}}", text)
    for character, (above, below) in _VULGAR.items():
        if character in text:
            text = text.replace(character, f"\\frac{{{above}}}{{{below}}}")
    text = _SUBSCRIPT.sub(lambda found: f"_{{{found[0].translate(_SUBSCRIPTS)}}}", text)
    text = _REPEATING.sub(_write_repeating, text)
    text = _SILENT_DELIMITER.sub("", text)
    if grouped:
        text = _join_groups(text)
    return tuple(_Reader(text).read(in_text=False, until=None))


def _write_repeating(found: re.Match[str]) -> str:
    r"""``0.1\overline{6}`` as the fraction that it is."""
    whole, fixed, tail = found.groups()
    below = (10 ** len(tail) - 1) * 10 ** len(fixed)
    above = int((whole or "0") + fixed) * (10 ** len(tail) - 1) + int(tail)
    return f"\\frac{{{above}}}{{{below}}}"


def has_grouped_digits(text: str) -> bool:
    """Whether ``1,234`` occurs, which may be one number or two."""
    return len(text) <= MAX_CHARS and _GROUPED.search(text) is not None


def _join_groups(text: str) -> str:
    """Remove the commas within numbers, except between brackets: ``(312,123)`` is a pair."""
    depth, pieces, end = 0, [], 0
    for found in _GROUPED.finditer(text):
        between = text[end : found.start()]
        depth += sum(map(between.count, "([")) - sum(map(between.count, ")]"))
        pieces += [between, found[0] if depth > 0 else found[0].replace(",", "")]
        end = found.end()
    return "".join(pieces) + text[end:]


class _Reader:
    """One pass over a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._depth = 0

    def read(self, *, in_text: bool, until: str | None) -> list[str]:
        r"""Tokens up to the brace that closes a ``\text{``, or to the end."""
        tokens: list[str] = []
        open_braces = 0
        while found := _TOKEN.search(self._text, self._position):
            self._position = found.end()
            piece = found[0]
            if piece == until and not open_braces:
                break
            open_braces += (piece == "{") - (piece == "}")
            if found["command"] and piece in _TEXT_COMMANDS and self._enter_braces():
                tokens += self.read(in_text=True, until="}")
                self._depth -= 1
            else:
                tokens += self._convert(found, in_text)
        return tokens

    def _enter_braces(self) -> bool:
        """Whether a braced text follows; nested ones are read to a small depth only."""
        following = self._text[self._position :].lstrip()[:1]
        if following != "{" or self._depth > 20:
            return False
        self._depth += 1
        self._position = self._text.index("{", self._position) + 1
        return True

    def _convert(self, found: re.Match[str], in_text: bool) -> list[str]:
        piece = found[0]
        if found["number"]:
            return [_clean_number(piece)]
        if found["letters"]:
            return [_SPELLINGS.get(token, token) for token in _read_letters(piece, in_text)]
        if piece in _DROPPED:
            return []
        piece = _SPELLINGS.get(piece, piece)
        return [piece] if piece else []


def _clean_number(piece: str) -> str:
    digits = _NOT_DIGITS.sub("", piece)
    return digits[:-1] if digits.endswith(".") else digits


def _read_letters(piece: str, in_text: bool) -> list[str]:
    """Letters outside text are symbols unless they spell a known or an evident word."""
    lower = piece.lower()
    if not in_text and piece in FUNCTIONS:
        return ["\\" + piece]
    if in_text and lower in FUNCTIONS and lower != "sec":
        return ["\\" + lower]
    is_word = len(piece) >= 4 and any(vowel in lower for vowel in "aeiou")
    if in_text or is_word or (len(piece) > 1 and lower in _WORDS):
        return [WORD + piece]
    return list(piece)


def is_word(token: str) -> bool:
    """Whether a token is a word, not mathematics."""
    return len(token) > 1 and token.startswith(WORD)


def spell(tokens: Tokens) -> str:
    """The tokens as text that LaTeX reads the same way."""
    return " ".join(rf"\text{{{token[1:]}}}" if is_word(token) else token for token in tokens)


def join_text(tokens: Tokens) -> str:
    """The tokens without spaces and word marks, in lower case: how words are compared."""
    return "".join(token[1:] if is_word(token) else token for token in tokens).casefold()


def is_number(token: str) -> bool:
    """Whether a token is an unsigned numeral."""
    return token[:1].isdecimal() or (token[:1] == "." and len(token) > 1)
