"""The seven benchmarks of the paper on their real files, and an eighth by its TOML entry alone."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.benchmark_answers import split_answers
from pipeline.benchmark_hashes import hash_content
from pipeline.benchmark_items import BenchmarkItem, MathGold
from pipeline.benchmarks import benchmark_inputs, load_benchmark, load_questions, scored_inputs
from pipeline.errors import ConfigError, GateRefused, SourceError
from pipeline.settings.benchmarks import BUNDLED, BenchmarkSettings, read_bundled
from pipeline.settings.recipe import Recipe, RecipeSettings, load_recipe
from pipeline.student import user_turn

SIZES = {
    "math500": 500,
    "aime24": 30,
    "aime25": 30,
    "olympiadbench": 675,
    "humaneval": 164,
    "humaneval_plus": 164,
    "livecodebench_v5": 279,
}
SCORED = [name for name in SIZES if name != "livecodebench_v5"]
FILES = {
    "math500": "math500_original.jsonl",
    "aime24": "aime2024_qwq.jsonl",
    "aime25": "aime2025_qwq.jsonl",
    "olympiadbench": "olympiadbench.jsonl.gz",
    "humaneval": "HumanEval.jsonl.gz",
    "humaneval_plus": "HumanEvalPlus.jsonl.gz",
}


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMPTCOT_BENCHMARKS", raising=False)


@pytest.fixture
def recipe(shared_data: Path) -> Recipe:
    values: dict[str, Any] = {"name": "r", "benchmark_folder": str(shared_data / "benchmarks")}
    values["benchmarks"] = [{"use": name} for name in SIZES]
    return Recipe(path=shared_data / "r.toml", settings=RecipeSettings.model_validate(values))


def load_by_name(recipe: Recipe, name: str) -> list[BenchmarkItem]:
    return load_benchmark(recipe, next(b for b in recipe.settings.benchmarks if b.name == name))


def read_rows(path: Path) -> list[dict[str, Any]]:
    text = (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8")
    with text as handle:
        return [json.loads(line) for line in handle]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(
        gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode()
    )
    return path


def load_file(path: Path, **values: Any) -> list[BenchmarkItem]:
    recipe = Recipe(path=path.parent / "r.toml", settings=RecipeSettings(name="r"))
    settings = BenchmarkSettings.model_validate({"path": str(path), **values})
    return load_benchmark(recipe, settings)


def test_the_paper_is_evaluated_on_all_seven() -> None:
    for name in ("paper", "math"):
        found = load_recipe(name).settings.benchmarks
        assert {b.name: b.expected_items for b in found} == SIZES
        assert {
            b.name: b.samples_per_item for b in found if b.name.startswith(("aime", "live"))
        } == {
            "aime24": 16,
            "aime25": 16,
            "livecodebench_v5": 8,
        }


@pytest.mark.parametrize("name", sorted(SIZES))
def test_a_description_says_all_that_a_reader_wants(name: str) -> None:
    entry = BenchmarkSettings.model_validate({"use": name})
    assert entry.name == name
    assert entry.licence
    assert entry.samples_per_item
    assert (entry.url and entry.sha256) or (entry.hub_id and len(entry.revision) == 40)
    assert entry.content_sha256 or (entry.files_sha256 and entry.ids_sha256)
    assert set(entry.files_sha256) == set(entry.files)
    assert read_bundled(name)["expected_items"] == SIZES[name]
    assert {path.stem for path in BUNDLED.glob("*.toml")} == set(SIZES)


def test_the_real_files_are_the_recorded_ones(recipe: Recipe) -> None:
    """Loading holds them to their number and to their content hash."""
    for name in SCORED:
        items = load_by_name(recipe, name)
        assert len(items) == SIZES[name]
        assert all(item.gold or item.tests for item in items)
    with pytest.raises(SourceError, match="livecodebench_v5"):
        load_by_name(recipe, "livecodebench_v5")


def test_decontamination_sees_the_statements_of_all_seven(recipe: Recipe) -> None:
    numbers = {b.name: load_questions(recipe, b) for b in recipe.settings.benchmarks}
    assert {name: len(items) for name, items in numbers.items()} == SIZES
    for items in numbers.values():
        assert not any("step by step" in i.question or "starter code" in i.question for i in items)
    assert [ref.name for ref in benchmark_inputs(recipe)] == [f"benchmark:{n}" for n in SIZES]


def test_answers_and_prompts_do_not_rename_what_is_kept_clean_of_the_questions(
    tmp_path: Path,
) -> None:
    row = {"id": "a", "question": "1+1?", "answer": 2}
    write(tmp_path / "b.jsonl", [row])

    def inputs(**values: Any) -> tuple[str, str]:
        fields = {"name": "b", "domain": "math", "path": "b.jsonl", **values}
        recipe = Recipe(
            path=tmp_path / "r.toml",
            settings=RecipeSettings.model_validate({"name": "r", "benchmarks": [fields]}),
        )
        return benchmark_inputs(recipe)[0].version, scored_inputs(recipe)[0].version

    kept, scored = inputs()
    assert inputs(prompt="Solve: {question}") == (kept, inputs(prompt="Solve: {question}")[1])
    assert inputs(prompt="Solve: {question}")[1] != scored
    assert inputs(samples_per_item=9, licence="MIT") == (kept, scored)
    write(tmp_path / "b.jsonl", [{**row, "answer": 3}])
    assert inputs()[0] == kept
    assert inputs()[1] != scored
    write(tmp_path / "b.jsonl", [{**row, "question": "1+2?"}])
    assert inputs()[0] != kept


@pytest.mark.parametrize("name", ["math500", "olympiadbench", "humaneval", "humaneval_plus"])
def test_the_same_items_have_one_hash_in_any_file(
    recipe: Recipe, shared_data: Path, tmp_path: Path, name: str
) -> None:
    """As the hub's Parquet files have the same columns, they pass the same check."""
    rows = read_rows(shared_data / "benchmarks" / FILES[name])
    for row in rows:
        # Arrow has no lists of mixed types: argument lists travel as JSON texts.
        row.update({k: json.dumps(row[k]) for k in ("base_input", "plus_input") if k in row})
    pq.write_table(pa.Table.from_pylist(rows[::-1]), tmp_path / "any.parquet")
    items = load_file(tmp_path / "any.parquet", use=name)
    assert sorted(items, key=lambda i: i.id) == sorted(
        load_by_name(recipe, name), key=lambda i: i.id
    )


