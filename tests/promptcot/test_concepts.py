"""From files of seed problems to a bank: nothing of a benchmark, one name per concept."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, SourceError, TooManyRejected
from pipeline.manifest import Version, resolve_version, verify_version
from pipeline.records import Concept, FinishReason
from pipeline.settings.concepts import ConceptSettings
from pipeline.settings.recipe import Recipe, load_recipe
from pipeline.store import read_rows
from promptcot.bank import build_bank, open_bank
from promptcot.concept_replies import (
    ConceptReply,
    ReplyContext,
    ReplyForm,
    parse_concepts,
    read_examples,
)
from promptcot.concepts import run_concepts
from promptcot.forms import concepts_form
from promptcot.parsing import Defect
from promptcot.run_context import SynthesisRun

ITEM = (
    "A bookshop sells 3/4 of its 240 copies of a novel in the first week and a third of the "
    "remaining copies in the second week. How many copies are left?"
)
ROWS: list[dict[str, Any]] = [
    {"q": "How many apples are 3 apples and 4 apples?", "tags": "['Addition', 'Counting sets']"},
    {"q": "Find the number of divisors of 3600.", "tags": None},
    {"q": f"For my class: {ITEM}", "tags": ["a", "b"]},
    {"q": ITEM.replace("240", "480"), "tags": ["fractions", "Fraction", "addition"]},
    {"q": "find the number of divisors of  $3600$", "tags": None},
    {"q": "Which shape has three sides?", "sol": f"It is said: {ITEM} So 40.", "tags": ["a", "b"]},
    {"q": "Say hello.", "tags": None},
    {"q": "Add 5 and 6.", "tags": ["Addition", "additions."]},
    {"q": "", "tags": ["a", "b"]},
    {"q": "How many sets are there?", "tags": ["counting set", "Knowledge of addition"]},
]
SCRIPT = [
    {
        "match": "divisors of 3600",
        "text": '{"concepts": ["divisor counting", "prime factorisation"], "level": "aime"}',
    },
    {"match": "one JSON object", "text": "Hello!"},
    {"match": "exactly 2 lines", "text": "Knowledge Point: greetings\nKnowledge Point: politeness"},
]
RECIPE = """
name = "tiny"
seed = 7
[teachers.default]
engine = "scripted"
script = "script.jsonl"
[synthesis]
batch_size = 3
[synthesis.concepts]
per_seed = 2
[[synthesis.seeds]]
name = "s"
path = "seeds.jsonl"
columns = { problem = "q", concepts = "tags", solution = "sol" }
domain = "math"
licence = "MIT"
[[benchmarks]]
name = "toy"
path = "toy.jsonl"
domain = "math"
answer_field = ""
"""


def make_recipe(folder: Path, *overrides: str, rows: Sequence[dict[str, Any]] = ROWS) -> Recipe:
    folder.mkdir(exist_ok=True, parents=True)
    for name, lines in (
        ("seeds.jsonl", rows),
        ("script.jsonl", SCRIPT),
        ("toy.jsonl", [{"id": "i1", "question": ITEM}]),
    ):
        text = "".join(
            json.dumps({"sol": None, **row} if "q" in row else row) + "\n" for row in lines
        )
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    return load_recipe(str(folder / "tiny.toml"), overrides)


def run(recipe: Recipe, out: Path) -> Version:
    with SynthesisRun(recipe, out) as synthesis:
        return run_concepts(synthesis)


def refused(version: Version) -> dict[str, tuple[str, str]]:
    rows = (row for p in sorted(version.folder.glob("rejected/*")) for row in read_rows(p))
    return {row["row_id"]: (row["reason"], row["detail"]) for row in rows}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Version, Version]:
    folder = tmp_path_factory.mktemp("bank")
    bank = run(make_recipe(folder), folder / "out")
    return resolve_version(folder / "out/synthesis/extracted"), bank


def test_every_seed_is_in_the_bank_or_refused_with_a_reason(
    built: tuple[Version, Version],
) -> None:
    extracted, bank = built
    found = refused(extracted)
    assert {name: reason for name, (reason, _) in found.items()} == {
        "s/000003": "benchmark_item",
        "s/000005": "duplicate_seed",
        "s/000006": "benchmark_item",
        "s/000008": "too_few_concepts",
        "s/000009": "empty_problem",
    }
    assert "toy i1" in found["s/000003"][1] and "novel" in found["s/000003"][1]
    assert "reasoning" in found["s/000006"][1], "the solution is searched as well"
    assert found["s/000005"][1] == "as s/000002"
    assert refused(bank) == {}
    assert extracted.manifest.extra["counts"] == {"benchmark_item/toy": 2, "template_twins": 1}
    assert bank.manifest.extra["benchmark_items"] == {"toy": 2}
    for version in built:
        verify_version(version)


def test_seeds_have_canonical_concepts_levels_and_provenance(
    built: tuple[Version, Version],
) -> None:
    seeds = {row["source_id"]: row for row in built[1].rows()}
    assert {name: row["concepts"] for name, row in seeds.items()} == {
        "000001": ["addition", "Counting sets"],
        "000002": ["divisor counting", "prime factorisation"],
        "000004": ["Fraction", "addition"],
        "000007": ["greetings", "politeness"],
        "000010": ["Counting sets", "addition"],
    }
    assert {row["level"] for row in seeds.values()} == {"unknown", "AIME"}
    assert seeds["000002"]["level"] == "AIME"
    assert seeds["000002"]["teacher"] and seeds["000002"]["prompt_hash"]
    assert seeds["000001"]["teacher"] is None
    assert {row["licence"] for row in seeds.values()} == {"MIT"}
    assert built[1].manifest.licences == {"MIT": 5}


def test_the_alias_map_and_the_concepts_lie_beside_the_rows(
    built: tuple[Version, Version],
) -> None:
    folder = built[1].folder
    aliases = [json.loads(line) for line in (folder / "aliases.jsonl").read_text().splitlines()]
    assert {(a["alias"], a["canonical"], a["rule"]) for a in aliases} == {
        ("Addition", "addition", "spelling"),
        ("counting set", "Counting sets", "spelling"),
        ("fractions", "Fraction", "spelling"),
        ("Knowledge of addition", "addition", "notation"),
    }
    lines = (folder / "concepts.jsonl").read_text().splitlines()
    concepts = {c.name: c for c in map(Concept.model_validate_json, lines)}
    assert concepts["addition"].frequency == 3
    assert concepts["addition"].aliases == ["Addition", "Knowledge of addition"]
    extra = built[1].manifest.extra
    assert extra["concepts"] == len(concepts) == 7
    assert extra["per_domain"] == {"math": 7}
    assert "Concept bank" in (folder / "README.md").read_text()


def test_the_bank_opens_from_the_stage(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    with SynthesisRun(recipe, tmp_path / "out") as synthesis:
        source = open_bank(synthesis)
        version = run_concepts(synthesis)
    assert version.reused
    assert source.input.version == version.name
    bank = build_bank(source.seeds("math"), "math")
    assert bank.concepts == tuple(sorted(bank.concepts)) and len(bank.concepts) == 7
    assert not source.seeds("code")


def test_another_similarity_asks_no_teacher(tmp_path: Path) -> None:
    first = run(make_recipe(tmp_path), tmp_path / "out")
    (tmp_path / "out/answers").rename(tmp_path / "gone")
    recipe = make_recipe(tmp_path, "synthesis.concepts.merge_similarity=1")
    other = run(recipe, tmp_path / "out")
    assert other.name != first.name
    assert not (tmp_path / "out/answers").exists()


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_do_not_change_the_bank(tmp_path: Path, batch_size: int) -> None:
    one = run(make_recipe(tmp_path / "a"), tmp_path / "a/out")
    recipe = make_recipe(tmp_path / "b", f"synthesis.batch_size={batch_size}")
    other = run(recipe, tmp_path / "b/out")
    assert list(one.rows()) == list(other.rows())
    for name in ("aliases.jsonl", "concepts.jsonl"):
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()


def test_seeds_may_lose_too_many_concepts_in_merging(tmp_path: Path) -> None:
    rows = [
        {"q": "One.", "tags": ["behaviour of sequences", "behavior of sequences"]},
        {"q": "Two.", "tags": ["behavior of sequences", "limits"]},
    ]
    bank = run(make_recipe(tmp_path, rows=rows), tmp_path / "out")
    assert bank.manifest.rejected == {"concepts": {"too_few_concepts": 1}}
    assert bank.manifest.extra["merged"]["similar"] == 1


def test_what_stops_the_stage(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, rows=[{"q": ITEM, "tags": ["a", "b"]}])
    with pytest.raises(TooManyRejected, match="benchmark_item"):
        run(recipe, tmp_path / "out")
    (tmp_path / "seeds.jsonl").unlink()
    with pytest.raises(SourceError, match="not found"):
        run(recipe, tmp_path / "out2")
    twice = RECIPE + '[[synthesis.seeds]]\nname = "s"\npath = "seeds.jsonl"\ndomain = "math"\n'
    (tmp_path / "tiny.toml").write_text(twice, encoding="utf-8")
    with pytest.raises(ConfigError, match="different names"):
        run(load_recipe(str(tmp_path / "tiny.toml")), tmp_path / "out3")


def test_a_form_filled_with_the_examples_is_no_reply() -> None:
    example = "Problem: A?\nKnowledge Point: roots\nKnowledge Point: sums\nKnowledge Point: signs"
    other = "Problem: B?\nKnowledge Point: chords\nKnowledge Point: radii"
    shown = read_examples(f"Name topics.\n\n{example}\n\n{other}\n\nProblem: C?")
    context = ReplyContext("C?", (), ConceptSettings(per_seed=4), shown=shown)
    lines = "Knowledge Point: {}\nKnowledge Point: Sums\nKnowledge Point: angles\nKnowledge Point: radii"
    # One from here, two from there: a small model mixes what it was shown.
    copied = parse_concepts(lines.format("roots"), "stop", "lines", context)
    assert isinstance(copied, Defect)
    assert copied.reason == "copies_example"
    assert isinstance(parse_concepts(lines.format("area"), "stop", "lines", context), ConceptReply)


def test_names_that_differ_in_a_number_only_are_a_form_filled_in() -> None:
    context = ReplyContext("C?", (), ConceptSettings(per_seed=3))
    found = parse_concepts('["column 1", "column 2", "column 3"]', "stop", "json", context)
    assert isinstance(found, Defect)
    assert found.reason == "placeholder"
    good = '["Lemma of Gauss", "base 2", "base 10"]'
    assert isinstance(parse_concepts(good, "stop", "json", context), ConceptReply)


@pytest.mark.parametrize("backslash", ["\\", "\\\\"])
def test_latex_is_the_same_whether_json_doubles_its_backslash(backslash: str) -> None:
    """A single one is an escape of JSON's in ``\\frac`` and no escape at all in ``\\sin``."""
    names = [
        f"{backslash}{command} of angles"
        for command in ("frac", "bar", "theta", "rho", "nu", "sin", "cdot", "underline")
    ]
    context = ReplyContext("C?", (), ConceptSettings(per_seed=len(names)))
    text = ", ".join(f'"{name}"' for name in names)
    found = parse_concepts(f'{{"concepts": [{text}]}}', "stop", "json", context)
    assert isinstance(found, ConceptReply)
    doubled = parse_concepts(
        json.dumps([n.replace("\\\\", "\\") for n in names]), "stop", "json", context
    )
    assert found == doubled
    assert not any(char < " " for name in found.concepts for char in name)


