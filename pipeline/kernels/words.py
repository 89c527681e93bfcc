"""Hashes of the words of levelled texts, as :func:`pipeline.matching.tokenize` splits them.

The text comes as code points, cut, normalised and lower-cased. One pass does what the patterns of
:mod:`pipeline.matching` do one after another; that this is the same is argued where it is not
obvious, and tested on random texts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.kernels.compiling import borrowing

UInt8s = npt.NDArray[np.uint8]
UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

OTHER, LETTER, DIGIT, SPACE, OPERATOR, MACRO, SYMBOL = range(7)
"""Classes of characters; a symbol's meaning follows from its code point."""

WORD, NUMBER, SIGN = range(3)
"""Kinds of words."""

DROP, LESS_EQUAL, GREATER_EQUAL, UNEQUAL, TIMES, DIVIDED, DOTS, DEGREES, UNKNOWN = range(9)
"""What macros and symbols stand for."""

_BASIS = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
_BACKSLASH, _DOT, _COMMA, _CARET, _EQUALS = 92, 46, 44, 94, 61
_OPEN, _CLOSE, _LESS, _GREATER, _EXCLAMATION = 123, 125, 60, 62, 33
_COLON, _SEMICOLON, _BLANK, _MINUS = 58, 59, 32, 45


@borrowing
def mix(value: np.uint64) -> np.uint64:
    """The finaliser of splitmix64: every bit of the input reaches every bit of the output."""
    value += np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@borrowing
def hash_chars(chars: UInt32s, start: int, end: int) -> np.uint64:
    """Hash of one word: FNV-1a over its code points, then mixed."""
    value = _BASIS
    for index in range(start, end):
        value = (value ^ np.uint64(chars[index])) * _PRIME
    return mix(value)


@borrowing
def hash_each(chars: UInt32s, starts: Int64s, hashes: UInt64s) -> None:
    """Hash of every piece of a text, one piece after another."""
    for index in range(len(hashes)):
        hashes[index] = hash_chars(chars, starts[index], starts[index + 1])


@borrowing
def _end_of_run(chars: UInt32s, start: int, end: int) -> int:
    """Where the letters a to z that begin here end."""
    while start < end and 97 <= chars[start] <= 122:
        start += 1
    return start


@borrowing
def _meaning(value: np.uint64, names: UInt64s, meanings: UInt8s) -> int:
    """What the macro of this hash stands for."""
    low, high = 0, len(names)
    while low < high:
        middle = (low + high) >> 1
        if names[middle] < value:
            low = middle + 1
        else:
            high = middle
    return int(meanings[low]) if low < len(names) and names[low] == value else UNKNOWN


@borrowing
def _is_degree_raised(
    chars: UInt32s, place: int, end: int, classes: UInt8s, macros: tuple[UInt64s, UInt8s]
) -> bool:
    """Whether a degree sign follows a caret, which then belongs to it.

    Dots are levelled to blanks before degrees are looked for, hence they may stand between.
    """
    while place < end:
        if classes[chars[place]] == SPACE:
            place += 1
        elif place + 2 < end and chars[place] == chars[place + 1] == chars[place + 2] == _DOT:
            place += 3
        elif chars[place] == _BACKSLASH:
            stop = _end_of_run(chars, place + 1, end)
            meaning = _meaning(hash_chars(chars, place + 1, stop), macros[0], macros[1])
            if meaning != DOTS:
                break
            place = stop
        else:
            break
    if place < end and chars[place] == _OPEN:
        place += 1
    if place >= end or chars[place] != _BACKSLASH:
        return False
    stop = _end_of_run(chars, place + 1, end)
    return _meaning(hash_chars(chars, place + 1, stop), macros[0], macros[1]) == DEGREES


@borrowing
def _count_digits(chars: UInt32s, start: int, end: int, classes: UInt8s) -> int:
    """Digits that begin here; more than three are all the same."""
    count = 0
    while count < 4 and start + count < end and classes[chars[start + count]] == DIGIT:
        count += 1
    return count


@borrowing
def _separator_length(chars: UInt32s, place: int, end: int, classes: UInt8s) -> int:
    r"""Characters of a thousands separator after a digit: ``,``, ``\\,`` or ``{,}``."""
    char = chars[place]
    if char == _COMMA:
        return 1 if _count_digits(chars, place + 1, end, classes) == 3 else 0
    if char == _BACKSLASH and place + 1 < end and chars[place + 1] == _COMMA:
        return 2 if _count_digits(chars, place + 2, end, classes) == 3 else 0
    if char == _OPEN and place + 2 < end and chars[place + 1] == _COMMA:
        is_closed = chars[place + 2] == _CLOSE
        return 3 if is_closed and _count_digits(chars, place + 3, end, classes) >= 3 else 0
    return 0


