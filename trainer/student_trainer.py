"""TRL's ``SFTTrainer`` on the student's own path: its rows, loss, optimisers and checkpoints.

Heavy imports are at the top on purpose: only :mod:`trainer.run` imports this module, lazily.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler
from trl import SFTTrainer

from pipeline.settings.training import TrainingSettings
from trainer import run_state
from trainer.data import PackedRows, PhaseData
from trainer.guards import require_finite
from trainer.optim import build_optimizer, list_decayed
from trainer.processes import Processes
from trainer.refusals import check_constructor
from trainer.run_log import RunLog
from trainer.speed import Lap
from trainer.step_checkpoints import prune, write_checkpoint
from trainer.stopping import StopSignal


@dataclass(slots=True)
class StepSums:
    """What one optimiser step has added up to, over all processes once it is reduced."""

    loss: Any = 0.0
    num_correct: Any = 0
    num_labels: int = 0
    num_slots: int = 0
    """Tokens that passed through the model, padding included."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A finished optimiser step."""

    loss: float
    grad_norm: float
    learning_rate: float
    """The one that the step's update was made with: 0 at the first step of a warm-up."""
    accuracy: float
    num_labels: int
    num_slots: int


@dataclass(frozen=True, slots=True)
class RunParts:
    """What a run gives its trainer, beside the model and TRL's configuration."""

    data: PhaseData
    training: TrainingSettings
    processes: Processes
    log: RunLog
    document_ids: Callable[[int], list[str]]
    """Ids of the documents of a step, counted from 0."""
    masters: dict[str, Any] | None = None
    """Float32 weights by name, for ``host_master``."""
    carried: Path | None = None
    """Checkpoint whose moments this run starts with."""


