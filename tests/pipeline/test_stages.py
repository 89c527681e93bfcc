"""A stage ends in the same bytes whatever happens on the way."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import (
    ManifestMismatch,
    SourceError,
    StoreError,
    TeacherError,
    TooManyRejected,
    WorkPending,
)
from pipeline.manifest import InputRef, load_version, resolve_version, verify_version
from pipeline.records import ConceptCombination, Rejected
from pipeline.stages import Batch, BatchResult, BatchStream, Stage, run_stage, split_batches
from pipeline.store import exclusive_lock


def make_stage(root: Path, **changes: object) -> Stage:
    values: dict[str, object] = {
        "name": "toy",
        "root": root,
        "record": ConceptCombination,
        "settings": {"a": 1},
        "inputs": [InputRef(name="numbers", version="v")],
        "packages": ["pipeline"],
    }
    return Stage(**{**values, **changes})  # type: ignore[arg-type]


def keep_even(batch: Batch) -> BatchResult:
    rows, rejected = [], []
    for number in batch.rows:
        if number % 2:
            rejected.append(Rejected(row_id=str(number), stage="toy", reason="odd", detail=""))
        else:
            rows.append(
                ConceptCombination(id=str(number), concepts=["a"], domain="math", level="L")
            )
    return BatchResult(num_in=len(batch.rows), rows=rows, rejected=rejected, tokens={"seen": 3})


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def numbers(count: int, size: int = 4) -> list[Batch]:
    return split_batches(list(range(count)), size, key=str)


def test_counts_add_up_and_rows_keep_their_order(tmp_path: Path) -> None:
    version = run_stage(make_stage(tmp_path), numbers(10), keep_even)
    assert (version.manifest.rows_in, version.manifest.rows_out) == (10, 5)
    assert version.manifest.rejected == {"toy": {"odd": 5}}
    assert version.manifest.tokens == {"seen": 9}
    assert [row["id"] for row in version.rows()] == ["0", "2", "4", "6", "8"]
    verify_version(version)


def test_second_run_reuses_and_another_setting_is_another_version(tmp_path: Path) -> None:
    first = run_stage(make_stage(tmp_path), numbers(10), keep_even)
    before = tree(first.folder)

    def explode(batch: Batch) -> BatchResult:
        raise AssertionError("must not be processed again")

    again = run_stage(make_stage(tmp_path), numbers(10), explode)
    assert again.reused
    assert again.name == first.name
    other = run_stage(make_stage(tmp_path, settings={"a": 2}), numbers(10), keep_even)
    assert other.name != first.name
    assert tree(first.folder) == before
    assert resolve_version(tmp_path).name == other.name
    assert resolve_version(tmp_path, first.name).name == first.name


@settings(max_examples=15, deadline=None)
@given(stop=st.integers(min_value=0, max_value=4))
def test_failure_at_any_batch_then_rerun_gives_equal_bytes(
    tmp_path_factory: pytest.TempPathFactory, stop: int
) -> None:
    undisturbed = run_stage(make_stage(tmp_path_factory.mktemp("a")), numbers(20), keep_even)
    root = tmp_path_factory.mktemp("b")
    seen: list[str] = []

    def fail_once(batch: Batch) -> BatchResult:
        if len(seen) == stop and "failed" not in seen:
            seen.append("failed")
            raise KeyboardInterrupt
        seen.append(batch.id)
        return keep_even(batch)

    with pytest.raises(KeyboardInterrupt):
        run_stage(make_stage(root), numbers(20), fail_once)
    assert not (root / "LATEST").exists()
    resumed = run_stage(make_stage(root), numbers(20), fail_once)
    assert len([s for s in seen if s != "failed"]) == 5, "a finished batch was processed again"
    assert tree(resumed.folder) == tree(undisturbed.folder)


def stream_numbers(count: int, size: int, read: list[int] | None = None) -> BatchStream:
    def rows() -> Iterator[int]:
        for number in range(count):
            if read is not None:
                read.append(number)
            yield number

    return BatchStream(rows=rows, num_rows=count, size=size, key=str)


def test_batches_at_once_give_the_bytes_of_one_after_the_other(tmp_path: Path) -> None:
    def uneven(batch: Batch) -> BatchResult:
        time.sleep(0.02 if batch.rows[0] % 8 == 0 else 0.0)
        return keep_even(batch)

    calm = run_stage(make_stage(tmp_path / "a"), stream_numbers(40, 4), keep_even)
    wild = run_stage(make_stage(tmp_path / "b", concurrency=5), stream_numbers(40, 4), uneven)
    assert tree(wild.folder) == tree(calm.folder)


def test_a_stream_is_read_no_further_than_the_work_needs(tmp_path: Path) -> None:
    read: list[int] = []
    ahead: list[int] = []

    def look(batch: Batch) -> BatchResult:
        time.sleep(0.002)
        ahead.append(read[-1] - batch.rows[0])
        return keep_even(batch)

    run_stage(make_stage(tmp_path, concurrency=3), stream_numbers(400, 4, read), look)
    assert max(ahead) <= 5 * 4, "rows pile up in memory"


def test_counts_of_all_batches_are_summed_and_handed_on(tmp_path: Path) -> None:
    def count(batch: Batch) -> BatchResult:
        result = keep_even(batch)
        return BatchResult(
            num_in=result.num_in,
            rows=result.rows,
            rejected=result.rejected,
            counts={"seen": len(batch.rows), f"from {batch.rows[0]}": 1},
        )

    version = run_stage(
        make_stage(tmp_path, concurrency=2),
        numbers(8),
        count,
        extra=lambda counts: {"twice": 2 * counts["seen"]},
    )
    assert version.manifest.extra["counts"] == {"seen": 8, "from 0": 1, "from 4": 1}
    assert version.manifest.extra["twice"] == 16


def test_pending_batches_let_the_others_through(tmp_path: Path) -> None:
    processed: list[int] = []

    def hand_out_second(batch: Batch) -> BatchResult:
        processed.append(batch.rows[0])
        if batch.rows[0] == 4 and processed.count(4) == 1:
            raise WorkPending("4 requests are with the fleet", hint="wait for it")
        return keep_even(batch)

    stage = make_stage(tmp_path, concurrency=2)
    with pytest.raises(WorkPending, match=r"1 of 5 batches wait: 4 requests") as caught:
        run_stage(stage, numbers(20), hand_out_second)
    assert caught.value.hint == "wait for it"
    assert not (tmp_path / "LATEST").exists()
    version = run_stage(stage, numbers(20), hand_out_second)
    assert sorted(processed) == [0, 4, 4, 8, 12, 16]
    assert version.manifest.rows_in == 20


def test_a_failing_batch_cancels_those_that_wait(tmp_path: Path) -> None:
    cancelled = threading.Event()
    num_cancels: list[int] = []

    def wait_for_ever(batch: Batch) -> BatchResult:
        if batch.rows[0] == 8:
            raise TeacherError("no answer", hint="start it")
        assert cancelled.wait(20)
        raise TeacherError("cancelled", hint="run again")

    def cancel() -> None:
        num_cancels.append(1)
        cancelled.set()

    stage = make_stage(tmp_path, concurrency=4, cancel=cancel)
    with pytest.raises(TeacherError, match="no answer"):
        run_stage(stage, numbers(40), wait_for_ever)
    assert len(num_cancels) == 1


def test_kill_between_manifest_and_rename_only_renames(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    version = run_stage(stage, numbers(8), keep_even)
    staging = tmp_path / f".staging-{stage.version}"
    version.folder.rename(staging)
    (staging / "data" / ".tmp-1-part.parquet").write_bytes(b"half")

    def explode(batch: Batch) -> BatchResult:
        raise AssertionError("must not be processed again")

    again = run_stage(stage, numbers(8), explode)
    assert not list(again.folder.rglob(".tmp-*"))


def test_kill_9_then_the_same_command_finishes(tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(
        "import sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from test_stages import keep_even, make_stage, numbers, run_stage\n"
        "def slow(batch):\n"
        "    time.sleep(float(sys.argv[2]))\n"
        "    return keep_even(batch)\n"
        "run_stage(make_stage(Path(sys.argv[1])), numbers(40), slow)\n"
    )
    killed = tmp_path / "killed"
    # The same checkout in both processes, whichever one is installed: its code names the version.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, str(script), str(killed), "0.2"], env=environment)
    deadline = time.monotonic() + 60
    while len(list(killed.rglob("receipts/*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "LATEST").exists()
    subprocess.run(
        [sys.executable, str(script), str(killed), "0"], check=True, timeout=60, env=environment
    )
    undisturbed = run_stage(make_stage(tmp_path / "calm"), numbers(40), keep_even)
    assert tree(killed / undisturbed.name) == tree(undisturbed.folder)


def test_nothing_accepted_refuses_and_names_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(TooManyRejected, match=r"accepted 0 of 2 rows .*toy: odd \(2\)"):
        run_stage(make_stage(tmp_path), [Batch(id="b", rows=[1, 3])], keep_even)
    assert not (tmp_path / "LATEST").exists()


def test_unbalanced_batch_is_never_published(tmp_path: Path) -> None:
    def lose_one(batch: Batch) -> BatchResult:
        return BatchResult(num_in=2, rows=[], rejected=[])

    with pytest.raises(StoreError, match="2 in, 0 out, 0 rejected"):
        run_stage(make_stage(tmp_path), numbers(2), lose_one)
    assert not (tmp_path / "LATEST").exists()


def test_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device") as error:
        run_stage(make_stage(tmp_path), numbers(4), keep_even)
    assert "free some disk space" in error.value.hint
    monkeypatch.undo()
    assert run_stage(make_stage(tmp_path), numbers(4), keep_even).manifest.rows_out == 2


def test_two_processes_cannot_build_one_version(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    with (
        exclusive_lock(tmp_path / f".lock-{stage.version}", "stage toy"),
        pytest.raises(StoreError, match="another process is working on stage toy"),
    ):
        run_stage(stage, numbers(4), keep_even)


def test_a_version_that_another_process_has_just_finished_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one publishes between this one's look at the folder and its lock."""
    stage = make_stage(tmp_path)
    take_lock = exclusive_lock

    def late(path: Path, what: str) -> AbstractContextManager[None]:
        monkeypatch.undo()
        run_stage(stage, numbers(10), keep_even)
        return take_lock(path, what)

    def explode(batch: Batch) -> BatchResult:
        raise AssertionError("must not be processed again")

    monkeypatch.setattr("pipeline.stages.exclusive_lock", late)
    version = run_stage(stage, numbers(10), explode)
    assert version.reused
    assert version.manifest.rows_out == 5


