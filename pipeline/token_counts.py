"""Exact numbers of the student's token ids, several times faster than making the ids.

Texts go through a compiled kernel that merges as SentencePiece does and keeps the counts of short
chunks; what it does not know (a user-defined symbol, a chunk of more than 512 characters) goes
through the tokenizer itself. Tests compare both on random texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.hashing import code_version, content_hash
from pipeline.machine_cache import kept_arrays
from pipeline.student import TOKENIZER_SHA256, processor

if TYPE_CHECKING:
    from pipeline.kernels.pieces import Kept, Vocabulary

Text = str | bytes | memoryview
"""A text, or its UTF-8."""
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

_GROUP_BYTES = 1 << 20
"""Texts that are worked on together."""
_KEPT_CHUNKS = 1 << 18
"""Slots for chunks, at 16 bytes; emptied when half full."""
_KEPT_LONG_CHUNKS = 1 << 17
"""Slots for chunks of 16 bytes or more, at 32 bytes."""
_SPACE = "▁"
"""What SentencePiece writes for a blank."""
PADDING = bytes(32)
"""What the kernel may read beyond the last text."""
_SPECIAL = "[REFERENCE_DOC_"
"""How the user-defined symbols begin, which the tokenizer never splits."""
_TABLES = ("alphabet", "joined", "pairs", "ranks", "cuts")
_CUT = "\n"
"""Part of no piece, so that nothing merges across it."""


@dataclass(frozen=True, slots=True)
class _JoinedTexts:
    """Texts that lie in one piece of memory."""

    data: bytes
    """UTF-8, with :data:`PADDING` behind the last text."""
    spans: Int64s
    """Where each text begins and ends."""

    def __getitem__(self, row: int) -> bytes:
        start, end = self.spans[row].tolist()
        return self.data[start:end]


class TextSpan(NamedTuple):
    """A text that stands in a larger piece of memory, whose bytes are not copied to be counted."""

    data: bytes
    """UTF-8, with :data:`PADDING` or other bytes as many behind the text."""
    start: int
    end: int


Pieces = tuple[Text | TextSpan, ...]
"""A text in pieces; between two of them stands a line break, at the end of one or at the beginning
of the other. No piece of the vocabulary reaches over it, so that their counts add up."""


@dataclass(frozen=True, slots=True)
class ExampleCounts:
    """What :func:`pipeline.student.encode_example` gives, in numbers, row by row."""

    num_prompt_tokens: Int64s
    """``<s>`` included."""
    num_completion_tokens: Int64s
    """``</s>`` included."""
    is_ambiguous: npt.NDArray[np.bool_]
    """Where the prompt's ids are not the first of the whole: such a row has no counts."""


class TokenCounter:
    """Counts ids; keeps what it learned of chunks, so one is made per process (0.4 s, 25 MB).

    Args:
        kept_chunks: Slots for chunks, a power of two.
    """

    def __init__(self, kept_chunks: int = _KEPT_CHUNKS) -> None:
        self._vocabulary = _load_vocabulary()
        self._kept: Kept = (
            np.zeros((kept_chunks, 2), np.uint64),
            np.zeros((_KEPT_LONG_CHUNKS, 4), np.uint64),
            np.zeros(2, np.int64),
        )

    def count(self, texts: Sequence[Text]) -> Int64s:
        """Number of ids of each text: ``len(processor().encode(text))``.

        Raises:
            UnicodeEncodeError: A text holds a lone surrogate.
        """
        return self._count(texts, is_start=True)

    def count_after_cut(self, texts: Sequence[Text]) -> Int64s:
        """Number of ids that each text adds to one that ends with a line break."""
        return self._count(texts, is_start=False)

    def count_examples(
        self, prompts: Sequence[str], completions: Sequence[Text | Pieces]
    ) -> ExampleCounts:
        """Counts of rendered prompts and completions, each pair encoded as one text.

        Args:
            prompts: Rendered prompts.
            completions: Rendered completions, or their UTF-8, whole or in pieces.
        """
        pieces = [text if isinstance(text, tuple) else (text,) for text in completions]
        num_prompt, num_completion = self.count(prompts), self._count_in_pieces(pieces)
        is_ambiguous = np.zeros(len(prompts), bool)
        for row, prompt in enumerate(prompts):
            if not prompt.endswith(_CUT):
                counts = _count_jointly(prompt, "".join(map(_decoded, pieces[row])))
                is_ambiguous[row] = counts is None
                num_prompt[row], num_completion[row] = counts or (0, 0)
        # <s> and </s>.
        return ExampleCounts(num_prompt + 1, num_completion + 1, is_ambiguous)

    def _count_in_pieces(self, texts: Sequence[Pieces]) -> Int64s:
        """As :meth:`count_after_cut`, of texts in pieces."""
        counts = self._count_pieces([piece for text in texts for piece in text])
        starts = np.cumsum([0, *(len(text) for text in texts)])[:-1]
        return np.add.reduceat(counts, starts) if len(texts) else counts

    def _count_pieces(self, pieces: Sequence[Text | TextSpan]) -> Int64s:
        """Spans of one piece of memory are counted together, and equal texts once."""
        places: dict[Text, list[int]] = {}
        standing: dict[int, list[tuple[int, TextSpan]]] = {}
        for place, piece in enumerate(pieces):
            if isinstance(piece, TextSpan):
                standing.setdefault(id(piece.data), []).append((place, piece))
            else:
                places.setdefault(piece, []).append(place)
        counts = np.empty(len(pieces), np.int64)
        for found, count in zip(places.values(), self.count_after_cut([*places]), strict=True):
            counts[found] = count
        for group in standing.values():
            spans = np.array([(span.start, span.end) for _, span in group], np.int64)
            joined = _JoinedTexts(group[0][1].data, spans)
            counts[[place for place, _ in group]] = self._count_joined(joined, is_start=False)
        return counts

    def _count(self, texts: Sequence[Text], *, is_start: bool) -> Int64s:
        counts = [self._count_joined(group, is_start=is_start) for group in _join_groups(texts)]
        return np.concatenate([np.empty(0, np.int64), *counts])

    def _count_joined(self, texts: _JoinedTexts, *, is_start: bool) -> Int64s:
        from pipeline.kernels.pieces import TOO_LONG, count_ids

        starts, ends = texts.spans[:, 0], texts.spans[:, 1]
        # The blank before a text is the one that the tokenizer puts there.
        spans = np.stack([starts - (ends > starts), ends], axis=1) if is_start else texts.spans
        counts, may_hold_symbols = np.empty(len(spans), np.int64), np.zeros(len(spans), np.uint8)
        data = np.frombuffer(texts.data, np.uint8)
        count_ids(data, spans, self._vocabulary, self._kept, (counts, may_hold_symbols))
        for row in np.flatnonzero(may_hold_symbols).tolist():
            if _SPECIAL in _decoded(texts[row]):
                counts[row] = TOO_LONG
        for row in np.flatnonzero(counts == TOO_LONG).tolist():
            counts[row] = _count_slowly(_decoded(texts[row]), is_start=is_start)
        return counts


