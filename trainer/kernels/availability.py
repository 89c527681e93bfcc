"""Which backends can run here, and what to do when one cannot.

mamba-ssm imports its Mamba-1 extension, ``selective_scan_cuda``, whatever is asked of it, and
without a CUDA compiler that extension does not exist. Mamba-2 never calls it, so an empty module
stands in for it, only while mamba-ssm is being imported and only where there is a GPU: libraries
that look for mamba-ssm would otherwise choose its kernels on a CPU.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from pipeline.errors import ConfigError

MAMBA_VERSION = "2.3.2"
"""``trainer.kernels.mamba_scan`` calls mamba-ssm's steps one by one, so the version counts."""
_INSTALL_MAMBA = (
    "MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE pip install --no-deps "
    f"--no-build-isolation mamba-ssm=={MAMBA_VERSION}.post1 && pip install einops"
)
_EXTENSION = "selective_scan_cuda"


def is_interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels on the CPU (``TRITON_INTERPRET=1``)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def require(backend: str) -> None:
    """Check that a backend of the mixer can run on this machine.

    Args:
        backend: ``torch``, ``triton`` or ``split``.

    Raises:
        ConfigError: Something it needs is missing; the hint says what to install or set.
    """
    if backend == "torch":
        return
    if importlib.util.find_spec("triton") is None:
        raise ConfigError(
            f"the {backend} backend needs Triton, which this build of PyTorch did not bring along",
            hint='install a CUDA build of PyTorch on a GPU machine, or set backend = "torch"',
        )
    if backend == "triton" and is_interpreted():
        return
    _require_gpu(backend)
    load_mamba()
    if backend == "split":
        _require_convolution()


def _require_gpu(backend: str) -> None:
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            f"the {backend} backend needs a CUDA device and PyTorch sees none",
            hint='set backend = "torch" on a CPU; on a GPU machine check nvidia-smi and the driver',
        )


def _require_convolution() -> None:
    if importlib.util.find_spec("causal_conv1d") is None:
        raise ConfigError(
            "the split backend needs the package causal-conv1d, which is not installed",
            hint='set backend = "triton", whose own convolution needs no compiler and is as fast; '
            "or pip install --no-build-isolation causal-conv1d (compiles for many minutes)",
        )


@cache
def load_mamba() -> ModuleType:
    """mamba-ssm's module of the state-space scan, set to add up in a fixed order.

    Raises:
        ConfigError: It is not installed, has another version, or cannot be imported.
    """
    try:
        found = version("mamba-ssm")
    except PackageNotFoundError as exc:
        raise ConfigError(
            "the scan's kernels come from the package mamba-ssm, which is not installed",
            hint=_INSTALL_MAMBA,
        ) from exc
    if found.split(".post")[0] != MAMBA_VERSION:
        raise ConfigError(
            f"mamba-ssm {found} is installed, and its steps are called as in {MAMBA_VERSION}",
            hint=_INSTALL_MAMBA,
        )
    # Read while the kernels are defined: fastest tiles are kept beside the compiled kernels.
    os.environ.setdefault("TRITON_CACHE_AUTOTUNING", "1")
    stands_in = _EXTENSION not in sys.modules and importlib.util.find_spec(_EXTENSION) is None
    if stands_in:
        sys.modules[_EXTENSION] = ModuleType(_EXTENSION)
    try:
        scan = importlib.import_module("mamba_ssm.ops.triton.ssd_combined")
        # After the import: set before, it would also restrict each kernel to one slow tile.
        importlib.import_module("mamba_ssm.utils.determinism").set_deterministic_mode(True)
        return scan
    except ImportError as exc:
        raise ConfigError(
            f"mamba-ssm {found} cannot be imported: {exc}",
            hint=f"install what it lacks, or again: {_INSTALL_MAMBA}",
        ) from exc
    finally:
        if stands_in:
            del sys.modules[_EXTENSION]