@borrowing
def _hash_number(chars: UInt32s, place: int, end: int, classes: UInt8s) -> tuple[np.uint64, int]:
    """Hash of a number without its separators, and where it ends."""
    value, has_point = _BASIS, False
    while place < end:
        char = chars[place]
        if classes[char] == DIGIT:
            value = (value ^ np.uint64(char)) * _PRIME
            place += 1
            continue
        length = _separator_length(chars, place, end, classes)
        if length:
            place += length
        elif (
            char == _DOT
            and not has_point
            and place + 1 < end
            and classes[chars[place + 1]] == DIGIT
        ):
            # Not one of three dots, because a digit follows.
            has_point = True
            value = (value ^ np.uint64(char)) * _PRIME
            place += 1
        else:
            break
    return mix(value), place


@borrowing
def _read_macro(
    chars: UInt32s, place: int, end: int, macros: tuple[UInt64s, UInt8s]
) -> tuple[int, int]:
    """What a backslash and what follows stand for, and where that ends."""
    stop = _end_of_run(chars, place + 1, end)
    if stop > place + 1:
        meaning = _meaning(hash_chars(chars, place + 1, stop), macros[0], macros[1])
        return (meaning, stop) if meaning != UNKNOWN else (DROP, place + 1)
    if stop < end:
        char = chars[stop]
        is_space = char in (_COMMA, _SEMICOLON, _COLON, _EXCLAMATION, _BLANK)
        # Only the exclamation mark would be a word of its own.
        if is_space and _end_of_run(chars, stop + 1, end) == stop + 1:
            return DROP, stop + 1
    return DROP, place + 1


@borrowing
def _symbol_meaning(char: int) -> int:
    """What a symbol outside ASCII stands for."""
    if char == 0x2264:
        return LESS_EQUAL
    if char == 0x2265:
        return GREATER_EQUAL
    if char == 0x2260:
        return UNEQUAL
    if char == 0xD7 or char == 0xB7:
        return TIMES
    if char == 0xF7:
        return DIVIDED
    return DEGREES


@borrowing
def _hash_operator(chars: UInt32s, place: int, end: int) -> tuple[np.uint64, int]:
    """Hash of an operator of one or two characters, and where it ends."""
    char = chars[place]
    if (
        (char in (_LESS, _GREATER, _EXCLAMATION))
        and place + 1 < end
        and chars[place + 1] == _EQUALS
    ):
        return hash_chars(chars, place, place + 2), place + 2
    if char == 0x2212 or char == 0x2013:
        return mix((_BASIS ^ np.uint64(_MINUS)) * _PRIME), place + 1
    return hash_chars(chars, place, place + 1), place + 1


@borrowing
def _next_word(
    chars: UInt32s,
    place: int,
    end: int,
    classes: UInt8s,
    macros: tuple[UInt64s, UInt8s],
) -> tuple[int, int, np.uint64]:
    """Where a number, operator, macro or symbol ends; its kind, -1 or -2 - meaning; its hash."""
    kind = classes[chars[place]]
    if kind == DIGIT:
        value, place = _hash_number(chars, place, end, classes)
        return place, NUMBER, value
    if kind == OPERATOR:
        if chars[place] == _CARET and _is_degree_raised(chars, place + 1, end, classes, macros):
            return place + 1, -1, np.uint64(0)
        value, place = _hash_operator(chars, place, end)
        return place, SIGN, value
    if kind == MACRO:
        meaning, place = _read_macro(chars, place, end, macros)
        if meaning != DROP and meaning != DOTS:
            return place, -2 - meaning, np.uint64(0)
        return place, -1, np.uint64(0)
    return place + 1, -2 - _symbol_meaning(chars[place]), np.uint64(0)


@borrowing
def hash_words(
    texts: tuple[UInt32s, Int64s],
    tables: tuple[UInt8s, UInt64s, UInt8s, UInt64s],
    hashes: UInt64s,
    kinds: UInt8s,
    offsets: Int64s,
) -> int:
    """Write the hashes and kinds of all words of all texts, and where each text's begin.

    Args:
        texts: Code points of all texts, and where each text begins.
        tables: Classes of characters; hashes of macros, sorted; what they stand for; hashes of
            the words for what macros and symbols stand for.
        hashes: Room for as many words as there are characters.
        kinds: As many.
        offsets: One more than there are texts.
    """
    chars, starts = texts
    classes, macros, meanings = tables[0], (tables[1], tables[2]), tables[3]
    count = 0
    for text in range(len(starts) - 1):
        place, end = starts[text], starts[text + 1]
        offsets[text] = count
        while place < end:
            # Letters and what stands between words are nearly all there is.
            group = classes[chars[place]]
            if group in (OTHER, SPACE):
                place += 1
                continue
            if group == LETTER:
                value = _BASIS
                while place < end and classes[chars[place]] == LETTER:
                    value = (value ^ np.uint64(chars[place])) * _PRIME
                    place += 1
                hashes[count] = mix(value)
                kinds[count] = WORD
                count += 1
                continue
            place, kind, value = _next_word(chars, place, end, classes, macros)
            if kind == -1:
                continue
            if kind <= -2:
                meaning = -2 - kind
                value = meanings[meaning]
                kind = WORD if meaning == DEGREES else SIGN
            hashes[count] = value
            kinds[count] = kind
            count += 1
    offsets[len(starts) - 1] = count
    return count