def test_a_lock_is_not_taken_on_a_file_that_its_holder_has_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, take = tmp_path / ".lock", fcntl.flock

    def after_the_holder(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        lock.unlink()
        take(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", after_the_holder)
    with (
        exclusive_lock(lock, "stage toy"),
        pytest.raises(StoreError, match="another process"),
        exclusive_lock(lock, "stage toy"),
    ):
        raise AssertionError("two hold one lock")


def test_files_of_the_future_are_as_good_as_others(tmp_path: Path) -> None:
    """The clock was set back between the run that stopped and the one that goes on."""
    calm = run_stage(make_stage(tmp_path / "calm"), numbers(12), keep_even)
    stage, done = make_stage(tmp_path / "run"), list[str]()

    def stop_at_third(batch: Batch) -> BatchResult:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(batch.id)
        return keep_even(batch)

    with pytest.raises(KeyboardInterrupt):
        run_stage(stage, numbers(12), stop_at_third)
    ahead = time.time() + 30 * 24 * 3600
    for path in stage.root.rglob("*"):
        os.utime(path, (ahead, ahead))

    def finish(batch: Batch) -> BatchResult:
        assert batch.id not in done
        return keep_even(batch)

    assert tree(run_stage(stage, numbers(12), finish).folder) == tree(calm.folder)


def test_changed_or_missing_shard_is_noticed(tmp_path: Path) -> None:
    version = run_stage(make_stage(tmp_path), numbers(8), keep_even)
    shard = version.shard_paths()[0]
    content = shard.read_bytes()
    shard.write_bytes(content[:-8] + b"corrupt!")
    with pytest.raises(ManifestMismatch, match="differs from its manifest"):
        verify_version(version)
    shard.unlink()
    with pytest.raises(ManifestMismatch, match="missing"):
        verify_version(version)


def test_unknown_version_and_broken_manifest_are_clear(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing has been built"):
        resolve_version(tmp_path)
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "manifest.json").write_text(json.dumps({"version": "v"}))
    with pytest.raises(ManifestMismatch, match="not a valid manifest"):
        load_version(tmp_path / "v")