def test_math500_of_the_promptcot_repository_is_the_same(shared_data: Path) -> None:
    path = shared_data / "benchmarks" / "math500.jsonl"
    items = load_file(path, use="math500")
    assert len(items) == 500
    assert not any("<｜" in item.question or "####" in item.question for item in items)
    with pytest.raises(GateRefused, match="content hash"):
        load_file(shared_data / "benchmarks" / "aime2024.jsonl", use="aime24")
    assert len(load_file(path.with_name("aime2024.jsonl"), use="aime24", content_sha256="")) == 30


def test_half_of_aime_2025_is_refused(shared_data: Path) -> None:
    with pytest.raises(GateRefused, match="has 15 items, the recipe expects 30"):
        load_file(shared_data / "benchmarks" / "aime2025.jsonl", use="aime25")


@pytest.mark.parametrize("name", SCORED)
def test_one_changed_character_is_refused(shared_data: Path, tmp_path: Path, name: str) -> None:
    rows = read_rows(shared_data / "benchmarks" / FILES[name])
    fields = {"math500": "answer", "olympiadbench": "final_answer", "humaneval": "test"}
    field = fields.get(name, "canonical_solution" if name == "humaneval_plus" else "answer")
    value = rows[-1][field]
    changed = value + 1 if isinstance(value, int) else f"{value}1"
    write(tmp_path / "b.jsonl", [*rows[:-1], {**rows[-1], field: changed}])
    with pytest.raises(GateRefused, match="content hash"):
        load_file(tmp_path / "b.jsonl", use=name)


