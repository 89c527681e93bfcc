"""The tokenizer's ids many times faster: each distinct chunk of text is tokenised once.

Between two neighbouring characters that occur side by side in no piece of the vocabulary, no token
can reach across, so the ids of a text are those of its chunks one after the other. Texts repeat
their chunks (words, numbers, operators) endlessly; a compiled table knows the ids of those met
before, and SentencePiece itself is asked for the others. So nothing of its algorithm is done again
here. Tests hold both together on random texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.student import processor

if TYPE_CHECKING:
    from trainer.data.chunk_kernels import Entries

Int64s = npt.NDArray[np.int64]
UInt8s = npt.NDArray[np.uint8]
UInt16s = npt.NDArray[np.uint16]

MAX_CHUNKS = 1 << 18
KEPT_BYTES = 1 << 22
"""Room for chunks, 20 MB in all; emptied when full."""
_SPACE = "▁"
"""What SentencePiece writes for a blank."""
_CUT = "\n"
"""Part of no piece, so that nothing merges across it."""
SPECIAL = "[REFERENCE_DOC_"
"""How the user-defined symbols begin, which are found before anything is merged."""


class ChunkEncoder:
    """Makes ids and keeps those of the chunks it met; one a process.

    Args:
        max_chunks: Chunks that are kept, a power of two.
        kept_bytes: Bytes of all of them; more are taken where one batch of texts needs more.
    """

    def __init__(self, max_chunks: int = MAX_CHUNKS, kept_bytes: int = KEPT_BYTES) -> None:
        self._cuts = _find_cuts()
        self._lead = len(processor().encode(_CUT))
        self._entries: Entries
        self._id_starts: Int64s
        self._ids: UInt16s
        self._num_known = 0
        self._empty(max_chunks, kept_bytes)

    def encode(self, texts: Sequence[str], *, follow: Sequence[bool]) -> list[UInt16s]:
        """Ids of each text.

        Args:
            texts: Without :data:`SPECIAL`; whoever has one must ask the tokenizer.
            follow: Whether a text goes on after a line break; others begin with the blank that the
                tokenizer puts before a text.

        Raises:
            UnicodeEncodeError: A text holds a lone surrogate.
        """
        from trainer.data.chunk_kernels import copy_ids

        data, spans = _join(texts, follow)
        found = self._find(data, spans)
        # A chunk has at most as many ids as bytes, and a blank in front.
        out = np.empty(len(data) + 1, np.uint16)
        copy_ids(found, self._id_starts, self._ids, spans, out)
        return np.split(out, spans[:, 2])[: len(texts)]

    def _find(self, data: UInt8s, spans: Int64s) -> npt.NDArray[np.int32]:
        from trainer.data.chunk_kernels import FULL, find_chunks

        found = np.empty(len(data), np.int32)
        while (total := find_chunks(data, spans, self._cuts, self._entries, found)) == FULL:
            # Emptied, the table holds this batch alone; were that not enough, a larger one would.
            is_alone = self._num_known == 0
            self._empty(self._max_chunks << is_alone, self._kept_bytes << is_alone)
        self._learn()
        return found[:total]

    def _learn(self) -> None:
        """Ask the tokenizer for the ids of the chunks that were added."""
        _, _, starts, known, num = self._entries
        first, last = self._num_known, int(num[0])
        if first == last:
            return
        data = known[starts[first] : starts[last]].tobytes()
        bounds = (starts[first : last + 1] - starts[first]).tolist()
        texts = [_CUT + data[a:b].decode() for a, b in pairwise(bounds)]
        ids = [own[self._lead :] for own in processor().encode(texts, num_threads=1)]
        sizes = np.array([len(own) for own in ids], np.int64)
        begin = int(self._id_starts[first])
        self._id_starts[first + 1 : last + 1] = begin + np.cumsum(sizes)
        end = int(self._id_starts[last])
        while end > len(self._ids):
            self._ids = np.concatenate([self._ids, np.empty_like(self._ids)])
        self._ids[begin:end] = [value for own in ids for value in own]
        self._num_known = last

    def _empty(self, max_chunks: int, kept_bytes: int) -> None:
        self._max_chunks, self._kept_bytes = max_chunks, kept_bytes
        self._num_known = 0
        self._entries = (
            np.full(2 * max_chunks, -1, np.int32),
            np.zeros(max_chunks, np.uint64),
            np.zeros(max_chunks + 1, np.int64),
            np.zeros(kept_bytes, np.uint8),
            np.zeros(1, np.int64),
        )
        self._id_starts = np.zeros(max_chunks + 1, np.int64)
        self._ids = np.empty(kept_bytes // 2, np.uint16)


@cache
def chunk_encoder() -> ChunkEncoder:
    """This process's encoder."""
    return ChunkEncoder()


def _join(texts: Sequence[str], follow: Sequence[bool]) -> tuple[UInt8s, Int64s]:
    """All texts as bytes, and where each begins and ends; a third column is left to be written."""
    pieces, spans, end = list[bytes](), np.zeros((len(texts), 3), np.int64), 0
    for number, text in enumerate(texts):
        pieces.append((text if follow[number] or not text else " " + text).encode())
        spans[number, 0] = end
        end += len(pieces[-1])
        spans[number, 1] = end
    return np.frombuffer(b"".join(pieces), np.uint8), spans


@cache
def _find_cuts() -> UInt8s:
    """Pairs of ASCII characters that occur side by side in no piece; others are never cut."""
    model = processor()
    cuts = np.zeros((256, 256), np.uint8)
    cuts[:128, :128] = 1
    for index in range(model.get_piece_size()):
        piece = model.id_to_piece(index).replace(_SPACE, " ")
        is_text = not (model.is_control(index) or model.is_unknown(index) or model.is_byte(index))
        if is_text and not piece.startswith(SPECIAL):
            for left, right in pairwise(piece):
                if left.isascii() and right.isascii():
                    cuts[ord(left), ord(right)] = 0
    return cuts.ravel()
