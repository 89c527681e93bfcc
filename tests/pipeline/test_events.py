"""The event log: whole lines of several writers, bounded, and never in the way of the work."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import SourceError, StoreError, WorkPending
from pipeline.events import EventLog, emit, listening, recording, step
from pipeline.process_marks import process_mark
from pipeline.records import ConceptCombination, Rejected
from pipeline.settings.events import EventSettings
from pipeline.stages import Batch, BatchResult, Stage, run_stage

SETTINGS = EventSettings(interval_s=0)


def read(out: Path) -> list[dict[str, Any]]:
    """Every line of a run folder's log; a broken one fails the test."""
    text = (out / "logs" / "events.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def names(out: Path) -> list[str]:
    return [line["event"] for line in read(out)]


def row(number: int) -> ConceptCombination:
    return ConceptCombination(
        id=f"{number:032x}", concepts=["a", "b"], domain="math", level="level-1"
    )


def make_stage(root: Path) -> Stage:
    return Stage(
        name="toy",
        root=root / "toy",
        record=ConceptCombination,
        settings={},
        inputs=[],
        packages=("pipeline",),
        unit="things",
    )


BATCHES = [Batch(id=f"batch{number}", rows=[row(number), row(number + 100)]) for number in range(4)]


def keep_first(batch: Batch) -> BatchResult:
    first, second = batch.rows
    refused = Rejected(row_id=second.id, stage="toy", reason="too_plain", detail="")
    return BatchResult(num_in=2, rows=[first], rejected=[refused], tokens={"completion": 5})


def test_a_run_tells_what_it_is_and_how_it_ends(tmp_path: Path) -> None:
    with recording(tmp_path, SETTINGS, "toy run"):
        emit("note", text="ä line\nwith a break")
    first, note, last = read(tmp_path)
    assert (first["event"], first["what"]) == ("run.started", "toy run")
    assert first["pid"] == os.getpid() and first["process"] == process_mark(os.getpid())
    assert note["text"] == "ä line\nwith a break"
    assert last["event"] == "run.finished" and last["seconds"] >= 0
    assert first["run"] == note["run"] == last["run"]
    assert first["seq"] < note["seq"] < last["seq"]


@pytest.mark.parametrize(
    ("error", "event", "code"),
    [
        (SourceError("no file x", hint="bring it"), "run.failed", 2),
        (ZeroDivisionError("by zero"), "run.failed", 1),
        (KeyboardInterrupt(), "run.interrupted", 130),
        (WorkPending("handed out", hint="wait"), "run.interrupted", 130),
    ],
)
def test_a_failure_is_told_with_its_remedy(
    tmp_path: Path, error: BaseException, event: str, code: int
) -> None:
    with (
        pytest.raises(type(error)),
        recording(tmp_path, SETTINGS, "toy"),
        step("first", "the first step"),
    ):
        raise error
    step_end, run_end = read(tmp_path)[-2:]
    assert step_end["event"] == event.replace("run", "step") and step_end["step"] == "first"
    assert (run_end["event"], run_end["exit_code"]) == (event, code)
    assert run_end["error"] == (str(error) or type(error).__name__)
    assert run_end.get("remedy") == getattr(error, "hint", None)


def test_a_command_is_told_without_the_passwords_in_its_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["/x/bin/python", "-m", "toy", "--set", "a.url=https://me:planted@host/v1"]
    monkeypatch.setattr(sys, "orig_argv", command)
    with recording(tmp_path, SETTINGS, "toy"):
        pass
    told = read(tmp_path)[0]["command"]
    assert "planted" not in told
    assert told.startswith("python -m toy --set ") and "host/v1" in told


def test_a_recording_inside_another_one_joins_it(tmp_path: Path) -> None:
    with recording(tmp_path, SETTINGS, "outer"):
        with recording(tmp_path / "x" / "..", SETTINGS, "same folder"):
            emit("inside")
        with recording(tmp_path / "other", SETTINGS, "other folder"):
            emit("elsewhere")
        emit("outside")
    assert names(tmp_path) == ["run.started", "inside", "outside", "run.finished"]
    assert names(tmp_path / "other") == ["run.started", "elsewhere", "run.finished"]


def test_a_run_says_which_one_it_takes_up(tmp_path: Path) -> None:
    with pytest.raises(SourceError), recording(tmp_path, SETTINGS, "toy"):
        raise SourceError("no file", hint="bring it")
    with recording(tmp_path, SETTINGS, "toy"):
        pass
    with recording(tmp_path, SETTINGS, "toy"):
        pass
    starts = [line for line in read(tmp_path) if line["event"] == "run.started"]
    assert [start.get("resumes") for start in starts] == [None, starts[0]["run"], None]


def test_a_killed_run_is_taken_up_and_its_half_line_cut_off(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from pipeline.events import *\n"
        "out = Path(sys.argv[1])\n"
        "with recording(out, EventSettings(), 'toy'):\n"
        "    with (out / LOG).open('a') as file: file.write('{\"event\": \"half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    with recording(tmp_path, SETTINGS, "toy"):
        pass
    start, again, _ = read(tmp_path)
    assert again["resumes"] == start["run"]


def test_a_run_that_goes_on_is_not_taken_up(tmp_path: Path) -> None:
    with recording(tmp_path, SETTINGS, "toy"):
        beside = subprocess.run(
            [
                *(sys.executable, "-c"),
                "import sys; from pathlib import Path; from pipeline.events import *\n"
                "with recording(Path(sys.argv[1]), EventSettings(), 'beside'): pass",
                str(tmp_path),
            ],
            check=False,
        )
    assert beside.returncode == 0
    assert "resumes" not in read(tmp_path)[1]


def write_many(out: Path, writer: int) -> None:
    log = EventLog(out, EventSettings(max_megabytes=0.02, kept_files=50))
    for number in range(200):
        log.append({"writer": writer, "number": number, "filling": "x" * (100 * writer)})


def test_lines_of_several_processes_stay_whole_and_none_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(tmp_path, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    files = sorted((tmp_path / "logs").glob("events*.jsonl"))
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert sorted((line["writer"], line["number"]) for line in lines) == [
        (writer, number) for writer in range(4) for number in range(200)
    ]
    assert len(files) > 2 and all(path.stat().st_size <= 20_000 for path in files)


def test_the_log_keeps_its_limit_and_its_newest_lines(tmp_path: Path) -> None:
    log = EventLog(tmp_path, EventSettings(max_megabytes=0.01, kept_files=2))
    for number in range(1000):
        log.append({"number": number, "filling": "x" * 80})
    files = {path.name: path.stat().st_size for path in (tmp_path / "logs").glob("events*")}
    assert set(files) == {"events.jsonl", "events.1.jsonl", "events.2.jsonl"}
    assert max(files.values()) <= 10_000
    assert read(tmp_path)[-1]["number"] == 999


def test_half_a_line_longer_than_a_look_back_is_cut_off_whole(tmp_path: Path) -> None:
    log = EventLog(tmp_path, EventSettings())
    log.append({"number": 1})
    with log.path.open("a", encoding="utf-8") as file:
        file.write("x" * 200_000)
    log.append({"number": 2})
    assert [line["number"] for line in read(tmp_path)] == [1, 2]


def fill_disk_after(monkeypatch: pytest.MonkeyPatch, num_writes: int) -> None:
    """After so many events a write leaves half a line and the disk is full."""
    write, done = os.write, [0]

    def full(descriptor: int, data: bytes) -> int:
        done[0] += 1
        if done[0] <= num_writes:
            return write(descriptor, data)
        if done[0] == num_writes + 1:
            return write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)


def test_a_full_disk_is_the_usual_error_and_loses_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make_stage(tmp_path)
    worked = list[str]()

    def process(batch: Batch) -> BatchResult:
        worked.append(batch.id)
        return keep_first(batch)

    with monkeypatch.context() as patched:
        fill_disk_after(patched, 3)
        with (
            pytest.raises(StoreError, match=r"events\.jsonl: No space left on device") as caught,
            recording(tmp_path, SETTINGS, "toy"),
        ):
            run_stage(stage, BATCHES, process)
    assert "free some disk space" in caught.value.hint
    assert names(tmp_path) == ["run.started", "stage.started", "shard.finished"]
    with recording(tmp_path, SETTINGS, "toy"):
        version = run_stage(stage, BATCHES, process)
    assert sorted(worked) == [batch.id for batch in BATCHES], "a finished shard was done again"
    assert version.manifest.rows_out == 4
    assert "stage.resumed" in names(tmp_path)


def test_shards_are_told_with_the_counts_so_far(tmp_path: Path) -> None:
    with recording(tmp_path, SETTINGS, "toy"):
        version = run_stage(make_stage(tmp_path), BATCHES, keep_first)
        run_stage(make_stage(tmp_path), BATCHES, keep_first)
    lines = read(tmp_path)
    assert [line["event"] for line in lines[1:-1]] == [
        *("stage.started", *["shard.finished"] * 4),
        *("stage.finished", "stage.reused"),
    ]
    shards = [line for line in lines if line["event"] == "shard.finished"]
    assert [(s["done"], s["total"], s["rows_in"], s["rows_out"]) for s in shards] == [
        (number, 4, 2 * number, number) for number in range(1, 5)
    ]
    finished, reused = lines[-3:-1]
    for line in (finished, reused):
        assert line["version"] == version.name and line["unit"] == "things"
        assert (line["rows_in"], line["rows_out"], line["rejected"]) == (8, 4, 4)
        assert line["reasons"] == {"toy: too_plain": 4} and line["tokens"] == {"completion": 20}


def test_what_was_finished_before_a_failure_counts_again_on_resuming(tmp_path: Path) -> None:
    def fail_at_third(batch: Batch) -> BatchResult:
        if batch.id == "batch2":
            raise SourceError("batch2 is unreadable", hint="mend it")
        return keep_first(batch)

    with pytest.raises(SourceError), recording(tmp_path, SETTINGS, "toy"):
        run_stage(make_stage(tmp_path), BATCHES, fail_at_third)
    failed = next(line for line in read(tmp_path) if line["event"] == "stage.failed")
    assert (failed["done"], failed["total"], failed["rows_in"]) == (2, 4, 4)
    assert failed["error"] == "batch2 is unreadable" and failed["remedy"] == "mend it"
    with recording(tmp_path, SETTINGS, "toy"):
        run_stage(make_stage(tmp_path), BATCHES, keep_first)
    lines = read(tmp_path)
    resumed = next(line for line in lines if line["event"] == "stage.resumed")
    assert (resumed["done"], resumed["total"]) == (2, 4)
    assert [line["rows_in"] for line in lines if line["event"] == "shard.finished"][-2:] == [6, 8]


def test_a_listener_hears_every_shard_and_the_log_few(tmp_path: Path) -> None:
    heard = list[Mapping[str, Any]]()
    with (
        recording(tmp_path, EventSettings(interval_s=3600), "toy"),
        listening(heard.append),
    ):
        run_stage(make_stage(tmp_path), BATCHES, keep_first)
    assert [e["done"] for e in heard if e["event"] == "shard.finished"] == [1, 2, 3, 4]
    assert names(tmp_path) == ["run.started", "stage.started", "stage.finished", "run.finished"]
    run_stage(make_stage(tmp_path), BATCHES, keep_first)
    assert heard[-1]["event"] == "stage.finished", "the listener stays after its block"


def test_listeners_need_no_run_folder(tmp_path: Path) -> None:
    heard = list[Mapping[str, Any]]()
    with listening(heard.append):
        run_stage(make_stage(tmp_path), BATCHES, keep_first)
    assert heard[0]["event"] == "stage.started"
    assert not (tmp_path / "logs").exists()


def test_events_change_no_byte_of_a_version(tmp_path: Path) -> None:
    silent = run_stage(make_stage(tmp_path / "silent"), BATCHES, keep_first)
    with recording(tmp_path / "told", SETTINGS, "toy"):
        told = run_stage(make_stage(tmp_path / "told"), BATCHES, keep_first)
    assert silent.name == told.name
    files = sorted(path.relative_to(silent.folder) for path in silent.folder.rglob("*.*"))
    assert files == sorted(path.relative_to(told.folder) for path in told.folder.rglob("*.*"))
    assert all((silent.folder / f).read_bytes() == (told.folder / f).read_bytes() for f in files)
