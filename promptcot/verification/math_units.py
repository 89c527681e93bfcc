r"""Units around a number: ``\$5``, ``30^\circ``, ``5.4 \text{ cents}``, ``12 cm^2``, ``8\%``.

A unit is canonical (``square inches`` is ``in^2``), so that two spellings of one unit are equal
and ``5 \text{ km}`` is told from ``5 \text{ m}``. Words that qualify instead of measuring (``at
least``, ``if``) are no unit. The base of a numeral (``52_8``) is read here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from promptcot.verification.math_text import Tokens, is_number, is_word, tokenise, word_set

PERCENT = "%"
DEGREE = "deg"
_NAMES = {
    "deg": "deg degree degrees",
    "%": "percent percents percentage pct percentages",
    "$": "dollar dollars usd buck bucks",
    "cent": "cent cents penny pennies",
    "euro": "euro euros eur",
    "rupee": "rupee rupees rs inr",
    "pound": "pound pounds lb lbs",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "m": "m meter meters metre metres",
    "km": "km kilometer kilometers kilometre kilometres",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "yd": "yd yard yards",
    "mi": "mi mile miles",
    "mg": "mg milligram milligrams",
    "g": "g gram grams gramme grammes",
    "kg": "kg kilogram kilograms",
    "oz": "oz ounce ounces",
    "l": "l liter liters litre litres",
    "ml": "ml milliliter milliliters millilitre millilitres",
    "s": "s sec second seconds secs",
    "min": "min minute minutes mins",
    "h": "h hr hour hours hrs",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years yr yrs",
    "rad": "rad radian radians",
    "unit": "unit units",
    "mi/h": "mph",
    "km/h": "kmh kph",
}
_CANONICAL = {name: unit for unit, names in _NAMES.items() for name in names.split()}
_LENGTHS = word_set("mm cm m km in inch ft yd mi unit units")
_POWERS = {"square": "2", "sq": "2", "squared": "2", "cubic": "3", "cu": "3", "cubed": "3"}
_QUALIFIERS = word_set(
    """and or if not no when where more less least most than is are undefined impossible none
    only for all every integer integers positive negative even odd does exist mod
    approximately about except some any otherwise unless with without but base"""
)
_MULTIPLES = {
    "dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9,
    "trillion": 10**12,
}  # fmt: skip
_MAX_MULTIPLIED_DIGITS = 15
_MAX_UNIT_TOKENS = 16
_MAX_UNIT_WORDS = 6
_SYMBOLS = {"\\$": "$", "€": "euro", "£": "gbp", "¥": "yen", "₹": "rupee", "\\pounds": "gbp"}
_BASE_WORDS = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "sixteen": "16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """A value without its unit."""

    tokens: Tokens
    unit: str = ""
    """Canonical; empty without one."""
    base: str = ""
    """Of the numeral: ``8`` in ``52_8``."""


def read_measured(tokens: Tokens) -> Measured:
    """Separate a value from the unit, or the base, that is written with it."""
    tokens = _multiply_out(tokens)
    unit = ""
    if tokens[:1] and tokens[0] in _SYMBOLS:
        tokens, unit = tokens[1:], _SYMBOLS[tokens[0]]
    elif len(tokens) > 1 and tokens[0] in {"-", "+"} and tokens[1] in _SYMBOLS:
        tokens, unit = (tokens[0], *tokens[2:]), _SYMBOLS[tokens[1]]
    rest, found = _strip_trailing(tokens)
    if found and not (unit and found != unit and found not in _CURRENCY_NAMES):
        tokens, unit = rest, unit or found
    based = _read_base(tokens)
    return Measured(based[0], unit, based[1]) if based else Measured(tokens, unit)


def _multiply_out(tokens: Tokens) -> Tokens:
    r"""``2.5 \text{ million}`` as ``2500000``: such words count and do not measure."""
    place = next((n for n, token in enumerate(tokens) if _multiple_of(token)), 0)
    number = tokens[place - 1] if place else ""
    is_plain = number.replace(".", "", 1).isdecimal() and len(number) <= _MAX_MULTIPLIED_DIGITS
    if not is_plain or (place > 1 and tokens[place - 2] not in {"-", "+", *_SYMBOLS}):
        return tokens
    value = Decimal(number) * _multiple_of(tokens[place])
    whole, _, rest = f"{value:f}".partition(".")
    shown = f"{whole}.{rest.rstrip('0')}".removesuffix(".")
    return _multiply_out((*tokens[: place - 1], shown, *tokens[place + 1 :]))


def _multiple_of(token: str) -> int:
    """What a word multiplies a number by; 0 where it does not."""
    word = token[1:].lower() if is_word(token) else ""
    return _MULTIPLES.get(word) or _MULTIPLES.get(word.removesuffix("s"), 0)


_CURRENCY_NAMES = frozenset(("$", "euro", "gbp", "yen", "rupee", "cent"))


def read_unit(text: str) -> str:
    """The canonical unit in a benchmark's ``unit`` field; empty without one."""
    return canonical_unit(tokenise(text)) or "" if text.strip() else ""


