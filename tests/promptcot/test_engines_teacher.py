"""Asking a teacher: a full engine, nothing asked twice, and the undisturbed texts after a kill."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_engines import FailsAfter, ToyEngine, open_toy, questions, toy_recipe

from pipeline.errors import ConfigError, StoreError, TeacherError, WorkPending
from pipeline.records import Message
from pipeline.settings import Recipe
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.answers import FILE_NAME, AnswerStore
from promptcot.engines.ledger import read_ledger
from promptcot.engines.protocol import Answer, Constraint, Request
from promptcot.engines.teacher import open_teacher
from promptcot.run_context import SynthesisRun


def scripted(tmp_path: Path, rows: list[dict[str, Any]]) -> tuple[TeacherSettings, Recipe]:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "script.jsonl").write_text(lines, encoding="utf-8")
    return TeacherSettings(engine="scripted", script="script.jsonl"), toy_recipe(tmp_path)


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(0, 12),
    group_size=st.one_of(st.none(), st.integers(1, 5)),
    fail_after=st.integers(0, 12),
)
def test_failed_then_resumed_gives_the_undisturbed_answers(
    tmp_path_factory: pytest.TempPathFactory,
    count: int,
    group_size: int | None,
    fail_after: int,
) -> None:
    with open_toy(ToyEngine(group_size), tmp_path_factory.mktemp("a")) as teacher:
        expected = teacher.answer_all(questions(count), "test")
    out = tmp_path_factory.mktemp("b")
    failing = FailsAfter(group_size, fail_after)
    if fail_after < count:
        with pytest.raises(TeacherError, match="it broke"), open_toy(failing, out) as teacher:
            teacher.answer_all(questions(count), "test")
    resumed = ToyEngine(group_size)
    with open_toy(resumed, out) as teacher:
        assert teacher.answer_all(questions(count), "test") == expected
    assert sorted(failing.seeds + resumed.seeds) == list(range(count)), "asked twice or never"
    again = ToyEngine(group_size)
    with open_toy(again, out) as teacher:
        assert teacher.answer_all(questions(count), "test") == expected
    assert again.num_calls == 0


def test_the_engine_stays_full_across_batches(tmp_path: Path) -> None:
    # The last reply of every batch takes ten times as long: alone, each would drain the engine.
    engine = ToyEngine(slots=8, delay=lambda seed: 0.2 if seed % 16 == 15 else 0.02)
    batches = [questions(16, first) for first in range(0, 256, 16)]
    start = time.monotonic()
    with open_toy(engine, tmp_path) as teacher, ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda batch: teacher.answer_all(batch, "test"), batches))
    seconds = time.monotonic() - start
    work = 256 * 0.02 + 16 * 0.18
    assert engine.peak == 8
    assert seconds < 2.4 * work / 8, "batch after batch takes more than 3.2 s"
    # Six threads race for their place in the queue; nobody is overtaken by more than that.
    assert all(abs(place - seed) < 6 * 16 for place, seed in enumerate(engine.seeds))
    assert len(engine.threads) == 1, "one loop asks and closes"
    assert engine.is_closed


def test_groups_go_one_at_a_time_and_whole(tmp_path: Path) -> None:
    engine = ToyEngine(4, delay=lambda seed: 0.01)
    with open_toy(engine, tmp_path) as teacher, ThreadPoolExecutor(3) as pool:
        batches = [questions(6, first) for first in (0, 10, 20)]
        list(pool.map(lambda batch: teacher.answer_all(batch, "test"), batches))
    assert engine.peak == 4
    assert engine.num_calls == 6


def test_equal_requests_are_asked_once_also_from_several_threads(tmp_path: Path) -> None:
    engine = ToyEngine(delay=lambda seed: 0.02)
    asked = [*questions(5), *questions(3)]
    with open_toy(engine, tmp_path) as teacher, ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: teacher.answer_all(asked, "test"), range(8)))
    assert sorted(engine.seeds) == list(range(5))
    assert all(result == results[0] for result in results)
    assert results[0][5:] == results[0][:3]


def test_what_is_started_is_stored_and_waited_for_in_parts(tmp_path: Path) -> None:
    engine = ToyEngine(delay=lambda seed: 0.01)
    counted: list[int] = []
    with open_toy(engine, tmp_path) as teacher:
        teacher.answer_all(questions(3), "before")
        call = teacher.start_all(questions(20), "stage", counted.append)
        part = teacher.answer_all(questions(4, 5), "stage", is_shown=False)
        assert [answer.text for answer in part] == [f"{seed} alone" for seed in range(5, 9)]
        # Nothing is held for the call that started them all: it got no text.
        assert {answer.text for answer in call.wait().values()} == {""}
    assert sorted(engine.seeds) == list(range(20))
    assert (counted[0], sum(counted)) == (3, 20)


def test_a_penalty_names_a_request_only_where_it_is_used() -> None:
    (plain,) = questions(1, 7)
    other = replace(plain, repetition_penalty=1.1)
    assert plain.key("m") == replace(plain, repetition_penalty=1.0).key("m") != other.key("m")
    # Answers that were stored before requests had a penalty are still found.
    stored = Request(
        messages=(Message(role="user", content="hi"),),
        temperature=0.6,
        top_p=0.9,
        max_tokens=5,
        seed=7,
    )
    assert stored.key("m") == "7f7e016a50bfa7f1f99136a0c4113e69"


def test_the_same_request_in_another_group_is_another_answer(tmp_path: Path) -> None:
    with open_toy(ToyEngine(4), tmp_path) as teacher:
        first = teacher.answer_all(questions(4), "test")
        other = teacher.answer_all(questions(3), "test")
    assert first[0] != other[0]


def test_a_failure_concerns_only_its_own_call(tmp_path: Path) -> None:
    def reply(request: Request) -> Answer:
        if request.seed == 3:
            raise TeacherError("refused", hint="ask less")
        return Answer("fine", "stop", 1, 1)

    engine = ToyEngine(slots=2, delay=lambda seed: 0.02, reply=reply)
    with open_toy(engine, tmp_path) as teacher, ThreadPoolExecutor(2) as pool:
        bad = pool.submit(teacher.answer_all, questions(5), "bad")
        good = pool.submit(teacher.answer_all, questions(5, first=100), "good")
        assert len(good.result()) == 5
        with pytest.raises(TeacherError, match="refused"):
            bad.result()
    assert {line.stage: line.stored for line in read_ledger(tmp_path)}["good"] == 5


def test_error_answers_are_returned_counted_and_asked_again(tmp_path: Path) -> None:
    def reply(request: Request) -> Answer:
        if request.seed == 1:
            return Answer("", "error", 7, 0, "too long")
        return Answer("fine", "stop", 1, 1)

    for num_tries in (1, 2):
        engine = ToyEngine(reply=reply)
        with open_toy(engine, tmp_path) as teacher:
            answers = teacher.answer_all(questions(3), "test")
        assert [a.finish_reason for a in answers] == ["stop", "error", "stop"]
        assert answers[1].detail == "too long"
        (line,) = read_ledger(tmp_path)
        assert (line.stored, line.failed, line.prompt_tokens) == (2, num_tries, 2 + 7 * num_tries)
    assert engine.seeds == [1]


def test_pending_work_lets_the_others_through_and_is_said_once(tmp_path: Path) -> None:
    def reply(request: Request) -> Answer:
        if request.seed in (1, 2):
            raise WorkPending(f"request {request.seed} is with the fleet", hint="wait")
        return Answer("fine", "stop", 1, 1)

    engine = ToyEngine(slots=2, reply=reply)
    with open_toy(engine, tmp_path) as teacher:
        with pytest.raises(WorkPending, match="2 requests wait: request 1 is with the fleet"):
            teacher.answer_all(questions(5), "test")
        assert sorted(engine.seeds) == list(range(5))
        with pytest.raises(WorkPending):
            teacher.answer_all(questions(5), "test")
    assert Counter(engine.seeds) == {0: 1, 1: 2, 2: 2, 3: 1, 4: 1}


def test_cancel_fails_at_once_what_waits(tmp_path: Path) -> None:
    engine = ToyEngine(slots=4, delay=lambda seed: 60.0)
    with open_toy(engine, tmp_path) as teacher, ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(teacher.answer_all, questions(9, i), "test") for i in (0, 10, 20)]
        while engine.num_running < 4:
            time.sleep(0.005)
        start = time.monotonic()
        teacher.cancel()
        for call in calls:
            with pytest.raises(TeacherError, match="cancelled"):
                call.result()
        with pytest.raises(TeacherError, match="cancelled"):
            teacher.answer_all(questions(1, 50), "test")
    assert time.monotonic() - start < 1
    assert engine.num_running == 0, "the engine's tasks were ended"
    assert engine.is_closed


def test_leaving_the_block_keeps_what_has_arrived(tmp_path: Path) -> None:
    engine = ToyEngine(slots=2, delay=lambda seed: 0.0 if seed < 3 else 60.0)
    with open_toy(engine, tmp_path) as teacher:
        caller = threading.Thread(target=_ask_in_vain, args=[teacher, questions(9)])
        caller.start()
        while len(engine.seeds) < 5:
            time.sleep(0.005)
    caller.join()
    assert read_ledger(tmp_path)[0].stored == 3


def _ask_in_vain(teacher: Any, requests: Sequence[Request]) -> None:
    with pytest.raises(TeacherError):
        teacher.answer_all(requests, "test")


KILLED = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from toy_engines import ToyEngine, open_toy, questions

out, group = Path(sys.argv[2]), int(sys.argv[3]) or None
engine = ToyEngine(group, slots=16, delay=lambda seed: 0.01 + seed % 7 / 200)
with open_toy(engine, out) as teacher, ThreadPoolExecutor(4) as pool:
    batches = [questions(16, first) for first in range(0, 4000, 16)]
    list(pool.map(lambda batch: teacher.answer_all(batch, "test"), batches))
"""


