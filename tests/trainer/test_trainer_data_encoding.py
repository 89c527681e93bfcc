"""Both ways of making ids give those of the student's format, on any text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.records import Message
from pipeline.student import encode_example, processor
from trainer.data.chunk_encoder import ChunkEncoder, chunk_encoder
from trainer.data.encoding import Encode, encode_by_chunks, encode_by_reference, encode_rows

PIECES = st.integers(0, 32_767).map(lambda i: processor().id_to_piece(i).replace("\u2581", " "))
TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="ab a-=01()\n\t∑é", max_size=60),
    st.lists(PIECES, max_size=12).map("".join),
    st.lists(st.sampled_from(["if", " ", "  ", "x", "[REFERENCE_DOC_3]", "é", "\n"])).map("".join),
)
TURNS = st.lists(
    st.builds(Message, role=st.sampled_from(["system", "user"]), content=TEXTS), max_size=2
)


def make_row(prompt: Sequence[Message], text: str) -> tuple[dict[str, Any], tuple[list[int], int]]:
    """A dataset's row, and its ids by the format itself."""
    completion = [Message(role="assistant", content=f"<think>\n{text}")]
    encoded = encode_example(prompt, completion)
    row = {
        "id": "x",
        "prompt": [turn.model_dump() for turn in prompt],
        "completion": [turn.model_dump() for turn in completion],
        "num_prompt_tokens": encoded.num_prompt_tokens,
        "num_completion_tokens": encoded.num_completion_tokens,
    }
    return row, (encoded.input_ids, encoded.num_prompt_tokens)


@pytest.mark.parametrize("encode", [encode_by_reference, encode_by_chunks])
@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(TURNS, TEXTS), min_size=1, max_size=4))
@example(pairs=[([], "")])
@example(pairs=[([], "[REFERENCE_DOC_0]"), ([], " \x00 ")])
def test_ids_are_those_of_the_student_format(
    encode: Encode, pairs: list[tuple[list[Message], str]]
) -> None:
    made = [make_row(prompt, text) for prompt, text in pairs]
    found = encode_rows([row for row, _ in made], 0, source="shard", encode=encode)
    assert [d and (d.input_ids.tolist(), d.num_prompt) for d in found] == [ids for _, ids in made]


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS.filter(lambda text: "[REFERENCE_DOC_" not in text), max_size=5))
@example(["a b", "", " ", "\u2581x \u2581", "0123456789 <s> </s> <0x41>"])
def test_ids_of_chunks_are_those_of_the_text(texts: list[str]) -> None:
    found = chunk_encoder().encode(texts, follow=[False] * len(texts))
    assert [ids.tolist() for ids in found] == [processor().encode(text) for text in texts]


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS.filter(lambda text: "[REFERENCE_DOC_" not in text), max_size=5))
def test_a_table_that_is_full_is_emptied_or_grows(texts: list[str]) -> None:
    small = ChunkEncoder(max_chunks=4, kept_bytes=16)
    for _ in range(2):
        found = small.encode(texts, follow=[False] * len(texts))
        assert [ids.tolist() for ids in found] == [processor().encode(text) for text in texts]


def test_long_runs_of_one_character_are_exact() -> None:
    texts = [char * size for char in " \n=-*a0é中" for size in range(1, 200, 7)]
    found = chunk_encoder().encode(texts, follow=[False] * len(texts))
    assert [ids.tolist() for ids in found] == [processor().encode(text) for text in texts]


def test_chunks_are_cut_where_no_piece_reaches_across() -> None:
    chunk_encoder().encode(["one two one two"], follow=[False])
    known = chunk_encoder()._num_known
    chunk_encoder().encode(["two one one two"] * 3, follow=[False] * 3)
    assert chunk_encoder()._num_known == known
