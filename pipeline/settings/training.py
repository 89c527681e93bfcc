"""Settings of the student and its two-phase SFT. Defaults are the paper's (section 3, appendix)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.settings.base import Settings, execution_only

Packing = Literal["off", "exact", "best_fit"]
Backend = Literal["auto", "torch", "triton", "split"]
Precision = Literal["float32", "bf16_autocast", "host_master", "stochastic"]
Activation = Literal["none", "all", "every_second"]
Launcher = Literal["inline", "torchrun", "accelerate", "command"]
Tracker = Literal["trackio", "tensorboard", "wandb"]


class LaunchSettings(Settings):
    """How training is started, by the flows and by every command; never what comes of it."""

    launcher: Launcher = "inline"
    """``inline`` trains in the process that asks for it; ``torchrun`` and ``accelerate`` start one
    supervised launcher with a log of its own, ``logs/training-phase-N.log``; ``command`` does so
    with a command of yours, e.g. for a batch system."""
    num_processes: int = Field(1, ge=1)
    """Of ``torchrun`` and ``accelerate``, on this machine: one a GPU."""
    args: tuple[str, ...] = ()
    """Further options of the launcher, before ``-m trainer.sft``; with ``command``, all of it:
    ``["srun", "--ntasks=1", "torchrun", "--nproc-per-node", "8"]``."""
    stop_grace_s: float = Field(600.0, gt=0)
    """After SIGTERM: longest time for the running step and its checkpoint, seconds; then the
    processes are killed and the checkpoint before it is what is left."""

    @model_validator(mode="after")
    def _fits(self) -> LaunchSettings:
        if self.launcher == "inline" and (self.num_processes > 1 or self.args):
            raise ValueError(
                'launcher = "inline" is one process without options; set launcher = "torchrun"'
            )
        if self.launcher == "accelerate" and self.num_processes < 2:
            raise ValueError('launcher = "accelerate" needs num_processes of 2 or more')
        if self.launcher == "command" and (self.num_processes > 1 or not self.args):
            raise ValueError(
                'launcher = "command" takes the whole command from args, its number of processes '
                "included"
            )
        return self


class ModelSettings(Settings):
    """Shape of the Mamba-2 student; defaults are Mamba-Codestral-7B's."""

    init_from: str | None = None
    """Folder or hub id of pretrained weights; none starts from random ones."""
    revision: str | None = None
    """Commit of the hub id, 40 hex digits; required with one."""
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
    """Tokens of a document; over-long ones are dropped and counted, never cut."""
    epochs: float = Field(1.0, gt=0)
    max_steps: int = -1
    """Stop after this many optimiser steps; -1 uses ``epochs``."""
    learning_rate: float | None = Field(None, gt=0)
    """Overrides ``training.learning_rate`` for this phase."""


