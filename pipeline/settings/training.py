"""Settings of the student and its two-phase SFT. Defaults are the paper's (section 3, appendix)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.settings.base import Settings, execution_only


class ModelSettings(Settings):
    """Shape of the Mamba-2 student; defaults are Mamba-Codestral-7B's."""

    init_from: str | None = None
    """Folder or hub id of pretrained weights; none starts from random ones."""
    revision: str | None = None
    hidden_size: int = Field(4096, ge=8)
    num_hidden_layers: int = Field(64, ge=1)
    expand: int = Field(2, ge=1)
    head_dim: int = Field(64, ge=1)
    state_size: int = Field(128, ge=1)
    n_groups: int = Field(8, ge=1)
    conv_kernel: int = Field(4, ge=2)
    chunk_size: int = Field(256, ge=2)
    tie_word_embeddings: bool = False

    @model_validator(mode="after")
    def _whole_heads(self) -> ModelSettings:
        inner = self.hidden_size * self.expand
        if inner % self.head_dim:
            raise ValueError(f"expand * hidden_size = {inner} is no multiple of head_dim")
        if (inner // self.head_dim) % self.n_groups:
            raise ValueError(f"{inner // self.head_dim} heads do not divide into n_groups")
        return self


class PhaseTraining(Settings):
    """One phase's length and duration."""

    max_length: int = Field(ge=32)
    """Tokens of a row; over-long rows are dropped and counted, never cut."""
    epochs: float = Field(1.0, gt=0)
    max_steps: int = -1
    """Stop after this many optimiser steps; -1 uses ``epochs``."""
    learning_rate: float | None = Field(None, gt=0)
    """Overrides ``training.learning_rate`` for this phase."""


class TrainingSettings(Settings):
    """``[training]`` of a recipe."""

    seed: int = 42
    learning_rate: float = Field(5e-6, gt=0)
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.95, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    warmup_steps: int = Field(100, ge=0)
    schedule: Literal["constant_with_warmup", "cosine", "linear"] = "constant_with_warmup"
    documents_per_step: int = Field(64, ge=1)
    micro_batch: int = Field(1, ge=1)
    """Documents of one forward pass; divides ``documents_per_step``."""
    packing: Literal["off", "bfd"] = "off"
    """``bfd`` needs document resets on the training path; refused where they are not proven."""
    precision: Literal["float32", "bf16"] = "bf16"
    gradient_checkpointing: bool = execution_only(True)
    save_steps: int = execution_only(1000, ge=1)
    keep_checkpoints: int = execution_only(10, ge=1)
    logging_steps: int = execution_only(1, ge=1)
    num_threads: int = execution_only(0, ge=0)
    """CPU threads; 0 leaves PyTorch's default."""
    phases: dict[str, PhaseTraining] = Field(
        default_factory=lambda: {
            "1": PhaseTraining(max_length=16_384),
            "2": PhaseTraining(max_length=20_480),
        }
    )

    @model_validator(mode="after")
    def _whole_batches(self) -> TrainingSettings:
        if self.documents_per_step % self.micro_batch:
            raise ValueError(
                f"documents_per_step = {self.documents_per_step} is no multiple of "
                f"micro_batch = {self.micro_batch}"
            )
        return self
