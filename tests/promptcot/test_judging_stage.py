"""The stage `judged`: several judges and votes, one after the other, statistics, failures."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from judging_fixture import (
    ALWAYS,
    STATEMENTS,
    Script,
    judge,
    kept,
    make_problem,
    open_run,
    reasons,
    reply,
)
from openai_server import LocalServer

from pipeline.errors import ConfigError, TeacherError
from pipeline.manifest import verify_version
from pipeline.records import JudgedProblem
from pipeline.relaxed_gates import relaxed_gates

STRICT: Script = [
    {"match": f" {n} boxes", "text": reply(worst)}
    for n, worst in ((3, "Bad"), (4, "Bad"), (5, "Acceptable"), (6, "Acceptable"))
]
KIND: Script = [
    {"match": " 3 boxes", "text": reply("Bad")},
    {"match": " 5 boxes", "text": reply("Acceptable")},
    {"match": " 7 boxes", "text": "This is perfect."},
]


def test_two_judges_with_several_votes_each(tmp_path: Path) -> None:
    version = judge(open_run(tmp_path, strict=STRICT + ALWAYS, kind=KIND + ALWAYS))
    verify_version(version)
    assert (version.manifest.rows_in, version.manifest.rows_out) == (24, 19)
    assert reasons(version) == {"verdict_bad": 2, "verdict_acceptable": 2, "judge_incomplete": 1}
    row = JudgedProblem.model_validate(next(iter(version.rows())))
    assert [(j.judge, j.vote) for j in row.judgements] == [
        ("strict", 0),
        ("kind", 0),
        ("kind", 1),
        ("kind", 2),
    ]
    assert len({j.seed for j in row.judgements}) == 4
    assert len({j.prompt_hash for j in row.judgements}) == 1
    assert {j.model[:7] for j in row.judgements} == {"script@"}
    assert row.judgements[0].reasons == ["as it should be"] * 5
    assert row.judgements[0].problem_id == row.problem.id


def test_statistics_cover_the_refused_rows_too(tmp_path: Path) -> None:
    version = judge(open_run(tmp_path, strict=STRICT + ALWAYS, kind=KIND + ALWAYS))
    found = version.manifest.extra["agreement"]
    strict, kind = found["judges"]
    assert strict["verdicts"] == {"perfect": 20, "acceptable": 2, "bad": 2}
    assert strict["ratings"]["format"] == strict["verdicts"]
    assert kind["unreadable"] == {"judge_incomplete": 3}
    assert sum(kind["verdicts"].values()) == 3 * 23
    (pair,) = found["pairs"]
    assert pair["judges"] == ["strict", "kind"]
    # The unreadable problem can be compared with nothing.
    assert pair["table"] == [[19, 0, 0], [1, 1, 0], [1, 0, 1]]
    assert pair["num_items"] == 23
    assert 0 < pair["kappa"] < 1
    assert kind["own_votes"]["observed"] == 1.0
    assert found["all_votes"]["num_items"] == 23
    assert "agree on" in found["in_words"]["strict with kind"]
    json.dumps(version.manifest.extra, allow_nan=False)


def test_judges_who_always_say_the_same_have_no_kappa(tmp_path: Path) -> None:
    version = judge(open_run(tmp_path))
    pair = version.manifest.extra["agreement"]["pairs"][0]
    assert (pair["observed"], pair["kappa"]) == (1.0, None)
    assert "every vote is the same" in pair["note"]


def test_lenient_wants_one_perfect_and_none_bad(tmp_path: Path) -> None:
    lenient = "synthesis.judging.aggregation=lenient"
    version = judge(open_run(tmp_path, lenient, strict=STRICT + ALWAYS, kind=KIND + ALWAYS))
    assert version.manifest.rows_out == 20
    assert reasons(version) == {
        "verdict_bad": 2,
        "verdict_never_perfect": 1,
        "judge_incomplete": 1,
    }


MOODS = [reply(), reply("Acceptable"), reply("Bad"), reply(), "hm"]


@pytest.mark.parametrize("aggregation", ["unanimous", "lenient"])
@pytest.mark.parametrize("minimum", ["perfect", "acceptable"])
def test_asking_one_after_the_other_keeps_the_same_for_less(
    tmp_path: Path, aggregation: str, minimum: str
) -> None:
    moods: Script = [{"match": "", "text": MOODS}]
    overrides = [
        f"synthesis.judging.aggregation={aggregation}",
        f"synthesis.judging.minimum_verdict={minimum}",
    ]
    both = judge(open_run(tmp_path / "both", *overrides, strict=moods, kind=moods))
    overrides.append("synthesis.judging.sequential=true")
    lazy = judge(open_run(tmp_path / "lazy", *overrides, strict=moods, kind=moods))
    assert kept(both) == kept(lazy)
    assert 0 < lazy.manifest.tokens["completion"] < both.manifest.tokens["completion"]
    assert "one after the other" in lazy.manifest.extra["agreement"]["note"]
    assert "note" not in both.manifest.extra["agreement"]


def test_teachers_of_different_judges_work_at_the_same_time(
    tmp_path: Path, openai_server: LocalServer
) -> None:
    overrides = []
    for name in ("strict", "kind"):
        overrides += [
            f"teachers.{name}.engine=http",
            f"teachers.{name}.model=slow-1.0#{name}",
            f'teachers.{name}.base_urls=["{openai_server.base_url}"]',
        ]
    run = open_run(tmp_path, *overrides)
    start = time.monotonic()
    version = judge(run, [make_problem(1, STATEMENTS[1])])
    assert time.monotonic() - start < 1.9
    assert version.manifest.rows_rejected == 1


def test_another_judge_beside_it_changes_no_votes(tmp_path: Path) -> None:
    moods: Script = [{"match": "", "text": MOODS}]
    two = judge(open_run(tmp_path / "two", strict=moods, kind=moods))
    alone = 'synthesis.judging.judges=[{teacher="strict"}]'
    one = judge(open_run(tmp_path / "one", alone, strict=moods, kind=moods))
    first = two.manifest.extra["agreement"]["judges"][0]
    assert one.manifest.extra["agreement"]["judges"][0] == first


def test_two_judges_of_one_teacher_need_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="share a name"):
        open_run(tmp_path, 'synthesis.judging.judges=[{teacher="kind"}, {teacher="kind"}]')
    with pytest.raises(ConfigError, match="slash"):
        open_run(tmp_path, 'synthesis.judging.judges=[{teacher="kind", name="a/b"}]')


def test_failure_of_one_judge_stops_the_stage(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="no reply"):
        judge(open_run(tmp_path, kind=[{"match": "never", "text": ""}]))


def test_relaxed_gates_know_the_judges(tmp_path: Path) -> None:
    def said(*overrides: str) -> str:
        return " ".join(relaxed_gates(open_run(tmp_path, *overrides).recipe.settings))

    # Two scripts are two opinions.
    assert "judges the problems" not in said()
    twice = '[{teacher="kind", name="a"}, {teacher="kind", name="b"}]'
    assert "One model judges the problems" in said(f"synthesis.judging.judges={twice}")
    low = "synthesis.judging.minimum_verdict=acceptable"
    assert "from the verdict “acceptable” upwards" in said(low)
    lenient = said(low, "synthesis.judging.aggregation=lenient")
    assert "One “perfect” vote is enough" in lenient
    assert "upwards" not in lenient