CONTEXT = ReplyContext(
    problem="Let a and b be the roots of the equation x^2 - 5x + 6 = 0. Find a + b.",
    levels=("AMC12", "AIME"),
    settings=ConceptSettings(per_seed=2, max_concept_chars=60),
)


def parse(text: str, form: ReplyForm, finish: FinishReason = "stop") -> ConceptReply | Defect:
    return parse_concepts(text, finish, form, CONTEXT)


@pytest.mark.parametrize(
    ("form", "text", "level"),
    [
        ("json", '{"concepts": ["Vieta\'s formulas", "factoring"], "level": "aime"}', "AIME"),
        ("json", '```json\n{"concepts": ["Vieta\'s formulas", "factoring"]}\n```', None),
        ("json", 'Reasons first.\n```python\n["Vieta\'s formulas", "factoring"]\n```', None),
        ("json", "[\"Vieta's formulas\", 'factoring.']", None),
        ("json", '<think>{"concepts": []}</think>["Vieta\'s formulas", "factoring"]', None),
        ("json", '{"concepts": ["Vieta\'s formulas", "factoring"], "level": "hard"}', None),
        ("lines", "Knowledge Point: Vieta's formulas\nKnowledge Point: factoring", None),
        (
            "lines",
            "Sure!\n1. **Knowledge Point:** Vieta\u2019s formulas.\n"
            "2. **Knowledge Point**: factoring\n**Level:** AMC12",
            "AMC12",
        ),
    ],
)
def test_good_replies(form: ReplyForm, text: str, level: str | None) -> None:
    assert parse(text, form) == ConceptReply(("Vieta's formulas", "factoring"), level)