def _strip_trailing(tokens: Tokens) -> tuple[Tokens, str]:
    """The tokens before a unit at the end, and the unit; none where nothing measures."""
    start = _unit_start(tokens)
    if start is None or start == 0 or (tokens[-1] == "\\degree" and _has_angle(tokens)):
        return tokens, ""
    unit = canonical_unit(tokens[start:])
    if not unit or not any(is_number(token) or _is_letter(token) for token in tokens[:start]):
        return tokens, ""
    return tokens[:start], unit


def _unit_start(tokens: Tokens) -> int | None:
    """Where a run of unit tokens that reaches the end begins; its first is a word or a sign."""
    start = None
    for position in range(len(tokens) - 1, max(-1, len(tokens) - 1 - _MAX_UNIT_TOKENS), -1):
        token = tokens[position]
        is_letter = token in {"'i", "'e"}  # upright constants
        if (is_word(token) and not is_letter) or token in {"%", "\\degree", "\\$"}:
            start = position
        elif token not in _WITHIN_UNIT:
            break
    if start and tokens[start - 1] == "(":
        start -= 1  # 5 (metres)
    return start if start is not None and _is_balanced(tokens[start:]) else None


def _has_angle(tokens: Tokens) -> bool:
    r"""Whether degrees belong to a function's argument: ``\sin 60^\circ``."""
    return not _ANGLE_FUNCTIONS.isdisjoint(tokens)


_ANGLE_FUNCTIONS = frozenset(("\\sin", "\\cos", "\\tan", "\\cot", "\\sec", "\\csc"))


def _is_balanced(tokens: Tokens) -> bool:
    depth = 0
    for token in tokens:
        depth += (token in {"(", "{"}) - (token in {")", "}"})
        if depth < 0:
            return False
    return depth == 0


_WITHIN_UNIT = frozenset(("^", "2", "3", "{", "}", "/", "*", "-", "1", "(", ")", ".", "\\%"))


def canonical_unit(tokens: Tokens) -> str | None:
    r"""``square inches`` and ``\text{in}^2`` as ``in^2``; none where the tokens are no unit."""
    return _canonical_unit(tokens)


@lru_cache(maxsize=1024)
def _canonical_unit(tokens: Tokens) -> str | None:
    if _counts_again(tokens):
        return None
    pieces: list[str] = []
    power, words = "", 0
    for token in tokens:
        if token == "%":
            pieces.append("%")
        elif token == "\\degree":
            pieces.append("deg")
        elif token in _SYMBOLS:
            pieces.append(_SYMBOLS[token])
        elif is_word(token) or _is_letter(token):
            word = token.lstrip("'").lower()
            words += 1
            if word in _QUALIFIERS or words > _MAX_UNIT_WORDS or _multiple_of(token):
                return None
            if word in _POWERS:
                power = _POWERS[word]
                pieces += [f"^{power}"] if word.endswith("ed") else []
                continue
            pieces.append(_name_unit(word))
            if power and not word.endswith("ed"):
                pieces.append(f"^{power}")
                power = ""
        elif token in {"^", "/", "-"} or is_number(token):
            pieces.append(token)
    text = "".join(pieces).replace("per", "/") if "per" in pieces else "".join(pieces)
    return text or None


def _counts_again(tokens: Tokens) -> bool:
    """Whether a number behind a word is another one: ``2 hours 1 minute``, not ``cm2``."""
    for before, token, after in zip(tokens, tokens[1:], (*tokens[2:], ""), strict=False):
        if is_number(token) and is_word(before):
            is_power = before[1:].lower() in _LENGTHS and not is_word(after)
            if not is_power:
                return True
    return False


def _name_unit(word: str) -> str:
    if word in _CANONICAL:
        return _CANONICAL[word]
    return word[:-1] if len(word) > 3 and word.endswith("s") else word


def _is_letter(token: str) -> bool:
    return len(token) == 1 and token.isalpha()


def _read_base(tokens: Tokens) -> tuple[Tokens, str] | None:
    r"""Numeral and base of ``52_8``, ``(52)_{8}``, ``52_{\text{eight}}``."""
    if "_" not in tokens:
        return None
    place = tokens.index("_")
    sign = tokens[:1] if tokens[0] == "-" else ()
    head = tuple(token.removeprefix("'") for token in tokens[len(sign) : place])
    tail = tuple(token for token in tokens[place + 1 :] if token not in {"{", "}"})
    if head[:1] == ("(",) and head[-1:] == (")",):
        head = head[1:-1]
    tail = tuple(token.lstrip("'").lower() for token in tail)
    if tail[:1] == ("base",):
        tail = tail[1:]
    if len(tail) != 1 or not head or not all(token.isalnum() for token in head):
        return None
    base = _BASE_WORDS.get(tail[0], tail[0])
    if not base.isdecimal() or (not is_number(head[0]) and len(head) < 2):
        return None
    return (*sign, *head), str(int(base)) if len(base) < 4 else base
