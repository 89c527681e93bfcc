"""Relatives of the two sources, sources by mapping, joins, and parts that any worker can read."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curriculum_rows import OT2, as_text, ot2_row, questions, write, write_lines
from hypothesis import given
from hypothesis import strategies as st

from curriculum.candidates import Candidate, PreparedRow
from curriculum.checking import check_source_file
from curriculum.gold import check_answers
from curriculum.normalize import normalize_row
from curriculum.sources.catalog import OpenedSource, open_source
from curriculum.sources.parquet_files import cut_ranges
from curriculum.sources.templates import strip_chat_template, strip_instructions
from curriculum.validate import validate_row
from pipeline.errors import ConfigError, SourceError
from pipeline.records import Rejected
from pipeline.settings import Recipe, load_recipe
from pipeline.settings.validation import ValidationSettings

THINK = "<think>\nTwo and two make four, minus one.\n</think>\n\n"
TRACE = THINK + "So it is $\\boxed{3}$."
PROBLEM = "What is 2 + 2 - 1 in total?"


def make(folder: Path, entry: str, rows: list[dict[str, Any]], *, name: str = "a") -> Recipe:
    write_lines(folder / "rows.jsonl", rows)
    path = folder / f"{name}.toml"
    path.write_text(
        f'name = "{name}"\n[[curriculum.sources]]\nname = "s"\nlicence = "mit"\n{entry}\n',
        encoding="utf-8",
    )
    return load_recipe(str(path))


def opened(recipe: Recipe) -> OpenedSource:
    return open_source(recipe, recipe.settings.curriculum.sources[0], recipe.path.parent, plan=True)


def outcomes(recipe: Recipe) -> list[Candidate | Rejected]:
    source = opened(recipe)
    parser = source.parser()
    spool = recipe.path.parent / "spool"
    return [parser.parse(raw) for part in source.parts(100, spool) for raw in source.read(part)]


def prepared(candidate: Candidate | Rejected) -> PreparedRow:
    assert isinstance(candidate, Candidate), candidate
    row = normalize_row(candidate, 100_000)
    assert isinstance(row, PreparedRow), row
    assert validate_row(row, ValidationSettings()) is None
    return row


def only(kind: str, folder: Path, row: dict[str, Any], more: str = "") -> Candidate | Rejected:
    entry = f'kind = "{kind}"\npaths = ["rows.jsonl"]\n{more}'
    (found,) = outcomes(make(folder, entry, [row]))
    return found


def test_open_thoughts_114k_tags_become_the_one_dialect(tmp_path: Path) -> None:
    answer = (
        "<|begin_of_thought|>\n\nTwo and two make four, minus one.\n\n<|end_of_thought|>\n\n"
        "<|begin_of_solution|>\n\n\\boxed{3}\n\n<|end_of_solution|>"
    )
    turns = [
        {"from": "user", "value": f"Return your final response within \\boxed{{}}. {PROBLEM}"},
        {"from": "assistant", "value": answer},
    ]
    row = prepared(only("open_thoughts", tmp_path, {"system": "long", "conversations": turns}))
    assert (row.question, row.answer) == (PROBLEM, "\\boxed{3}")
    assert row.user_text.startswith("Return your final")
    assert row.candidate.domain == "math"


def test_open_thoughts_metadata_brings_gold_and_domain(tmp_path: Path) -> None:
    values = {
        "problem": PROBLEM,
        "deepseek_reasoning": "Two and two make four, minus one.",
        "deepseek_solution": "\\boxed{4}",
        "ground_truth_solution": "As 2 + 2 = 4, it is $\\boxed{3}$.",
        "domain": "math",
        "source": "numina",
        "test_cases": None,
    }
    row = prepared(only("open_thoughts_metadata", tmp_path, values))
    assert row.candidate.provenance.source_dataset == "numina"
    (checked,) = check_answers([row], ValidationSettings())
    assert isinstance(checked, Rejected)
    assert (checked.reason, checked.detail) == (
        "wrong_answer",
        "the source's answer is '3', the row's '4'",
    )


def test_openr1_takes_the_first_trace_that_was_found_right(tmp_path: Path) -> None:
    values = {
        "problem": PROBLEM,
        "answer": "3",
        "source": "aops",
        "uuid": "u",
        "generations": ["cut", THINK + "\\boxed{9}", TRACE],
        "is_reasoning_complete": [False, True, True],
        "correctness_math_verify": [True, False, True],
        "correctness_llama": None,
    }
    row = prepared(only("openr1_math", tmp_path, values))
    assert row.answer == "So it is $\\boxed{3}$."
    assert (row.candidate.is_verified, row.candidate.provenance.source_row) == (True, "2")
    values["correctness_math_verify"] = [True, False, False]
    refused = only("openr1_math", tmp_path, values)
    assert isinstance(refused, Rejected)
    assert refused.reason == "no_correct_generation"


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        (
            "<｜begin▁of▁sentence｜>Please reason step by step, and put your final answer within "
            f"\\boxed{{{{}}}}.<｜User｜>{PROBLEM}<｜Assistant｜>",
            TRACE,
        ),
        (
            f"<|im_start|>user\n{PROBLEM}\nPlease reason step by step, and put your final answer "
            "within \\boxed{}.<|im_end|>\n<|im_start|>assistant\n<think>\n",
            TRACE.removeprefix("<think>\n"),
        ),
    ],
)
def test_released_promptcot_prompts_lose_their_template(
    tmp_path: Path, prompt: str, completion: str
) -> None:
    row = prepared(
        only("promptcot_release", tmp_path, {"prompt": prompt, "completion": completion})
    )
    assert row.question == PROBLEM
    assert row.thinking == "Two and two make four, minus one."


def test_unknown_templates_and_further_turns_are_refused(tmp_path: Path) -> None:
    strange = {"prompt": "<|im_start|>tool\nx<|im_end|>", "completion": TRACE}
    refused = only("promptcot_release", tmp_path, strange)
    assert isinstance(refused, Rejected)
    assert refused.reason == "unknown_chat_template"
    turns = [{"role": r, "content": "x"} for r in ("user", "assistant", "user", "assistant")]
    refused = only("mixture_of_thoughts", tmp_path, {"messages": turns, "source": "x"})
    assert isinstance(refused, Rejected)
    assert (refused.reason, refused.detail) == ("not_two_turns", "4 turns")


def test_system_turns_are_dropped(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "You think."},
        {"role": "user", "content": PROBLEM},
        {"role": "assistant", "content": TRACE},
    ]
    row = prepared(only("mixture_of_thoughts", tmp_path, {"messages": turns, "source": "math"}))
    assert (row.user_text, row.candidate.provenance.source_dataset) == (PROBLEM, "math")


OCR_2 = {
    "question": "-",
    "r1_generation": "<think>\nSo the dragon Zorbulon owns 4711 gems in mountain caves guarded by trolls, every gem "
    "sparkles with brightness, and thieves steal pairs whose product exceeds treasure limits. I "
    "read the gems and print the sum.\n</think>\n\n"
    "```cpp\nint main() {}\n```",
    "dataset": "taco",
    "split": "train",
    "index": "1",
    "id": "x",
    "question_id": "q7",
    "license": "mit",
    "difficulty": "HARD",
    "judgement": "right",
    "pass_rate": "1.0",
}
JOIN = 'questions = [{ dataset = "taco", split = "train", path = "q.jsonl"%s }]'
TEXTS = [
    "Alice walks along a street with 17 houses and counts chimneys.",
    "Zorbulon the dragon owns 4711 gems in mountain caves guarded by trolls. Every gem sparkles "
    "with some brightness. Thieves steal pairs whose product exceeds the treasure limits.",
    "Given a binary tree with coloured leaves, report the deepest.",
]


@pytest.mark.parametrize("how", ["row", "key", "text"])
def test_questions_are_joined_by_row_key_or_text(tmp_path: Path, how: str) -> None:
    # Where row numbers moved, the text is found again by its words.
    texts = TEXTS if how != "text" else TEXTS[::-1][:2] + TEXTS[:1]
    write_lines(
        tmp_path / "q.jsonl", [{"question": t, "id": f"q{6 + n}"} for n, t in enumerate(texts)]
    )
    more = 'split = "cpp"\n' + JOIN % f', match = "{how}"'
    row = prepared(only("open_code_reasoning2", tmp_path, OCR_2, more))
    assert row.question == TEXTS[1]
    assert (row.candidate.is_verified, row.candidate.language) == (True, "cpp")


def test_a_question_that_the_reasoning_does_not_know_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "q.jsonl", [{"question": t} for t in TEXTS])
    row = {**OCR_2, "index": "2"}
    more = "min_join_overlap = 0.2\n" + JOIN % ""
    refused = only("open_code_reasoning2", tmp_path, row, more)
    assert isinstance(refused, Rejected)
    assert refused.reason == "joined_to_another_question"
    more = JOIN % ', match = "text"'
    unknown = {**row, "r1_generation": "<think>Nothing that any of them says.</think>"}
    refused = only("open_code_reasoning2", tmp_path, unknown, more)
    assert isinstance(refused, Rejected)
    assert refused.reason == "question_not_joined"


MAPPING = """
kind = "mapping"
paths = ["rows.jsonl"]
[curriculum.sources.mapping]
question = "task.text"
thinking = "turns.[type=reasoning].value"
answer = "turns.-1.value"
id = "key"
domain = "subject"
domains = { algebra = "math" }
difficulty = "stars"
difficulty_range = [1, 5]
gold = "solution|truth"
teacher = "by"
keep = { "ok" = true }
"""


def mapped_row(**changes: Any) -> dict[str, Any]:
    turns = [
        {"type": "reasoning", "value": "Two and two make four, minus one."},
        {"type": "text", "value": "It is \\boxed{3}."},
    ]
    row = {"task": {"text": PROBLEM}, "turns": turns, "key": 12, "subject": "algebra", "stars": 4}
    return {**row, "truth": "3", "by": "M", "ok": True, **changes}


def test_a_source_by_mapping_alone(tmp_path: Path) -> None:
    found = outcomes(make(tmp_path, MAPPING, [mapped_row(), mapped_row(ok=False), mapped_row()]))
    row = prepared(found[0])
    candidate = row.candidate
    assert (row.question, row.answer) == (PROBLEM, "It is \\boxed{3}.")
    assert (candidate.source_id, candidate.domain, candidate.difficulty) == ("12", "math", "4")
    assert (candidate.difficulty_rank, candidate.gold) == (75.0, "3")
    assert candidate.provenance.source_position == 0
    assert candidate.provenance.teacher == "M"
    assert isinstance(found[1], Rejected)
    assert found[1].reason == "not_kept"
    (checked,) = check_answers([row], ValidationSettings())
    assert isinstance(checked, PreparedRow)
    assert checked.candidate.is_verified


@pytest.mark.parametrize(
    "mapping",
    ['question = "q"', 'question = "q"\nresponse = "r"\nthinking = "t"\nanswer = "a"', ""],
)
def test_a_mapping_without_one_answer_is_a_mistake(tmp_path: Path, mapping: str) -> None:
    entry = f'kind = "mapping"\npaths = ["rows.jsonl"]\n[curriculum.sources.mapping]\n{mapping}'
    with pytest.raises(ConfigError, match="map "):
        make(tmp_path, entry, [])


def test_a_mapped_column_that_is_missing_is_named(tmp_path: Path) -> None:
    entry = MAPPING.replace("task.text", "problem")
    with pytest.raises(SourceError, match=r"missing field.s. problem"):
        outcomes(make(tmp_path, entry, [mapped_row()]))


def test_programs_run_against_their_tests_where_asked(tmp_path: Path) -> None:
    entry = (
        'kind = "mapping"\npaths = ["rows.jsonl"]\n[curriculum.sources.mapping]\n'
        'question = "q"\nresponse = "r"\ntests = "t"'
    )
    program = "```python\nprint(int(input()) + 1)\n```"
    response = f"<think>\nAdd one to the number.\n</think>\n\n{program}"
    good = {"q": "Print n + 1.", "r": response, "t": {"inputs": ["1"], "outputs": ["2"]}}
    bad = {**good, "t": json.dumps([{"input": "1", "output": "3"}])}
    rows = [prepared(found) for found in outcomes(make(tmp_path, entry, [good, bad]))]
    left = check_answers(rows, ValidationSettings())
    assert left == rows
    first, second = check_answers(rows, ValidationSettings(run_tests=True))
    assert isinstance(first, PreparedRow) and first.candidate.is_verified
    assert isinstance(second, Rejected)
    assert second.reason == "tests_failed"


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 30))
def test_parts_cover_all_rows_once_and_few_groups(groups: list[int], batch_rows: int) -> None:
    ranges = list(cut_ranges(groups, batch_rows))
    rows = [row for start, count in ranges for row in range(start, start + count)]
    assert rows == list(range(sum(groups)))
    assert all(0 < count <= batch_rows for _, count in ranges)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.parquet"])
@pytest.mark.parametrize("batch_rows", [1, 7, 100])
def test_parts_give_every_row_in_any_process(tmp_path: Path, name: str, batch_rows: int) -> None:
    rows = [ot2_row(row["question"], TRACE + "\r\n\u2028\x85") for row in questions(20)]
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode() + b"\n"
    if name.endswith(".parquet"):
        table = pa.Table.from_pylist(rows, schema=OT2)
        pq.write_table(table, tmp_path / name, row_group_size=6)
    elif name == "a.json":
        (tmp_path / name).write_text(json.dumps(rows), encoding="utf-8")
    else:
        (tmp_path / name).write_bytes(
            gzip.compress(lines, mtime=0) if name.endswith("gz") else lines
        )
    recipe = make(tmp_path, f'kind = "open_thoughts2"\npaths = ["{name}"]', [])
    source = opened(recipe)
    parts = list(source.parts(batch_rows, tmp_path / "spool"))
    again = list(source.parts(batch_rows, tmp_path / "spool"))
    assert parts == again
    assert max(part.num_rows for part in parts) <= batch_rows
    worker = pickle.loads(pickle.dumps(source))
    found = [raw for part in reversed(parts) for raw in reversed(list(worker.read(part)))]
    assert [as_text(raw.values) for raw in reversed(found)] == rows
    assert [raw.position for raw in reversed(found)] == list(range(20))
    assert {raw.file for raw in found} == {name}


def test_a_file_that_shrank_since_it_was_cut_is_named(tmp_path: Path) -> None:
    recipe = make(tmp_path, 'kind = "open_thoughts2"\npaths = ["a.parquet"]', [])
    write(tmp_path / "a.parquet", questions(20), OT2)
    source = opened(recipe)
    parts = list(source.parts(10, tmp_path / "spool"))
    write(tmp_path / "a.parquet", questions(15), OT2)
    with pytest.raises(SourceError, match="changed while it was read"):
        list(source.read(parts[1]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Return your final response within \\boxed{}. Add.\n", "Add."),
        ("Add.\nPlease reason step by step, and put your final answer within \\boxed{}.", "Add."),
        ("In which step is \\boxed{} used?", "In which step is \\boxed{} used?"),
    ],
)
def test_instructions_are_no_part_of_a_question(text: str, expected: str) -> None:
    assert strip_instructions(text) == expected


def test_a_prompt_of_several_turns_is_no_template() -> None:
    assert strip_chat_template("<｜User｜>a<｜Assistant｜>b<｜User｜>c<｜Assistant｜>") is None


REAL = {
    "longcot/s1k_sample.parquet": (
        'question = "question"\nthinking = "gemini_thinking_trajectory"\n'
        'answer = "gemini_attempt"\ngold = "solution"\ndataset = "source_type"',
        5,
    ),
    "longcot/marco_o1_CoT_demo.json": ('question = "instruction"\nresponse = "response"', 125),
    "longcot/reason_tool_use_demo_50.jsonl": (
        'question = "messages.[role=user].content.[type=text].value"\n'
        'thinking = "messages.[role=assistant].content.[type=reasoning].value"\n'
        'answer = "messages.[role=assistant].content.[type=text].value"',
        50,
    ),
}


@pytest.mark.parametrize("name", sorted(REAL))
def test_real_files_of_others_are_read_by_mapping(
    tmp_path: Path, shared_data: Path, name: str
) -> None:
    mapping, count = REAL[name]
    entry = f'kind = "mapping"\npaths = ["{shared_data / name}"]\n[curriculum.sources.mapping]\n{mapping}'
    recipe = make(tmp_path, entry, [])
    report = check_source_file(recipe, "s", shared_data / name)
    assert report["rows_in"] == count
    assert {row["stage"] for row in report["rows"]} <= {
        "",
        "parse",
        "normalize",
        "validate",
        "dedupe",
    }
