"""Runs of ``trainer.sft`` as a user starts them, for the scaling benchmark."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_LIMIT_S = 280
_NO_STEP_S = 200


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def search_path() -> str:
    """Where this process finds its packages, however it was told of them, for those it starts."""
    return os.pathsep.join([str(ROOT), *filter(None, sys.path)])


@dataclass(frozen=True, slots=True)
class Run:
    """One command line of the trainer."""

    out: Path
    recipe: Path
    dataset: Path
    starter: str
    """``python``, ``torchrun`` or ``accelerate``."""
    processes: int

    @property
    def final(self) -> Path:
        """What is published."""
        return self.out / "checkpoints" / "phase-1"

    def staging(self) -> Path | None:
        """Where a run under way keeps its logs, once it does."""
        return next(iter((self.out / "checkpoints").glob(".staging-phase-1-*")), None)

    def read(self, name: str) -> list[dict[str, Any]]:
        """Whole lines of a log of the run under way."""
        folder = self.staging()
        path = None if folder is None else folder / name
        if path is None or not path.is_file():
            return []
        text = path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def read_tiles(self) -> dict[str, Any]:
        """Tiles of the run under way; none on a CPU."""
        folder = self.staging()
        path = None if folder is None else folder / "tiles.json"
        if path is None or not path.is_file():
            return {}
        return dict(json.loads(path.read_text(encoding="utf-8"))["tiles"])

    def list_checkpoints(self) -> list[Path]:
        """Whole checkpoints of the run under way."""
        folder = self.staging()
        return [] if folder is None else sorted((folder / "steps").glob("checkpoint-*"))

    def command(self) -> list[str]:
        """What is typed."""
        arguments = ["--phase", "1", "--recipe", str(self.recipe), "--out", str(self.out)]
        return [*self._start(), "trainer.sft", *arguments, "--dataset", str(self.dataset)]

    def _start(self) -> list[str]:
        if self.starter == "python":
            return [sys.executable, "-m"]
        number = str(self.processes)
        port = ["--master-port", str(_free_port())]
        if self.starter == "torchrun":
            launch = ["torch.distributed.run", "--nproc-per-node", number, *port]
        else:
            launch = ["accelerate.commands.launch", "--num_processes", number, "--num_machines"]
            launch += ["1", "--mixed_precision", "no", "--dynamo_backend", "no"]
            launch += ["--main_process_port", port[1], "--multi_gpu"]
        return [sys.executable, "-m", *launch, "-m"]

    def start(self) -> subprocess.Popen[bytes]:
        """Start it; what it prints goes to standard error and to ``<out>.log``."""
        environment = {**os.environ, "PYTHONPATH": search_path()}
        if self.processes == 1:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
            environment["CUDA_VISIBLE_DEVICES"] = visible[0]
        self.out.mkdir(parents=True, exist_ok=True)
        with self.out.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(
                self.command(), cwd=ROOT, env=environment, stdout=log, stderr=log
            )


def run_until(run: Run, num_steps: int) -> dict[str, Any]:
    """Train until a step is logged, then kill the run; its two logs and times.

    Raises:
        RuntimeError: It ended before, or took too long; with the end of what it printed.
    """
    began = time.monotonic()
    process = run.start()
    first = None
    try:
        while len(run.read("speed_log.jsonl")) < num_steps:
            waited = time.monotonic() - began
            if first is None and run.read("speed_log.jsonl"):
                first = round(waited, 1)
            if process.poll() is not None:
                break
            if waited > _LIMIT_S or (first is None and waited > _NO_STEP_S):
                raise _failure(run, f"not at step {num_steps} after {waited:.0f} s")
            time.sleep(0.01)
        log, speed = run.read("train_log.jsonl"), run.read("speed_log.jsonl")
    finally:
        kill(process)
    if len(speed) < num_steps:
        raise _failure(run, f"ended with code {process.returncode} before step {num_steps}")
    return {
        "log": log,
        "speed": speed,
        "first_step_after_s": first,
        "took_s": round(time.monotonic() - began, 1),
    }


def wait_for(run: Run) -> None:
    """Train to the end.

    Raises:
        RuntimeError: It failed; with the end of what it printed.
    """
    process = run.start()
    try:
        code = process.wait(_LIMIT_S)
    except subprocess.TimeoutExpired as exc:
        raise _failure(run, f"no end after {_LIMIT_S} s") from exc
    finally:
        kill(process)
    if code:
        raise _failure(run, f"ended with code {code}")


def kill(process: subprocess.Popen[bytes]) -> None:
    """With SIGKILL: the launcher and its processes, which have sessions of their own."""
    if process.poll() is not None:
        return
    for pid in [*_descendants(process.pid), process.pid]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            say(f"process {pid} was over already")
    process.wait()


def _descendants(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    children = [int(child) for child in path.read_text(encoding="utf-8").split()]
    return [found for child in children for found in (*_descendants(child), child)]


def _failure(run: Run, what: str) -> RuntimeError:
    log = run.out.with_suffix(".log")
    said = log.read_text(encoding="utf-8", errors="replace")[-1500:] if log.is_file() else ""
    return RuntimeError(f"{run.out.name}: {what}; it said: …{said}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def hash_folder(folder: Path) -> str:
    """Content hash of a model folder's configuration and weights."""
    from trainer.model import hash_weights

    return hash_weights(folder)


def run_helper(*arguments: str) -> dict[str, Any]:
    """The last line of ``scaling_helper.py``, or ``error`` with how it ended."""
    helper = Path(__file__).with_name("scaling_helper.py")
    environment = {**os.environ, "PYTHONPATH": search_path(), "HF_HUB_OFFLINE": "1"}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
    environment["CUDA_VISIBLE_DEVICES"] = visible[0]
    try:
        done = subprocess.run(
            [sys.executable, str(helper), *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        said = (exc.stderr or b"").decode(errors="replace")[-1500:]
        return {"error": f"no end after {_LIMIT_S} s; it said: …{said}"}
    say(done.stderr[-2000:])
    if done.returncode:
        return {"error": f"ended with code {done.returncode}: …{done.stderr[-1500:]}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))
