"""Texts as arrays of word hashes: exactly the words of :func:`pipeline.matching.tokenize`.

A million characters take about 10 ms. What is not ASCII costs its Unicode normalisation on top.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from pipeline.hashing import code_version
from pipeline.machine_cache import kept_arrays
from pipeline.matching import cut_figures, tokenize

UInt8s = npt.NDArray[np.uint8]
UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

_GROUP_CHARS = 1 << 20
"""Characters that are worked on together: bounds memory at about 20 MB."""
_DOTLESS_I = "ı"
"""Equals an i where a pattern ignores case, which no other character does after normalisation."""
_MACROS = {
    "": "left right big bigl bigr bigg biggl biggr frac dfrac tfrac displaystyle text textbf "
    "textit textrm mathrm mathbf mathbb mathcal mathit mathsf mbox operatorname quad qquad begin "
    "end hspace vspace limits nolimits",
    "<=": "le leq leqslant",
    ">=": "ge geq geqslant",
    "!=": "ne neq",
    "*": "cdot times",
    "/": "div",
    "...": "dots cdots ldots",
    "degrees": "circ degree",
}
"""What macros stand for, in the order of the meanings in :mod:`pipeline.kernels.words`."""


@dataclass(frozen=True, slots=True)
class WordHashes:
    """The words of many texts, one text after another."""

    hashes: UInt64s
    kinds: UInt8s
    """Of each word: 0 a word, 1 a number, 2 an operator."""
    offsets: Int64s
    """Text ``i`` has the words ``offsets[i]`` to ``offsets[i + 1]``."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, text: int) -> UInt64s:
        """The word hashes of one text."""
        return self.hashes[self.offsets[text] : self.offsets[text + 1]]

    def take(self, texts: Sequence[int]) -> WordHashes:
        """The words of some texts, in the given order."""
        chosen = np.array(texts, np.int64)
        sizes = np.diff(self.offsets)[chosen]
        offsets = offsets_of(sizes)
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], sizes)
        return WordHashes(self.hashes[places], self.kinds[places], offsets)


def hash_words(texts: Sequence[str]) -> WordHashes:
    """Hashes of the words of every text: ``hash_tokens(tokenize(text))``, much faster."""
    groups = [_hash_group(group) for group in _groups(texts)]
    if not groups:
        return WordHashes(np.empty(0, np.uint64), np.empty(0, np.uint8), np.zeros(1, np.int64))
    sizes = np.concatenate([np.diff(group.offsets) for group in groups])
    return WordHashes(
        hashes=np.concatenate([group.hashes for group in groups]),
        kinds=np.concatenate([group.kinds for group in groups]),
        offsets=offsets_of(sizes),
    )


def hash_tokens(tokens: Sequence[str]) -> UInt64s:
    """Hashes of words that are there already."""
    from pipeline.kernels.words import hash_each

    hashes = np.empty(len(tokens), np.uint64)
    hash_each(_code_points(tokens), offsets_of([len(token) for token in tokens]), hashes)
    return hashes


def hash_texts(texts: Iterable[str]) -> UInt64s:
    """xxh3 of whole texts as they are, 64 bits: for equality."""
    return np.fromiter(
        (xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) for text in texts),
        dtype=np.uint64,
    )


def _level(text: str) -> str:
    """What the patterns of :mod:`pipeline.matching` are applied to."""
    text = cut_figures(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return text.lower()


def _groups(texts: Iterable[str]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= _GROUP_CHARS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _hash_group(originals: list[str]) -> WordHashes:
    from pipeline.kernels.words import hash_words as write_hashes

    texts = [_level(text) for text in originals]
    if any(_DOTLESS_I in text for text in texts if not text.isascii()):
        return _hash_slowly(originals)
    chars = _code_points(texts)
    hashes, kinds = np.empty(len(chars), np.uint64), np.empty(len(chars), np.uint8)
    offsets = np.empty(len(texts) + 1, np.int64)
    starts = offsets_of([len(text) for text in texts])
    count = write_hashes((chars, starts), _tables(), hashes, kinds, offsets)
    return WordHashes(hashes[:count].copy(), kinds[:count].copy(), offsets)


def _hash_slowly(texts: list[str]) -> WordHashes:
    tokens = [tokenize(text) for text in texts]
    flat = [token for row in tokens for token in row]
    kinds = [1 if token[0].isdecimal() else 0 if token[0].isalnum() else 2 for token in flat]
    offsets = offsets_of([len(row) for row in tokens])
    return WordHashes(hash_tokens(flat), np.array(kinds, np.uint8), offsets)


def _code_points(texts: Iterable[str]) -> UInt32s:
    data = "".join(texts).encode("utf-32-le", "surrogatepass")
    return np.frombuffer(data, dtype="<u4")


def offsets_of(sizes: Sequence[int] | Int64s) -> Int64s:
    """Where each of some pieces begins, and where the last ends."""
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(np.asarray(sizes, np.int64), out=offsets[1:])
    return offsets


@cache
def _tables() -> tuple[UInt8s, UInt64s, UInt8s, UInt64s]:
    """What :func:`pipeline.kernels.words.hash_words` looks up."""
    words = list(_MACROS)
    names = [(name, number) for number, word in enumerate(words) for name in _MACROS[word].split()]
    hashes = hash_tokens([name for name, _ in names])
    order = np.argsort(hashes)
    meanings = np.array([number for _, number in names], np.uint8)[order]
    return _classes(), hashes[order], meanings, hash_tokens(words)


def _classes() -> UInt8s:
    """A class for every code point; trying a million characters takes a third of a second."""
    key = f"{code_version('pipeline')}-{unicodedata.unidata_version}"
    classes: UInt8s = kept_arrays("classes", key, lambda: {"classes": _classify()})["classes"]
    return classes


def _classify() -> UInt8s:
    """A class for every code point, from the same patterns that split texts."""
    from pipeline.kernels import words

    everything = np.arange(0x110000, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    classes = np.full(len(everything), words.OTHER, np.uint8)
    for pattern, value in (
        (r"[^\W\d_]+", words.LETTER),
        (r"\d+", words.DIGIT),
        (r"\s+", words.SPACE),
        (r"[-+*/^=<>%!−–]", words.OPERATOR),
        (r"\\", words.MACRO),
        (r"[≤≥≠×·÷°]", words.SYMBOL),
    ):
        for match in re.finditer(pattern, everything):
            classes[match.start() : match.end()] = value
    return classes
