"""Commands started by hand respect what another run has of a run folder."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evaluation.run import claim_evaluations
from pipeline.claims import claiming
from pipeline.errors import StoreError
from pipeline.tied_process import LAUNCHER_PID
from trainer.processes import answers_for_run

ASK_A_TEACHER = ["--set", "evaluation.engine=default", "--set", "teachers.default.engine=scripted"]


@pytest.mark.parametrize(
    ("part", "command"),
    [
        ("sft-1", ["trainer.sft", "--phase", "1"]),
        ("sft-2", ["trainer.sft", "--phase", "2", "--set", "training.launch.launcher=torchrun"]),
        ("evaluation-default", ["evaluation", "run", *ASK_A_TEACHER]),
        ("evaluation", ["evaluation", "run", *ASK_A_TEACHER]),
    ],
)
def test_a_second_command_is_refused_and_changes_nothing(
    tmp_path: Path, part: str, command: list[str]
) -> None:
    with claiming(tmp_path, [part]):
        done = subprocess.run(
            [sys.executable, "-m", *command, "--out", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    said = " ".join((done.stdout + done.stderr).split())
    assert f"error: another run is at work on the {part} of" in said
    assert ", since 2" in said and "remedy: wait for it to end" in said
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    assert {path.name[:7] for path in (tmp_path / "logs").iterdir()} == {".claim-"}


@contextmanager
def held_elsewhere(out: Path, part: str, kind: int) -> Iterator[None]:
    """As another process would hold it: locks belong to open files."""
    path = out / "logs" / f".claim-{part}"
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as handle:
        fcntl.flock(handle, kind)
        yield


def test_two_checkpoints_may_be_evaluated_at_once(tmp_path: Path) -> None:
    with (
        held_elsewhere(tmp_path, "evaluation", fcntl.LOCK_SH),
        held_elsewhere(tmp_path, "evaluation-phase-1", fcntl.LOCK_EX),
    ):
        with claim_evaluations(tmp_path, ["phase-2"]):
            pass
        with (
            pytest.raises(StoreError, match="the evaluation-phase-1 of"),
            claim_evaluations(tmp_path, ["phase-1"]),
        ):
            raise AssertionError("must not begin")
        with (
            pytest.raises(StoreError, match="the evaluation of"),
            claiming(tmp_path, ["evaluation"]),  # as the whole loop does
        ):
            raise AssertionError("must not begin")


@pytest.mark.parametrize(
    ("environment", "launcher", "expected"),
    [
        ({}, "inline", True),
        ({}, "torchrun", True),
        ({LAUNCHER_PID: "1"}, "inline", False),
        ({LAUNCHER_PID: "1", "RANK": "0"}, "torchrun", False),
        ({"RANK": "0"}, "inline", True),
        ({"RANK": "1"}, "inline", False),
        ({"RANK": "0"}, "command", False),
    ],
)
def test_one_process_of_a_run_claims(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], launcher: str, expected: bool
) -> None:
    for name in (LAUNCHER_PID, "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    assert answers_for_run(launcher) is expected