@pytest.mark.parametrize("group_size", [None, 8])
def test_kill_loses_only_what_was_in_flight(tmp_path: Path, group_size: int | None) -> None:
    out = tmp_path / "killed"
    out.mkdir()
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(out)]
    with subprocess.Popen([*command, str(group_size or 0)], stdout=subprocess.DEVNULL) as client:
        while num_stored(out) < 50:
            time.sleep(0.02)
            assert client.poll() is None
        os.kill(client.pid, signal.SIGKILL)
    stored = num_stored(out)
    (line,) = read_ledger(out)
    assert (line.stored, line.completion_tokens) == (stored, 2 * stored)
    assert line.seconds > 0
    if group_size:
        assert stored % group_size == 0
    resumed = ToyEngine(group_size, slots=256)
    with open_toy(resumed, out) as teacher:
        batches = [questions(16, first) for first in range(0, 4000, 16)]
        answers = [teacher.answer_all(batch, "test") for batch in batches]
    assert len(resumed.seeds) == 4000 - stored
    with open_toy(ToyEngine(group_size, slots=256), tmp_path) as teacher:
        assert [teacher.answer_all(batch, "test") for batch in batches] == answers


def num_stored(out: Path) -> int:
    if not (out / "answers" / FILE_NAME).is_file():
        return 0
    store = AnswerStore(out / "answers")
    try:
        return len(store)
    finally:
        store.close()


