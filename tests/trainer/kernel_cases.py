"""Every kernel at sizes of real runs, for a GPU: used by the tests and by the benchmark's check."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from kernel_references import (
    DEVICE,
    Tensors,
    convolve_documents,
    label_documents,
    norm_added,
    norm_gated,
    worst_error,
)
from transformers import Mamba2Config

from trainer.kernels.availability import require
from trainer.kernels.convolution import causal_conv1d
from trainer.kernels.mamba_scan import ScanOptions, chunk_scan
from trainer.kernels.mixer import MixerShape, MixerWeights, mix
from trainer.kernels.norms import add_norm, gated_norm
from trainer.kernels.precompile import Workload, precompile_all
from trainer.kernels.tiles import list_smallest_tiles, pin_tiles
from trainer.model.scan import ScanInputs, scan

EPS = 1e-5
LENGTHS = [700, 1, 2, 255, 257, 3, 512, 317, 1]
LENGTH = sum(LENGTHS)
ROUNDING = {torch.float32: 2e-5, torch.bfloat16: 1e-2}
MATRIX_ROUNDING = {torch.float32: 5e-3, torch.bfloat16: 1.5e-2}
"""Where the scan takes part: its products are tf32 at best."""


class Case(NamedTuple):
    """A kernel, what it must compute, and how far it may be off."""

    kernel: Callable[..., torch.Tensor | Tensors]
    reference: Callable[..., torch.Tensor | Tensors]
    inputs: Tensors
    limit: float


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def slice_wide(channels: int, before: int, dtype: torch.dtype) -> torch.Tensor:
    """Middle channels of a wider tensor."""
    wide = random(2, LENGTH, before + channels + 64, dtype=dtype)
    return wide[..., before : before + channels].requires_grad_()


def build_convolution(dtype: torch.dtype, channels: int, width: int) -> Case:
    labels = label_documents(LENGTHS, batch=2)
    inputs = (
        slice_wide(channels, 512, dtype),
        random(channels, width, dtype=dtype, seed=1).requires_grad_(),
        random(channels, dtype=dtype, seed=2).requires_grad_(),
    )
    return Case(
        lambda *t: causal_conv1d(*t, labels),
        lambda *t: convolve_documents(*t, labels),
        inputs,
        ROUNDING[dtype],
    )


def build_gated_norm(dtype: torch.dtype, channels: int, num_groups: int) -> Case:
    inputs = (
        random(2, LENGTH, channels, dtype=dtype).requires_grad_(),
        slice_wide(channels, 64, dtype),
        random(channels, dtype=dtype, seed=1).requires_grad_(),
    )
    return Case(
        lambda *t: gated_norm(*t, EPS, num_groups),
        lambda *t: norm_gated(*t, EPS, num_groups),
        inputs,
        ROUNDING[dtype],
    )


def build_add_norm(dtype: torch.dtype, channels: int, residual: torch.dtype) -> Case:
    inputs = (
        random(2, LENGTH, channels, dtype=dtype).requires_grad_(),
        random(2, LENGTH, channels, dtype=residual, seed=1).requires_grad_(),
        random(channels, dtype=dtype, seed=2).requires_grad_(),
    )
    return Case(
        lambda *t: add_norm(*t, EPS, residual_dtype=residual),
        lambda *t: norm_added(*t, EPS),
        inputs,
        ROUNDING[dtype],
    )


def build_scan(dtype: torch.dtype) -> Case:
    heads, width, groups, state = 16, 64, 8, 128
    labels = label_documents(LENGTHS)
    values = [
        random(1, LENGTH, heads, width, dtype=dtype),
        random(1, LENGTH, heads, dtype=dtype, seed=1),
        -random(heads, seed=2).abs() - 0.2,
        random(1, LENGTH, groups, state, dtype=dtype, seed=3),
        random(1, LENGTH, groups, state, dtype=dtype, seed=4),
        random(heads, dtype=dtype, seed=5),
        random(heads, dtype=dtype, seed=6),
    ]
    inputs = tuple(v.requires_grad_() for v in values)
    return Case(
        lambda *t: chunk_scan(*t, chunk_size=256, seq_idx=labels),
        lambda *t: scan(ScanInputs(*t), chunk_size=256, seq_idx=labels)[0],
        inputs,
        MATRIX_ROUNDING[dtype],
    )


def build_mixer(dtype: torch.dtype, keep: bool) -> Case:
    shape = MixerShape(
        num_heads=16,
        head_dim=64,
        num_groups=8,
        state_size=128,
        eps=EPS,
        scan=ScanOptions(256),
    )
    labels = label_documents(LENGTHS)
    inner, channels, heads = shape.parts
    values = [
        random(1, LENGTH, sum(shape.parts), dtype=dtype),
        random(channels, 4, dtype=dtype, seed=1),
        random(channels, dtype=dtype, seed=2),
        random(heads, dtype=dtype, seed=3),
        -random(heads, seed=4).abs() - 0.2,
        random(heads, dtype=dtype, seed=5),
        random(inner, dtype=dtype, seed=6),
    ]

    def reference(*tensors: torch.Tensor) -> torch.Tensor:
        weights = MixerWeights(*tensors[1:])
        gate, mixed, dt = tensors[0].split(shape.parts, dim=-1)
        convolved = convolve_documents(mixed, weights.conv_weight, weights.conv_bias, labels)
        scanned = ScanInputs(*shape.name_scan_inputs(convolved, dt, weights))
        y = scan(scanned, chunk_size=256, seq_idx=labels)[0].flatten(2)
        return norm_gated(y, gate, weights.norm_weight, EPS, shape.num_groups)

    return Case(
        lambda *t: mix(t[0], MixerWeights(*t[1:]), shape, labels, keep=keep),
        reference,
        tuple(v.requires_grad_() for v in values),
        MATRIX_ROUNDING[dtype],
    )


def measure_case(case: Case) -> float:
    """Worst error over outputs and gradients, as a share of the case's limit."""
    return worst_error(case.kernel, case.reference, case.inputs) / case.limit


