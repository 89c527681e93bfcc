"""The Mamba-2 mixer: projection, convolution, scan, gated norm, projection.

Parameter names and mathematics are those of transformers' ``Mamba2Mixer`` (5.23), except that
``time_step_limit`` also holds while decoding, and that documents of one row are kept apart.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainer.model.operations import Operations
from trainer.model.scan import ScanInputs


class RMSNormWeight(nn.Module):
    """The weight of a norm, which a backend's operation applies."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))


class Mixer(nn.Module):
    """One layer's mixer.

    Args:
        config: A ``Mamba2Config``.
        operations: The backend.
    """

    def __init__(self, config: Any, operations: Operations) -> None:
        super().__init__()
        self.config = config
        self.operations = operations
        inner = int(config.expand * config.hidden_size)
        channels = inner + 2 * config.n_groups * config.state_size
        self.splits = [inner, channels, config.num_heads]
        self.dt_limit = (float(config.time_step_limit[0]), float(config.time_step_limit[1]))
        self.conv1d = nn.Conv1d(
            channels,
            channels,
            bias=config.use_conv_bias,
            kernel_size=config.conv_kernel,
            groups=channels,
            padding=config.conv_kernel - 1,
        )
        self.in_proj = nn.Linear(config.hidden_size, sum(self.splits), bias=config.use_bias)
        self.dt_bias = nn.Parameter(torch.empty(config.num_heads))
        self.A_log = nn.Parameter(torch.empty(config.num_heads))
        self.D = nn.Parameter(torch.empty(config.num_heads))
        self.norm = RMSNormWeight(inner)
        self.out_proj = nn.Linear(inner, config.hidden_size, bias=config.use_bias)
        self.keeps_states = False
        """Whether ``mix`` keeps what it could compute again: right where blocks are recomputed."""

    def forward(self, hidden: Tensor, seq_idx: Tensor | None) -> Tensor:
        """Mix tokens of each document.

        Args:
            hidden: (batch, length, hidden_size).
            seq_idx: (batch, length) int32 numbers of documents, or none.
        """
        projected = self.in_proj(hidden)
        if self.operations.fused_mixer is not None:
            return self._mix_fused(projected, seq_idx)
        if self.operations.mix is not None:
            out: Tensor = self.out_proj(self._mix(projected, seq_idx))
            return out
        gate, xbc, dt = torch.split(projected, self.splits, dim=-1)
        xbc = self.operations.causal_conv1d(
            xbc, self.conv1d.weight.squeeze(1), self.conv1d.bias, seq_idx
        )
        y = self.operations.chunk_scan(
            *self.scan_inputs(xbc, dt),
            chunk_size=self.config.chunk_size,
            seq_idx=seq_idx,
            dt_limit=self.dt_limit,
        )
        return self._finish(y.flatten(2), gate)

    def _finish(self, y: Tensor, gate: Tensor) -> Tensor:
        eps, groups = self.config.layer_norm_epsilon, self.config.n_groups
        mixed = self.operations.gated_norm(y, gate, self.norm.weight, eps, groups)
        out: Tensor = self.out_proj(mixed)
        return out

    def scan_inputs(self, xbc: Tensor, dt: Tensor) -> ScanInputs:
        """Name the parts of the convolved projection; nothing is copied."""
        config = self.config
        state = config.n_groups * config.state_size
        x, B, C = torch.split(xbc, [self.splits[0], state, state], dim=-1)
        return ScanInputs(
            x=torch.unflatten(x, -1, (config.num_heads, config.head_dim)),
            dt=dt,
            A=self._decay_rates(),
            B=torch.unflatten(B, -1, (config.n_groups, config.state_size)),
            C=torch.unflatten(C, -1, (config.n_groups, config.state_size)),
            D=self.D,
            dt_bias=self.dt_bias,
        )

    def _decay_rates(self) -> Tensor:
        dtype = torch.promote_types(self.A_log.dtype, torch.float32)
        return -torch.exp(self.A_log.to(dtype))

    def _mix(self, projected: Tensor, seq_idx: Tensor | None) -> Tensor:
        from trainer.kernels.mamba_scan import ScanOptions
        from trainer.kernels.mixer import MixerShape, MixerWeights

        assert self.operations.mix is not None  # the caller asked
        config, conv = self.config, self.conv1d
        weights = MixerWeights(
            conv.weight.squeeze(1),
            conv.bias,
            self.dt_bias,
            self._decay_rates(),
            self.D,
            self.norm.weight,
        )
        shape = MixerShape(
            num_heads=config.num_heads,
            head_dim=config.head_dim,
            num_groups=config.n_groups,
            state_size=config.state_size,
            eps=config.layer_norm_epsilon,
            scan=ScanOptions(config.chunk_size, self.dt_limit),
        )
        return self.operations.mix(projected, weights, shape, seq_idx, keep=self.keeps_states)

    def _mix_fused(self, projected: Tensor, seq_idx: Tensor | None) -> Tensor:
        assert self.operations.fused_mixer is not None  # the caller asked
        return self.operations.fused_mixer(
            projected,
            self.conv1d.weight.squeeze(1),
            self.conv1d.bias,
            self.dt_bias,
            self._decay_rates(),
            D=self.D,
            chunk_size=self.config.chunk_size,
            seq_idx=seq_idx,
            dt_limit=self.dt_limit,
            activation="silu",
            rmsnorm_weight=self.norm.weight,
            rmsnorm_eps=self.config.layer_norm_epsilon,
            outproj_weight=self.out_proj.weight,
            outproj_bias=self.out_proj.bias,
            headdim=self.config.head_dim,
            ngroups=self.config.n_groups,
            norm_before_gate=False,
        )