@pytest.mark.parametrize(
    ("form", "text", "reason"),
    [
        ("json", "", "empty"),
        ("json", "<think>so", "empty"),
        ("json", "Vieta's formulas, factoring", "not_a_list"),
        ("json", '{"concepts": "factoring"}', "not_a_list"),
        ("json", '{"concepts": [1, 2]}', "not_a_list"),
        ("json", '{"names": ["a", "b"]}', "not_a_list"),
        ("json", "[" * 100_000, "not_a_list"),
        ("json", "[" * 15_000, "not_a_list"),
        ("json", f"[{'1' * 15_000}]", "not_a_list"),
        ("json", '["factoring", "roots"] and ["more", "things"]', "not_a_list"),
        ("json", '["factoring"]', "wrong_count"),
        ("json", '["factoring", "roots", "sums"]', "wrong_count"),
        ("json", '["factoring", " . "]', "no_name"),
        ("json", '["factoring", "x + 1"]', "no_name"),
        ("json", '["…", "…"]', "no_name"),
        ("json", '["concept 1", "concept 2"]', "placeholder"),
        ("json", '["factoring", "Second concept"]', "placeholder"),
        ("json", '["factoring", "number of ways to"]', "unfinished"),
        ("json", '["factoring", "the remainder when"]', "unfinished"),
        ("json", '["factoring", "The term a is positive"]', "sentence"),
        ("json", '["factoring", "Factoring."]', "repeats"),
        ("json", '["quadratic equation", "quadratic equations"]', "repeats"),
        ("json", f'["factoring", "{"very " * 20}long"]', "too_long"),
        ("json", '["factoring", "二次方程的根与系数的关系"]', "not_english"),
        ("json", '["factoring", "a and b be the roots of the equation"]', "copies_problem"),
        ("lines", "factoring\nroots", "not_a_list"),
        ("lines", "Knowledge Point: factoring", "wrong_count"),
        ("lines", "Knowledge Point: factoring\nKnowledge Point:\n", "no_name"),
        ("lines", "Knowledge Point:\nKnowledge Point: factoring", "no_name"),
        ("lines", "**Knowledge Points:**\n* factoring\n* roots", "not_a_list"),
    ],
)
def test_bad_replies(form: ReplyForm, text: str, reason: str) -> None:
    found = parse(text, form)
    assert isinstance(found, Defect) and found.reason == reason