def test_memory_does_not_grow_with_the_number_of_answers(tmp_path: Path) -> None:
    def reply(request: Request) -> Answer:
        return Answer(f"{request.seed} " * 4000, "stop", 1, 1)

    engine = ToyEngine(slots=64, reply=reply)
    tracemalloc.start()
    try:
        with open_toy(engine, tmp_path) as teacher:
            teacher.answer_all(questions(64), "test")
            before, _ = tracemalloc.get_traced_memory()
            for first in range(64, 2000, 64):
                teacher.answer_all(questions(64, first), "test")
            after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The test's own list of seeds grows; the texts, 20 kB each, are not kept.
    assert after - before < 1_000_000


def test_a_store_that_cannot_be_written_ends_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("promptcot.engines.answers._LOCK_WAIT_S", 0.1)
    with open_toy(ToyEngine(slots=1), tmp_path) as teacher:
        teacher.answer_all(questions(1), "test")
        holder = sqlite3.connect(tmp_path / "answers" / FILE_NAME, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="held by another process"):
            teacher.answer_all(questions(20, 1), "test")
        holder.close()


def test_an_engine_that_loses_answers_is_an_error(tmp_path: Path) -> None:
    class Losing(ToyEngine):
        async def answer(self, requests: Sequence[Request]) -> Sequence[Answer]:
            return (await super().answer(requests))[1:]

    with (
        pytest.raises(TeacherError, match="3 answers to 4 requests"),
        open_toy(Losing(4), tmp_path) as teacher,
    ):
        teacher.answer_all(questions(4), "test")


