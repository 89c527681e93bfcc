"""What the rules of :mod:`curriculum.quick_looks` count in many texts at once, compiled."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.kernels.compiling import borrowing, compiled

UInt8s = npt.NDArray[np.uint8]
UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

_BASIS = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)
_SLOTS = 1024


@borrowing
def _is_blank(byte: int) -> bool:
    """What ``str.split`` splits ASCII text at."""
    return byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31


@borrowing
def has_blank_ends(data: UInt8s) -> bool:
    """Whether a blank or a tab stands before a line's end; without a branch, so many at a time."""
    found = False
    for place in range(1, len(data)):
        before = data[place - 1]
        found |= (data[place] == 10) & ((before == 32) | (before == 9))
    return found


@borrowing
def _slot(value: np.uint64, size: int) -> np.int64:
    """Where a hash is looked for first: FNV mixes its low bits least."""
    return np.int64((value ^ (value >> np.uint64(32))) & np.uint64(size - 1))


@borrowing
def hash_word(text: UInt8s) -> np.uint64:
    """Hash of a word, lower-cased."""
    value = _BASIS
    for byte in text:
        value = (value ^ np.uint64(byte + 32 if 65 <= byte <= 90 else byte)) * _PRIME
    return value


@borrowing
def fill_words(table: UInt64s, words: UInt64s) -> None:
    """Put hashes into a table that is at least twice as large; 0 is a free slot."""
    for word in words:
        slot = _slot(word, len(table))
        while table[slot] != np.uint64(0) and table[slot] != word:
            slot = np.int64((slot + 1) % len(table))
        table[slot] = word


@compiled
def count_tail_words(data: UInt8s, spans: Int64s, most: int, counts: Int64s) -> None:
    """Words at the end of every ASCII text, and how many of them differ.

    Args:
        data: All texts.
        spans: Where each begins and ends.
        most: Words that are counted, fewer than half of :data:`_SLOTS`.
        counts: Written: (words, different words) of each.
    """
    seen, stamps = np.zeros(_SLOTS, np.uint64), np.zeros(_SLOTS, np.int64)
    for row in range(len(spans)):
        start, place = spans[row, 0], spans[row, 1]
        num, distinct = 0, 0
        while num < most and place > start:
            while place > start and _is_blank(data[place - 1]):
                place -= 1
            if place == start:
                break
            value = _BASIS
            while place > start and not _is_blank(data[place - 1]):
                place -= 1
                value = (value ^ np.uint64(data[place])) * _PRIME
            num += 1
            slot = _slot(value, _SLOTS)
            while stamps[slot] == row + 1 and seen[slot] != value:
                slot = np.int64((slot + 1) % _SLOTS)
            if stamps[slot] != row + 1:
                stamps[slot], seen[slot] = row + 1, value
                distinct += 1
        counts[row, 0], counts[row, 1] = num, distinct


@compiled
def count_known_words(
    data: UInt8s, spans: Int64s, table: UInt64s, enough: int, counts: Int64s
) -> None:
    """Different words of every text that a table of at most 64 words holds, up to so many."""
    found = np.zeros(len(table), np.int64)
    for row in range(len(spans)):
        place, end, num = spans[row, 0], spans[row, 1], 0
        while place < end and num < enough:
            if _is_blank(data[place]):
                place += 1
                continue
            value = _BASIS
            while place < end and not _is_blank(data[place]):
                byte = data[place]
                value = (value ^ np.uint64(byte + 32 if 65 <= byte <= 90 else byte)) * _PRIME
                place += 1
            slot = _slot(value, len(table))
            while table[slot] != np.uint64(0):
                if table[slot] == value:
                    num += found[slot] != row + 1
                    found[slot] = row + 1
                    break
                slot = np.int64((slot + 1) % len(table))
        counts[row] = num


@borrowing
def find_foreign(data: UInt8s, spans: Int64s, flags: UInt8s) -> None:
    """Flag every text that may hold a letter of another script than Latin and Greek.

    Looks at the leading bytes of UTF-8: 2 bytes from U+0400 on, 3 bytes but for U+2000 to U+2BFF
    and U+3000 to U+303F, 4 bytes but for mathematical alphabets and pictures.
    """
    for row in range(len(spans)):
        flags[row] = 0
        for place in range(spans[row, 0], spans[row, 1]):
            lead = data[place]
            if lead < 0xD0:
                continue
            if lead == 0xE2 and data[place + 1] < 0xB0:
                continue
            if lead == 0xE3 and data[place + 1] == 0x80:
                continue
            if lead == 0xF0 and (data[place + 1] == 0x9D or data[place + 1] == 0x9F):
                continue
            flags[row] = 1
            break


_BLOCK = 64
_OPENING = np.frombuffer(b"<think>", np.uint8)
_CLOSING = np.frombuffer(b"</think>", np.uint8)
_FENCE = np.frombuffer(b"```", np.uint8)


@borrowing
def _begins(data: UInt8s, place: int, end: int, word: UInt8s) -> bool:
    """Whether a word stands at a place."""
    if place + len(word) > end:
        return False
    same = True
    for index in range(len(word)):
        same &= data[place + index] == word[index]
    return same


