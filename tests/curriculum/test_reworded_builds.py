"""Builds that ask a teacher about each row's nearest benchmark items."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from curriculum_rows import make_recipe, ot2_row, questions, reasons_of, tree, write_lines

from curriculum import reworded
from curriculum.build import build_phase
from curriculum.collecting import collect_garbage
from curriculum.explain import explain_row
from pipeline.errors import ConfigError
from pipeline.manifest import Version
from pipeline.settings import Recipe, load_recipe

ITEM = "A gardener plants 24 tulips in equal rows of 6. How many rows are there?"
SAILOR = "On a ship a sailor ties two dozen knots, always half a dozen to a rope: how many ropes?"
HARBOUR = "In one harbour lie 24 boats at piers for 6 boats. How many piers does it need to have?"
BAKER = "The baker has 24 loaves and every family buys 7. How many families can be served today?"
ROWS = [
    *questions(5),
    ot2_row(SAILOR, id=7),
    ot2_row(BAKER),
    *questions(9)[5:],
    ot2_row(HARBOUR),
]
SCRIPT = [
    {"match": "sailor", "text": "Another story, the same sum.\nSame problem: yes"},
    {"match": "harbour", "text": "I cannot tell."},
    {"match": "baker", "text": "Seven, not six.\nSame problem: no"},
]
"""Nothing stands here for other rows: asking about one of them is an error."""
TEACHER = """
[[benchmarks]]
name = "bench"
path = "bench.jsonl"
domain = "math"
answer_field = ""
[teachers.default]
engine = "scripted"
script = "script.jsonl"
"""


class Encoder(BaseHTTPRequestHandler):
    """Texts that tell of 24 things, or of two dozen, lie close together; all others far off."""

    protocol_version = "HTTP/1.1"
    texts: list[str] = []  # noqa: RUF012

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        self.texts += texts
        near = [any(mark in text for mark in (" 24 ", "two dozen")) for text in texts]
        data = [
            {"index": i, "embedding": [1.0, len(text) / 1000] if is_near else [-1.0, 0.0]}
            for i, (text, is_near) in enumerate(zip(texts, near, strict=True))
        ]
        content = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[str]:
    Encoder.texts = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Encoder) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}/v1"
        httpd.shutdown()
        thread.join()


def recipe_of(folder: Path, server: str, *overrides: str) -> Recipe:
    path = folder / "t.toml"
    if not path.is_file():
        make_recipe(folder, ot2=ROWS)
        write_lines(folder / "bench.jsonl", [{"id": "i", "question": ITEM}])
        write_lines(folder / "script.jsonl", SCRIPT)
        path.write_text(path.read_text(encoding="utf-8") + TEACHER, encoding="utf-8")
    semantic = f'encoder={{kind="http",model="hand",base_url="{server}"}}'
    return load_recipe(
        str(path),
        [
            "curriculum.num_workers=1",
            "curriculum.batch_rows=4",
            f"curriculum.decontamination.semantic={{enabled=true,{semantic}}}",
            *overrides,
        ],
    )


def questions_of(version: Version) -> set[str]:
    return {row["question"] for row in version.rows(["question"])}


def refused_of(version: Version) -> dict[int, dict[str, Any]]:
    files = sorted((version.folder / "rejected").glob("*.parquet"))
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    return {row["source_position"]: row for row in rows}


def test_rows_that_the_teacher_does_not_clear_are_dropped(tmp_path: Path, server: str) -> None:
    out = tmp_path / "out"
    version = build_phase(recipe_of(tmp_path / "r", server), "1", out)
    assert reasons_of(version) == {"benchmark_item_reworded": 2}
    assert version.manifest.rejected == {"decontaminate": {"benchmark_item_reworded": 2}}
    asked = questions_of(version)
    assert BAKER in asked and not {SAILOR, HARBOUR} & asked
    assert version.manifest.rows_in == version.manifest.rows_out + 2 == len(ROWS)
    refused = refused_of(version)
    assert set(refused) == {5, 11}
    assert refused[5]["detail"].startswith("bench/i by judge (yes) 1 in the")
    assert refused[5]["detail"].endswith(SAILOR) and "(unclear)" in refused[11]["detail"]
    report = version.manifest.extra["decontamination"]
    assert report["benchmarks"] == {
        "bench": {"items": 1, "rows_flagged": 2, "reworded": 2, "template_twins": 0}
    }
    assert {m["span"]: m["rule"] for m in report["matches"]} == {SAILOR: "judge", HARBOUR: "judge"}
    (place,) = explain_row(refused[5]["row_id"], out)["places"]
    assert [step["stage"] for step in place["story"]][-1] == "decontaminate"
    assert version.manifest.extra["sources"]["talk"]["rejected"] == 2
    # Three rows are near the item; the script has no answer for any other.
    (judged,) = out.glob("judged/talk/*/manifest.json")
    assert json.loads(judged.read_text("utf-8"))["rows_out"] == 3


def test_it_is_off_by_default_and_prepares_nothing_twice(tmp_path: Path, server: str) -> None:
    recipe, out = recipe_of(tmp_path / "r", server), tmp_path / "out"
    plain = load_recipe(str(recipe.path), ["curriculum.num_workers=1", "curriculum.batch_rows=4"])
    version = build_phase(plain, "1", out)
    assert {SAILOR, HARBOUR, BAKER} < questions_of(version)
    assert Encoder.texts == [] and not (out / "judged").exists() and not (out / "answers").exists()
    build_phase(recipe, "1", out)
    assert len(list(out.glob("prepared/talk/*/manifest.json"))) == 1
    no_effect = "curriculum.decontamination.semantic.nearest=7"
    other = load_recipe(
        str(recipe.path), ["curriculum.num_workers=1", "curriculum.batch_rows=4", no_effect]
    )
    assert build_phase(other, "1", out).reused


def test_nothing_is_asked_twice_and_the_bytes_are_the_same(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out, calls = recipe_of(tmp_path / "r", server), tmp_path / "out", [0]
    real = reworded._read_questions

    def fail(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(reworded, "_read_questions", fail)
    with pytest.raises(KeyboardInterrupt):
        build_phase(recipe, "1", out)
    assert not list(out.glob("datasets/*/LATEST"))
    monkeypatch.undo()
    again = build_phase(recipe, "1", out)
    # The item once a run; each question once, however often the build began.
    assert sorted(set(Encoder.texts)) == sorted({row["question"] for row in ROWS} | {ITEM})
    assert len(Encoder.texts) <= len(ROWS) + 1 + 4
    Encoder.texts.clear()
    other = build_phase(recipe_of(tmp_path / "r", server, "seed=4"), "1", out)
    assert Encoder.texts == [] and questions_of(other) == questions_of(again)
    anew = build_phase(recipe, "1", tmp_path / "anew")
    assert tree(anew.folder) == tree(again.folder)
    (judged,) = (tmp_path / "anew").glob("judged/talk/*/")
    assert tree(judged) == tree(out / "judged" / "talk" / judged.name)


def test_a_phase_that_refers_to_another_leaves_its_refused_rows_out(
    tmp_path: Path, server: str
) -> None:
    override = 'curriculum.phases.2={sources=[{source="talk"}],max_tokens=400,distinct_from=["1"]}'
    short = "curriculum.phases.1.sources=[{source='talk',share=0.5}]"
    recipe = recipe_of(tmp_path / "r", server, override, short)
    out = tmp_path / "out"
    first, second = (build_phase(recipe, phase, out) for phase in "12")
    assert not {SAILOR, HARBOUR} & (questions_of(first) | questions_of(second))
    assert reasons_of(second)["benchmark_item_reworded"] == 2
    assert len(questions_of(first) | questions_of(second)) == len(ROWS) - 2


def test_an_unknown_teacher_is_named_before_anything_is_done(tmp_path: Path, server: str) -> None:
    override = 'curriculum.decontamination.semantic.teacher="nobody"'
    with pytest.raises(ConfigError, match=r"semantic\.teacher.* no teacher 'nobody'"):
        build_phase(recipe_of(tmp_path / "r", server, override), "1", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_a_kept_version_was_judged_by_is_not_collected(tmp_path: Path, server: str) -> None:
    recipe, out = recipe_of(tmp_path / "r", server), tmp_path / "out"
    build_phase(recipe, "1", out)
    nearer = "curriculum.decontamination.semantic.min_cosine=0.6"
    build_phase(recipe_of(tmp_path / "r", server, nearer), "1", out)
    found = collect_garbage(out)
    kinds = sorted((one.kind, bool(one.keeps)) for one in found)
    assert kinds == [
        ("dataset", False),
        ("dataset", True),
        ("judged source", False),
        ("judged source", True),
        ("prepared source", True),
    ]
