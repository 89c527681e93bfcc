"""AdamW for bf16 weights without masters: stochastic rounding, moments of eight bits.

Six bytes a parameter with its gradient. A weight of 0.02 has neighbours 6e-5 to 1.2e-4 away, a step
at a learning rate of 5e-6 rounds away; rounded at random with the right mean, the steps add up as
they should. The noise averages out over elements and steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer.optim.blocks import BLOCK, FIRST_MOMENT, SECOND_MOMENT, decode, encode

PIECE = 1 << 24
"""Elements updated at once: bounds temporary memory to about half a GiB."""
MIN_QUANTISED = 4096
"""Smaller parameters keep float32 moments."""


class StochasticAdamW(torch.optim.Optimizer):
    """AdamW with decoupled weight decay on weights rounded at random.

    Args:
        params: Parameter groups with ``weight_decay``; bf16 weights on one device.
        seed: Of the generator that rounds; its state is part of :meth:`state_dict`, so that a
            resumed run rounds as an uninterrupted one.
        options: ``lr``, ``betas``, ``eps``.
    """

    def __init__(self, params: Any, *, seed: int, **options: Any) -> None:
        super().__init__(params, options)
        device = self.param_groups[0]["params"][0].device
        self._generator = torch.Generator(device=device).manual_seed(seed)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        if closure is not None:
            raise TypeError("a closure is not supported: gradients are used once")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def state_dict(self) -> dict[str, Any]:
        """The usual state, and the generator's."""
        return {**super().state_dict(), "generator": self._generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy a saved state in with its own types; the stock method would cast it to bf16."""
        number = 0
        for group, stored in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({key: value for key, value in stored.items() if key != "params"})
            for parameter in group["params"]:
                saved = state_dict["state"].get(number, {})
                self.state[parameter] = {
                    name: value.to(parameter.device) if name != "step" else value
                    for name, value in saved.items()
                }
                number += 1
        self._generator.set_state(state_dict["generator"].cpu())

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(_fresh_state(parameter))
        state["step"] += 1
        weights, gradient = parameter.view(-1), parameter.grad.view(-1)  # type: ignore[union-attr]
        for start in range(0, weights.numel(), PIECE):
            part = slice(start, min(start + PIECE, weights.numel()))
            self._update_piece(weights[part], gradient[part], state, (group, part))

    def _update_piece(
        self,
        weights: Tensor,
        gradient: Tensor,
        state: dict[str, Any],
        where: tuple[dict[str, Any], slice],
    ) -> None:
        group, part = where
        beta1, beta2 = group["betas"]
        # One draw of 32 bits an element: 16 for the weight, 8 for each moment.
        bits = torch.randint(
            -(2**31),
            2**31,
            weights.shape,
            dtype=torch.int64,
            device=weights.device,
            generator=self._generator,
        ).to(torch.int32)
        gradient = gradient.float()
        first = _read(state, "exp_avg", part).lerp_(gradient, 1 - beta1)
        second = _read(state, "exp_avg_sq", part).mul_(beta2)
        second.addcmul_(gradient, gradient, value=1 - beta2)
        scale = (1 - beta2 ** state["step"]) ** 0.5
        denominator = second.sqrt().div_(scale).add_(group["eps"])
        values = weights.float().mul_(1 - group["lr"] * group["weight_decay"])
        values.addcdiv_(first, denominator, value=-group["lr"] / (1 - beta1 ** state["step"]))
        weights.copy_(round_at_random(values, bits & 0xFFFF, weights.dtype))
        _write(state, "exp_avg", part, (first, (bits >> 16) & 0xFF))
        _write(state, "exp_avg_sq", part, (second, (bits >> 24) & 0xFF))


def round_at_random(values: Tensor, bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Float32 values as bf16, up or down with the probability that keeps the mean.

    Args:
        values: (n,), float32.
        bits: (n,), int32 in [0, 65536), uniform.
        dtype: bfloat16; float32 is returned as it is.
    """
    if dtype == torch.float32:
        return values
    if dtype != torch.bfloat16:
        raise ValueError(f"stochastic rounding is to bfloat16, got {dtype}")
    # bf16 is the upper half of float32: adding to the lower half carries over with its share.
    raised = values.view(torch.int32) + bits
    return (raised & -65536).view(torch.float32).to(torch.bfloat16)


def _fresh_state(parameter: Tensor) -> dict[str, Any]:
    size, device = parameter.numel(), parameter.device
    if size < MIN_QUANTISED:
        zeros = torch.zeros(size, dtype=torch.float32, device=device)
        return {"step": 0, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
    state: dict[str, Any] = {"step": 0}
    for name in ("exp_avg", "exp_avg_sq"):
        state[name] = torch.zeros(size, dtype=torch.uint8, device=device)
        blocks = -(-size // BLOCK)
        state[f"{name}_scale"] = torch.zeros(blocks, dtype=torch.float32, device=device)
    return state


def _book(name: str) -> Any:
    return FIRST_MOMENT if name == "exp_avg" else SECOND_MOMENT


def _blocks(part: slice) -> slice:
    """Pieces begin at whole blocks."""
    return slice(part.start // BLOCK, -(-part.stop // BLOCK))


def _read(state: dict[str, Any], name: str, part: slice) -> Tensor:
    stored: Tensor = state[name][part]
    if stored.dtype == torch.float32:
        return stored.clone()
    return decode(stored, state[f"{name}_scale"][_blocks(part)], _book(name))


def _write(
    state: dict[str, Any], name: str, part: slice, value_and_bits: tuple[Tensor, Tensor]
) -> None:
    values, bits = value_and_bits
    if state[name].dtype == torch.float32:
        state[name][part] = values
        return
    codes, scales = encode(values, (bits.float() + 0.5) / 256, _book(name))
    state[name][part] = codes
    state[f"{name}_scale"][_blocks(part)] = scales