@borrowing
def _is_harmless(data: UInt8s, place: int) -> bool:
    """Whether the character that begins here is no blank, invisible or changed by NFC.

    Knows punctuation, Latin-1, Greek, arrows, mathematical signs and boxes; any other may be
    harmless too, and is looked at elsewhere.
    """
    lead, second, third = int(data[place]), int(data[place + 1]), int(data[place + 2])
    if lead == 0xC2:
        return 0xA1 <= second != 0xAD
    if lead == 0xC3 or lead == 0xCF:
        return True
    if lead == 0xCE:
        return second >= 0x91
    if lead != 0xE2:
        return False
    if second == 0x80:
        return 0x90 <= third <= 0xA7 or 0xB0 <= third <= 0xBE
    if second == 0x81:
        return third >= 0xB0
    if second == 0x84:
        return third != 0xA6 and third != 0xAA and third != 0xAB
    return second == 0x82 or 0x85 <= second <= 0x8B or 0x94 <= second <= 0x97


@borrowing
def _look_at_block(data: UInt8s, place: np.uint64) -> tuple[bool, bool]:
    """Whether a block holds anything that is looked for, and a blank before a line's end.

    Without a branch and with places that cannot be negative, so many bytes at a time: four times
    as fast. The byte in front may be of another text.
    """
    found, blank_end = np.uint8(0), np.uint8(0)
    for step in range(_BLOCK):
        index = place + np.uint64(step)
        byte, before = data[index], data[index - np.uint64(1)]
        found |= np.uint8((byte == 60) | (byte == 96) | (byte == 13) | (byte == 0) | (byte >= 128))
        blank = (before == 32) | ((before >= 9) & (before != 10) & (before <= 13))
        blank_end |= np.uint8((byte == 10) & (blank | ((before >= 28) & (before <= 31))))
    return found != 0, blank_end != 0


@borrowing
def _split(
    data: UInt8s, spans: Int64s, row: int, tags: tuple[int, int, int], found: Int64s
) -> None:
    """Where reasoning and answer of a plain text with its tags in order begin and end.

    Args:
        data: All texts.
        spans: Where each begins and ends.
        row: This one.
        tags: Places of the opening and of the closing tag, and how many bytes between begin no
            character.
        found: Written from place 7 on: whether it could be split (not if a text stands before the
            tag, or if a tag may stand around the answer), the places of both in ``data``, and the
            reasoning's characters.
    """
    opening, closing, tails = tags
    start, last = spans[row, 0], spans[row, 1]
    if opening >= 0:
        for place in range(start, opening):
            if not _is_blank(data[place]):
                return
        start = opening + len(_OPENING)
    begin, end = start, closing
    while begin < end and _is_blank(data[begin]):
        begin += 1
    while begin < end and _is_blank(data[end - 1]):
        end -= 1
    after = closing + len(_CLOSING)
    answer = after
    while answer < last and _is_blank(data[answer]):
        answer += 1
    while answer < last and _is_blank(data[last - 1]):
        last -= 1
    if answer < last and data[answer] == 60:
        return
    found[row, 7], found[row, 8], found[row, 9] = 1, begin, end
    found[row, 10], found[row, 11] = answer, last
    found[row, 12] = end - begin - tails


@borrowing
def survey_texts(data: UInt8s, spans: Int64s, found: Int64s) -> None:
    """What texts hold, see :class:`curriculum.surveys.Survey`.

    Args:
        data: All texts as UTF-8, a byte before them and a block's length behind.
        spans: Where each begins and ends.
        found: Written, a row each: whether it is plain, whether it may hold marks, the places of
            the first opening and closing tag and of the first fence (-1: none), whether there are
            more tags, its characters, and what :func:`_split` writes.
    """
    for row in range(len(spans)):
        start, end = spans[row, 0], spans[row, 1]
        plain, marks, more = True, False, False
        opening, closing, fence = -1, -1, -1
        # Bytes that begin no character: all others are as many as the characters.
        tails, tails_before, tails_until = 0, 0, 0
        block = start
        while block < end:
            stop = min(block + _BLOCK, end)
            needs_look, blank_end = _look_at_block(data, np.uint64(block))
            plain &= not blank_end
            if needs_look:
                for place in range(block, stop):
                    byte = data[place]
                    if byte == 60:
                        if _begins(data, place, end, _OPENING):
                            more |= opening >= 0
                            tails_before = tails if opening < 0 else tails_before
                            opening = place if opening < 0 else opening
                        elif _begins(data, place, end, _CLOSING):
                            more |= closing >= 0
                            tails_until = tails if closing < 0 else tails_until
                            closing = place if closing < 0 else closing
                        elif place + 1 < end:
                            marks |= data[place + 1] == 124 or data[place + 1] == 0xEF
                    elif byte == 96:
                        if fence < 0 and _begins(data, place, end, _FENCE):
                            fence = place
                    elif byte == 13 or byte == 0:
                        plain = False
                    elif byte >= 0xC0:
                        plain &= _is_harmless(data, place)
                    elif byte >= 128:
                        tails += 1
            block = stop
        found[row, 0], found[row, 1], found[row, 5] = plain, marks, more
        found[row, 2] = opening - start if opening >= 0 else -1
        found[row, 3] = closing - start if closing >= 0 else -1
        found[row, 4] = fence - start if fence >= 0 else -1
        found[row, 6] = end - start - tails
        found[row, 7] = 0
        if plain and not more and opening < closing:
            tails = tails_until - (tails_before if opening >= 0 else 0)
            _split(data, spans, row, (opening, closing, tails), found)
