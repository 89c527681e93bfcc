"""The row of an evaluation version."""

from __future__ import annotations

from pipeline.records import Domain, FinishReason, Record


class SampledAnswer(Record):
    """One sampled answer to one benchmark item, with its verdict."""

    id: str
    """``benchmark/item/sample``."""
    benchmark: str
    domain: Domain
    item_id: str
    sample: int
    """Number of the sample, from 0."""
    question: str
    gold: str | None
    """Maths: the gold answer. Code is judged by tests."""
    text: str
    """Everything the model wrote after the prefilled ``<think>``."""
    thinking: str
    answer: str
    """What follows ``</think>``; empty when the thought never ends."""
    extracted: str | None
    """Maths: content of the last box. Code: the last Python block."""
    correct: bool
    reason: str
    """``correct``, ``wrong``, ``no_answer``, ``no_code``, ``truncated`` or a program's failure."""
    truncated: bool
    """Whether the token limit ended the text."""
    finish_reason: FinishReason
    """``stop``: by the end token; ``length``: by the token limit."""
    num_tokens: int
    """Generated, without the end token."""
    num_prompt_tokens: int
    seed: int
    """Of the sample's own random stream."""
    prompt_hash: str
    """Hash of the messages that were sent."""
