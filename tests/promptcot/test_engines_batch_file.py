"""Batch files: the whole loop with an offline fleet, nothing handed out twice, clear errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import promptcot
from pipeline.errors import StoreError, TeacherError, WorkPending
from pipeline.manifest import Version
from pipeline.records import Message
from pipeline.settings import load_recipe
from pipeline.settings.teacher import TeacherSettings
from promptcot.combinations import run_combinations
from promptcot.engines.key_table import KeyTable
from promptcot.engines.protocol import Answer, Constraint, Request
from promptcot.engines.teacher import open_teacher
from promptcot.problems import run_problems
from promptcot.run_context import SynthesisRun

MODEL = "org/Model-7B"


def ask(out: Path, requests: list[Request], **settings: Any) -> list[Answer]:
    values = {"engine": "batch_file", "model": MODEL, "max_retries": 1, **settings}
    teacher = open_teacher(TeacherSettings(**values), recipe=load_recipe("demo"), out=out)
    with teacher:
        return teacher.answer_all(requests, "test")


def request(seed: int, **changes: Any) -> Request:
    values: dict[str, Any] = {"temperature": 0.6, "top_p": 0.9, "max_tokens": 50, **changes}
    return Request(messages=(Message(role="user", content=f"q{seed}"),), seed=seed, **values)


def folder(out: Path) -> Path:
    return out / "batches" / "org--Model-7B"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def all_requests(out: Path) -> list[dict[str, Any]]:
    return [line for p in sorted(folder(out).glob("requests-*.jsonl")) for line in lines_of(p)]


def result(line: dict[str, Any], status: int = 200, **body: Any) -> dict[str, Any]:
    """One line as `vllm run-batch` writes it."""
    text = f"{line['body']['messages'][-1]['content']} / seed {line['body']['seed']}"
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    full = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 5}} | body
    response = {"status_code": status, "request_id": "r1", "body": full}
    return {"id": "b1", "custom_id": line["custom_id"], "response": response, "error": None}


def answer_file(requests: Path, results: list[dict[str, Any]] | None = None) -> Path:
    """What `vllm run-batch -i requests -o results` leaves."""
    results = [result(line) for line in lines_of(requests)] if results is None else results
    target = requests.with_name(requests.name.replace("requests", "results"))
    target.write_text("".join(json.dumps(line) + "\n" for line in results), encoding="utf-8")
    return target


def test_requests_go_out_once_and_answers_come_back(tmp_path: Path) -> None:
    requests = [request(i) for i in range(5)]
    with pytest.raises(WorkPending) as caught:
        ask(tmp_path, requests)
    path = folder(tmp_path) / "requests-0001.jsonl"
    results = folder(tmp_path) / "results-0001.jsonl"
    assert f"vllm run-batch --model {MODEL} -i {path} -o {results}" in caught.value.hint
    assert "same command again" in caught.value.hint
    assert "requests-0001.jsonl" in str(caught.value)
    first = lines_of(path)[0]
    assert first.keys() == {"custom_id", "method", "url", "body"}
    assert (first["method"], first["url"]) == ("POST", "/v1/chat/completions")
    assert first["body"]["model"] == MODEL

    with pytest.raises(WorkPending):
        ask(tmp_path, requests)
    assert [p.name for p in folder(tmp_path).glob("requests-*")] == ["requests-0001.jsonl"]

    answer_file(path)
    answers = ask(tmp_path, requests)
    assert [a.text for a in answers] == [f"q{i} / seed {i}" for i in range(5)]
    assert answers[0].num_completion_tokens == 5
    # Answers are stored: the results may go.
    results.unlink()
    assert ask(tmp_path, requests) == answers


def test_more_requests_than_a_file_takes_are_split(tmp_path: Path) -> None:
    with pytest.raises(WorkPending):
        ask(tmp_path, [request(i) for i in range(25)], batch_lines=10)
    sizes = [len(lines_of(p)) for p in sorted(folder(tmp_path).glob("requests-*.jsonl"))]
    assert sizes == [10, 10, 5]
    # New requests go into a new file; those of before stay where they are.
    with pytest.raises(WorkPending, match=r"requests-0001\.jsonl, requests-0002\.jsonl"):
        ask(tmp_path, [request(i) for i in range(30)], batch_lines=10)
    ids = [line["custom_id"] for line in all_requests(tmp_path)]
    assert len(ids) == len(set(ids)) == 30


def test_results_in_part_answer_in_part(tmp_path: Path) -> None:
    with pytest.raises(WorkPending):
        ask(tmp_path, [request(i) for i in range(20)], batch_lines=10)
    answer_file(folder(tmp_path) / "requests-0002.jsonl")
    answered = {line["body"]["seed"] for line in lines_of(folder(tmp_path) / "requests-0002.jsonl")}
    assert len(ask(tmp_path, [request(i) for i in sorted(answered)])) == 10
    with pytest.raises(WorkPending, match=r"requests-0001\.jsonl$"):
        ask(tmp_path, [request(i) for i in range(20)])
    assert len(all_requests(tmp_path)) == 20


def test_failed_lines_go_out_again_and_refused_ones_end(tmp_path: Path) -> None:
    requests = [request(i) for i in range(4)]
    with pytest.raises(WorkPending):
        ask(tmp_path, requests)
    path = folder(tmp_path) / "requests-0001.jsonl"
    by_seed = {line["body"]["seed"]: line for line in lines_of(path)}
    refusal = {"error": {"message": "the prompt is too long"}}
    expired = {"code": "batch_expired", "message": "not done within 24 h"}
    answer_file(
        path,
        [
            result(by_seed[0]),
            result(by_seed[1], 400, **refusal),
            {"custom_id": by_seed[2]["custom_id"], "response": None, "error": expired},
            # Seed 3 is missing altogether.
        ],
    )
    with pytest.raises(WorkPending):
        ask(tmp_path, requests)
    again = folder(tmp_path) / "requests-0002.jsonl"
    assert sorted(line["body"]["seed"] for line in lines_of(again)) == [2, 3]
    answer_file(again, [result(by_seed[3]), result(by_seed[2], 500, error={"message": "hiccup"})])
    answers = ask(tmp_path, requests)
    assert [a.finish_reason for a in answers] == ["stop", "error", "error", "stop"]
    assert answers[1].detail == "HTTP 400: the prompt is too long"
    assert answers[2].detail == "no answer in 2 tries; the last: HTTP 500: hiccup"
    assert len(all_requests(tmp_path)) == 6, "nothing went out a third time"


def test_openai_names_its_files_differently(tmp_path: Path) -> None:
    with pytest.raises(WorkPending):
        ask(tmp_path, [request(1)])
    written = answer_file(folder(tmp_path) / "requests-0001.jsonl")
    written.rename(folder(tmp_path) / "batch_abc123.results.jsonl")
    assert ask(tmp_path, [request(1)])[0].text == "q1 / seed 1"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"custom_id": "x", "resp', "Unterminated"),
        ("[1]", "no custom_id"),
        ('{"custom_id": "x"}', "neither a response nor an error"),
    ],
)
def test_a_malformed_result_names_file_and_line(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(WorkPending):
        ask(tmp_path, [request(i) for i in range(3)])
    results = answer_file(folder(tmp_path) / "requests-0001.jsonl")
    with results.open("a", encoding="utf-8") as handle:
        handle.write(f"\n{line}")
    with pytest.raises(TeacherError, match=rf"results-0001\.jsonl, line 5.*{problem}"):
        ask(tmp_path, [request(i) for i in range(3)])


def test_constraints_and_plain_prompts_keep_their_form(tmp_path: Path) -> None:
    requests = [
        request(1, constraint=Constraint("regex", "a+"), top_k=20),
        request(2, template="none"),
    ]
    with pytest.raises(WorkPending):
        ask(tmp_path, requests)
    # One address per file.
    assert [len(lines_of(p)) for p in folder(tmp_path).glob("requests-*.jsonl")] == [1, 1]
    # Only the one that vLLM's batch program answers is given to it.
    chat_path, plain_path = sorted(
        folder(tmp_path).glob("requests-*.jsonl"), key=lambda p: lines_of(p)[0]["body"]["seed"]
    )
    with pytest.raises(WorkPending) as caught:
        ask(tmp_path, requests)
    assert f"-i {chat_path} -o" in caught.value.hint
    assert f"{plain_path.name} asks /v1/completions" in caught.value.hint
    assert 'teachers.default.engine = "http"' in caught.value.hint
    chat, plain = sorted(all_requests(tmp_path), key=lambda line: line["body"]["seed"])
    assert chat["body"]["structured_outputs"] == {"regex": "a+"}
    assert chat["body"]["top_k"] == 20
    assert (plain["url"], plain["body"]["prompt"]) == ("/v1/completions", "q2")


def test_results_of_a_program_that_does_not_know_the_address_are_no_answers(tmp_path: Path) -> None:
    plain = [request(1, template="none")]
    with pytest.raises(WorkPending):
        ask(tmp_path, plain)
    path = folder(tmp_path) / "requests-0001.jsonl"
    said = "URL /v1/completions was used. Supported endpoints: /v1/chat/completions, /score."
    (line,) = lines_of(path)
    response = {"status_code": 400, "request_id": "r1", "body": None}
    answer_file(path, [{"custom_id": line["custom_id"], "response": response, "error": said}])
    with pytest.raises(TeacherError, match="does not serve what was asked") as caught:
        ask(tmp_path, plain)
    assert f"vllm serve {MODEL}" in caught.value.hint


def test_two_teachers_of_one_model_share_the_folder(tmp_path: Path) -> None:
    settings = TeacherSettings(engine="batch_file", model=MODEL)
    recipe = load_recipe("demo")
    with (
        open_teacher(settings, recipe=recipe, out=tmp_path) as one,
        open_teacher(settings, recipe=recipe, out=tmp_path) as two,
    ):
        for teacher in (one, two):
            with pytest.raises(WorkPending):
                teacher.answer_all([request(i) for i in range(4)], "test")
    assert len(all_requests(tmp_path)) == 4


RECIPE = """
name = "offline"
[teachers.default]
engine = "batch_file"
model = "org/Model-7B"
batch_lines = 4
[synthesis]
bank = "{bank}"
batch_size = 4
[synthesis.combinations]
num_combinations = 10
[synthesis.problems]
form = "free"
"""
PROBLEM = """<!-- BEGIN RATIONALE -->
Begin with the lamp, and weigh its distance against the well's. The ratio then gives each part, and
their sum is the whole way between both of them, as it should be.
<!-- END RATIONALE -->
<!-- BEGIN PROBLEM -->
A lamp stands {n} metres from a well, and a gate divides the way between them in the ratio 2:3. How
many metres lie between the lamp and the gate?
<!-- END PROBLEM -->"""


def test_a_stage_goes_on_when_its_files_are_answered(tmp_path: Path) -> None:
    bank = Path(promptcot.__file__).parent / "data" / "seeds.jsonl"
    (tmp_path / "offline.toml").write_text(RECIPE.format(bank=bank), encoding="utf-8")
    out = tmp_path / "out"

    def build() -> Version:
        with SynthesisRun(load_recipe(str(tmp_path / "offline.toml")), out) as run:
            return run_problems(run, run_combinations(run))

    rounds = 0
    while not list((out / "synthesis" / "problems").glob("LATEST")):
        rounds += 1
        try:
            version = build()
        except WorkPending as pending:
            assert "vllm run-batch" in pending.hint
            # Someone answers two of the files that wait, not all.
            waiting = [
                path
                for path in sorted(folder(out).glob("requests-*.jsonl"))
                if not path.with_name(path.name.replace("requests", "results")).is_file()
            ]
            for path in waiting[:2]:
                lines = lines_of(path)
                choices = [
                    {
                        "message": {"content": PROBLEM.format(n=line["body"]["seed"] % 991 + 5)},
                        "finish_reason": "stop",
                    }
                    for line in lines
                ]
                results = [
                    result(line, choices=[choice])
                    for line, choice in zip(lines, choices, strict=True)
                ]
                answer_file(path, results)
    assert rounds >= 3
    assert version.manifest.rows_in == 10
    assert version.manifest.rows_out >= 8
    ids = [line["custom_id"] for line in all_requests(out)]
    assert len(ids) == len(set(ids))


CLIENT = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_engines_batch_file import MODEL, request
from pipeline.errors import WorkPending
from pipeline.settings import load_recipe
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.teacher import open_teacher
settings = TeacherSettings(engine="batch_file", model=MODEL, batch_lines=10)
with open_teacher(settings, recipe=load_recipe("demo"), out=Path(sys.argv[2])) as teacher:
    try:
        teacher.answer_all([request(i) for i in range(25)], "test")
    except WorkPending:
        print("pending", flush=True)
        time.sleep(60)
"""


def test_a_kill_leaves_whole_files_only(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", CLIENT, here, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        while "pending" not in client.stdout.readline():
            time.sleep(0.02)
        with pytest.raises(StoreError):
            ask(tmp_path, [request(0)])
        os.kill(client.pid, signal.SIGKILL)
    sizes = [len(lines_of(p)) for p in sorted(folder(tmp_path).glob("requests-*.jsonl"))]
    assert sizes == [10, 10]
    with pytest.raises(WorkPending):
        ask(tmp_path, [request(i) for i in range(25)], batch_lines=10)
    ids = [line["custom_id"] for line in all_requests(tmp_path)]
    assert len(ids) == len(set(ids)) == 25


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2**63)), max_size=200))
def test_a_key_table_is_a_multimap(entries: list[tuple[int, int]]) -> None:
    table = KeyTable(merge_at=7)
    expected: dict[int, list[int]] = {}
    for key, value in entries:
        table.add(key << 58, value)
        expected.setdefault(key << 58, []).append(value)
    assert len(table) == len(entries)
    assert all(table.get(key << 58) == expected.get(key << 58, []) for key in range(41))
