"""The saved fast tokenizer gives the ids that training used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Message
from pipeline.student import decode, encode_prompt, processor, render_prompt
from trainer.tokenizer import build_tokenizer

TEXTS = [
    "",
    " ",
    "a",
    " a",
    "Find all primes p with p^2 + 2 prime.",
    "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n<think>\n",
    "<think>\nfirst\n</think>\n\n\\boxed{42}",
    "def f(x):\n    return x\n\n\nclass A:\n\tpass\r\n",
    "        deep\n            deeper\n" + " " * 37 + "x" + "\t" * 9,
    "1234567890 3.14159 -7e-3 1_000_000",
    "if (a[i]!=b[j]&&!c){ x+=1; } // ==== ---- **** ....... _____",
    "Grüße, naïve façade, Ångström; été, déjà",
    "Докажите, что n² + 1 не делится на 4. 证明这个不等式。 こんにちは 안녕하세요 שלום",
    "∑_{k=1}^{∞} 1/k² = π²/6, ∀ε>0 ∃δ: |x−a|<δ ⇒ …",
    "emoji \U0001f600\U0001f469\u200d\U0001f4bb and \u200b zero\u00a0width \ufeff bom",
    "rare \U00012345 \U000e0041 \ue000 \x00 \x07 \x7f",
    "[INST] not a control token [/INST] <0x41> [control_12] [TOOL_CALLS]",
    "▁already▁escaped▁▁",
    "(((((((('''''''''!!!!!!!!!!!!!!!\"\"\"\"\"\"\"",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tokenizer as another program finds it: saved, then loaded by ``AutoTokenizer``."""
    from transformers import AutoTokenizer

    folder: Path = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer().save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    return ids


@pytest.mark.parametrize("text", TEXTS)
def test_ids_equal_sentencepiece(tokenizer: Any, text: str) -> None:
    assert ids_of(tokenizer, text) == processor().encode(text)


@pytest.mark.parametrize("character", list(" \n\t-=*#_.a0/({<'\"!é中"))
def test_runs_of_one_character(tokenizer: Any, character: str) -> None:
    for length in range(1, 70, 3):
        for text in (character * length, f"ab {character * length}y", f"x{character * length} z"):
            assert ids_of(tokenizer, text) == processor().encode(text)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_ids_of_any_unicode(tokenizer: Any, text: str) -> None:
    assert ids_of(tokenizer, text) == processor().encode(text)


PIECES = st.integers(min_value=1027, max_value=32_767).map(
    lambda i: processor().id_to_piece(i).replace("\u2581", " ")
)


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=15).map("".join))
def test_ids_of_glued_vocabulary(tokenizer: Any, text: str) -> None:
    assert ids_of(tokenizer, text) == processor().encode(text)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab a-=01()\n", max_size=50))
def test_ids_of_repetitive_text(tokenizer: Any, text: str) -> None:
    assert ids_of(tokenizer, text) == processor().encode(text)


def test_control_tokens_in_text_are_read_only_by_default(tokenizer: Any) -> None:
    text = "html <s>struck</s>"
    assert 2 in tokenizer(text).input_ids
    assert ids_of(tokenizer, text) == processor().encode(text)


def test_the_one_known_difference_is_still_the_only_one(tokenizer: Any) -> None:
    # User-defined symbols of the original vocabulary; here they are plain text.
    text = "see [REFERENCE_DOC_3]"
    assert ids_of(tokenizer, text) != processor().encode(text)
    assert tokenizer.decode(ids_of(tokenizer, text)) == text


def test_plain_call_puts_the_start_token_first(tokenizer: Any) -> None:
    assert tokenizer("hello").input_ids == [1, *processor().encode("hello")]


def test_chat_template_renders_the_student_prompt(tokenizer: Any) -> None:
    turns = [
        Message(role="user", content="What is 2+2?\nThink."),
        Message(role="system", content=""),
    ]
    messages = [turn.model_dump() for turn in turns]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert ids == encode_prompt(turns)
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text == "<s>" + render_prompt(turns)


@pytest.mark.parametrize("text", [t for t in TEXTS if "▁" not in t])
def test_decoding_gives_the_text_back(tokenizer: Any, text: str) -> None:
    ids = processor().encode(text)
    assert tokenizer.decode(ids) == text == decode(ids)


def test_batches_are_padded_on_the_right(tokenizer: Any) -> None:
    batch = tokenizer(["a", "a b c"], padding=True)
    assert batch.input_ids[0][-2:] == [0, 0]
    assert batch.attention_mask[0] == [1, 1, 0, 0]