def test_a_bug_in_an_engine_reaches_the_caller(tmp_path: Path) -> None:
    def reply(request: Request) -> Answer:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError), open_toy(ToyEngine(reply=reply), tmp_path) as teacher:
        teacher.answer_all(questions(2), "test")


def test_script_matches_text_or_pattern_and_cycles_by_seed(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"pattern": r"question [12]$", "text": ["even", "odd"]},
        {"match": "question 3", "text": "cut", "finish_reason": "length"},
        {"match": "question", "text": ""},
    ]
    teacher_settings, recipe = scripted(tmp_path, rows)
    with open_teacher(teacher_settings, recipe=recipe, out=tmp_path) as teacher:
        answers = teacher.answer_all(questions(5), "test")
    assert [a.text for a in answers] == ["", "odd", "even", "cut", ""]
    assert answers[3].finish_reason == "length"


def test_teachers_with_equal_settings_have_ledger_lines_of_their_own(tmp_path: Path) -> None:
    scripted(tmp_path, [{"match": "", "text": "two words"}])
    names = ("default", "solver", "judge")
    same = 'engine = "scripted"\nscript = "script.jsonl"\n'
    recipe = toy_recipe(tmp_path, "".join(f"[teachers.{name}]\n{same}" for name in names))
    with SynthesisRun(recipe, tmp_path) as run:
        for count, name in enumerate(names, start=1):
            run.teacher(name).answer_all(questions(count, first=10 * count), "stage")
    found = [(line.teacher, line.stored, line.completion_tokens) for line in read_ledger(tmp_path)]
    assert found == [("default", 1, 2), ("solver", 2, 4), ("judge", 3, 6)]


def test_another_script_is_asked_anew(tmp_path: Path) -> None:
    for text in ("old", "new"):
        teacher_settings, recipe = scripted(tmp_path, [{"match": "", "text": text}])
        with open_teacher(teacher_settings, recipe=recipe, out=tmp_path) as teacher:
            assert teacher.answer_all(questions(1), "test")[0].text == text


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"text": "a"}, "either match or pattern"),
        ({"pattern": "(", "text": "a"}, "not a regular expression"),
        ({"match": "a", "text": []}, "empty list"),
        ({"match": "a"}, "Field required"),
    ],
)
def test_a_bad_script_row_is_named(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    teacher_settings, recipe = scripted(tmp_path, [{"match": "a", "text": "b"}, row])
    with pytest.raises(TeacherError, match=f"line 2: .*{problem}"):
        open_teacher(teacher_settings, recipe=recipe, out=tmp_path)


def test_a_request_without_a_reply_is_named(tmp_path: Path) -> None:
    teacher_settings, recipe = scripted(tmp_path, [{"match": "nothing like it", "text": "b"}])
    with (
        pytest.raises(TeacherError, match="question 0"),
        open_teacher(teacher_settings, recipe=recipe, out=tmp_path) as teacher,
    ):
        teacher.answer_all(questions(1), "test")


def test_a_missing_script_is_named(tmp_path: Path) -> None:
    _, recipe = scripted(tmp_path, [])
    with pytest.raises(ConfigError, match="needs a script"):
        open_teacher(TeacherSettings(engine="scripted"), recipe=recipe, out=tmp_path)
    with pytest.raises(TeacherError, match=r"none\.jsonl"):
        open_teacher(
            TeacherSettings(engine="scripted", script="none.jsonl"), recipe=recipe, out=tmp_path
        )


def test_constraints_that_an_engine_lacks_are_refused_before_asking(tmp_path: Path) -> None:
    engine = ToyEngine(2)
    with (
        pytest.raises(TeacherError, match="cannot enforce a regex"),
        open_toy(engine, tmp_path) as teacher,
    ):
        teacher.answer_all(questions(2, constraint=Constraint("regex", "a+")), "test")
    assert engine.num_calls == 0
