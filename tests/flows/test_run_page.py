"""What a run's page shows: shard bars, progress, failures and pace, from a run's events alone."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.artifacts import as_data_uri, find_section
from flows.engine_logs import is_news
from flows.failures import compose, name_failure
from flows.progress_view import describe_progress
from flows.run_state import RunState
from flows.shard_bars import MAX_TASK_RUNS, Bar, ShardBars
from flows.summary import describe_pace

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def at(moment: float, event: str, **fields: Any) -> dict[str, Any]:
    """An event of a run, so many seconds after its start."""
    return {"time": (START + timedelta(seconds=moment)).isoformat(), "event": event, **fields}


def stage(moment: float, event: str, name: str = "problems", **fields: Any) -> dict[str, Any]:
    return at(moment, event, stage=name, unit="problems", **fields)


def stage_events(num_shards: int, seconds_each: float, name: str = "problems") -> list[Any]:
    """A stage from its beginning to its end, ten rows a shard, one of them rejected."""
    shards = [
        stage(
            (n + 1) * seconds_each,
            "shard.finished",
            name,
            shard=f"{n:05d}-cafe",
            done=n + 1,
            total=num_shards,
            rows_in=10 * (n + 1),
            rows_out=9 * (n + 1),
            rejected=n + 1,
            seconds=(n + 1) * seconds_each,
        )
        for n in range(num_shards)
    ]
    last = {**shards[-1], "event": "stage.finished"}
    return [stage(0, "stage.started", name, done=0, total=num_shards), *shards, last]


def draw(events: list[Any], num_steps: int = 6, num_before: int = 0) -> list[Bar]:
    bars: list[Bar] = []
    listener = ShardBars(num_steps, num_before, bars.append)
    for event in events:
        listener.hear(event)
    return bars


def test_a_long_shard_is_a_bar_of_its_own_with_its_counts_and_times() -> None:
    bars = draw(stage_events(3, seconds_each=60))
    assert [bar.name for bar in bars] == ["problems-00000", "problems-00001", "problems-00002"]
    assert bars[1].start == START + timedelta(seconds=60)
    assert bars[1].end == START + timedelta(seconds=120)
    assert bars[1].message == "1 shard: 10 problems in, 9 out, 1 rejected"


def test_short_shards_share_a_bar_and_a_short_stage_has_none() -> None:
    assert [bar.name for bar in draw(stage_events(8, seconds_each=2))] == [
        "problems-00000-00002",
        "problems-00003-00005",
        "problems-00006-00007",
    ]
    assert draw(stage_events(4, seconds_each=1)) == []


@pytest.mark.parametrize("num_shards", [30, 1_000, 40_000])
def test_every_shard_is_in_one_bar_and_bars_are_few_however_many_there_are(num_shards: int) -> None:
    bars = draw(stage_events(num_shards, seconds_each=10))
    assert len(bars) <= 24
    counts = [int(bar.message.split()[0].replace(",", "")) for bar in bars]
    assert sum(counts) == num_shards


def test_a_run_never_has_more_task_runs_than_the_limit() -> None:
    num_steps = 40
    events = [
        event
        for number in range(num_steps)
        for event in [*stage_events(50, 10, f"part-{number}"), at(500, "step.finished", step="x")]
    ]
    for num_before in (0, 120, 160, 300):
        bars = draw(events, num_steps, num_before)
        assert len(bars) + num_steps + num_before <= max(MAX_TASK_RUNS, num_steps + num_before)
    assert len(draw(events, num_steps)) > 100


def test_the_shard_that_failed_is_a_bar_that_says_why() -> None:
    begun = stage_events(4, seconds_each=60)[:3]
    end = stage(130, "stage.failed", done=2, total=4, shard="00003-cafe", error="no answer")
    bars = draw([*begun, end])
    assert [(bar.name, bar.outcome) for bar in bars] == [
        ("problems-00000", "COMPLETED"),
        ("problems-00001", "COMPLETED"),
        ("problems-00003", "FAILED"),
    ]
    assert bars[-1].message == "no answer"


def tried(num_failures: int, done: int = 2) -> list[Any]:
    """A stage whose shard 00002 fails so many times, and is then finished as are all others."""
    events = stage_events(5, seconds_each=60)
    first, rest, last = events[: done + 1], events[done + 1 : -1], events[-1]
    told = list(first)
    for n in range(num_failures):
        end = {
            **first[-1],
            "event": "stage.failed",
            "shard": "00002-cafe",
            "error": f"no answer {n}",
        }
        told.append({**end, **at(130 + n, "stage.failed")})
        told.append(stage(131 + n, "stage.resumed", done=done, total=5))
    return [*told, *rest, last]


def test_a_shard_that_is_tried_again_is_one_bar_in_its_last_state() -> None:
    bars = draw(tried(num_failures=3))
    assert [(bar.name, bar.outcome) for bar in bars] == [
        *(("problems-00000", "COMPLETED"), ("problems-00001", "COMPLETED")),
        *[("problems-00002", "FAILED")] * 3,
        *(("problems-00002", "COMPLETED"), ("problems-00003", "COMPLETED")),
        ("problems-00004", "COMPLETED"),
    ]
    tries = bars[2:6]
    assert len({bar.key for bar in tries}) == 1 and len({bar.key for bar in bars}) == 5
    assert [bar.tries for bar in tries] == [1, 2, 3, 4]
    assert tries[1].message == "try 2: no answer 1"
    assert tries[3].message == "try 4: 1 shard: 10 problems in, 9 out, 1 rejected"
    assert tries[3].start == tries[0].start and tries[3].end == START + timedelta(seconds=180)
    # Its rows are counted in no other bar.
    assert bars[-1].message == bars[-2].message == "1 shard: 10 problems in, 9 out, 1 rejected"


def test_what_an_earlier_process_counted_is_not_told_as_this_ones() -> None:
    events = stage_events(5, seconds_each=60)
    bars = draw([stage(120, "stage.resumed", done=2, total=5), *events[3:]])
    assert [bar.message for bar in bars] == [
        "1 shard",
        *["1 shard: 10 problems in, 9 out, 1 rejected"] * 2,
    ]


def test_steps_of_a_training_are_gathered_too() -> None:
    steps = [
        at(n, "training.step", stage="training-1", unit="steps", step=n, done=n, total=120)
        for n in range(1, 121)
    ]
    begin = at(0, "stage.started", stage="training-1", unit="steps", done=0, total=120)
    end = at(120, "stage.finished", stage="training-1", unit="steps", done=120, total=120)
    bars = draw([begin, *steps, end], num_steps=1)
    assert bars[0].name == "training-1-00001-00005"
    assert bars[0].message == "5 steps"
    assert bars[-1].name.endswith("-00120")


def test_a_bar_of_a_launched_training_stands_for_the_steps_that_its_log_leaves_out() -> None:
    steps = [
        at(n, "training.step", stage="training-1", unit="steps", step=n, done=n, total=400)
        for n in (37, 74, 120)
    ]
    begin = at(0, "stage.resumed", stage="training-1", unit="steps", done=20, total=400)
    bars = draw([begin, *steps], num_steps=1)
    assert [(bar.name, bar.message) for bar in bars] == [
        ("training-1-00021-00037", "17 steps"),
        ("training-1-00038-00074", "37 steps"),
        ("training-1-00075-00120", "46 steps"),
    ]


def read_state(events: list[Mapping[str, Any]]) -> dict[str, Any]:
    state = RunState()
    for event in events:
        state.add(event)
    return state.as_json()


def test_progress_says_where_the_run_is_and_what_is_to_come() -> None:
    begun = [at(0, "step.started", step="problems", title="problems"), *stage_events(4, 60)[:3]]
    line, page = describe_progress(read_state(begun), ["problems", "judged problems"])
    assert line == "0 of 2 steps done; problems: 2 of 4 shards, about 2 min 0 s left"
    assert "| problems | running | 2 of 4 | 20 | 18 | 2 | 0.167 |" in page
    assert "Still to come: judged problems." in page


def test_progress_of_a_training_has_its_loss_speed_and_time_left() -> None:
    figures = {"loss": 2.5, "tokens_per_second": 12345.6, "memory_gib": 1.25, "seconds_left": 90.0}
    common = {"stage": "training-1", "unit": "steps", "total": 400}
    told = [
        at(0, "stage.started", done=0, **common),
        at(9, "training.step", step=1, done=1, rows_in=0, rejected=0, **common, **figures),
        at(99, "training.step", step=40, done=40, **common, **figures | {"loss": 1.75}),
    ]
    line, page = describe_progress(read_state(told), ["SFT phase 1"])
    assert line == "0 of 1 steps done; training-1: 40 of 400 steps, about 1 min 30 s left"
    assert "| training-1 | running | 40 of 400 steps |  |  |  |  |" in page
    assert "| training-1 | 40 of 400 | 1.750 | 12,346 | 1.2 GiB | 1 min 30 s |" in page


def test_a_steps_pace_is_its_own_and_not_that_of_what_was_finished_before() -> None:
    row = {"key": "problems", "in": 40, "unit": "problems"}
    done = at(240, "step.finished", step="problems", title="problems", seconds=240.0, reused=False)
    whole = read_state([*stage_events(4, 60), done])
    assert describe_pace(row, "problems", whole) == "0.167 problems/s, 4 min 0 s"
    again = [stage(0, "stage.resumed", done=3, total=4), *stage_events(4, 60)[-2:], done]
    told = describe_pace(row, "problems", read_state(again))
    assert "/s" not in told and "continued" in told
    reused = read_state([{**done, "reused": True}])
    assert describe_pace(row, "problems", reused) == "reused, nothing was done again"


def test_a_failures_name_is_short_and_keeps_the_command() -> None:
    reason = "teacher http://127.0.0.1:8000/v1 does not answer" + " at all" * 40
    command = "prefect flow-run retry 5f0c4b54-0000-4000-8000-000000000000"
    sentence = compose("problems, at problems-00003", reason, command)
    name = name_failure("demo-64x3", sentence)
    assert len(name) <= 230
    assert name.startswith("demo-64x3 stopped: problems, at problems-00003: teacher http://")
    assert name.endswith(f"… — continue: {command}")
    assert name_failure("demo", "no recipe named 'x'") == "demo stopped: no recipe named 'x'"


def test_prefects_own_words_at_the_end_of_a_run_are_left_out() -> None:
    def record(text: str) -> logging.LogRecord:
        return logging.LogRecord("prefect.flow_runs", logging.INFO, "", 0, text, (), None)

    assert not is_news(record("Finished in state Completed('40 of 64 kept')"))
    assert is_news(record("Problems: 64 problems in, 40 out"))


def test_one_section_is_cut_out_of_a_card() -> None:
    card = "# T\n\n## Decontamination\n\nOff.\n\n## Inputs\n\nx"
    assert find_section(card, "Decontamination") == "## Decontamination\n\nOff."
    assert find_section(card, "Nowhere") == ""


def test_a_plot_becomes_an_address_that_a_page_can_show_on_any_background() -> None:
    uri = as_data_uri('<svg viewBox="0 0 30 20"><g/></svg>')
    kind, _, data = uri.partition(",")
    assert kind == "data:image/svg+xml;base64"
    text = base64.b64decode(data).decode()
    assert 'xmlns="http://www.w3.org/2000/svg" width="84" height="64" viewBox="-6 -6 42 32"' in text
    assert '<rect x="-6" y="-6" width="42" height="32" fill="white"/><g/>' in text


def test_the_shard_that_could_not_be_done_is_told_with_its_stage(tmp_path: Path) -> None:
    from pipeline.errors import TeacherUnreachable
    from pipeline.events import listening
    from pipeline.records import Concept
    from pipeline.stages import Batch, BatchResult, Stage, run_stage, split_batches

    stage = Stage(
        name="numbers", root=tmp_path, record=Concept, settings={}, inputs=[], packages=["pipeline"]
    )

    def process(batch: Batch) -> BatchResult:
        if 2 in batch.rows:
            raise TeacherUnreachable("no answer", hint="start it")
        return BatchResult(num_in=0, rows=[])

    heard: list[Mapping[str, Any]] = []
    with listening(heard.append), pytest.raises(TeacherUnreachable):
        run_stage(stage, split_batches([0, 1, 2, 3], 1, str), process)
    assert heard[-1]["event"] == "stage.failed"
    assert heard[-1]["shard"].startswith("00002-")
    assert heard[-1]["done"] == 2
