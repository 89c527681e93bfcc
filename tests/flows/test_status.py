"""What a person and a monitor see of a run folder: at work, finished, failed, killed, empty, foreign."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from rich.console import Console

from flows.event_log import EventReader
from flows.openmetrics import write_metrics
from flows.run_state import RunState
from flows.status import _check_address, app
from flows.status_server import open_server
from flows.status_source import FolderSource, UrlSource
from flows.status_view import duration, render, sparkline
from pipeline import cli
from pipeline.errors import EXIT_OK, EXIT_USER, SourceError, StoreError
from pipeline.events import EventLog, emit, recording, step
from pipeline.records import Rejected
from pipeline.settings.events import EventSettings
from pipeline.stage_events import Work, tell_answers
from pipeline.stages import Batch, BatchResult, Stage, run_stage

SETTINGS = EventSettings(interval_s=0)
LEDGER = {
    "requests": 10,
    "failed": 1,
    "prompt_tokens": 700,
    "completion_tokens": 300,
    "busy_seconds": 4.5,
    "usd": 1.25,
    "gpu_hours": 0.5,
}


def receipt(num_in: int, num_out: int, **reasons: int) -> dict[str, Any]:
    return {
        "num_in": num_in,
        "num_out": num_out,
        "rejected": {"toy": reasons},
        "tokens": {"completion": 10 * num_in},
    }


def state_of(out: Path) -> dict[str, Any]:
    return FolderSource(out).read()


def stage_of(state: dict[str, Any], name: str = "toy") -> dict[str, Any]:
    return next(stage for stage in state["stages"] if stage["stage"] == name)


def show(state: dict[str, Any], width: int = 120) -> str:
    stream = StringIO()
    Console(file=stream, width=width).print(render(state, width))
    return stream.getvalue()


def work_on(out: Path, num_done: int = 2) -> None:
    """A stage of four shards of which some get finished, and a training."""
    with Work("toy", "things", 4) as work:
        for number in range(num_done):
            work.finish_shard(f"s{number}", receipt(10, 7, too_long=2, broken=1))
        emit("ledger.summed", books="answers", stages={"toy": LEDGER})
        if num_done < 4:
            raise SourceError("shard 2 of [bold]x.parquet is cut off", hint="download it again")


def fail_run(out: Path) -> None:
    with pytest.raises(SourceError), recording(out, SETTINGS, "toy run", command="python -m toy"):
        work_on(out)


@contextmanager
def served(out: Path) -> Iterator[str]:
    server = open_server(FolderSource(out), "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_run_at_work_shows_progress_counts_and_what_is_left(tmp_path: Path) -> None:
    with recording(tmp_path, SETTINGS, "toy run"), step("one", "step one"):
        with Work("toy", "things", 4) as work:
            work.finish_shard("s0", receipt(10, 7, too_long=3))
            state = state_of(tmp_path)
        assert state["run"]["state"] == "running" and state["run"]["pid"] == os.getpid()
        stage = stage_of(state)
        assert (stage["state"], stage["done"], stage["total"]) == ("running", 1, 4)
        assert (stage["rows_in"], stage["rows_out"], stage["rejected"]) == (10, 7, 3)
        assert state["steps"][0]["state"] == "running"
        for width in (80, 120):
            text = show(state, width)
            assert "1/4" in text and "too long 3" in text and "running" in text
            assert max(map(len, text.splitlines())) <= width
    assert state_of(tmp_path)["run"]["state"] == "finished"


def test_the_pace_is_that_of_late_and_not_of_what_was_finished_before() -> None:
    def follow(*shards: tuple[float, int, int], begun: str, done: int = 0) -> dict[str, Any]:
        state = RunState()
        common = {"run": "r", "stage": "toy", "time": "2026-01-01T00:00:00+00:00", "total": 100}
        state.add({**common, "event": f"stage.{begun}", "done": done})
        for seconds, number, rows in shards:
            counts = {"seconds": seconds, "done": number, "rows_in": rows}
            state.add({**common, "event": "shard.finished", **counts})
        return state.as_json()

    fresh = follow((10.0, 1, 50), (20.0, 2, 100), begun="started")
    assert stage_of(fresh)["rows_per_second"] == 5 and stage_of(fresh)["seconds_left"] == 980
    resumed = follow((10.0, 61, 3050), (20.0, 62, 3100), begun="resumed", done=60)
    assert stage_of(resumed)["rows_per_second"] == 5 and stage_of(resumed)["seconds_left"] == 380
    assert "6 min 20 s left" in show(resumed, 80) and "6 min 20 s left" in show(resumed, 120)
    slower = follow(*((s * 1.0, s, s) for s in range(1, 50)), (90.0, 50, 50), begun="started")
    assert stage_of(slower)["seconds_left"] > 100


def test_a_failed_run_says_why_where_what_to_do_and_how_to_go_on(tmp_path: Path) -> None:
    fail_run(tmp_path)
    state = state_of(tmp_path)
    assert state["run"]["state"] == "failed" and stage_of(state)["state"] == "failed"
    text = show(state)
    assert "failed: shard 2 of [bold]x.parquet is cut off" in text
    assert "at stage toy, 2 of 4 shards finished; these and all answers are kept" in text
    assert "remedy: download it again" in text and "continue with: python -m toy" in text
    assert "20: too long 4, broken 2" not in text and "6: too long 4, broken 2" in text
    assert "10 requests, 1 failed, 700 tokens read, 300 written, $1.25, 0.50 GPU-hours" in text


def test_a_run_that_went_on_after_a_failure_shows_the_failure_no_more(tmp_path: Path) -> None:
    fail_run(tmp_path)
    with recording(tmp_path, SETTINGS, "toy run"), Work("toy", "things", 4, done=2) as work:
        work.skip(receipt(10, 7, too_long=3))
        work.skip(receipt(10, 7, too_long=3))
        work.finish_shard("s2", receipt(10, 10))
        at_work = state_of(tmp_path)
        work.finish_shard("s3", receipt(10, 10))
    assert stage_of(at_work)["is_resumed"] and at_work["run"]["resumes"]
    done = state_of(tmp_path)
    assert done["run"]["state"] == "finished" and stage_of(done)["rows_in"] == 40
    with recording(tmp_path, SETTINGS, "another run"):
        assert stage_of(state_of(tmp_path))["is_former"]
    assert not stage_of(done)["is_former"]
    assert "failed:" not in show(done) and "continue with" not in show(done)


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.events import *
from pipeline.stage_events import Work
with recording(Path(sys.argv[1]), EventSettings(interval_s=0), "toy run"), Work("toy", "rows", 3) as w:
    w.finish_shard("s0", {"num_in": 1, "num_out": 1, "rejected": {}, "tokens": {}})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_is_seen_to_be_dead_and_its_stage_stopped(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    state = state_of(tmp_path)
    assert state["run"]["state"] == "killed" and stage_of(state)["state"] == "stopped"
    assert "its process is gone" in show(state) and "continue with: " in show(state)


def test_a_process_number_that_another_process_has_now_is_not_the_run(tmp_path: Path) -> None:
    with recording(tmp_path, SETTINGS, "toy"):
        start = json.loads((tmp_path / "logs" / "events.jsonl").read_text().splitlines()[0])
    state = RunState()
    state.add({**start, "process": "00000000-1"})
    assert state.as_json()["run"]["state"] == "killed"
    state = RunState()
    state.add({**start, "host": "elsewhere", "time": "2020-01-01T00:00:00+00:00"})
    assert state.as_json()["run"]["state"] == "unknown"


def test_a_training_inside_a_run_does_not_hide_it(tmp_path: Path) -> None:
    log = EventLog(tmp_path, SETTINGS)
    with recording(tmp_path, SETTINGS, "whole loop"):
        inner = {"run": "inner", "seq": 1, "pid": 1}
        now = "2999-01-01T00:00:00+00:00"
        log.append({**inner, "event": "run.started", "time": now, "what": "training"})
        log.append({**inner, "event": "run.failed", "time": now, "error": "no memory"})
        assert state_of(tmp_path)["run"]["what"] == "whole loop"


def test_training_shows_its_curve_and_goes_back_with_its_checkpoint(tmp_path: Path) -> None:
    figures = {"grad_norm": 1.0, "learning_rate": 1e-3, "tokens_per_second": 1234.5}
    figures["seconds_left"] = 61.0
    with recording(tmp_path, SETTINGS, "toy"), Work("training-1", "steps", 1000) as work:
        for number in [*range(1, 601), *range(550, 700)]:
            work.done = number
            work.tell(
                "training.step", step=number, loss=10.0 / number, num_tokens=number, **figures
            )
        state = state_of(tmp_path)
    training = state["training"]["training-1"]
    steps = [number for number, _ in training["losses"]]
    assert steps == sorted(set(steps)) and steps[-1] == 699 and len(steps) <= 240
    assert stage_of(state, "training-1")["seconds_left"] == 61
    assert "1 min 1 s left" in show(state, 80)
    assert "step 699/1,000" in show(state) and "1,234 tok/s" in show(state)
    assert "█" in show(state) and "▁" in show(state)


def test_empty_foreign_and_missing_folders_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        code = cli.exit_code_of(app, "python -m flows.status", [*arguments, "--once"])
        streams = capsys.readouterr()
        return code, streams.out + streams.err

    code, text = run(str(tmp_path / "nowhere"))
    assert code == EXIT_USER and "no such folder" in text
    code, text = run(str(tmp_path))
    assert code == EXIT_USER and "is not a run folder" in text and "remedy" in text
    code, text = run("gpu-box:/data/run")
    assert code == EXIT_USER and "ssh -L 9464:127.0.0.1:9464 gpu-box" in text
    (tmp_path / "recipe.json").write_text('{"recipe": "demo"}')
    code, text = run(str(tmp_path))
    assert code == EXIT_OK and "nothing has been recorded here yet" in text and "demo" in text


def test_a_log_with_rubbish_in_it_still_tells_the_rest(tmp_path: Path) -> None:
    fail_run(tmp_path)
    path = tmp_path / "logs" / "events.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b"\x00\x00\xff\n[1]\n{}\n" + whole + b'{"event": "stage.started", "sta')
    assert state_of(tmp_path)["run"]["state"] == "failed"


def test_a_reader_follows_a_log_that_is_put_aside_and_misses_nothing(tmp_path: Path) -> None:
    log = EventLog(tmp_path, EventSettings(max_megabytes=0.01, kept_files=30))
    reader, seen = EventReader(tmp_path), list[int]()
    for number in range(1000):
        log.append({"event": "note", "number": number, "filling": "x" * 100})
        if number % 37 == 0:
            seen += [event["number"] for event in reader.read_new()]
    while new := [event["number"] for event in reader.read_new()]:
        seen += new
    assert seen == list(range(1000))
    late = EventReader(tmp_path)
    assert [event["number"] for event in late.read_new()] == list(range(1000))


def test_metrics_are_valid_and_hold_what_happened(tmp_path: Path) -> None:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families
    from prometheus_client.parser import text_string_to_metric_families as parse_old

    with recording(tmp_path, SETTINGS, 'a "quoted"\\ run'):
        work_on(tmp_path, num_done=4)
        emit("training.step", stage="training-1", step=3, loss=0.5, num_tokens=99, seconds=1.0)
        emit("benchmark.scored", checkpoint="phase-1", benchmark="aime", avg_at_k=0.25)
    state = state_of(tmp_path)

    def samples(families: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    found = samples(text_string_to_metric_families(write_metrics(state)))
    assert found == samples(parse_old(write_metrics(state, is_open=False)))

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    rows = "promptcot_stage_rows_total"
    assert value(rows, stage="toy", outcome="accepted", reason="") == 28
    assert value(rows, stage="toy", outcome="rejected", reason="toy: too_long") == 8
    assert value("promptcot_run_state", state="finished") == 1
    assert value("promptcot_run", recipe="", what='a "quoted"\\ run') == 1
    assert value("promptcot_teacher_dollars_total", stage="toy") == 1.25
    assert value("promptcot_teacher_requests_total", stage="toy", outcome="failed") == 1
    assert value("promptcot_training_loss", stage="training-1") == 0.5
    assert value("promptcot_benchmark_score", checkpoint="phase-1", benchmark="aime") == 0.25
    assert value("promptcot_last_event_age_seconds") >= 0


def test_reasons_become_few_series_however_many_there_are(tmp_path: Path) -> None:
    with recording(tmp_path, SETTINGS, "toy"), Work("toy", "rows", 1) as work:
        work.finish_shard("s", receipt(500, 0, **{f"reason_{number}": 1 for number in range(500)}))
    state = state_of(tmp_path)
    lines = [line for line in write_metrics(state).splitlines() if 'outcome="rejected"' in line]
    assert len(lines) == 9 and sum(float(line.split()[-1]) for line in lines) == 500


def test_a_served_folder_looks_the_same_from_elsewhere(tmp_path: Path) -> None:
    fail_run(tmp_path)
    with served(tmp_path) as url:
        far = UrlSource(url).read()
        with urlopen(f"{url}/metrics") as reply:
            assert reply.headers["Content-Type"].startswith("application/openmetrics-text")
            assert reply.read().decode().endswith("# EOF\n")
        with pytest.raises(SourceError, match=r"no answer .*Not Found"):
            UrlSource(f"{url}/other").read()
    near = state_of(tmp_path)
    assert far["stages"] == near["stages"] and far["folder"] == str(tmp_path.resolve())
    with pytest.raises(SourceError, match="no answer"):
        UrlSource(url).read()


def test_the_command_prints_text_json_and_a_textfile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_run(tmp_path)
    target = tmp_path / "collector" / "promptcot.prom"
    run = [str(tmp_path), "--once", "--textfile", str(target)]
    assert cli.exit_code_of(app, "status", run) == EXIT_OK
    assert "download it again" in capsys.readouterr().out
    assert "# TYPE promptcot_stage_rows_total counter" in target.read_text()
    assert cli.exit_code_of(app, "status", [str(tmp_path), "--json"]) == EXIT_OK
    assert json.loads(capsys.readouterr().out)["run"]["failure"]["remedy"] == "download it again"
    assert cli.exit_code_of(app, "status", [str(tmp_path), "--serve", "here"]) == EXIT_USER
    assert "is no address" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "[::]:9464", "192.0.2.7:9464", "gpu-box:9464"])
def test_other_machines_are_let_in_only_where_that_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    fail_run(tmp_path)
    assert cli.exit_code_of(app, "status", [str(tmp_path), "--serve", address]) == EXIT_USER
    told = capsys.readouterr().err
    assert "no password" in told and "--expose" in told
    assert _check_address(address, is_exposed=True)[1] == 9464
    assert _check_address("9464", is_exposed=False) == ("127.0.0.1", 9464)


def test_looking_needs_neither_prefect_nor_pytorch_nor_arrow(tmp_path: Path) -> None:
    fail_run(tmp_path)
    code = (
        "import sys; from flows.status import app; app([sys.argv[1], '--once'], standalone_mode=False)\n"
        "print(sorted({'prefect', 'torch', 'pyarrow', 'numpy', 'httpx'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines()[-1] == "[]"


def test_a_small_terminal_keeps_what_is_at_work_and_the_failure(tmp_path: Path) -> None:
    with recording(tmp_path, SETTINGS, "toy"):
        for number in range(30):
            with Work(f"stage-{number}", "rows", 1) as work:
                work.finish_shard("s", receipt(1, 1))
        state = state_of(tmp_path)
    stream = StringIO()
    Console(file=stream, width=80).print(render(state, 80, 24))
    text = stream.getvalue()
    assert len(text.splitlines()) < 24
    assert "stage-29" in text and "stage-0 " not in text and "23 before these" in text
    assert "stage-0 " in show(state, 80)


def test_texts_of_others_do_not_steer_the_terminal(tmp_path: Path) -> None:
    with recording(tmp_path, SETTINGS, "toy \x1b]0;title\x07 \ud800"):
        emit("note", stage="\x1b[2J wiped [red]x[/red]")
    text = show(state_of(tmp_path))
    assert "\x1b" not in text and "\x07" not in text and "[red]x[/red]" in text
    text.encode("utf-8")


def test_durations_and_curves_read_well() -> None:
    assert [duration(s) for s in (0.4, 61, 7_260, 200_000)] == [
        *("0 s", "1 min 1 s", "2 h 1 min", "2 d 7 h")
    ]
    assert sparkline([1.0, 1.0], 5) == "▁▁" and sparkline([], 5) == ""
    falling = sparkline([float(-number) for number in range(1000)], 20)
    assert len(falling) == 20 and falling[0] == "█" and falling[-1] == "▁"


def test_answers_within_a_shard_are_seen_before_it_is_finished(tmp_path: Path) -> None:
    advanced = list[int]()

    def process(batch: Batch) -> BatchResult:
        advance = tell_answers(advanced.append, len(batch.rows))
        asked = threading.Thread(target=advance, args=(1,))
        asked.start()
        asked.join()
        shown.append(show(state_of(tmp_path), 80))
        return BatchResult(num_in=2, rows=[])

    shown = list[str]()
    stage = Stage(
        name="toy", root=tmp_path / "toy", record=Rejected, settings={}, inputs=[], packages=()
    )
    with pytest.raises(StoreError, match="2 in, 0 out"), recording(tmp_path, SETTINGS, "toy"):
        run_stage(stage, [Batch(id="b", rows=["x", "y"])], process)
    assert advanced == [1]
    assert "1/2 answers" in shown[0] and "0/1" in shown[0]
    assert tell_answers(advanced.append, 5) == advanced.append, "no stage, no events"
