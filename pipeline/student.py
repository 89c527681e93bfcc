"""The student's chat format and tokenizer: one object for data, training and evaluation.

The format is ChatML written as ordinary text, as in the released PromptCoT-Mamba prompts; the
tokenizer is the exact Mistral v3 SentencePiece model that ships inside ``mistral-common``. The
opening ``<think>`` tag belongs to the prompt, because inference prefills it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from pipeline.records import Domain, Message

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
BOS_ID, EOS_ID = 1, 2
EOS_TOKEN = "</s>"
TURN_OPEN, TURN_CLOSE = f"{THINK_OPEN}\n".encode(), f"\n{THINK_CLOSE}\n\n".encode()
"""What stands before and between the parts of :func:`assistant_turn`."""
VOCAB_SIZE = 32_768
TOKENIZER_FILE = "mistral_instruct_tokenizer_240323.model.v3"
TOKENIZER_SHA256 = "9addc8bdce5988448ae81b729336f43a81262160ae8da760674badab9d4c7d33"

MATH_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
CODE_INSTRUCTION = (
    "Please reason step by step, and put your final program in one ```python code block."
)
_INSTRUCTIONS: dict[str, str] = {"math": MATH_INSTRUCTION, "code": CODE_INSTRUCTION}


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one example; ``input_ids[:num_prompt_tokens]`` carries no loss."""

    input_ids: list[int]
    num_prompt_tokens: int

    @property
    def num_completion_tokens(self) -> int:
        """Tokens that carry loss, the closing ``</s>`` included."""
        return len(self.input_ids) - self.num_prompt_tokens


def user_turn(question: str, domain: Domain) -> str:
    """The user's turn: the question, then the domain's answer instruction unless it is there."""
    instruction = _INSTRUCTIONS.get(domain)
    text = question.strip()
    if instruction is None or text.endswith(instruction):
        return text
    return f"{text}\n{instruction}"


def assistant_turn(thinking: str, answer: str) -> str:
    """The assistant's turn in the one dialect used everywhere."""
    return f"{THINK_OPEN}\n{thinking.strip()}\n{THINK_CLOSE}\n\n{answer.strip()}"


def render_prompt(prompt: Sequence[Message]) -> str:
    """The text the model continues, up to and including ``<think>`` and a newline."""
    return _render_turns((message.role, message.content) for message in prompt)


def render_question(turn: str) -> str:
    """:func:`render_prompt` of one user's turn, without making a message of it."""
    return _render_turns([("user", turn)])


def _render_turns(turns: Iterable[tuple[str, str]]) -> str:
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    return f"{text}<|im_start|>assistant\n{THINK_OPEN}\n"


def render_completion(completion: Sequence[Message]) -> str:
    """The text that carries loss, without the end-of-sequence token.

    Raises:
        ValueError: Not exactly one assistant turn that opens with ``<think>``.
    """
    if len(completion) != 1 or completion[0].role != "assistant":
        raise ValueError("a completion is exactly one assistant turn")
    text = completion[0].content
    if not text.startswith(THINK_OPEN + "\n"):
        raise ValueError("an assistant turn opens with <think> and a newline")
    return text.removeprefix(THINK_OPEN + "\n")


def encode_prompt(prompt: Sequence[Message]) -> list[int]:
    """``<s>`` and the prompt's ids."""
    return [BOS_ID, *processor().encode(render_prompt(prompt))]


def encode_example(prompt: Sequence[Message], completion: Sequence[Message]) -> Encoded:
    """Ids of ``<s> prompt completion </s>``, tokenised jointly.

    Raises:
        ValueError: The prompt's ids are not a prefix of the joint ids, so that the boundary of
            the loss would be ambiguous.
    """
    prompt_ids = encode_prompt(prompt)
    text = render_prompt(prompt) + render_completion(completion)
    ids = [BOS_ID, *processor().encode(text), EOS_ID]
    if ids[: len(prompt_ids)] != prompt_ids:
        raise ValueError("the prompt's tokens change when the completion follows")
    return Encoded(input_ids=ids, num_prompt_tokens=len(prompt_ids))


def decode(ids: Sequence[int]) -> str:
    """Text of completion ids; control tokens are dropped."""
    return str(processor().decode([i for i in ids if i > EOS_ID]))


@cache
def tokenizer_path() -> Path:
    """The SentencePiece file inside the installed ``mistral-common``."""
    return Path(str(resources.files("mistral_common") / "data" / TOKENIZER_FILE))


@cache
def processor() -> Any:
    """The SentencePiece processor, its file verified by hash.

    Raises:
        StoreError: The installed file is missing or not the student's tokenizer.
    """
    import sentencepiece

    path = tokenizer_path()
    if not path.is_file():
        raise StoreError(
            f"tokenizer file {path} is missing", hint="reinstall the package mistral-common"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != TOKENIZER_SHA256:
        raise StoreError(
            f"{path} is not the Mistral v3 tokenizer this project was built on (sha256 differs)",
            hint="install a mistral-common release that ships it (1.8 to 1.13)",
        )
    return sentencepiece.SentencePieceProcessor(model_file=str(path))
