"""Settings of evaluation."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings.base import Settings, execution_only


class EvaluationSettings(Settings):
    """``[evaluation]`` of a recipe."""

    samples_per_item: int = Field(8, ge=1)
    """k of avg@k."""
    temperature: float = Field(0.8, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    repetition_penalty: float = Field(1.0, ge=1)
    """The original evaluates with 1.1; off by default because it compounds over long traces."""
    max_new_tokens: int = Field(65_536, ge=1)
    batch_size: int = Field(16, ge=1)
    """Sequences decoded together."""
    seed: int = 0
    bootstrap_samples: int = Field(2000, ge=100)
    confidence: float = Field(0.95, gt=0, lt=1)
    majority_comparisons: int = Field(32, ge=0)
    """Pairs of wrong answers to one problem that majority@k may ask the grader about."""
    code_timeout_s: float = Field(10.0, gt=0)
    """Processor seconds of one test."""
    memory_limit_mib: int = Field(1024, ge=64)
    """Address space of one program."""
    allow_unsandboxed_code: bool = False
    """Run model-written code without bubblewrap. Never on a machine you care about."""
    num_threads: int = Field(0, ge=0)
    """CPU threads of decoding; 0 leaves PyTorch's default. Part of the version's name, because
    sums split over another number of threads round differently and sample other texts."""
    num_workers: int = execution_only(2, ge=1)
    """Programs and answers graded at once."""
    checkpoints: tuple[str, ...] = execution_only(("phase-1", "phase-2"))
    """Folders under ``<out>/checkpoints`` that ``python -m evaluation run`` looks for."""
