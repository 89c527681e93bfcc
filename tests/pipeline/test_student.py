"""One chat format and one exact tokenizer for data, training and evaluation."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import student
from pipeline.records import Message

QUESTION = [Message(role="user", content="What is 2+2?")]


def answer(thinking: str, text: str) -> list[Message]:
    return [Message(role="assistant", content=student.assistant_turn(thinking, text))]


def test_prompt_is_the_released_chatml_text() -> None:
    turn = student.user_turn("What is 2+2?", "math")
    rendered = student.render_prompt([Message(role="user", content=turn)])
    assert rendered == (
        "<|im_start|>user\nWhat is 2+2?\nPlease reason step by step, and put your final answer "
        "within \\boxed{}.<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
    assert student.user_turn(turn, "math") == turn, "the instruction is not doubled"
    assert student.user_turn(" plain ", "other") == "plain"


def test_ids_are_those_of_mistral_common() -> None:
    tokenizer = pytest.importorskip("mistral_common.tokens.tokenizers.sentencepiece")
    reference = tokenizer.SentencePieceTokenizer(str(student.tokenizer_path()))
    text = student.render_prompt(QUESTION) + "π ≈ 3.14, ok?\n    def f(x):\n\treturn x"
    assert [student.BOS_ID, *student.processor().encode(text), student.EOS_ID] == reference.encode(
        text, bos=True, eos=True
    )
    assert student.processor().vocab_size() == student.VOCAB_SIZE


@settings(max_examples=60, deadline=None)
@given(thinking=st.text(min_size=1).filter(str.strip), text=st.text(min_size=1).filter(str.strip))
def test_prompt_ids_are_a_prefix_and_nothing_is_lost(thinking: str, text: str) -> None:
    completion = answer(thinking, text)
    encoded = student.encode_example(QUESTION, completion)
    prompt = student.encode_prompt(QUESTION)
    assert encoded.input_ids[: encoded.num_prompt_tokens] == prompt
    assert encoded.input_ids[-1] == student.EOS_ID
    assert encoded.num_prompt_tokens + encoded.num_completion_tokens == len(encoded.input_ids)


def test_decode_inverts_a_completion() -> None:
    completion = answer("We add.", "The answer is \\boxed{4}.")
    encoded = student.encode_example(QUESTION, completion)
    text = student.decode(encoded.input_ids[encoded.num_prompt_tokens :])
    assert text == student.render_completion(completion)


@pytest.mark.parametrize(
    "completion",
    [[], [Message(role="user", content="x")], [Message(role="assistant", content="no tag")]],
)
def test_malformed_completion_is_refused(completion: list[Message]) -> None:
    with pytest.raises(ValueError, match="assistant turn"):
        student.encode_example(QUESTION, completion)
