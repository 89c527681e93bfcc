"""Each kernel of a layer by itself: its time against the time its bytes need, and its errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gpu_models import SIZES

from trainer.kernels import convolution, mamba_scan, norms, score_gradients
from trainer.kernels.mamba_scan import Kept, ScanGradients, ScanOptions, ScanTensors
from trainer.kernels.mixer import MixerShape
from trainer.kernels.score_gradients import differentiate_scores
from trainer.kernels.state_gradients import differentiate_keys, differentiate_queries
from trainer.kernels.tiles import pin_tiles, read_tiles

EPS = 1e-5


class Timed(NamedTuple):
    """One call, and the bytes it must move at the least."""

    name: str
    call: Callable[[], Any]
    num_bytes: int


class Layer:
    """The tensors of one layer at a size and length, in bf16, with six documents in the row."""

    def __init__(self, size: str, length: int) -> None:
        model = SIZES[size]
        inner = model.hidden_size * model.expand
        self.model, self.length = model, length
        self.shape = MixerShape(
            num_heads=inner // model.head_dim,
            head_dim=model.head_dim,
            num_groups=model.n_groups,
            state_size=model.state_size,
            eps=EPS,
            scan=ScanOptions(model.chunk_size),
        )
        options = {"device": "cuda", "dtype": torch.bfloat16}
        self.projected = torch.randn(1, length, sum(self.shape.parts), **options)
        self.gate, self.mixed, self.dt = self.projected.split(self.shape.parts, dim=-1)
        self.dprojected = torch.empty_like(self.projected)
        self.dgate, self.dmixed, self.ddt = self.dprojected.split(self.shape.parts, dim=-1)
        channels = self.shape.parts[1]
        self.conv = (torch.randn(channels, 4, **options), torch.randn(channels, **options))
        self.convolved = torch.randn(1, length, channels, **options)
        self.inner = torch.randn(1, length, inner, **options)
        self.hidden = torch.randn(1, length, model.hidden_size, **options)
        self.stream = torch.randn(1, length, model.hidden_size, device="cuda")
        self.norm = torch.ones(inner, **options)
        self.block_norm = torch.ones(model.hidden_size, **options)
        cuts = torch.arange(length, device="cuda") * 6 // length
        self.seq_idx = cuts[None].int()
        heads = self.shape.num_heads
        x, B, C = self.shape.split_channels(self.convolved)
        rates = -torch.rand(heads, device="cuda") - 0.1
        self.scan = ScanTensors(
            x, self.dt, rates, B, C, torch.ones(heads, **options), torch.zeros(heads, **options)
        )


def list_kernels(layer: Layer) -> Iterator[Timed]:
    """Everything one block runs besides matrix products."""
    weight, bias = layer.conv
    seq, shape = layer.seq_idx, layer.shape
    conv, inner, hidden = (t.numel() * 2 for t in (layer.convolved, layer.inner, layer.hidden))
    yield Timed(
        "convolution forward",
        lambda: convolution.convolve(layer.mixed, weight, bias, seq),
        2 * conv,
    )
    yield Timed(
        "convolution backward",
        lambda: convolution.differentiate(
            (layer.mixed, weight, bias), seq, layer.convolved, dx=layer.dmixed
        ),
        3 * conv,
    )
    gated = (layer.inner, layer.gate, layer.norm)
    yield Timed(
        "gated norm forward",
        lambda: norms.normalise_gated(*gated, EPS, shape.num_groups),
        3 * inner,
    )
    yield Timed(
        "gated norm backward",
        lambda: norms.differentiate_gated(
            gated, layer.inner, EPS, shape.num_groups, dgate=layer.dgate
        ),
        5 * inner,
    )
    yield from _list_add_norm(layer, hidden)
    yield from _list_scan(layer, conv, inner)


def _list_add_norm(layer: Layer, hidden: int) -> Iterator[Timed]:
    x = layer.hidden.detach().requires_grad_()
    stream = layer.stream.detach().requires_grad_()
    weight = layer.block_norm.detach().requires_grad_()

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        return norms.add_norm(x, stream, weight, EPS, residual_dtype=torch.float32)

    outputs = forward()
    pulls = tuple(torch.randn_like(o) for o in outputs)
    yield Timed("add + norm forward", forward, 6 * hidden)
    yield Timed(
        "add + norm backward",
        lambda: torch.autograd.grad(outputs, (x, stream, weight), pulls, retain_graph=True),
        8 * hidden,
    )


def _list_scan(layer: Layer, conv: int, inner: int) -> Iterator[Timed]:
    options, seq = layer.shape.scan, layer.seq_idx
    _, kept = mamba_scan.scan_forward(layer.scan, options, seq)
    dconvolved = torch.empty_like(layer.convolved)
    dx, dB, dC = layer.shape.split_channels(dconvolved)
    out = ScanGradients(dx, layer.ddt, dB, dC)
    dy = layer.inner.unflatten(-1, (layer.shape.num_heads, layer.shape.head_dim))
    yield Timed(
        "scan forward", lambda: mamba_scan.scan_forward(layer.scan, options, seq), conv + inner
    )
    yield Timed(
        "scan backward, states kept",
        lambda: mamba_scan.scan_backward(dy, layer.scan, options, seq, (out, kept)),
        2 * conv + inner,
    )
    yield Timed(
        "scan backward, states computed again",
        lambda: mamba_scan.scan_backward(dy, layer.scan, options, seq, (out, None)),
        2 * conv + inner,
    )
    yield from _list_scan_steps(layer, kept, dy)


def _list_scan_steps(layer: Layer, kept: Kept, dy: torch.Tensor) -> Iterator[Timed]:
    """mamba-ssm's kernels one by one, for where the scan's time goes."""
    mamba, s, q = mamba_scan.load_mamba(), layer.scan, layer.shape.scan.chunk_size
    seq = {"seq_idx": layer.seq_idx}
    shared = {**seq, "ngroups": layer.shape.num_groups}
    steps = (kept.dt, kept.decay)
    dstates, _, states = mamba_scan._differentiate_states(dy, s, kept, layer.seq_idx)
    flat, end = kept.states.flatten(-2), kept.decay[..., -1]
    dscores, _ = differentiate_scores(s.x, dy, kept.scores, steps, layer.seq_idx)
    short = kept.scores.to(torch.bfloat16)
    calls: dict[str, Callable[[], Any]] = {
        "cumsum": lambda: mamba._chunk_cumsum_fwd(
            s.dt, s.A, q, dt_bias=s.dt_bias, dt_softplus=True
        ),
        "states": lambda: mamba._chunk_state_fwd(s.B, s.x, *steps, **seq),
        "pass": lambda: mamba._state_passing_fwd(flat, end, chunk_size=q, **seq),
        "scores": lambda: mamba._bmm_chunk_fwd(s.C, s.B, q, output_dtype=torch.float32, **seq),
        "outputs": lambda: mamba._chunk_scan_fwd(
            kept.scores, s.x, *steps, s.C, kept.states, D=s.D, **seq
        ),
        "dstates": lambda: mamba_scan._differentiate_states(dy, s, kept, layer.seq_idx),
        "dx": lambda: mamba._chunk_scan_chunk_state_bwd_dx(
            s.x, *steps, s.B, kept.scores, dy, dstates, D=s.D, **seq
        ),
        "dB": lambda: differentiate_keys(s.x, dstates, s.B, steps, layer.seq_idx),
        "dB of mamba-ssm": lambda: mamba._chunk_state_bwd_db(s.x, *steps, dstates, B=s.B, **shared),
        "dC": lambda: differentiate_queries(dy, states, s.C, kept.decay, layer.seq_idx),
        "dC of mamba-ssm": lambda: mamba._chunk_scan_bwd_dC(
            states, kept.decay, dy, C=s.C, **shared
        ),
        "dscores and ddecay": lambda: differentiate_scores(
            s.x, dy, kept.scores, steps, layer.seq_idx
        ),
        "dscores of mamba-ssm": lambda: mamba._chunk_scan_bwd_dcb(s.x, *steps, dy, **shared),
        "ddecay of mamba-ssm": lambda: mamba._chunk_scan_bwd_ddAcs_stable(
            s.x, *steps, dy, kept.scores
        ),
        "outputs, scores in bf16": lambda: mamba._chunk_scan_fwd(
            short, s.x, *steps, s.C, kept.states, D=s.D, **seq
        ),
        "dx, scores in bf16": lambda: mamba._chunk_scan_chunk_state_bwd_dx(
            s.x, *steps, s.B, short, dy, dstates, D=s.D, **seq
        ),
        "dscores to dC": lambda: mamba._bmm_chunk_bwd(s.C, dscores),
    }
    yield from (Timed(f"scan step {name}", call, 0) for name, call in calls.items())


def time_kernels(size: str, length: int) -> dict[str, Any]:
    """Milliseconds of each kernel, and of a copy at the same bytes (the bound)."""
    from triton.testing import do_bench

    layer = Layer(size, length)
    source = torch.empty(1 << 28, dtype=torch.bfloat16, device="cuda")
    target = torch.empty_like(source)
    copy_ms = do_bench(lambda: target.copy_(source), return_mode="median")
    bytes_per_ms = 2 * 2 * source.numel() / copy_ms
    rows = {}
    for timed in list_kernels(layer):
        ms = do_bench(timed.call, warmup=10, rep=40, return_mode="median")
        rows[timed.name] = {"ms": round(ms, 4)}
        if timed.num_bytes:
            bound = timed.num_bytes / bytes_per_ms
            rows[timed.name] |= {"bound_ms": round(bound, 4), "of_bound": round(bound / ms, 3)}
    return {"size": size, "length": length, "copy_tb_s": bytes_per_ms / 1e9, "kernels": rows}


_VARIANTS: dict[str, tuple[Any, tuple[str, ...], tuple[tuple[int, ...], ...]]] = {
    "convolution forward": (
        convolution,
        ("TIME_TILE", "CHANNEL_TILE", "TILE_WARPS"),
        ((32, 128, 4), (16, 128, 4), (16, 256, 4), (8, 256, 4), (16, 128, 2), (32, 256, 8)),
    ),
    "convolution backward": (
        convolution,
        ("SEGMENT", "CHANNEL_VECTOR", "VECTOR_WARPS"),
        ((128, 256, 2), (64, 256, 2), (256, 256, 2), (128, 128, 1), (128, 512, 4), (128, 512, 2)),
    ),
    "gated norm forward": (norms, ("_TILE",), ((2048,), (1024,), (4096,))),
    "gated norm backward": (
        norms,
        ("_TILE", "_PROGRAMS"),
        ((2048, 2048), (1024, 2048), (512, 4096), (1024, 4096), (2048, 4096)),
    ),
    "add + norm backward": (norms, ("_MAX_PARTIALS",), ((512,), (1024,), (2048,))),
    "scan step dscores and ddecay": (
        score_gradients,
        ("_BLOCK", "_WARPS", "_STAGES"),
        ((64, 4, 3), (64, 4, 2), (64, 4, 1), (64, 8, 2), (128, 8, 2), (32, 2, 3)),
    ),
}
"""Kernel → the module and names of its settings, and values to try; the first are the project's."""


