"""Sample answers from a checkpoint in this process.

Prompts are padded on the left: then the padding changes nothing (measured: token for token the
same as one prompt alone), while padding on the right would run through the state before decoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.checkpoints import load_model
from pipeline import console
from pipeline.benchmark_items import BenchmarkItem
from pipeline.records import Message
from pipeline.settings.evaluation import EvaluationSettings
from pipeline.student import BOS_ID, EOS_ID, decode, encode_prompt, user_turn

PAD_ID = 0
"""``<unk>``, which no text contains. Padding with the end token would make a repetition penalty
punish ending, in padded rows only."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote after a prompt."""

    text: str
    num_tokens: int
    """Without the end token."""
    truncated: bool
    """Whether the token limit ended it."""


def encode_item(item: BenchmarkItem) -> list[int]:
    """Token ids of an item's prompt in the student's chat format."""
    return encode_prompt([Message(role="user", content=user_turn(item.task, item.domain))])


class Student:
    """A checkpoint that answers; the model is loaded at the first use.

    Args:
        checkpoint: Folder with ``config.json`` and safetensors.
        settings: Temperature, lengths, threads.
    """

    def __init__(self, checkpoint: Path, settings: EvaluationSettings) -> None:
        self._checkpoint = checkpoint
        self._settings = settings
        self._model: Any = None

    def complete(self, prompts: Sequence[Sequence[int]], *, seed: int) -> list[Completion]:
        """One completion per prompt, decoded together; equal arguments give equal texts.

        Raises:
            SourceError: The checkpoint cannot be loaded.
        """
        import torch

        if self._model is None:
            self._model = load_model(self._checkpoint)
        width = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[PAD_ID] * (width - len(p)) + list(p) for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        device = self._model.device
        forked = [] if device.type == "cpu" else [device]
        with (
            _threads(self._settings.num_threads),
            torch.random.fork_rng(devices=forked),
            console.progress("decoding", self._settings.max_new_tokens, "tokens") as advance,
        ):
            torch.manual_seed(seed)
            output = self._model.generate(
                ids.to(device),
                attention_mask=mask.to(device),
                generation_config=self._generation_config(),
                stopping_criteria=[_Progress(advance)],
            )
        return [self._read(row) for row in output[:, width:].tolist()]

    def _generation_config(self) -> Any:
        from transformers import GenerationConfig

        settings = self._settings
        options: dict[str, Any] = {"do_sample": False}
        if settings.temperature > 0:
            # Without top_k=0 the library would silently sample among 50 tokens only.
            options = {
                "do_sample": True,
                "temperature": settings.temperature,
                "top_p": settings.top_p,
                "top_k": 0,
            }
        return GenerationConfig(
            **options,
            repetition_penalty=settings.repetition_penalty,
            max_new_tokens=settings.max_new_tokens,
            bos_token_id=BOS_ID,
            eos_token_id=EOS_ID,
            pad_token_id=PAD_ID,
        )

    def _read(self, ids: Sequence[int]) -> Completion:
        """Cut a row at its end token; what follows is padding."""
        ended = EOS_ID in ids
        written = ids[: list(ids).index(EOS_ID)] if ended else list(ids)
        return Completion(text=decode(written), num_tokens=len(written), truncated=not ended)


class _Progress:
    """Advances a progress bar once per decoded token and stops nothing."""

    def __init__(self, advance: Any) -> None:
        self._advance = advance

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        import torch

        self._advance(1)
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Decode on so many CPU threads; 0 changes nothing."""
    import torch

    before = torch.get_num_threads()
    if number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
