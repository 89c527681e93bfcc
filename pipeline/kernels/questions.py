"""Spelling that equal questions share, compiled for ASCII texts.

Every pass does to bytes what one pattern of :mod:`pipeline.questions` does to text, in the same
order; tests hold both against each other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.kernels.compiling import borrowing

UInt8s = npt.NDArray[np.uint8]
UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

_BASIS = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
_BACKSLASH, _OPEN, _CLOSE, _DOLLAR, _TILDE, _DOT = 92, 123, 125, 36, 126, 46
_QUESTION, _CARET, _LOW_LINE, _SPACE = 63, 94, 95, 32


def _hash_name(name: str) -> np.uint64:
    """FNV-1a, as the kernel computes it of a macro's letters."""
    value = int(_BASIS)
    for byte in name.encode():
        value = ((value ^ byte) * int(_PRIME)) & (2**64 - 1)
    return np.uint64(value)


_SIZES = tuple(map(_hash_name, ("left", "right", "big", "bigl", "bigr", "displaystyle")))
_DOTS = tuple(map(_hash_name, ("dots", "cdots", "ldots")))
_RELATIONS = tuple(map(_hash_name, ("le", "ge", "ne", "leq", "geq", "neq")))
_DROP, _DOTS_FOR, _SHORTEN, _DROP_BEFORE_BRACE = range(4)
"""What is done to a macro: nothing stays of it, dots stand for it, its backslash and first two
letters stay, or nothing stays of it where a brace follows."""
_QUAD = (_hash_name("quad"),)
_TEXTS = tuple(map(_hash_name, ("text", "mathrm", "textrm", "mbox")))


@borrowing
def _is_letter(byte: int) -> bool:
    return 97 <= byte <= 122 or 65 <= byte <= 90


@borrowing
def _is_digit(byte: int) -> bool:
    return 48 <= byte <= 57


@borrowing
def _is_blank(byte: int) -> bool:
    """What splits ASCII text."""
    return byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31


@borrowing
def _is_word(byte: int) -> bool:
    return _is_letter(byte) or _is_digit(byte) or byte == _LOW_LINE


@borrowing
def _read_name(text: UInt8s, start: int, size: int) -> tuple[np.uint64, int]:
    """Hash of the letters from a place, and where they end."""
    value = _BASIS
    while start < size and _is_letter(text[start]):
        value = (value ^ np.uint64(text[start])) * _PRIME
        start += 1
    return value, start


@borrowing
def _is_one_of(name: np.uint64, names: tuple[np.uint64, ...]) -> bool:
    found = False
    for known in names:
        found = found or name == known
    return found


@borrowing
def _copy_until(text: UInt8s, span: tuple[int, int, int], byte: int, other: int) -> int:
    """Move what stands before the next of two bytes to the front; where that byte is.

    Args:
        text: The text.
        span: Where to move to, from where, and where the text ends.
        byte: What to stop at.
        other: The same.
    """
    # Places that cannot be negative: it would be asked of each.
    out, place, end = np.uint64(span[0]), np.uint64(span[1]), np.uint64(span[2])
    while place < end and text[place] != byte and text[place] != other:
        text[out] = text[place]
        out += np.uint64(1)
        place += np.uint64(1)
    return int(np.int64(place))


@borrowing
def _shorten_fractions(text: UInt8s, size: int) -> int:
    r"""``\dfrac`` and ``\tfrac`` are ``\frac``."""
    out, place = 0, 0
    while place < size:
        stop = _copy_until(text, (out, place, size), _BACKSLASH, _BACKSLASH)
        out, place = out + stop - place, stop
        if place == size:
            break
        text[out] = text[place]
        if (
            text[place] == _BACKSLASH
            and place + 5 < size
            and (text[place + 1] == 100 or text[place + 1] == 116)
            and text[place + 2] == 102
            and text[place + 3] == 114
            and text[place + 4] == 97
            and text[place + 5] == 99
        ):
            place += 1
        out += 1
        place += 1
    return out