class StudentTrainer(SFTTrainer):  # type: ignore[misc]
    """SFT of the student.

    Neither DDP nor a wrapper for mixed precision is put around the model: sharding has been applied
    to it, and autocast is the context of :meth:`compute_loss_context_manager`, so that the leak
    probe runs what training runs.

    Args:
        model: A :class:`trainer.model.student.StudentModel` on its device, sharded or whole.
        args: From :func:`trainer.recipe.build_sft_config`.
        parts: The run's data, settings and files.
        processing_class: The student's tokenizer.
        others: Arguments of ``SFTTrainer`` that are refused with their reason.

    Raises:
        ConfigError: One of ``others``.
    """

    loss_is_scaled_for_ga = True
    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self, model: Any, args: Any, parts: RunParts, *, processing_class: Any, **others: Any
    ) -> None:
        check_constructor(others)
        super().__init__(
            model=model,
            args=args,
            train_dataset=parts.data.dataset.as_dataset(),
            data_collator=parts.data.collate,
            processing_class=processing_class,
        )
        # TRL hangs its own output head on the instance; the model's own computes the loss here.
        self.model.__dict__.pop("forward", None)
        self.parts = parts
        self.last_step: StepRecord | None = None
        self.last_lap: Lap | None = None
        self.stop: StopSignal | None = None
        """Tells that this process should stop after the running step."""
        self.is_stopping = False
        """Whether some process of the run should, known by all of them after each step."""
        self._sums = StepSums()

    def get_train_dataloader(self) -> DataLoader:  # type: ignore[type-arg]
        """This process's rows in the order of the schedule, any step without those before it."""
        parts = self.parts
        on_gpu = self.args.device.type == "cuda"
        return DataLoader(
            parts.data.dataset,  # type: ignore[arg-type]
            batch_sampler=StepSampler(
                parts.data.dataset, parts.processes, parts.training.micro_batch
            ),
            collate_fn=parts.data.collate,
            # A row comes out of a mapped file in a millisecond; a process for that is not worth it.
            num_workers=0,
            pin_memory=on_gpu,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: Any
    ) -> tuple[list[Any], Any]:
        """The step's forward passes, and its labelled tokens over all processes."""
        batches = [next(epoch_iterator) for _ in range(num_batches)]
        counted = torch.tensor(
            [
                sum(int((batch["labels"] != -100).sum()) for batch in batches),
                sum(batch["labels"].numel() for batch in batches),
            ],
            device=device,
        )
        num_labels, num_slots = self._reduce(counted).tolist()
        self._sums = StepSums(num_labels=num_labels, num_slots=num_slots)
        return batches, num_labels

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The model's own loss: summed over labelled tokens, divided by those of the whole step.

        Gradients are averaged over processes when they are reduced, so each one's part is scaled
        up by their number.
        """
        outputs = model(**inputs, num_items_in_batch=num_items_in_batch)
        self._sums.num_correct = self._sums.num_correct + outputs.num_correct
        loss = outputs.loss * self.parts.processes.world_size
        return (loss, outputs) if return_outputs else loss

    def compute_loss_context_manager(self) -> contextlib.AbstractContextManager[Any]:
        """Autocast to bf16, unless the policy is float32."""
        enabled = self.parts.training.precision != "float32"
        return torch.autocast(self.args.device.type, dtype=torch.bfloat16, enabled=enabled)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """One forward and backward pass."""
        loss = super().training_step(*args, **kwargs)
        self._sums.loss = self._sums.loss + loss
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        """Norm of all gradients in float32, checked, then the clipping; comes before the update.

        Raises:
            GateRefused: The loss or the norm is not finite.
        """
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = _total_norm(gradients)
        sums, world = self._sums, self.parts.processes.world_size
        wish = torch.zeros_like(sums.loss, dtype=torch.float64)
        wish += self.stop is not None and self.stop.is_requested
        told = [sums.loss.double() / world, sums.num_correct.double(), wish]
        loss, num_correct, num_wishes = self._reduce(torch.stack(told)).tolist()
        self.is_stopping = num_wishes > 0
        grad_norm = float(norm)
        step = self.state.global_step
        if not _is_finite(loss, grad_norm):
            require_finite(step + 1, loss, grad_norm, self.parts.document_ids(step))
        self.last_step = StepRecord(
            loss=loss,
            grad_norm=grad_norm,
            learning_rate=float(self.optimizer.param_groups[0]["lr"]),
            accuracy=num_correct / max(1, sums.num_labels),
            num_labels=sums.num_labels,
            num_slots=sums.num_slots,
        )
        share = self.args.max_grad_norm / (grad_norm + 1e-6)
        if share < 1:
            torch._foreach_mul_(gradients, share)
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """What trackers see: a step's figures are those of the run's own log, and its speed."""
        if "loss" in logs and self.last_step is not None and self.last_lap is not None:
            step = self.last_step
            told = {
                "loss": step.loss,
                "grad_norm": step.grad_norm,
                "learning_rate": step.learning_rate,
                "accuracy": step.accuracy,
                **self.last_lap.as_line(),
            }
            logs |= {name: x for name, x in told.items() if name != "step" and x is not None}
        super().log(logs, start_time)

    def create_optimizer(self, model: Any = None) -> Any:
        """The optimiser of the precision policy, with what the phase before left if wanted."""
        if self.optimizer is None:
            parts = self.parts
            self.optimizer = build_optimizer(parts.training, self.model, parts.masters)
            if parts.masters is not None:
                # The optimiser has copied them to where they stay.
                parts.masters.clear()
            for group in self.optimizer.param_groups:
                group["lr"] = self.args.learning_rate
            if parts.carried is not None:
                run_state.load_moments(self.model, self.optimizer, parts.carried)
        return self.optimizer

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """See :func:`trainer.optim.list_decayed`."""
        return list_decayed(model)

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None
    ) -> tuple[Any, Any]:
        """Optimiser, schedule and their saved states, without accelerate's wrappers."""
        self.lr_scheduler = None
        self.create_optimizer()
        self.create_scheduler(num_training_steps=max_steps)
        if resume_from_checkpoint is not None:
            self._load_optimizer_and_scheduler(resume_from_checkpoint)
        for name in ("model", "optimizer", "lr_scheduler"):
            setattr(self.callback_handler, name, getattr(self, name))
        self.callback_handler.train_dataloader = train_dataloader
        return self.model, train_dataloader

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """A whole checkpoint, or none; see :mod:`trainer.step_checkpoints`."""
        root, parts = Path(self.args.output_dir), self.parts
        with write_checkpoint(root, self.state.global_step, parts.processes) as folder:
            run_state.save_state(self.model, self.optimizer, folder)
            self._save_rng_state(str(folder))
            if parts.processes.is_main:
                torch.save(self.lr_scheduler.state_dict(), folder / run_state.SCHEDULE)
                self.state.save_to_json(str(folder / "trainer_state.json"))
                parts.log.copy_to(folder)
        if parts.processes.is_main:
            prune(root, self.args.save_total_limit)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        run_state.load_weights(self.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        run_state.load_optimizer(self.model, self.optimizer, folder)
        self.lr_scheduler.load_state_dict(
            torch.load(folder / run_state.SCHEDULE, map_location="cpu", weights_only=True)
        )

    def _reduce(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over all processes."""
        if self.parts.processes.are_many:
            torch.distributed.all_reduce(values)
        return values


class StepSampler(Sampler[list[int]]):
    """Rows of each forward pass of one process, step after step."""

    def __init__(self, rows: PackedRows, processes: Processes, micro_batch: int) -> None:
        self._rows, self._processes, self._micro_batch = rows, processes, micro_batch

    def __len__(self) -> int:
        return len(self._rows) // (self._micro_batch * self._processes.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self._rows.schedule.num_steps):
            yield from self._rows.row_numbers(
                step,
                rank=self._processes.rank,
                num_processes=self._processes.world_size,
                micro_batch=self._micro_batch,
            )


def _total_norm(gradients: list[Any]) -> torch.Tensor:
    """2-norm over all gradients, in float32 whatever they are in, over all processes."""
    from torch.distributed.tensor import DTensor

    parts = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
    norms = [torch.linalg.vector_norm(part, dtype=torch.float32) for part in parts]
    total = torch.stack(norms).square().sum()
    if any(isinstance(g, DTensor) for g in gradients):
        torch.distributed.all_reduce(total)
    return total.sqrt()


def _is_finite(*values: float) -> bool:
    return bool(torch.tensor(values, dtype=torch.float64).isfinite().all())
