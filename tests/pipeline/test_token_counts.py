"""Counts of the compiled tokenizer are the lengths of what the student's tokenizer gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Message
from pipeline.student import (
    TURN_CLOSE,
    assistant_turn,
    encode_example,
    processor,
    render_completion,
    render_prompt,
    user_turn,
)
from pipeline.token_counts import PADDING, TextSpan, TokenCounter, token_counter

FRAGMENTS = [
    *(" ", "  ", "\n", "\n\n", "\t", "\r\n", "\x00", "▁", "▁▁", "\ufeff", "\u0301"),
    *("the", " the", "ing", "tion", "def ", "return", "=", "==", "//", "#", "__", "'", '"', ";"),
    *("\\frac", "{", "}", "123", "0", "(", ")", "x", "ab", "ba", "Z", "<s>", "</s>", "[INST]"),
    *("é", "中", "文", "日本", "가", "√", "≤", "😀", "𝔸", "аб", "ا", "…"),
    *("[REFERENCE_DOC_1]", "[REFERENCE_DOC_", "<0x0A>", "a" * 20, "-" * 30, " " * 20),
]
TEXTS = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
)


@given(st.lists(TEXTS, max_size=20))
@settings(deadline=None, max_examples=150)
def test_exact(texts: list[str]) -> None:
    counter = token_counter()
    encode = processor().encode
    assert counter.count(texts).tolist() == [len(encode(text)) for text in texts]
    after = [len(encode("\n" + text)) - len(encode("\n")) for text in texts]
    assert counter.count_after_cut(texts).tolist() == after


@pytest.mark.parametrize(
    "text",
    [
        "ab" * 5000,
        "=" * 600,
        " " * 5000 + "x",
        "中文" * 2000,
        "\x00" * 50,
        "q" * 512,
        "q" * 513,
        ("word " * 60_000),
    ],
)
def test_long_chunks_and_texts(text: str) -> None:
    assert token_counter().count([text, "a", ""]).tolist() == [len(processor().encode(text)), 1, 0]


def test_counts_stay_exact_when_what_was_kept_is_given_up() -> None:
    counter = TokenCounter(kept_chunks=64)
    texts = [f"word{chr(97 + i % 26)}{chr(97 + i // 26)} \x00 thing" for i in range(600)]
    expected = [len(processor().encode(text)) for text in texts]
    assert counter.count(texts).tolist() == expected
    assert counter.count(texts[::-1]).tolist() == expected[::-1]


@given(TEXTS, TEXTS, TEXTS)
@settings(deadline=None, max_examples=60)
def test_examples_are_counted_as_they_are_encoded(
    question: str, thinking: str, answer: str
) -> None:
    prompt = [Message(role="user", content=user_turn(question, "math"))]
    completion = [Message(role="assistant", content=assistant_turn(thinking, answer))]
    counts = token_counter().count_examples(
        [render_prompt(prompt)], [render_completion(completion)]
    )
    encoded = encode_example(prompt, completion)
    assert counts.num_prompt_tokens.tolist() == [encoded.num_prompt_tokens]
    assert counts.num_completion_tokens.tolist() == [encoded.num_completion_tokens]
    assert not counts.is_ambiguous[0]
    thinking, answer = thinking.strip(), answer.strip()
    data = b"".join([thinking.encode(), answer.encode(), PADDING])
    middle = len(thinking.encode())
    pieces = (
        TextSpan(data, 0, middle),
        TURN_CLOSE,
        TextSpan(data, middle, middle + len(answer.encode())),
    )
    again = token_counter().count_examples([render_prompt(prompt)], [pieces])
    assert again.num_completion_tokens.tolist() == [encoded.num_completion_tokens]


def test_texts_in_one_piece_of_memory_are_counted_alike() -> None:
    texts = ["", "plain words.", "x" * 600, "see [REFERENCE_DOC_0] ≤ 字", " a\n"]
    pieces = [text.encode() for text in texts]
    ends = 1 + np.cumsum([len(piece) for piece in pieces])
    starts = ends - [len(piece) for piece in pieces]
    data = b"".join([b"?", *pieces, PADDING])
    spans = [TextSpan(data, *pair) for pair in zip(starts.tolist(), ends.tolist(), strict=True)]
    mixed = [texts[0], (spans[1],), texts[2], *((span,) for span in spans[3:])]
    prompts = ["Ask.\n"] * len(texts)
    one, other = (token_counter().count_examples(prompts, some) for some in (texts, mixed))
    assert one.num_completion_tokens.tolist() == other.num_completion_tokens.tolist()
    assert one.num_prompt_tokens.tolist() == other.num_prompt_tokens.tolist()


def test_a_boundary_that_merges_is_named() -> None:
    counts = token_counter().count_examples(["ab wor", "ab."], ["d\n", " c"])
    assert counts.is_ambiguous.tolist() == [True, False]
    joint = len(processor().encode("ab. c"))
    assert counts.num_prompt_tokens[1] + counts.num_completion_tokens[1] == joint + 2
