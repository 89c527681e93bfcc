"""Whether the decoding kernels can run here."""

from __future__ import annotations

import importlib.util

from pipeline.errors import ConfigError


def require_triton() -> None:
    """Check that the kernels can run here.

    Raises:
        ConfigError: No Triton, or no GPU and no interpreter.
    """
    import torch

    from trainer.kernels.availability import is_interpreted

    hint = 'set evaluation.kernels = "torch"'
    if importlib.util.find_spec("triton") is None:
        raise ConfigError("decoding kernels need Triton, which is not installed", hint=hint)
    if not torch.cuda.is_available() and not is_interpreted():
        raise ConfigError("decoding kernels need a CUDA device and PyTorch sees none", hint=hint)
