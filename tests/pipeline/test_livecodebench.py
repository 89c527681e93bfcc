"""LiveCodeBench's published format: tests stay in the file, and nothing is unpickled."""

from __future__ import annotations

import base64
import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.benchmark_hashes import hash_content
from pipeline.benchmark_items import BenchmarkItem
from pipeline.benchmarks import load_benchmark, load_questions, scored_inputs
from pipeline.errors import GateRefused, SourceError
from pipeline.livecodebench import StoredCases, unpack_text
from pipeline.settings.benchmarks import BenchmarkSettings
from pipeline.settings.recipe import Recipe, RecipeSettings

MIB = 1 << 20


def pack(value: Any) -> str:
    """As the publisher packs private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def make_row(number: int = 0, day: str = "2024-10-05", **changed: Any) -> dict[str, Any]:
    private = [{"input": f"{number}\n{n}\n", "output": "3\n", "testtype": "stdin"} for n in (4, 5)]
    row = {
        "question_title": f"Problem {number}",
        "question_content": f'Print {number}, not "contest_date": "2023-01-01".',
        "platform": "atcoder",
        "question_id": f"abc{number}_a",
        "contest_id": f"abc{number}",
        "contest_date": f"{day}T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps([{"input": "1\n", "output": "1\n", "testtype": "stdin"}]),
        "private_test_cases": pack(json.dumps(private)),
        "metadata": "{}",
    }
    return {**row, **changed}


def make_functional_row(**changed: Any) -> dict[str, Any]:
    tests = [{"input": "[1, 2]\n3", "output": "[3]", "testtype": "functional"}]
    return make_row(
        7,
        platform="leetcode",
        question_id="3500",
        starter_code="class Solution:\n    def add(self, a: List[int], b: int):\n        ",
        public_test_cases=json.dumps(tests),
        private_test_cases=pack(json.dumps(tests)),
        metadata=json.dumps({"func_name": "add"}),
        **changed,
    )


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def describe(path: Path, **values: Any) -> BenchmarkSettings:
    unpinned: dict[str, Any] = {"expected_items": 0, "ids_sha256": "", "files_sha256": {}}
    fields = {"use": "livecodebench_v5", "path": str(path), **unpinned, **values}
    return BenchmarkSettings.model_validate(fields)


def make_recipe(folder: Path, *benchmarks: BenchmarkSettings) -> Recipe:
    return Recipe(path=folder / "r.toml", settings=RecipeSettings(name="r", benchmarks=benchmarks))


def load(path: Path, **values: Any) -> list[BenchmarkItem]:
    return load_benchmark(make_recipe(path.parent), describe(path, **values))


def test_both_kinds_of_problem_are_read(tmp_path: Path) -> None:
    stdin, functional = load(write(tmp_path / "test.jsonl", [make_row(), make_functional_row()]))
    assert stdin.tests is not None
    assert functional.tests is not None
    assert (stdin.tests.kind, stdin.tests.entry_point) == ("stdin", "")
    assert list(stdin.tests.cases) == [
        {"input": "1\n", "output": "1\n"},
        {"input": "0\n4\n", "output": "3\n"},
        {"input": "0\n5\n", "output": "3\n"},
    ]
    assert (functional.tests.kind, functional.tests.entry_point) == ("functional", "add")
    assert [dict(case) for case in functional.tests.cases] == [
        {"input": "[1, 2]\n3", "output": "[3]"}
    ] * 2
    assert stdin.tests.time_limit_s == 30
    assert stdin.labels == {
        "platform": "atcoder",
        "difficulty": "easy",
        "contest_date": "2024-10-05T00:00:00",
    }
    assert "standard input" in stdin.task
    assert "class Solution" in functional.task
    assert functional.question in functional.task
    assert "class Solution" not in functional.question


def test_only_the_window_belongs_to_the_benchmark(tmp_path: Path) -> None:
    days = ["2024-07-31", "2024-08-01", "2024-12-24", "2025-01-31", "2025-02-01"]
    rows = [make_row(number, day) for number, day in enumerate(days)]
    path = write(tmp_path / "test.jsonl", rows)
    assert [item.id for item in load(path)] == ["abc1_a", "abc2_a", "abc3_a"]
    moved = load(path, date_from="2025-01-01", date_until="2025-12-31")
    assert [item.id for item in moved] == ["abc3_a", "abc4_a"]
    with pytest.raises(SourceError, match="row 3: field 'contest_date' should be an ISO date"):
        write(path, [*rows[:2], make_row(9, "soon")])
        load(path)


def test_a_release_is_several_files_of_one_folder(tmp_path: Path) -> None:
    for number, name in enumerate(["test.jsonl", "test2.jsonl", "test3.jsonl"]):
        write(tmp_path / "lcb" / name, [make_row(number)])
    settings = describe(tmp_path / "lcb", release="release_v2")
    assert [item.id for item in load_benchmark(make_recipe(tmp_path), settings)] == [
        "abc0_a",
        "abc1_a",
    ]
    with pytest.raises(SourceError, match=r"lcb has no test4\.jsonl, test5\.jsonl"):
        load_benchmark(make_recipe(tmp_path), describe(tmp_path / "lcb"))


def test_other_files_and_other_problems_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "test.jsonl", [make_row()])
    known = BenchmarkSettings.model_validate({"use": "livecodebench_v5"})
    with pytest.raises(GateRefused, match=r"test\.jsonl has sha256 .*, the recipe expects 2bd02b"):
        load(path, files_sha256=known.files_sha256)
    with pytest.raises(GateRefused, match="has 1 items, the recipe expects 279"):
        load(path, expected_items=known.expected_items)
    with pytest.raises(GateRefused, match="these are other items"):
        load(path, ids_sha256=known.ids_sha256)


def test_the_same_tests_have_one_hash_however_they_are_packed(tmp_path: Path) -> None:
    rows = [make_row(), make_functional_row()]
    packed = load(write(tmp_path / "a.jsonl", rows))
    plain = [
        {
            **row,
            "private_test_cases": unpack_text("x", row["private_test_cases"], MIB),
        }
        for row in rows
    ]
    unpacked = load(write(tmp_path / "b.jsonl", list(reversed(plain))))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet", row_group_size=1)
    stored = load(tmp_path / "c.parquet")
    assert hash_content(packed) == hash_content(unpacked) == hash_content(stored)
    other = load(write(tmp_path / "d.jsonl", [make_row(1), make_functional_row()]))
    assert hash_content(other) != hash_content(packed)
    assert load(tmp_path / "a.jsonl", content_sha256=hash_content(packed)) == packed
    with pytest.raises(GateRefused, match="content hash"):
        load(tmp_path / "d.jsonl", content_sha256=hash_content(packed))


def test_an_items_tests_are_read_when_they_are_used(tmp_path: Path) -> None:
    path = write(tmp_path / "test.jsonl", [make_row(), make_row(1)])
    item = load(path)[1]
    assert item.tests is not None
    cases = item.tests.cases
    assert isinstance(cases, StoredCases)
    # What travels to a grading process is a place in the file.
    assert len(pickle.dumps(cases)) < 1000
    assert list(pickle.loads(pickle.dumps(cases)))[1] == {"input": "1\n4\n", "output": "3\n"}
    assert len(cases) == 3
    assert cases[2]["input"] == "1\n5\n"
    changed = path.read_text(encoding="utf-8").replace("abc0", "abc9")
    path.write_text(changed, encoding="utf-8")
    assert len(cases) == 3  # another row changed, and no byte moved
    write(path, [make_row(), make_row(2)])
    with pytest.raises(SourceError, match="row 2: its tests are not those"):
        list(cases)
    path.unlink()
    with pytest.raises(SourceError, match="cannot be read any more"):
        list(cases)


def test_questions_are_read_without_any_test(tmp_path: Path) -> None:
    broken = make_row(private_test_cases="not packed at all")
    path = write(tmp_path / "test.jsonl", [broken])
    (item,) = load_questions(make_recipe(tmp_path), describe(path))
    assert item.tests is None
    assert item.question == broken["question_content"]


class Marked:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        ("!!!", "cannot be unpacked"),
        ("é", "cannot be unpacked"),
        (base64.b64encode(b"no zlib").decode(), "cannot be unpacked"),
        (base64.b64encode(zlib.compress(b"no pickle")).decode(), "something else than a text"),
        (pack(["a", "list"]), "something else than a text .it has a EMPTY_LIST"),
        (pack(b"bytes"), "something else than a text"),
        (pack("[1, 2]"), r"private_test_cases\[0\] should hold"),
        (pack("{oops"), "is not valid JSON"),
        (pack("[" * 200_000), "is not valid JSON"),
        (pack(json.dumps([{"input": "1", "output": "1", "testtype": "functional"}])), "of kind"),
        (pack("[" + " " * (2 * MIB) + "]"), "more than 1 MiB"),
        (pack("[]")[:20], "cut off|cannot be unpacked"),
    ],
)
def test_tests_that_are_not_as_published_are_refused(
    tmp_path: Path, packed: str, message: str
) -> None:
    path = write(tmp_path / "test.jsonl", [make_row(private_test_cases=packed)])
    (item,) = load(path, max_tests_mib=1)
    assert item.tests is not None
    with pytest.raises(SourceError, match=f"row 1.*({message})"):
        list(item.tests.cases)


def test_nothing_in_a_file_can_run(tmp_path: Path) -> None:
    target = tmp_path / "made"
    row = make_row(private_test_cases=pack(Marked(target)))
    (item,) = load(write(tmp_path / "test.jsonl", [row]))
    assert item.tests is not None
    with pytest.raises(SourceError, match=r"something else than a text \(it has a STACK_GLOBAL\)"):
        list(item.tests.cases)
    assert not target.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"metadata": "{}"}, "names no func_name"),
        ({"metadata": "{"}, "field 'metadata' is not valid JSON"),
        ({"public_test_cases": json.dumps([{"input": 1}])}, r"public_test_cases\[0\]"),
        ({"question_content": ""}, "field 'question_content'"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    row = {**make_functional_row(), **changed}
    path = write(tmp_path / "test.jsonl", [make_row(), row])
    with pytest.raises(SourceError, match=f"row 2.*{message}"):
        load(path)


def test_a_compressed_file_must_be_unpacked_first(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl.gz").write_bytes(b"")
    with pytest.raises(SourceError, match="read from their place") as caught:
        load(tmp_path / "test.jsonl.gz")
    assert "gunzip" in caught.value.hint


def test_other_tests_are_another_evaluation(tmp_path: Path) -> None:
    path = write(tmp_path / "test.jsonl", [make_row()])
    recipe = make_recipe(tmp_path, describe(path))
    (before,) = scored_inputs(recipe)
    write(path, [make_row(private_test_cases=pack("[]"))])
    (after,) = scored_inputs(recipe)
    assert before.version != after.version


@given(st.text(max_size=200), st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_any_text_comes_back(text: str, protocol: int) -> None:
    pickled = pickle.dumps(text, protocol)
    packed = base64.b64encode(zlib.compress(pickled)).decode()
    assert unpack_text("x", packed, MIB) == pickle.loads(pickled) == text


def test_a_long_text_comes_back() -> None:
    text = "0123456789é" * 50_000
    assert unpack_text("x", pack(text), MIB) == text


@given(st.binary(max_size=60))
def test_any_other_bytes_are_refused_in_words(content: bytes) -> None:
    packed = base64.b64encode(zlib.compress(content)).decode()
    try:
        found = unpack_text("x", packed, MIB)
    except SourceError:
        return
    assert isinstance(found, str)


def test_an_id_in_two_files_is_named_with_both(tmp_path: Path) -> None:
    write(tmp_path / "lcb" / "test.jsonl", [make_row(0, "2020-01-01"), make_row(1)])
    write(tmp_path / "lcb" / "test2.jsonl", [make_row(2), make_row(1)])
    settings = describe(tmp_path / "lcb", release="release_v2")
    message = r"test2\.jsonl, row 2: question_id 'abc1_a' was used by row 2 of test\.jsonl already"
    with pytest.raises(SourceError, match=message):
        load_benchmark(make_recipe(tmp_path), settings)
