"""The decode loop of the student: a fixed number of slots that all advance by one token a step.

A slot holds one sequence: its state, its random stream, its last token. Every step runs all slots,
busy or idle, in one shape: so the arithmetic of a row, and with it the text, depends neither on the
slot nor on the neighbours. On a GPU a step is one CUDA graph, sampling included.

>>> decoder = Decoder(model, num_slots=64, sampling=Sampling(temperature=0.8, top_p=0.95))
>>> decoder.fill(0, prompt_ids, seed=7)
>>> tokens = decoder.step()  # (num_slots,) int64: the first new token of slot 0 is tokens[0]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evaluation.decoding.choice import Sampling
from evaluation.decoding.graph import capture_step
from evaluation.decoding.state import SlotStates
from evaluation.decoding.step import advance, load_step_operations

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.model.cache import StateCache

_CPU_ROWS = 8
"""On a CPU rows come in such multiples. With other numbers, PyTorch's matrix product on two threads
gave a row other bits in another place (measured: 5 and 6 rows did, multiples of 8 never)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """How steps are computed."""

    state_dtype: str = "float32"
    """Of the recurrent state: ``float32`` or ``bfloat16``, which needs half the memory."""
    kernels: str = "torch"
    """Between the projections: ``torch`` (any device) or ``triton`` (GPU, or its interpreter)."""
    use_graph: bool = True
    """Capture the step as a CUDA graph; without meaning on a CPU."""


class Decoder:
    """Slots of one model.

    Args:
        model: A ``StudentModel`` in eval mode on its device.
        num_slots: Sequences at once. Memory grows with it and with nothing else.
        sampling: How tokens are chosen, for all slots.
        options: How steps are computed.

    Raises:
        ConfigError: Kernels that cannot run here.
        ValueError: No slots, or a dtype that is none.
    """

    def __init__(
        self,
        model: Any,
        num_slots: int,
        *,
        sampling: Sampling | None = None,
        options: DecodeOptions | None = None,
    ) -> None:
        import torch

        options = options or DecodeOptions()
        if num_slots < 1 or options.state_dtype not in ("float32", "bfloat16", "float64"):
            raise ValueError(f"{num_slots} slots with a state in {options.state_dtype}")
        self.model = model
        self.num_slots = num_slots
        self.sampling = sampling or Sampling()
        device = model.lm_head.weight.device
        rows = num_slots
        if device.type == "cpu" and num_slots > 1:
            rows = -(-num_slots // _CPU_ROWS) * _CPU_ROWS
        self._operations = load_step_operations(options.kernels)
        self.states = SlotStates(model, rows, getattr(torch, options.state_dtype))
        self.tokens = torch.zeros(rows, dtype=torch.int64, device=device)
        """(rows,) the token that each slot reads next; the first ``num_slots`` are the slots'."""
        self.positions = torch.zeros_like(self.tokens)
        """(rows,) tokens generated so far."""
        self.seeds = torch.zeros_like(self.tokens)
        """(rows,) seed of each slot's random stream."""
        self.penalties: Tensor | None = None
        """(rows, vocabulary) float32: the repetition penalty at tokens of prompt and answer, 1 at
        others; none without a penalty."""
        if self.sampling.repetition_penalty != 1:
            self.penalties = torch.ones(rows, model.config.vocab_size, device=device)
        self._last_prompt: tuple[int, ...] | None = None
        self._last_cache: StateCache | None = None
        self._replay: Callable[[], None] | None = None
        if options.use_graph and device.type == "cuda":
            self._replay = capture_step(self._step, device)
            self.reset()

    @property
    def num_bytes(self) -> int:
        """Memory that the slots hold on the device, logits of a step excluded."""
        held = [self.tokens, self.positions, self.seeds]
        held += [] if self.penalties is None else [self.penalties]
        return self.states.num_bytes + sum(one.numel() * one.element_size() for one in held)

    def reset(self) -> None:
        """Set all slots to before any token."""
        self.states.clear()
        for held in (self.tokens, self.positions, self.seeds):
            held.zero_()
        if self.penalties is not None:
            self.penalties.fill_(1)

    def rows_agree(self) -> bool:
        """Whether equal contents give equal bits in every row; all slots are reset.

        That texts do not depend on their slot rests on it. It holds where a matrix product treats
        its rows alike, which is the library's choice for a shape and a number of threads.
        """
        import torch

        self.reset()
        self.tokens.fill_(1)
        with torch.inference_mode():
            for _ in range(2):  # the second one starts from states that are not zero
                logits = advance(self.model, self.tokens, self.states, self._operations)
            agree = bool((logits == logits[:1]).all())
        self.reset()
        return agree

    def fill(self, slot: int, prompt: Sequence[int], seed: int) -> None:
        """Put a prompt into a slot, whatever was there; the next step gives its first token.

        The prompt is read alone, in its own shape, by the chunked forward pass, so that a state
        does not depend on what else is read. The last prompt's state is kept for further samples.

        Args:
            slot: From 0.
            prompt: At least one token id.
            seed: Of the sample's random stream, up to 63 bits.

        Raises:
            ValueError: An empty prompt.
        """
        if not prompt:
            raise ValueError("a prompt has at least one token")
        self.states.write(slot, self._read(tuple(prompt)))
        # The last token is read by the first step, together with the other slots' tokens.
        self.tokens[slot] = prompt[-1]
        self.positions[slot] = 0
        self.seeds[slot] = seed
        if self.penalties is not None:
            self.penalties[slot] = 1
            self.penalties[slot, sorted(set(prompt))] = self.sampling.repetition_penalty

    def step(self) -> Tensor:
        """Advance all slots by one token.

        It may be called alone, with nothing filled in: idle slots compute as busy ones do.

        Returns:
            (num_slots,) int64 new tokens on the device, overwritten by the next step.
        """
        if self._replay is None:
            self._step()
        else:
            self._replay()
        return self.tokens[: self.num_slots]

    def run(self, num_steps: int) -> Tensor:
        """(num_steps, num_slots) int64 new tokens of several steps, on the host."""
        import torch

        return torch.stack([self.step().clone() for _ in range(num_steps)]).cpu()

    def _step(self) -> None:
        import torch

        with torch.inference_mode():
            logits = advance(self.model, self.tokens, self.states, self._operations)
            chosen = self._operations.choose(
                logits, self.sampling, self.seeds, self.positions, self.penalties
            )
            if self.penalties is not None:
                self.penalties.scatter_(1, chosen[:, None], self.sampling.repetition_penalty)
            self.tokens.copy_(chosen)
            self.positions += 1

    def _read(self, prompt: tuple[int, ...]) -> StateCache | None:
        """The cache after all tokens of a prompt but the last; none if there are no others."""
        import torch

        if prompt != self._last_prompt:
            self._last_prompt, self._last_cache = prompt, None
            if len(prompt) > 1:
                ids = torch.tensor([prompt[:-1]], device=self.tokens.device)
                with torch.no_grad():
                    output = self.model.backbone(ids, use_cache=True)
                self._last_cache = output.cache_params
        return self._last_cache