@borrowing
def _rewrite_named(text: UInt8s, size: int, names: tuple[np.uint64, ...], how: int) -> int:
    """Rewrite macros of these names: see :data:`_DROP` and the others."""
    out, place = 0, 0
    while place < size:
        stop = _copy_until(text, (out, place, size), _BACKSLASH, _BACKSLASH)
        out, place = out + stop - place, stop
        if place == size:
            break
        if text[place] == _BACKSLASH:
            name, stop = _read_name(text, place + 1, size)
            found = _is_one_of(name, names)
            if found and (how != _DROP_BEFORE_BRACE or (stop < size and text[stop] == _OPEN)):
                if how == _DOTS_FOR:
                    text[out] = text[out + 1] = text[out + 2] = _DOT
                    out += 3
                elif how == _SHORTEN:
                    for index in range(3):
                        text[out + index] = text[place + index]
                    out += 3
                place = stop
                continue
        text[out] = text[place]
        out += 1
        place += 1
    return out


@borrowing
def _drop_brackets(text: UInt8s, size: int) -> int:
    r"""Drop ``\(``, ``\)``, ``\[`` and ``\]``."""
    out, place = 0, 0
    while place < size:
        stop = _copy_until(text, (out, place, size), _BACKSLASH, _BACKSLASH)
        out, place = out + stop - place, stop
        if place == size:
            break
        if text[place] == _BACKSLASH and place + 1 < size:
            after = text[place + 1]
            if after == 40 or after == 41 or after == 91 or after == 93:
                place += 2
                continue
        text[out] = text[place]
        out += 1
        place += 1
    return out


@borrowing
def _drop_spaces(text: UInt8s, size: int) -> int:
    r"""Drop ``\,``, ``\;``, ``\:``, ``\!``, a backslash and a blank, and ``\quad``."""
    out, place = 0, 0
    while place < size:
        stop = _copy_until(text, (out, place, size), _BACKSLASH, _BACKSLASH)
        out, place = out + stop - place, stop
        if place == size:
            break
        if text[place] == _BACKSLASH and place + 1 < size:
            after = text[place + 1]
            if after == 44 or after == 59 or after == 58 or after == 33 or after == _SPACE:
                place += 2
                continue
            name, stop = _read_name(text, place + 1, size)
            if name == _QUAD[0]:
                place = stop
                continue
        text[out] = text[place]
        out += 1
        place += 1
    return out


@borrowing
def _drop_byte(text: UInt8s, size: int, byte: int) -> int:
    out = np.uint64(0)
    for place in range(np.uint64(size)):
        text[out] = text[place]
        out += np.uint64(text[place] != byte)
    return int(np.int64(out))


@borrowing
def _open_scripts(text: UInt8s, size: int) -> int:
    """Take one character's braces off after ``_`` and ``^``."""
    out, place = 0, 0
    while place < size:
        stop = _copy_until(text, (out, place, size), _CARET, _LOW_LINE)
        out, place = out + stop - place, stop
        if place == size:
            break
        text[out] = text[place]
        if (
            (text[place] == _CARET or text[place] == _LOW_LINE)
            and place + 3 < size
            and text[place + 1] == _OPEN
            and _is_word(text[place + 2])
            and text[place + 3] == _CLOSE
        ):
            text[out + 1] = text[place + 2]
            out += 2
            place += 4
            continue
        out += 1
        place += 1
    return out


@borrowing
def _open_words(text: UInt8s, size: int) -> int:
    """Take the braces off what is one word."""
    out, place = 0, 0
    while place < size:
        stop = _copy_until(text, (out, place, size), _OPEN, _OPEN)
        out, place = out + stop - place, stop
        if place == size:
            break
        if text[place] == _OPEN:
            stop = place + 1
            while stop < size and _is_word(text[stop]):
                stop += 1
            if stop > place + 1 and stop < size and text[stop] == _CLOSE:
                for index in range(place + 1, stop):
                    text[out] = text[index]
                    out += 1
                place = stop + 1
                continue
        text[out] = text[place]
        out += 1
        place += 1
    return out


