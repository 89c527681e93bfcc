"""Stored answers: nothing is asked twice, and a cut-off run ends with the undisturbed texts."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, TeacherError
from pipeline.hashing import content_hash
from pipeline.records import Message
from pipeline.settings import Recipe, load_recipe
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.protocol import Answer, Capabilities, Constraint, Request
from promptcot.engines.teacher import Teacher, open_teacher


class BatchingEngine:
    """Like a batched kernel: a text depends on everything that ran together with it."""

    def __init__(self, group_size: int | None, interrupt_after: int | None = None) -> None:
        self.capabilities = Capabilities(
            name="embedded",
            model="toy",
            constraints=frozenset(),
            group_size=group_size,
            max_concurrency=4,
        )
        self.num_answers = 0
        self.num_calls = 0
        self._left = interrupt_after

    async def answer(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Answer], None]:
        self.num_calls += 1
        together = content_hash([r.seed for r in requests])
        if self.capabilities.group_size is None:
            together = "alone"
        # Out of order, as real engines finish.
        for position in reversed(range(len(requests))):
            if self._left == 0:
                raise KeyboardInterrupt
            if self._left is not None:
                self._left -= 1
            self.num_answers += 1
            yield position, Answer(f"{requests[position].seed} {together}", "stop", 1, 2)

    async def close(self) -> None:
        pass


def questions(count: int, **changes: Any) -> list[Request]:
    values: dict[str, Any] = {"temperature": 0.6, "top_p": 1.0, "max_tokens": 9, **changes}
    return [
        Request(messages=(Message(role="user", content=f"question {i}"),), seed=i, **values)
        for i in range(count)
    ]


def open_toy(engine: BatchingEngine, out: Path) -> Teacher:
    return Teacher(engine, num_threads=1, out=out)


def scripted(tmp_path: Path, rows: list[dict[str, Any]]) -> tuple[TeacherSettings, Recipe]:
    recipe_file = tmp_path / "recipe.toml"
    recipe_file.write_text('name = "toy"\n', encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "script.jsonl").write_text(lines, encoding="utf-8")
    teacher = TeacherSettings(engine="scripted", script="script.jsonl")
    return teacher, load_recipe(str(recipe_file))


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(0, 12),
    group_size=st.one_of(st.none(), st.integers(1, 5)),
    interrupt_after=st.integers(0, 12),
)
def test_interrupted_then_resumed_gives_the_undisturbed_answers(
    tmp_path_factory: pytest.TempPathFactory,
    count: int,
    group_size: int | None,
    interrupt_after: int,
) -> None:
    undisturbed = tmp_path_factory.mktemp("a")
    with open_toy(BatchingEngine(group_size), undisturbed) as teacher:
        expected = teacher.answer_all(questions(count), "test")
    out = tmp_path_factory.mktemp("b")
    cut_off = BatchingEngine(group_size, interrupt_after)
    if interrupt_after < count:
        with pytest.raises(KeyboardInterrupt), open_toy(cut_off, out) as teacher:
            teacher.answer_all(questions(count), "test")
    resumed = BatchingEngine(group_size)
    with open_toy(resumed, out) as teacher:
        assert teacher.answer_all(questions(count), "test") == expected
    # Only the group that was cut off is asked again.
    assert resumed.num_answers + cut_off.num_answers - count < (group_size or 1)
    again = BatchingEngine(group_size)
    with open_toy(again, out) as teacher:
        assert teacher.answer_all(questions(count), "test") == expected
    assert again.num_calls == 0


def test_the_same_request_in_another_group_is_another_answer(tmp_path: Path) -> None:
    with open_toy(BatchingEngine(4), tmp_path) as teacher:
        first = teacher.answer_all(questions(4), "test")
        other = teacher.answer_all(questions(3), "test")
    assert first[0] != other[0]


def test_independent_requests_go_out_in_one_call_and_equal_ones_once(tmp_path: Path) -> None:
    engine = BatchingEngine(None)
    with open_toy(engine, tmp_path) as teacher:
        answers = teacher.answer_all([*questions(5), *questions(3)], "test")
    assert (engine.num_calls, engine.num_answers) == (1, 5)
    assert answers[5:] == answers[:3]


def test_usage_and_ledger_count_what_was_spent_also_by_a_failed_call(tmp_path: Path) -> None:
    with open_toy(BatchingEngine(None, 3), tmp_path) as teacher:
        with pytest.raises(KeyboardInterrupt):
            teacher.answer_all(questions(5), "first")
        assert teacher.usage.num_completion_tokens == 6
    with open_toy(BatchingEngine(None), tmp_path) as teacher:
        teacher.answer_all(questions(5), "second")
        assert (teacher.usage.num_requests, teacher.usage.num_stored) == (5, 3)
    ledger = (tmp_path / "logs" / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in ledger]
    assert [(e["label"], e["stored"], e["completion_tokens"]) for e in entries] == [
        ("first", 0, 6),
        ("second", 3, 4),
    ]


def test_an_engine_that_loses_answers_is_an_error(tmp_path: Path) -> None:
    class Losing(BatchingEngine):
        async def answer(
            self, requests: Sequence[Request]
        ) -> AsyncGenerator[tuple[int, Answer], None]:
            async for position, answer in super().answer(requests[1:]):
                yield position, answer

    with (
        pytest.raises(TeacherError, match="3 answers to 4 requests"),
        open_toy(Losing(4), tmp_path) as teacher,
    ):
        teacher.answer_all(questions(4), "test")


def test_works_in_a_worker_thread(tmp_path: Path) -> None:
    answers: list[Answer] = []
    with open_toy(BatchingEngine(2), tmp_path) as teacher:
        worker = threading.Thread(
            target=lambda: answers.extend(teacher.answer_all(questions(3), "test"))
        )
        worker.start()
        worker.join()
    assert len(answers) == 3


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
    engine = BatchingEngine(2)
    with (
        pytest.raises(TeacherError, match="cannot enforce a regex"),
        open_toy(engine, tmp_path) as teacher,
    ):
        teacher.answer_all(questions(2, constraint=Constraint("regex", "a+")), "test")
    assert engine.num_calls == 0
