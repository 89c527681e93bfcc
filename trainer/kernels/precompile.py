"""Compile the kernels a run needs in many processes, before its first step.

Triton compiles a kernel when it is first launched, one after the other, and tries every tile that
mamba-ssm proposes for each of its kernels: minutes on a fresh machine. Here one layer's pass is
recorded without launching anything, and what it would compile is compiled in parallel.

Compiled kernels are kept in ``TRITON_CACHE_DIR`` (default ``~/.triton/cache``): put it on a disk
that outlives the job. A file there says what was done, so that a second start costs nothing.
"""

from __future__ import annotations

import importlib
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline.hashing import content_hash
from trainer.kernels.availability import is_interpreted, require

if TYPE_CHECKING:
    from trainer.kernels.mixer import MixerShape, MixerWeights

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Launch:
    """A launch to compile for: everything that picks a version of the kernel."""

    module: str
    kernel: str
    arguments: tuple[Any, ...]
    """Numbers as they are, tensors as their dtypes."""
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Compiled:
    """What :func:`precompile` did."""

    num_kernels: int
    """Versions of kernels that the run may need."""
    num_failed: int
    """Tiles that do not compile on this GPU; the choice of tiles leaves them out."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Workload:
    """A layer's pass, for which kernels are compiled."""

    config: Any
    """A ``Mamba2Config``."""
    dtype: torch.dtype
    """Of the activations (bfloat16 under autocast)."""
    length: int
    """Tokens of a row; what matters is whether 16 divides it and its number of chunks."""
    batch: int = 1
    """Rows; what matters is whether it is 1."""
    weight_dtype: torch.dtype | None = None
    """Of the parameters, if not that of the activations."""
    has_documents: bool = True


def precompile(config: Any, dtype: torch.dtype, length: int) -> Compiled:
    """Compile what training a model needs on packed rows with weights of ``dtype``.

    Raises:
        ConfigError: No CUDA device, or packages are missing.
    """
    return precompile_all([Workload(config, dtype, length)])


def compile_for_run(config: Any, precision: str, num_rows: int) -> Compiled:
    """Compile what a run needs whose rows are whole chunks.

    Args:
        config: A ``Mamba2Config``.
        precision: ``training.precision``: the dtypes of activations and weights follow from it.
        num_rows: Rows of a micro-batch.

    Raises:
        ConfigError: No CUDA device, or packages are missing.
    """
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    has_masters = precision in ("float32", "bf16_autocast")
    workloads = [
        Workload(
            config,
            dtype,
            # Triton has versions of its own for numbers that 16 divides.
            num_chunks * config.chunk_size,
            batch=num_rows,
            weight_dtype=torch.float32 if has_masters else dtype,
        )
        for num_chunks in (16, 17)
    ]
    return precompile_all(workloads)


def precompile_all(workloads: list[Workload], *, num_processes: int | None = None) -> Compiled:
    """Compile what several kinds of passes need, all at once.

    Args:
        workloads: The passes.
        num_processes: At most as many at once; by default one a processor core, up to 16.

    Returns:
        Numbers of kernels and seconds; no kernels under the interpreter or when done before.

    Raises:
        ConfigError: No CUDA device, or packages are missing.
    """
    began = time.monotonic()
    require("triton")
    if is_interpreted():
        return Compiled(0, 0, 0.0)
    found = {repr(launch): launch for w in workloads for launch in record_launches(w)}
    launches = list(found.values())
    stamp = _name_stamp(launches)
    if stamp.is_file():
        return Compiled(0, 0, time.monotonic() - began)
    workers = num_processes or min(16, os.cpu_count() or 1)
    # Processes that share this one's CUDA state by fork cannot use it.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        failures = [error for error in pool.map(compile_launch, launches) if error is not None]
    for error in failures:
        _LOG.info("a tile does not compile here: %s", error)
    report = Compiled(len(launches), len(failures), time.monotonic() - began)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(json.dumps({"kernels": len(launches)}) + "\n", encoding="utf-8")
    return report


