"""Texts in another language than English, found by script and by the commonest words."""

from __future__ import annotations

import re

import numpy as np

_FOREIGN = re.compile(
    "[\u0400-\u1dff\u2c00-\u2dff\u2e80-\u2fff\u3040-\ud7ff\uf900-\ufaff\ufe70-\ufefc\uff66-\uffdc"
    "\U00010000-\U0001cfff\U0001e000-\U0001e9ff\U00020000-\U0003ffff]"
)
"""Letters of other scripts than Latin and Greek; mathematical alphabets are none of them."""
_FIRST_FOREIGN = 0x400
_SAMPLE = 2000
"""Characters looked at in each of a text's beginning, middle and end."""
_LEAST_WORDS = 12
_ENGLISH_WORDS = """
the of is a to in and that for are be with on if by this an as what how from it each you we not at
which can so let i find number
"""
# Spanish, French, Portuguese, Italian, German, Dutch, Polish, Turkish, Indonesian, Vietnamese.
_OTHER_WORDS = """
que los las del una por para con cuál cuántos número sea es el la le les des est une dans pour qui
sur soit nombre aux tous tels não uma são dos das em qual che gli della sono di il der die und ist
nicht
ein eine von den mit wie het een van zijn jest oraz nie jakie ile bir ve için olan kaç yang dan
dengan adalah của và là các
"""
ENGLISH = frozenset(_ENGLISH_WORDS.split())
_LATIN = frozenset(_OTHER_WORDS.split())
"""Words that English texts do not hold, or hold by chance only."""
ENOUGH_ENGLISH = 4
_LEAST_LATIN, _LATIN_SHARE = 3, 0.12
WORD_CHARS = 800
"""Characters of a beginning whose words tell its language."""


def find_foreign_language(text: str, max_share: float) -> str | None:
    """What shows that a text is not English, or ``None``.

    Args:
        text: A question or a reasoning.
        max_share: Share of letters in other scripts above which a text is foreign.
    """
    if not text.isascii():
        sample = sample_of(text)
        # Looking at code points first takes a tenth of the time of the expression.
        codes = np.frombuffer(sample.encode("utf-32-le"), "<u4")
        rare = codes[codes >= _FIRST_FOREIGN].tolist()
        foreign = len(_FOREIGN.findall("".join(map(chr, rare)))) if rare else 0
        letters = sum(map(str.isalpha, sample)) if foreign else 0
        if foreign > max_share * letters:
            return f"{foreign} of {letters} letters"
    words = text[:WORD_CHARS].lower().split()
    if len(words) < _LEAST_WORDS or len(ENGLISH.intersection(words)) >= ENOUGH_ENGLISH:
        return None
    latin = sum(word in _LATIN for word in words)
    if latin >= _LEAST_LATIN and latin / len(words) > _LATIN_SHARE:
        return f"{latin} of {len(words)} words"
    return None


def sample_of(text: str) -> str:
    """Beginning, middle and end of a text."""
    if len(text) <= 3 * _SAMPLE:
        return text
    middle = (len(text) - _SAMPLE) // 2
    return text[:_SAMPLE] + text[middle : middle + _SAMPLE] + text[-_SAMPLE:]
