"""What the scaling benchmark measures in processes of their own.

    python benchmarks/trainer/scaling_helper.py bare RECIPE DATASET OUT
    python benchmarks/trainer/scaling_helper.py optimizer host_master|stochastic full|tiny

One JSON line each on standard output.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from pipeline.settings import load_recipe
from pipeline.settings.training import ModelSettings, TrainingSettings
from pipeline.student import VOCAB_SIZE
from trainer.job import Job, open_job, prepare_job_data
from trainer.memory import GIB
from trainer.model import build_config, load_model
from trainer.optim import build_optimizer
from trainer.processes import find_processes
from trainer.recipe import choose_backend
from trainer.speed import peak_memory_gib

Batch = dict[str, torch.Tensor]
LENGTH = 16_384


def find_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def read_clock() -> float:
    """Seconds, when all that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Marks:
    """Moments in the device's own order, without waiting for it."""

    def __init__(self) -> None:
        self._marks: list[Any] = []

    def set(self) -> None:
        """Now, or on a GPU when what was asked so far is done."""
        if not torch.cuda.is_available():
            self._marks.append(time.perf_counter())
            return
        self._marks.append(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
        self._marks[-1].record()

    def list_seconds(self) -> list[float]:
        """Between each two; waits."""
        read_clock()
        pairs = zip(self._marks, self._marks[1:], strict=False)
        if not torch.cuda.is_available():
            return [b - a for a, b in pairs]
        return [a.elapsed_time(b) / 1000 for a, b in pairs]


def train_bare(job: Job) -> dict[str, Any]:
    """The job's steps in a plain loop that never waits for the device."""
    training = job.recipe.settings.training
    backend = choose_backend(training)
    if backend == "triton":
        from trainer.tile_choice import settle_tiles

        settle_tiles(job, find_processes())
    data = prepare_job_data(job, find_processes(), backend)
    how = {"backend": backend, "activation": training.activation}
    model = load_model(job.recipe.settings.model, job.init, training.seed, **how)
    model = model.to(find_device()).train()
    optimizer = build_optimizer(training, model)
    marks, losses, norms = Marks(), [], []
    marks.set()
    for step in range(data.num_steps):
        loss, norm = make_step(model, optimizer, list_batches(data, step), training)
        losses.append(loss)
        norms.append(norm)
        marks.set()
    seconds = marks.list_seconds()
    tokens = data.counts.step_tokens
    return {
        "log": [
            {"loss": float(a), "grad_norm": float(b)} for a, b in zip(losses, norms, strict=True)
        ],
        "speed": [
            {"seconds": round(s, 4), "tokens_per_second": n / s}
            for n, s in zip(tokens, seconds, strict=False)
        ],
        "peak_gib": round(peak_memory_gib(), 2),
    }


def list_batches(data: Any, step: int) -> list[Batch]:
    """A step's rows, one a forward pass, in page-locked memory where there is a GPU."""
    first = step * data.rows_per_step
    batches = [data.collate([data.dataset[first + n]]) for n in range(data.rows_per_step)]
    if not torch.cuda.is_available():
        return batches
    return [{name: t.pin_memory() for name, t in batch.items()} for batch in batches]


def make_step(
    model: Any, optimizer: Any, batches: list[Batch], training: TrainingSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Forward, backward, clipping, AdamW; loss and norm stay on the device."""
    device = find_device()
    num_labels = sum(int((batch["labels"] != -100).sum()) for batch in batches)
    total = torch.zeros((), device=device)
    enabled = training.precision != "float32"
    for batch in batches:
        on_device = {name: t.to(device, non_blocking=True) for name, t in batch.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            loss = model(**on_device, num_items_in_batch=num_labels).loss
        loss.backward()
        total += loss.detach()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), training.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, norm


def measure_optimizer(policy: str, scale: str) -> dict[str, Any]:
    """Two steps of a model of bf16 weights, the first of which allocates and compiles."""
    is_tiny = scale == "tiny"
    settings = (
        ModelSettings(
            hidden_size=32, num_hidden_layers=2, head_dim=16, state_size=16, n_groups=2,
            chunk_size=32,
        )
        if is_tiny
        else ModelSettings()
    )  # fmt: skip
    length = 256 if is_tiny else LENGTH
    training = TrainingSettings.model_validate({"precision": policy})
    compile_kernels(settings, training)
    free = free_host_gib()
    model = make_model(settings, training)
    optimizer, made = timed(lambda: build_optimizer(training, model))
    print(f"{policy}: optimiser made in {made:.1f} s", file=sys.stderr, flush=True)
    result: dict[str, Any] = {"num_parameters": sum(p.numel() for p in model.parameters())}
    result |= {"tokens": length, "making_optimizer_s": round(made, 2)}
    batch = make_batch(length)
    for step in range(3):
        if step == 1 and torch.cuda.is_available():
            # Triton's timing of tiles in the first step holds a buffer of its own.
            torch.cuda.reset_peak_memory_stats()
        _, passes = timed(lambda: make_pass(model, batch))
        _, clipping = timed(lambda: torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        _, update = timed(optimizer.step)
        optimizer.zero_grad(set_to_none=True)
        print(f"{policy} step {step}: {passes:.2f} + {update:.2f} s", file=sys.stderr, flush=True)
    return result | {
        "forward_backward_tokens_per_s": round(length / passes),
        "forward_backward_s": round(passes, 3),
        "clipping_s": round(clipping, 3),
        "optimizer_step_s": round(update, 3),
        "peak_gib": round(peak_memory_gib(), 2),
        "host_resident_gib": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB, 1
        ),
        # Page-locked memory need not count as resident.
        "host_taken_gib": round(free - free_host_gib(), 1),
        "cores": torch.get_num_threads(),
    }


def free_host_gib() -> float:
    """Memory that the machine could still give."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024 / GIB


def compile_kernels(settings: ModelSettings, training: TrainingSettings) -> None:
    """With all cores, as a run does at its start."""
    if choose_backend(training) == "triton":
        from trainer.kernels.precompile import compile_for_run

        done = compile_for_run(build_config(settings), training.precision, 1)
        print(f"compiled {done}", file=sys.stderr, flush=True)


def make_model(settings: ModelSettings, training: TrainingSettings) -> Any:
    """Random bf16 weights, made on the device: values of 7B on the CPU would take a minute."""
    from trainer.model.student import StudentModel

    how = {"backend": choose_backend(training), "activation": training.activation}
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with find_device():
            return StudentModel(build_config(settings), **how).to(torch.bfloat16).train()
    finally:
        torch.set_default_dtype(default)


def make_batch(length: int) -> Batch:
    """A packed row of six documents."""
    device = find_device()
    ids = torch.randint(3, VOCAB_SIZE, (1, length), device=device)
    documents = torch.arange(length, device=device, dtype=torch.int32) * 6 // length
    return {"input_ids": ids, "labels": ids, "seq_idx": documents[None]}


def make_pass(model: Any, batch: Batch) -> None:
    with torch.autocast(find_device().type, torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()


def timed(work: Any) -> tuple[Any, float]:
    began = read_clock()
    done = work()
    return done, read_clock() - began


def main() -> None:
    what, *rest = sys.argv[1:]
    if what == "bare":
        recipe, dataset, out = rest
        found = train_bare(open_job(load_recipe(recipe), "1", Path(out), Path(dataset)))
    else:
        found = measure_optimizer(*rest)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