def test_cut_off_and_failed_replies() -> None:
    good = '["factoring", "roots"]'
    for finish, reason in (("length", "truncated"), ("error", "failed")):
        found = parse(good, "json", finish)  # type: ignore[arg-type]
        assert isinstance(found, Defect) and found.reason == reason


@given(st.text(max_size=60), st.sampled_from(["json", "lines"]))
@settings(deadline=None)
def test_no_reply_breaks_the_parser(text: str, form: ReplyForm) -> None:
    found = parse(text, form)
    assert isinstance(found, Defect) or len(found.concepts) == 2


def test_the_enforced_form_is_what_the_parser_reads() -> None:
    import re

    text = "Knowledge Point: Sums of roots\nKnowledge Point: factoring\n"
    assert re.fullmatch(concepts_form(2).value, text)
    assert isinstance(parse(text, "lines"), ConceptReply)


@pytest.mark.slow
def test_real_seed_files_give_a_bank_without_benchmark_items(
    tmp_path: Path, shared_data: Path
) -> None:
    start = time.process_time()
    recipe = f"""
name = "real"
[synthesis]
batch_size = 500
[[synthesis.seeds]]
name = "sws"
path = "{shared_data}/seeds/sws_qwen2.5-7b-examples.jsonl.gz"
domain = "math"
[[benchmarks]]
name = "math500"
path = "{shared_data}/benchmarks/math500_original.jsonl"
domain = "math"
id_field = "unique_id"
question_field = "problem"
"""
    (tmp_path / "real.toml").write_text(recipe, encoding="utf-8")
    bank = run(load_recipe(str(tmp_path / "real.toml")), tmp_path / "out")
    assert bank.manifest.rows_out > 3000
    assert bank.manifest.extra["concepts"] > 4000
    with gzip.open(shared_data / "seeds/sws_qwen2.5-7b-examples.jsonl.gz", "rt") as lines:
        assert sum(1 for _ in lines) == 3500
    assert time.process_time() - start < 60
