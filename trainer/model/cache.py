"""What decoding remembers: for each layer one state and the last inputs of its convolution.

The size depends on the model and the batch, never on the number of tokens.
"""

from __future__ import annotations

from torch import Tensor


class StateCache:
    """The memory of a batch of rows, updated in place by each forward pass.

    Args:
        num_layers: Blocks of the model.
    """

    is_compileable = False
    """``generate`` must not compile the model for it."""

    def __init__(self, num_layers: int) -> None:
        self.convolutions: list[Tensor | None] = [None] * num_layers
        """(batch, conv_kernel - 1, channels): the inputs of the last tokens, oldest first."""
        self.states: list[Tensor | None] = [None] * num_layers
        """(batch, heads, head_dim, state_size) in float32 or float64."""
        self.num_tokens = 0
        """Columns seen so far, padding included."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing was read yet."""
        return self.num_tokens == 0

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        held = [*self.convolutions, *self.states]
        return sum(value.numel() * value.element_size() for value in held if value is not None)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns seen so far, as ``generate`` asks for them."""
        return self.num_tokens

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep these rows, in this order (beam search)."""
        for held in (self.convolutions, self.states):
            held[:] = [v if v is None else v.index_select(0, beam_idx.to(v.device)) for v in held]