def test_olympiadbench_says_how_its_answers_are_meant(recipe: Recipe) -> None:
    items = {item.id: item for item in load_by_name(recipe, "olympiadbench")}
    golds = [item.gold for item in items.values() if item.gold]
    assert items["1664"].gold == MathGold(text="$69$,$84$", parts=("69", "84"), kind="numeric")
    assert items["2313"].gold == MathGold(
        text="$(3,0),(-3,1)$", parts=("(3,0)", "(-3,1)"), kind="tuple"
    )
    # It explains itself, and is left whole.
    assert items["1965"].gold is not None
    assert items["1965"].gold.parts == ()
    assert sum(gold.unit != "" for gold in golds) == 8
    assert [gold.tolerance for gold in golds if gold.tolerance] == [0.1]
    assert sum(len(gold.parts) > 1 for gold in golds) == 91
    assert items["1664"].labels == {"subject": "Combinatorics", "answer_type": "Numerical"}


def test_programs_have_their_official_tests(recipe: Recipe) -> None:
    plain = load_by_name(recipe, "humaneval")[0].tests
    assert plain is not None
    assert (plain.kind, plain.entry_point, plain.time_limit_s) == ("check", "has_close_elements", 3)
    assert "def check(candidate)" in plain.check
    item = load_by_name(recipe, "humaneval_plus")[0]
    assert item.tests is not None
    assert item.tests.kind == "reference"
    assert item.tests.reference.startswith(item.tests.prompt)
    assert "assert" in item.tests.contract
    assert len(json.loads(item.tests.inputs)) > 100
    assert user_turn(item.task, item.domain).startswith("Complete this Python function")
    tolerances = {i.tests.atol for i in load_by_name(recipe, "humaneval_plus") if i.tests}
    assert tolerances == {0.0, 1e-6, 1e-4}


def test_a_benchmark_of_ones_own_is_a_toml_entry(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "benchmarks" / "gsm8k_test.jsonl"
    (tmp_path / "mine.toml").write_text(
        f"""
name = "mine"
[[benchmarks]]
name = "gsm8k"
domain = "math"
path = "{path}"
licence = "MIT"
id_field = ""
answer_after = "#### "
answer_type = "numeric"
expected_items = 1319
samples_per_item = 1
[[benchmarks]]
use = "aime25"
path = "{path.with_name("aime2025_qwq.jsonl")}"
samples_per_item = 64
[[benchmarks]]
name = "as-promptcot-has-it"
domain = "math"
path = "{path.with_name("aime2024.jsonl")}"
id_field = "idx"
question_field = "prompt"
question_after = "<｜User｜>"
question_until = ["<｜Assistant｜>"]
answer_field = "reference_solution"
answer_after = "#### "
answer_type = "integer"
""",
        encoding="utf-8",
    )
    recipe = load_recipe(str(tmp_path / "mine.toml"))
    items = load_benchmark(recipe, recipe.settings.benchmarks[0])
    assert items[0].gold == MathGold(text="18", kind="numeric")
    assert items[0].question.startswith("Janet")
    assert all(item.gold and item.gold.text.strip("-0123456789,.") == "" for item in items)
    overridden = recipe.settings.benchmarks[1]
    assert (overridden.samples_per_item, overridden.expected_items) == (64, 30)
    assert len(load_benchmark(recipe, overridden)) == 30
    wrapped = load_benchmark(recipe, recipe.settings.benchmarks[2])
    assert wrapped[0].gold == MathGold(text="33", kind="integer")
    assert wrapped[0].question.startswith("Let $x,y$ and $z$ be positive real numbers")
    assert wrapped[0].question.endswith("Find $m+n$.")


@pytest.mark.parametrize(
    ("row", "fields", "message"),
    [
        ({"answer": "no mark"}, {"answer_after": "#### "}, "row 1: field 'answer' has no answer"),
        ({"answer": "so ####  "}, {"answer_after": "####"}, "row 1: field 'answer' has no answer"),
        ({"answer": "1.5"}, {"answer_type": "integer"}, "row 1: .*should be an integer"),
        ({"kind": "Riddle"}, {"answer_type_field": "kind"}, "unknown kind 'Riddle'"),
        ({"many": "yes"}, {"multiple_field": "many"}, "should be true or false, found 'yes'"),
        ({"error": "some"}, {"tolerance_field": "error"}, "should be a number, found 'some'"),
        ({}, {"unit_field": "unit"}, "no field 'unit'"),
        ({}, {"label_fields": {"level": "lvl"}}, "no field 'lvl'"),
    ],
)
def test_a_row_that_is_not_as_described_is_named(
    tmp_path: Path, row: dict[str, Any], fields: dict[str, Any], message: str
) -> None:
    write(tmp_path / "b.jsonl", [{"id": "a", "question": "q", "answer": "2", **row}])
    with pytest.raises(SourceError, match=message):
        load_file(tmp_path / "b.jsonl", name="b", domain="math", **fields)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("base_input", "[1", "field 'base_input' is not valid JSON"),
        ("plus_input", [1, 2], "should be a list of argument lists"),
        ("canonical_solution", "", "field 'canonical_solution'"),
    ],
)
def test_damaged_tests_are_named(tmp_path: Path, field: str, value: Any, message: str) -> None:
    row = {
        "task_id": "a",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "canonical_solution": "    return x\n",
        "test": "",
        "contract": "",
        "base_input": [[1]],
        "plus_input": [],
        "atol": 0,
    }
    fields = {"use": "humaneval_plus", "expected_items": 0, "content_sha256": ""}
    (item,) = load_file(write(tmp_path / "good.jsonl", [row]), **fields)
    assert item.tests is not None
    assert item.tests.inputs == "[[1]]"
    with pytest.raises(SourceError, match=f"row 1: .*{message}"):
        load_file(write(tmp_path / "b.jsonl", [{**row, field: value}]), **fields)


