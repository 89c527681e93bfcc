"""Training as one supervised launcher: ``torchrun``, ``accelerate launch`` or a command of yours.

The launcher starts the trainer's own command line (``python -m trainer.sft``) in as many processes
as the recipe says. Its output goes to ``<out>/logs/training-phase-N.log``; what matters of it is
said here too, at a bounded rate. A stop is passed on: the trainer saves a checkpoint and the same
command goes on from it. What the trainer found wrong is raised here as the same kind of error.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.errors import (
    EXIT_GATE,
    EXIT_INTERRUPTED,
    ConfigError,
    GateRefused,
    Interrupted,
    PipelineError,
    StoreError,
)
from pipeline.settings.overrides import list_overrides
from pipeline.settings.recipe import Recipe
from pipeline.settings.training import LaunchSettings
from pipeline.supervised import Supervision, supervise
from trainer import checkpoints
from trainer.job import open_job
from trainer.sft import TrainingResult
from trainer.stopping import ending_file

_PROGRESS_S = 10.0
"""At most one line about the steps in so many seconds."""
_MOST_NEWS = 200
"""Lines of other kinds that are passed on; the log has all."""
_STEP = re.compile(r" *step \d+/\d+: ")
_NEWS = re.compile(r"note: |leak probe: |resuming phase |backend |compiled |stopped by ")
_MODULE = ("-m", "trainer.sft")


def launch_phase(recipe: Recipe, phase: str, out: Path, dataset: Path | None) -> TrainingResult:
    """Train a phase under the recipe's launcher; see :func:`trainer.sft.train_phase`.

    Raises:
        ConfigError: The launcher does not start.
        Interrupted: Somebody stopped the training, which saved a checkpoint.
        GateRefused: The trainer refused the run (exit code 3).
        StoreError: The training failed otherwise, or left another checkpoint than wanted.
        PipelineError: What :func:`trainer.job.open_job` finds.
    """
    from trainer.run import read_result

    job = open_job(recipe, phase, out, dataset)
    finished = checkpoints.find_finished(job.root, phase, job.key)
    if finished is not None:
        return read_result(finished, reused=True)
    settings = recipe.settings.training.launch
    command = build_command(recipe, phase, out, dataset)
    if shutil.which(command[0]) is None:
        raise ConfigError(
            f"training.launch: {command[0]} does not start (no such program)",
            hint='correct training.launch.args, or set training.launch.launcher = "inline"',
        )
    log, ending = out / "logs" / f"training-phase-{phase}.log", ending_file(out, phase)
    ending.unlink(missing_ok=True)
    console.say(f"training phase {phase} with {_describe(settings)}; its log is {log}")
    news = _News()
    code = supervise(
        command,
        Supervision(
            log=log,
            stop_grace_s=settings.stop_grace_s,
            on_line=news.take,
            environment={"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(round(settings.stop_grace_s) + 5)},
        ),
    )
    if code:
        raise _explain(code, ending, news, log)
    final = job.root / f"phase-{phase}"
    if checkpoints.read_key(final) != job.key:
        raise StoreError(
            f"the launched training left no checkpoint of phase {phase} with key {job.key} under "
            f"{final}; its log is {log}",
            hint="start the same installation and recipe with training.launch",
        )
    return read_result(final, reused=False)


def build_command(recipe: Recipe, phase: str, out: Path, dataset: Path | None) -> list[str]:
    """The trainer's command line under the recipe's launcher."""
    command = [*_launcher(recipe.settings.training.launch), *_MODULE, "--phase", phase]
    command += ["--recipe", str(recipe.path.resolve())]
    for change in list_overrides(recipe):
        command += ["--set", change]
    command += ["--out", str(out)]
    return command if dataset is None else [*command, "--dataset", str(dataset)]


def _launcher(settings: LaunchSettings) -> list[str]:
    number, args = str(settings.num_processes), list(settings.args)
    if settings.launcher == "torchrun":
        start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", number]
        # A free port of this machine, unless the options say where the processes meet.
        if not any(arg.lstrip("-").startswith(("rdzv", "master", "nnodes")) for arg in args):
            start.append("--standalone")
        return [*start, *args]
    if settings.launcher == "accelerate":
        start = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
        start += ["--num_processes", number, "--num_machines", "1", "--mixed_precision", "no"]
        start += ["--dynamo_backend", "no"]
        if not any("main_process_port" in arg for arg in args):
            start += ["--main_process_port", "0"]
        return [*start, *args]
    return args


def _describe(settings: LaunchSettings) -> str:
    if settings.launcher == "command":
        return f"`{' '.join(settings.args)}`"
    return f"{settings.launcher}, {settings.num_processes} process(es)"


class _News:
    """What of the trainer's output is passed on, and what of it explains a failure."""

    def __init__(self) -> None:
        self.error = self.remedy = self.stopped = self.last_line = ""
        self._told_at = -_PROGRESS_S
        self._num_told = 0

    def take(self, line: str) -> None:
        """A line of the log."""
        text = line.strip()
        if not text:
            return
        self.last_line = text
        if text.startswith("error: "):
            self.error, self.remedy = text.removeprefix("error: "), ""
        elif text.startswith("remedy: "):
            self.remedy = text.removeprefix("remedy: ")
        elif _STEP.match(line):
            self._tell_step(text)
        elif _NEWS.match(text) and self._num_told < _MOST_NEWS:
            self._num_told += 1
            self.stopped = text if text.startswith("stopped by ") else ""
            console.say(f"  {text}")

    def _tell_step(self, text: str) -> None:
        now = time.monotonic()
        if now - self._told_at >= _PROGRESS_S:
            self._told_at = now
            console.say(f"  {text}")


def _explain(code: int, ending: Path, news: _News, log: Path) -> PipelineError:
    """A launcher's failure as the trainer's own error, in one sentence with the log's path."""
    told = _read_ending(ending)
    code = told.get("exit_code", code)
    what = str(told.get("error") or news.error)
    if code == EXIT_INTERRUPTED:
        return Interrupted(
            f"training was {news.stopped or 'interrupted'}; its log is {log}",
            hint="run the same command again: it goes on from the newest checkpoint",
        )
    if not what:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        what = f"ended with {how}, its last line is {news.last_line!r}"
    kind = GateRefused if code == EXIT_GATE else StoreError
    remedy = str(told.get("remedy") or news.remedy)
    return kind(
        f"training failed: {what}; its log is {log}",
        hint=remedy or "look there, and run the same command again: checkpoints are kept",
    )


def _read_ending(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}
