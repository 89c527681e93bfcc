"""How a checkpoint is decoded on this machine: what a recipe leaves to it, decided once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import ConfigError
from pipeline.settings.evaluation import EvaluationSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingPlan:
    """Choices that can change a text, and so name the version."""

    device: str
    """``cpu`` or ``cuda``."""
    weights_dtype: str
    state_dtype: str
    kernels: str
    """``torch`` or ``triton``."""
    num_threads: int = 0
    """On a CPU, whose sums split over another number of threads round differently; else 0."""

    def as_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


def plan_decoding(settings: EvaluationSettings) -> DecodingPlan:
    """Resolve what is ``auto``.

    Raises:
        ConfigError: A GPU is asked for and there is none.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if settings.device == "cuda" and not has_gpu:
        raise ConfigError(
            'evaluation.device = "cuda", and PyTorch sees no CUDA device',
            hint='set evaluation.device = "cpu", or check nvidia-smi and the driver',
        )
    on_gpu = has_gpu and settings.device != "cpu"
    num_threads = settings.num_threads or torch.get_num_threads()
    dtype, kernels = settings.weights_dtype, settings.kernels
    return DecodingPlan(
        device="cuda" if on_gpu else "cpu",
        weights_dtype=dtype if dtype != "auto" else "bfloat16" if on_gpu else "float32",
        state_dtype=settings.state_dtype,
        kernels=kernels if kernels != "auto" else "triton" if on_gpu else "torch",
        num_threads=0 if on_gpu else num_threads,
    )