class GuardSettings(Settings):
    """When a jump of the loss or the gradient is an event, and when events end the run.

    NaN and infinity always end it.
    """

    window: int = Field(64, ge=4)
    """Steps whose median a new step is compared with."""
    min_steps: int = Field(16, ge=2)
    """No event before so many steps: the first ones fall fast and have large gradients."""
    loss_factor: float = Field(1.5, gt=1)
    """An event: the loss is over this many times the median."""
    gradient_factor: float = Field(8.0, gt=1)
    """An event: the gradient norm before clipping is over this many times the median."""
    stop_after: int = Field(0, ge=0)
    """Stop with exit code 3 at so many events within one window; 0 only logs them."""

    @model_validator(mode="after")
    def _reachable(self) -> GuardSettings:
        if self.min_steps > self.window:
            raise ValueError(f"min_steps = {self.min_steps} is more than window = {self.window}")
        return self


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
    """Rows of one forward pass: packed ones, or documents without packing."""
    packing: Packing = "exact"
    """``exact``: every step has exactly ``documents_per_step`` documents in a fixed number of rows;
    ``best_fit``: fuller rows, documents per step vary around that number; ``off``: one document a
    row, padded."""
    order: Literal["as_given", "shuffled"] = "as_given"
    """``as_given``: the dataset's own order in every epoch; ``shuffled``: another one each epoch,
    drawn from ``seed``."""
    max_row_tokens: int = Field(0, ge=0)
    """Longest packed row; 0 takes the phase's ``max_length``."""
    precision: Precision = "bf16_autocast"
    """``bf16_autocast`` keeps float32 weights; ``host_master`` has bf16 ones on the device, float32
    masters and moments in host memory; ``stochastic`` rounds bf16 weights at random and holds 8-bit
    moments."""
    carry_optimizer: bool = False
    """Phase 2 goes on with phase 1's moments instead of fresh ones."""
    backend: Backend = execution_only("auto")
    """Of the mixer: ``auto`` is ``triton`` on a GPU and ``torch`` on a CPU."""
    activation: Activation = execution_only("all")
    """Blocks whose activations are recomputed in the backward pass instead of kept."""
    reduce_every_pass: bool = execution_only(False)
    """Several processes: reduce gradients after every forward and backward pass instead of once a
    step. Slower, and saves 4 bytes a parameter on every device."""
    gather_every_pass: bool = execution_only(False)
    """Several processes: gather a block's weights for its part of each pass instead of all weights
    once a step. Slower, and saves 2 bytes a parameter on every device (4 with ``float32``)."""
    guards: GuardSettings = execution_only(GuardSettings())
    report_to: tuple[Tracker, ...] = execution_only(())
    """Trackers that get each logged step too; the run's own log needs none."""
    trl: dict[str, Any] = execution_only({})
    """Further options of TRL's ``SFTConfig``, a table of ``name = value``, lists among the values
    where TRL takes one; those that leave the tested path are refused."""
    launch: LaunchSettings = execution_only(LaunchSettings())
    save_steps: int = execution_only(1000, ge=1)
    keep_checkpoints: int = execution_only(10, ge=1)
    logging_steps: int = execution_only(1, ge=1)
    tokenise_workers: int = execution_only(0, ge=0)
    """Processes that tokenise; 0 takes one a core, at most 8."""
    tokenise_batch_rows: int = execution_only(64, ge=1)
    """Rows encoded together: bounds the memory of a worker."""
    num_threads: int = execution_only(0, ge=0)
    """CPU threads; 0 leaves PyTorch's default."""
    tokens_per_second: float = execution_only(0.0, ge=0)
    """Of one device, for the plan of a dry run; 0 takes what an earlier run here measured."""
    phases: dict[str, PhaseTraining] = Field(
        default_factory=lambda: {
            "1": PhaseTraining(max_length=16_384),
            "2": PhaseTraining(max_length=20_480),
        }
    )

    @field_validator("precision", mode="before")
    @classmethod
    def _no_plain_bf16(cls, value: Any) -> Any:
        if value in ("bf16", "bfloat16"):
            raise ValueError(
                "bf16 weights rounded to nearest lose 97 % of the update at a learning rate of "
                "5e-6 (their spacing is larger than the step); use bf16_autocast, host_master or "
                "stochastic"
            )
        return value

    @model_validator(mode="after")
    def _whole_batches(self) -> TrainingSettings:
        if self.packing == "off" and self.documents_per_step % self.micro_batch:
            raise ValueError(
                f"documents_per_step = {self.documents_per_step} is no multiple of "
                f"micro_batch = {self.micro_batch}"
            )
        for name, phase in self.phases.items():
            if 0 < self.max_row_tokens < phase.max_length:
                raise ValueError(
                    f"max_row_tokens = {self.max_row_tokens} is less than max_length = "
                    f"{phase.max_length} of phase {name}: its longest documents would fit no row"
                )
        return self

    def row_tokens(self, phase: PhaseTraining) -> int:
        """Longest packed row of a phase."""
        return self.max_row_tokens or phase.max_length
