"""Settings of evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.settings.base import Settings, execution_only


class EvaluationSettings(Settings):
    """``[evaluation]`` of a recipe."""

    engine: str = "student"
    """What answers. ``student``: the Mamba-2 checkpoint, in this process; ``transformer``: a
    checkpoint of any causal model that transformers knows, in this process, by its own tokenizer
    and chat template; else the name of one of the recipe's teachers (``http``, ``vllm``, ...)."""
    prompt_format: Literal["student", "chat"] = "student"
    """Of a teacher's prompts: the student's own text that ends inside ``<think>``, sent as a text
    completion (for a served student), or chat messages (for other models)."""
    samples_per_item: int = Field(8, ge=1)
    """k of avg@k."""
    temperature: float = Field(0.8, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    repetition_penalty: float = Field(1.0, ge=1)
    """The original evaluates with 1.1; off by default because it compounds over long traces."""
    top_k: int = Field(0, ge=0)
    """0: off."""
    max_new_tokens: int = Field(65_536, ge=1)
    batch_size: int = Field(16, ge=1)
    """Sequences decoded together: slots of the student, rows of a Transformer's batch. Part of the
    version's name, because a matrix product of another size may round differently."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Of decoding in this process; ``auto`` is the GPU if there is one. What was chosen is part of
    the version's name."""
    weights_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: float32 on a CPU, bfloat16 on a GPU."""
    state_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the student's recurrent state; bfloat16 holds twice the sequences in the same memory."""
    kernels: Literal["auto", "torch", "triton"] = "auto"
    """What computes the student's step between its projections; ``auto``: Triton on a GPU, PyTorch
    on a CPU."""
    cuda_graph: bool = execution_only(True)
    """Launch a step on a GPU as one graph."""
    steps_per_check: int = execution_only(1, ge=1)
    """Steps between two looks at the student's tokens. More saves waiting on a GPU, and wastes as
    many steps of a slot whose text has ended; texts do not change."""
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
    """CPU threads of decoding; 0 takes PyTorch's default for the machine. The number is part of the
    version's name, because sums split over another one round differently and sample other texts."""
    num_workers: int = execution_only(2, ge=1)
    """Programs and answers graded at once."""
    checkpoints: tuple[str, ...] = execution_only(("phase-1", "phase-2"))
    """Folders under ``<out>/checkpoints`` that ``python -m evaluation run`` looks for."""

    @property
    def is_local(self) -> bool:
        """Whether a checkpoint is decoded in this process."""
        return self.engine in ("student", "transformer")