@borrowing
def _drop_blanks(text: UInt8s, size: int) -> int:
    """Drop blanks, but a mark stays between two digits; fold case; no dots at the end.

    Every byte is written and then kept or not: where words end cannot be guessed. Places cannot be
    negative, which would be asked of each.
    """
    end, last, was_blank = np.uint64(0), np.uint8(0), False
    for place in range(np.uint64(size)):
        byte = text[place]
        blank = (byte == 32) | ((byte >= 9) & (byte <= 13)) | ((byte >= 28) & (byte <= 31))
        if was_blank & (byte >= 48) & (byte <= 57) & (last >= 48) & (last <= 57):
            text[end] = 0
            end += np.uint64(1)
        text[end] = byte + np.uint8(32 * ((byte >= 65) & (byte <= 90)))
        end += np.uint64(not blank)
        last = last if blank else byte
        was_blank = blank
    out = int(np.int64(end))
    while out > 0 and (text[out - 1] == _DOT or text[out - 1] == _QUESTION):
        out -= 1
    return out


@borrowing
def _first_pass(text: UInt8s, size: int) -> int:
    """Number of the first pass of :func:`_level_macros` that finds something; 6 if none does.

    Passes before it would leave the text as it is; those behind it may find what it makes.
    """
    first = 6
    for here in range(np.uint64(size)):
        if text[here] != _BACKSLASH:
            continue
        place = int(np.int64(here))
        if place + 1 >= size:
            continue
        after = text[place + 1]
        if not _is_letter(after):
            if after == 40 or after == 41 or after == 91 or after == 93:
                first = min(first, 2)
            else:
                first = min(first, 5)
            continue
        if after == 100 or after == 116:
            return 0
        name, _ = _read_name(text, place + 1, size)
        if _is_one_of(name, _SIZES):
            first = min(first, 1)
        elif _is_one_of(name, _DOTS):
            first = min(first, 3)
        elif _is_one_of(name, _RELATIONS):
            first = min(first, 4)
        elif name == _QUAD[0]:
            first = min(first, 5)
    return first


@borrowing
def _level_macros(text: UInt8s, size: int) -> int:
    first = _first_pass(text, size)
    if first <= 0:
        size = _shorten_fractions(text, size)
    if first <= 1:
        size = _rewrite_named(text, size, _SIZES, _DROP)
    if first <= 2:
        size = _drop_brackets(text, size)
    if first <= 3:
        size = _rewrite_named(text, size, _DOTS, _DOTS_FOR)
    if first <= 4:
        size = _rewrite_named(text, size, _RELATIONS, _SHORTEN)
    return _drop_spaces(text, size) if first <= 5 else size


@borrowing
def level_questions(data: UInt8s, spans: Int64s) -> None:
    """Level the spelling of ASCII texts, in place.

    Args:
        data: All texts, one after another.
        spans: Where each begins and ends; the ends are moved to where the levelled texts end.
    """
    for row in range(len(spans)):
        start, end = spans[row, 0], spans[row, 1]
        text, size = data[start:end], int(end - start)
        has_macro, has_tilde, has_dollar, has_brace = False, False, False, False
        for place in range(np.uint64(size)):
            byte = text[place]
            has_macro |= byte == _BACKSLASH
            has_tilde |= byte == _TILDE
            has_dollar |= byte == _DOLLAR
            has_brace |= byte == _OPEN
        if has_macro:
            size = _level_macros(text, size)
        if has_tilde:
            size = _drop_byte(text, size, _TILDE)
        if has_macro:
            size = _rewrite_named(text, size, _TEXTS, _DROP_BEFORE_BRACE)
        if has_dollar:
            size = _drop_byte(text, size, _DOLLAR)
        if has_brace:
            size = _open_scripts(text, size)
            size = _open_words(text, size)
        spans[row, 1] = start + _drop_blanks(text, size)