def sweep_tiles(size: str, length: int) -> dict[str, Any]:
    """Milliseconds of our kernels with other tiles."""
    from triton.testing import do_bench

    calls = {timed.name: timed.call for timed in list_kernels(Layer(size, length))}
    found: dict[str, dict[str, float | str]] = {}
    for name, (module, settings, variants) in _VARIANTS.items():
        rows = found.setdefault(name, {})
        for values in variants:
            for setting, value in zip(settings, values, strict=True):
                setattr(module, setting, value)
            try:
                rows[str(values)] = round(do_bench(calls[name], 10, 40, return_mode="median"), 4)
            except Exception as exc:
                rows[str(values)] = f"{type(exc).__name__}: {str(exc)[:100]}"
        for setting, value in zip(settings, variants[0], strict=True):
            setattr(module, setting, value)
    return {"size": size, "length": length, "ms": found}


def check_kernels() -> dict[str, float]:
    """Largest relative error of each kernel's outputs and gradients against float64.

    As shares of the limits. First with the scan's smallest tiles, then, in bf16, with the pinned
    ones that the timings use.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "trainer"))
    from kernel_cases import CASES, measure_case, prepare_small_tiles

    pinned = read_tiles()
    prepare_small_tiles()
    found = {name: measure_case(build()) for name, build in CASES.items()}
    pin_tiles(pinned)
    for name, build in CASES.items():
        if "bfloat16" in name and name.startswith(("scan", "mixer")):
            found[f"{name}, pinned tiles"] = measure_case(build())
    return {name: round(error, 4) for name, error in found.items()}