def test_an_unknown_name_lists_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('name = "r"\n[[benchmarks]]\nuse = "aime2025"\n')
    with pytest.raises(ConfigError, match="no bundled benchmark is named 'aime2025'; there are a"):
        load_recipe(str(tmp_path / "r.toml"))


@pytest.mark.parametrize(
    ("key", "nearest"), [("answr_after", "answer_after"), ("statements.ur", "url")]
)
def test_a_misspelt_setting_is_answered_with_the_nearest(key: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown key 'benchmarks.6.{key}'") as caught:
        load_recipe("paper", [f"benchmarks.6.{key}=x"])
    assert f"did you mean '{nearest}'" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("$69$,$84$", ("69", "84")),
        ("$221,$8$", ("221", "8")),
        ("(1,2), (3,4)", ("(1,2)", "(3,4)")),
        ("$(\\frac{1}{4}, \\frac{1}{27})$", ()),
        ("$[0,1]$", ()),
        ("7", ()),
        ("1,,2", ()),
        ("-2,-2", ("-2", "-2")),
        ("$2,-\\log _{10} 250$", ("2", "-\\log _{10} 250")),
        ("$f(x)=a x+b$, where $b$ is arbitrary", ()),
    ],
)
def test_lists_of_answers_are_taken_apart(text: str, parts: tuple[str, ...]) -> None:
    assert split_answers(text) == parts


@given(
    st.lists(st.from_regex(r"-?\d{1,4}|\(\d,\d\)|\\frac\{\d\}\{\d\}", fullmatch=True), min_size=2)
)
def test_any_list_comes_apart_as_it_was_made(parts: list[str]) -> None:
    assert split_answers("$" + ", ".join(parts) + "$") == tuple(parts)


@given(st.permutations(range(6)), st.integers(0, 5))
@settings(max_examples=25)
def test_the_content_hash_knows_items_and_no_order(order: list[int], changed: int) -> None:
    items = [
        BenchmarkItem(
            id=str(n), benchmark="b", domain="math", question=f"q{n}", gold=MathGold(text=str(n))
        )
        for n in range(6)
    ]
    shuffled = [
        BenchmarkItem(
            id=f"other {n}",
            benchmark="c",
            domain="math",
            question=f"q{n}",
            gold=MathGold(text=str(n)),
            labels={"level": "1"},
            prompt="p",
        )
        for n in order
    ]
    assert hash_content(items) == hash_content(shuffled)
    position = order.index(changed)
    shuffled[position] = BenchmarkItem(
        id="x", benchmark="b", domain="math", question=f"q{changed}", gold=MathGold(text="9")
    )
    assert hash_content(items) != hash_content(shuffled)