def make_config() -> Mamba2Config:
    """A layer of the shape that the scan's and the mixer's cases have."""
    return Mamba2Config(
        hidden_size=512, num_heads=16, head_dim=64, n_groups=8, state_size=128, chunk_size=256
    )


def prepare_small_tiles() -> None:
    """Give the scan's kernels tiles that fit for float32 too, and compile them all at once."""
    require("triton")
    pin_tiles(list_smallest_tiles())
    precompile_all([Workload(make_config(), dtype, LENGTH) for dtype in ROUNDING])


CASES: dict[str, Callable[[], Case]] = {}
for _dtype in (torch.float32, torch.bfloat16):
    _name = str(_dtype).removeprefix("torch.")
    for _channels, _width in ((768, 4), (771, 3), (256, 2)):
        CASES[f"convolution {_name} {_channels}x{_width}"] = partial(
            build_convolution, _dtype, _channels, _width
        )
    for _channels, _groups in ((4096, 8), (5120, 8), (2048, 1), (45, 3)):
        CASES[f"gated norm {_name} {_channels}/{_groups}"] = partial(
            build_gated_norm, _dtype, _channels, _groups
        )
    for _channels in (2048, 2560, 100):
        for _residual in (torch.float32, torch.bfloat16):
            if _residual == _dtype or _residual == torch.float32:
                CASES[f"add norm {_name} {_channels} {_residual}"] = partial(
                    build_add_norm, _dtype, _channels, _residual
                )
    CASES[f"scan {_name}"] = partial(build_scan, _dtype)
    for _keep in (False, True):
        CASES[f"mixer {_name} keep={_keep}"] = partial(build_mixer, _dtype, _keep)
