"""Train one phase: ``python -m trainer.sft --phase 1`` or ``2``.

In: a dataset version of the phase and, for phase 2, the checkpoint of phase 1. Out:
``<out>/checkpoints/phase-N``, a model folder that ``transformers`` and vLLM load, with its card,
the run's report and logs. A killed run resumes by itself from its newest whole checkpoint. On
several GPUs: ``torchrun --nproc-per-node N -m trainer.sft --phase 1 …``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import cli
from pipeline.errors import EXIT_INTERRUPTED, PipelineError
from pipeline.interrupts import interrupt_on_sigterm
from pipeline.tied_process import tie_to_launcher

if TYPE_CHECKING:
    from pipeline.settings.recipe import Recipe


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What one phase's training came to."""

    checkpoint: Path
    first_loss: float
    last_loss: float
    num_steps: int
    num_rows: int
    num_dropped: dict[str, int]
    """Rows left out, by reason."""
    reused: bool
    """A finished checkpoint of the same key was there."""


def train_phase(
    recipe: Recipe, phase: str, out: Path, dataset: Path | None = None
) -> TrainingResult:
    """Train a phase of the curriculum, resume it, or return what is finished.

    With ``training.launch`` the processes that train are started and watched by this one, unless a
    launcher started it.

    Args:
        recipe: The experiment.
        phase: ``1`` or ``2``.
        out: The run folder.
        dataset: A dataset version folder; the newest of the phase by default.

    Raises:
        ConfigError: Settings that this trainer refuses, weights of another shape, missing kernels,
            or too little memory.
        SourceError: No dataset, or phase 2 without phase 1.
        TooManyRejected: No row fits.
        StateLeak: Packed documents influence each other on the path that would train.
        GateRefused: The loss is no longer a number, or jumps too often.
        StoreError: The disk is full, or another run trains this phase.
        Interrupted: Somebody stopped a launched training, which saved a checkpoint.
        KeyboardInterrupt: This process was told to stop; by SIGTERM, after it saved a checkpoint.
    """
    # Threads that wait sleep instead of spinning: no slower alone, and 6 times faster on two cores
    # that something else uses too (measured). Read once, when PyTorch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from pipeline.claims import claiming
    from trainer.processes import answers_for_run, is_launched

    launcher = recipe.settings.training.launch.launcher
    # Before anything heavy is imported, so that a second run is refused at once.
    with claiming(out, [f"sft-{phase}"] if answers_for_run(launcher) else []):
        if launcher != "inline" and not is_launched():
            from trainer.launch import launch_phase

            return launch_phase(recipe, phase, out, dataset)
        from trainer.run import run_phase

        return run_phase(recipe, phase, out, dataset)


app = cli.make_app(
    "sft",
    "Fine-tune the student on one phase of the curriculum.\n\n"
    "Example: python -m trainer.sft --phase 1 --recipe demo",
)


@app.command()
def sft(
    phase: Annotated[str, typer.Option("--phase", help="1, or 2 (starts from 1's checkpoint).")],
    recipe: cli.RecipeOption = "demo",
    overrides: cli.SetOption = None,
    out: cli.OutOption = None,
    dataset: Annotated[
        Path | None, typer.Option("--dataset", help="A dataset version folder to train on.")
    ] = None,
    dry_run: cli.DryRunOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Fine-tune the student on one phase of the curriculum.

    Example: python -m trainer.sft --phase 1 --recipe demo
    """
    from pipeline import console
    from pipeline.settings import load_recipe

    if as_json:
        console.use_json_output()
    loaded = load_recipe(recipe, overrides or [])
    console.say(f"recipe {loaded.name} ({loaded.path}), phase {phase}")
    if loaded.settings.model.init_from is None or phase != "1":
        # Nothing comes from the hub; read once, when huggingface_hub is imported.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    folder = loaded.out(out)
    if dry_run:
        from trainer.plan import show_plan

        show_plan(loaded, phase, folder, dataset=dataset, as_json=as_json)
        return
    from trainer.run import show_result

    with _record_ending(folder, phase), interrupt_on_sigterm():
        result = train_phase(loaded, phase, folder, dataset)
    show_result(result, as_json=as_json)


@contextmanager
def _record_ending(out: Path, phase: str) -> Iterator[None]:
    """Leave the reason of a failure where the process that launched this one looks for it."""
    from trainer.processes import is_launched
    from trainer.stopping import ending_file, write_ending

    try:
        yield
    except PipelineError as exc:
        if is_launched():
            write_ending(ending_file(out, phase), exc.exit_code, str(exc), exc.hint)
        raise
    except KeyboardInterrupt:
        if is_launched():
            write_ending(ending_file(out, phase), EXIT_INTERRUPTED, "", "")
        raise


def _own_command() -> str:
    """How a person starts what this process is a part of."""
    number = os.environ.get("LOCAL_WORLD_SIZE")
    launcher = "python" if number is None else f"torchrun --nproc-per-node {number}"
    return f"{launcher} -m trainer.sft"


if __name__ == "__main__":
    tie_to_launcher()
    cli.run_app(app, _own_command())
