"""What the slots remember: for each layer one state and the last inputs of its convolution.

Memory depends on the model and the number of slots, never on how many tokens were read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, dtype

    from trainer.model.cache import StateCache


class SlotStates:
    """The memory of all slots, at addresses that never change.

    Args:
        model: A ``StudentModel``.
        rows: Slots.
        state_dtype: Of the states; convolutions keep the weights' dtype.
    """

    def __init__(self, model: Any, rows: int, state_dtype: dtype) -> None:
        import torch

        config, layers = model.config, model.backbone.layers
        mixer = layers[0].mixer
        weight, channels = mixer.in_proj.weight, mixer.splits[1]
        shape = (config.num_heads, config.head_dim, config.state_size)
        self.states: list[Tensor] = [
            weight.new_zeros(rows, *shape, dtype=state_dtype) for _ in layers
        ]
        """Of each layer (rows, heads, head_dim, state_size)."""
        self.windows: list[Tensor] = [
            weight.new_zeros(rows, config.conv_kernel - 1, channels) for _ in layers
        ]
        """Of each layer (rows, conv_kernel - 1, channels): inputs of the last tokens, oldest
        first."""
        self.steps: Tensor = weight.new_zeros(rows, dtype=torch.int32)
        """(rows,) tokens read in steps, a prompt's own pass not counted."""

    @property
    def num_bytes(self) -> int:
        """Memory held, of all slots together."""
        held = [*self.states, *self.windows]
        return sum(value.numel() * value.element_size() for value in held)

    def clear(self) -> None:
        """Set all slots to before any token."""
        for held in (*self.states, *self.windows, self.steps):
            held.zero_()

    def write(self, row: int, cache: StateCache | None) -> None:
        """Set one slot to what a cached pass over one prompt left; none: to before any token."""
        self.steps[row] = 0
        for layer, (state, window) in enumerate(zip(self.states, self.windows, strict=True)):
            if cache is None:
                state[row].zero_()
                window[row].zero_()
            else:
                found, inputs = cache.states[layer], cache.convolutions[layer]
                assert found is not None and inputs is not None  # a pass has filled them
                state[row].copy_(found[0])
                window[row].copy_(inputs[0])