@cache
def token_counter() -> TokenCounter:
    """This process's counter."""
    return TokenCounter()


def _count_slowly(text: str, *, is_start: bool) -> int:
    if is_start:
        return len(processor().encode(text))
    return len(processor().encode(_CUT + text)) - len(processor().encode(_CUT))


def _count_jointly(prompt: str, completion: str) -> tuple[int, int] | None:
    own, joint = processor().encode(prompt), processor().encode(prompt + completion)
    return (len(own), len(joint) - len(own)) if joint[: len(own)] == own else None


def _decoded(text: Text | TextSpan) -> str:
    if isinstance(text, TextSpan):
        return text.data[text.start : text.end].decode()
    return text if isinstance(text, str) else bytes(text).decode()


def _join_groups(texts: Sequence[Text]) -> Iterator[_JoinedTexts]:
    """Groups of texts with a blank before each."""
    total = 0
    pieces: list[bytes | memoryview] = [b""]
    for row, text in enumerate(texts):
        pieces.append(text.encode() if isinstance(text, str) else text)
        total += len(pieces[-1])
        if total >= _GROUP_BYTES or row + 1 == len(texts):
            sizes = np.array([len(piece) for piece in pieces[1:]], np.int64)
            ends = np.cumsum(sizes + 1)
            spans = np.stack([ends - sizes, ends], axis=1)
            yield _JoinedTexts(b" ".join([*pieces, PADDING]), spans)
            pieces, total = [b""], 0


def _load_vocabulary() -> Vocabulary:
    """The tokenizer's pieces as tables."""
    key = content_hash([code_version("pipeline"), TOKENIZER_SHA256])
    kept = kept_arrays("vocabulary", key, _tabulate_model)
    alphabet, joined, pairs, ranks, cuts = (kept[name] for name in _TABLES)
    return alphabet, joined, pairs, ranks, cuts


def _tabulate_model() -> dict[str, Any]:
    model = processor()
    pieces: dict[str, float] = {}
    for index in range(model.get_piece_size()):
        is_reserved = model.is_control(index) or model.is_unknown(index) or model.is_byte(index)
        piece = model.id_to_piece(index)
        if not is_reserved and not piece.startswith(_SPECIAL):
            pieces[piece] = model.get_score(index)
    return dict(zip(_TABLES, _tabulate(pieces), strict=True))


def _tabulate(pieces: dict[str, float]) -> Vocabulary:
    from pipeline.kernels.pieces import fill_pairs, find_cuts

    letters = sorted({char for piece in pieces for char in piece})
    symbols = {char: number for number, char in enumerate(letters, start=1)}
    for piece in pieces:
        symbols.setdefault(piece, len(symbols) + 1)
    alphabet = np.zeros(0x110000, np.uint16)
    alphabet[[ord(char) for char in letters]] = np.arange(1, len(letters) + 1)
    alphabet[ord(" ")] = symbols[_SPACE]
    joined = np.zeros((len(letters) + 1, len(letters) // 8 + 1), np.uint8)
    for left, right in {pair for piece in pieces for pair in pairwise(piece)}:
        joined[symbols[left], symbols[right] >> 3] |= 1 << (symbols[right] & 7)
    merges = [
        (symbols[piece[:place]], symbols[piece[place:]], symbols[piece])
        for piece in pieces
        for place in range(1, len(piece))
        if piece[:place] in symbols and piece[place:] in symbols
    ]
    scores = np.array(list(pieces.values()))
    ranks = np.full(len(symbols) + 1, -1, np.int32)
    ranks[[symbols[piece] for piece in pieces]] = np.unique(-scores, return_inverse=True)[1]
    size = 1 << (2 * len(merges)).bit_length()
    pairs = np.zeros((size, 2), np.uint64)
    fill_pairs(pairs, np.array(merges, np.int32), ranks)
    cuts = np.zeros(1 << 16, np.uint8)
    find_cuts(alphabet, joined, int.from_bytes(_SPECIAL[:2].encode(), "little"), cuts)
    return alphabet, joined, pairs, ranks, cuts