def record_launches(workload: Workload) -> list[Launch]:
    """What one layer's forward and backward pass would launch, with every proposed tile."""
    from trainer.kernels.mixer import mix
    from trainer.kernels.norms import add_norm, normalise
    from trainer.kernels.token_loss import score_tile

    config, dtype = workload.config, workload.dtype
    shape, weights, norm = _make_layer(workload)
    stream = torch.float32 if config.residual_in_fp32 else dtype
    like: dict[str, Any] = {"device": "cuda", "dtype": dtype, "requires_grad": True}
    rows = (workload.batch, workload.length)
    with _recording() as launches:
        hidden = torch.zeros(*rows, config.hidden_size, **like)
        first, total = add_norm(hidden, None, norm, shape.eps, residual_dtype=stream)
        normed, total = add_norm(first, total, norm, shape.eps, residual_dtype=stream)
        normalise(total, norm, shape.eps, dtype=dtype)
        projected = torch.zeros(*rows, sum(shape.parts), **like)
        documents = torch.zeros(*rows, dtype=torch.int32, device="cuda")
        mixed = mix(projected, weights, shape, documents if workload.has_documents else None)
        torch.autograd.backward([normed, total, mixed], [normed, total, mixed])
        logits = torch.zeros(16, config.vocab_size, device="cuda", dtype=dtype)
        score_tile(logits, torch.zeros(16, dtype=torch.int64, device="cuda"), -100)
    return launches


def _make_layer(workload: Workload) -> tuple[MixerShape, MixerWeights, torch.Tensor]:
    """The shape, the mixer's parameters and the norm's weight of a layer."""
    from trainer.kernels.mamba_scan import ScanOptions
    from trainer.kernels.mixer import MixerShape, MixerWeights

    config = workload.config
    shape = MixerShape(
        num_heads=config.num_heads,
        head_dim=config.head_dim,
        num_groups=config.n_groups,
        state_size=config.state_size,
        eps=config.layer_norm_epsilon,
        scan=ScanOptions(config.chunk_size),
    )
    inner, channels, heads = shape.parts
    dtype = workload.weight_dtype or workload.dtype
    like: dict[str, Any] = {"device": "cuda", "dtype": dtype, "requires_grad": True}
    weights = MixerWeights(
        torch.zeros(channels, config.conv_kernel, **like),
        torch.zeros(channels, **like) if config.use_conv_bias else None,
        torch.zeros(heads, **like),
        torch.zeros(heads, device="cuda", requires_grad=True),
        torch.zeros(heads, **like),
        torch.zeros(inner, **like),
    )
    return shape, weights, torch.zeros(config.hidden_size, **like)


@contextmanager
def _recording() -> Iterator[list[Launch]]:
    """Launches are noted and not made; results of kernels are whatever the memory holds."""
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.jit import JITFunction

    launches: dict[str, Launch] = {}

    def note(kernel: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        arguments = tuple(a.dtype if isinstance(a, torch.Tensor) else a for a in arguments)
        options = {k: v for k, v in options.items() if k not in ("grid", "warmup")}
        launch = Launch(kernel.fn.__module__, kernel.fn.__name__, arguments, options)
        launches[repr(launch)] = launch

    def run_jit(self: Any, *arguments: Any, **options: Any) -> None:
        note(self, arguments, options)

    def run_tuned(self: Any, *arguments: Any, **options: Any) -> None:
        # Callers ask afterwards which tile it was, to cut partial sums.
        self.best_config = self.configs[0]
        for tile in self.configs:
            note(self.fn, arguments, {**options, **tile.all_kwargs()})

    found: list[Launch] = []
    launch_jit, launch_tuned = JITFunction.run, Autotuner.run
    JITFunction.run, Autotuner.run = run_jit, run_tuned
    try:
        yield found
    finally:
        JITFunction.run, Autotuner.run = launch_jit, launch_tuned
    found.extend(launches.values())


def compile_launch(launch: Launch) -> str | None:
    """Compile one version of a kernel into the cache; the error's text if it cannot be."""
    from triton.compiler.errors import CompilationError
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.errors import OutOfResources, PTXASError

    if launch.module.startswith("mamba_ssm."):
        require("triton")
    kernel = getattr(importlib.import_module(launch.module), launch.kernel)
    kernel = kernel.fn if isinstance(kernel, Autotuner) else kernel
    try:
        kernel.warmup(*launch.arguments, grid=(1,), **launch.options)
    except (CompilationError, OutOfResources, PTXASError) as exc:
        return f"{launch.kernel} {launch.options}: {str(exc).splitlines()[0]}"
    return None


def _name_stamp(launches: list[Launch]) -> Path:
    import triton

    device = torch.cuda.get_device_name()
    key = content_hash([triton.__version__, device, sorted(repr(launch) for launch in launches)])
    return cache_folder() / f"precompiled-{key[:16]}.json"


def cache_folder() -> Path:
    """Where Triton keeps compiled kernels."""
    folder = os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache"
    return Path(folder)
