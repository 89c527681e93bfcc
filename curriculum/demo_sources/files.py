"""The demo's source files: good rows and planted defects, in the columns of the real datasets."""

from __future__ import annotations

from hashlib import md5
from pathlib import Path
from typing import Any

import pyarrow as pa

import curriculum
from curriculum.demo_sources.code_problems import CodeExample, make_code_examples
from curriculum.demo_sources.defects import (
    Row,
    code_defects,
    conversation_defects,
    missing_opening_tag,
    respelled,
    turns,
)
from curriculum.demo_sources.math_problems import MathExample, make_math_examples
from curriculum.sources.open_code_reasoning import REQUIRED
from pipeline.store import write_table

BUNDLED = Path(next(iter(curriculum.__path__))) / "data"
SEED = 1907
MATH_PER_FAMILY = 9
NUM_JOINED = 14
"""Code problems that live in split_1 and whose questions are fetched by row number."""

_OCR_0 = pa.schema([pa.field(name, pa.string()) for name in REQUIRED])
_OCR_1 = _OCR_0.append(pa.field("index", pa.string()))
_OT2 = pa.schema(
    [
        pa.field(
            "conversations",
            pa.list_(pa.struct([pa.field("from", pa.string()), pa.field("value", pa.string())])),
        ),
        pa.field("question", pa.string()),
        pa.field("source", pa.string()),
        pa.field("id", pa.int64()),
    ]
)


def write_sources(folder: Path) -> list[Path]:
    """Write the four files and return their paths."""
    code = make_code_examples()
    joined, inline = code[-NUM_JOINED:], code[:-NUM_JOINED]
    maths = make_math_examples(SEED, MATH_PER_FAMILY)
    tables = {
        "open_code_reasoning_split_0.parquet": pa.Table.from_pylist(_split_0(inline), _OCR_0),
        "open_code_reasoning_split_1.parquet": pa.Table.from_pylist(_split_1(joined), _OCR_1),
        "taco_questions.parquet": pa.Table.from_pylist(
            [{"question": text} for text in _taco_questions(joined)],
            pa.schema([pa.field("question", pa.string())]),
        ),
        "open_thoughts2.parquet": pa.Table.from_pylist(_conversations(maths, inline), _OT2),
    }
    for name, table in tables.items():
        write_table(folder / name, table)
    return [folder / name for name in tables]


def _ocr_row(question: str, response: str, **changes: str) -> Row:
    program = response.rpartition("```python\n")[2].removesuffix("\n```")
    row: Row = {
        # The id names the question: every trace of it has the same one.
        "id": md5(question.encode(), usedforsecurity=False).hexdigest(),
        "input": question,
        "output": response,
        "source": "codeforces",
        "license": "cc-by-4.0",
        "dataset": "code_contests",
        "split": "train",
        "difficulty": "EASY",
        "solution": program,
    }
    return row | changes


def _split_0(examples: list[CodeExample]) -> list[Row]:
    rows = [_ocr_row(e.question, e.response, difficulty=e.difficulty) for e in examples]
    first, second, third = examples[:3]
    rows.append(_ocr_row(first.question, first.response))
    longer = second.response.replace("<think>\n", "<think>\nLet me think about the steps.\n")
    rows.append(_ocr_row(second.question, longer))
    rows.append(_ocr_row("  " + third.question.replace("\n", "\r\n"), third.response))
    fresh = "Read a line and print it in capital letters."
    response = missing_opening_tag(
        CodeExample("", "The method upper does it. Strip first.", "print(input().upper())", "", "")
    )
    rows.append(_ocr_row(fresh, response, dataset="-", split="-"))
    rows += [_ocr_row(question, text) for question, text in code_defects(examples)]
    return rows


def _taco_questions(examples: list[CodeExample]) -> list[str | None]:
    """The join's target: the rows in between belong to nobody, one is empty."""
    texts: list[str | None] = [None]
    for example in examples:
        texts += [example.question, "A row that no trace points to."]
    return texts


def _split_1(examples: list[CodeExample]) -> list[Row]:
    joined = {"input": "-", "dataset": "taco", "split": "train", "source": "codechef"}
    rows = [
        _ocr_row(e.question, e.response, index=str(2 * n + 1), license="apache-2.0", **joined)
        for n, e in enumerate(examples)
    ]
    lost = examples[0]
    for index, changes in (("0", {}), ("9999", {}), ("seven", {}), ("3", {"dataset": "apps"})):
        rows.append(_ocr_row(f"lost {index}", lost.response, index=index, **(joined | changes)))
    return rows


def _conversations(maths: list[MathExample], code: list[CodeExample]) -> list[Row]:
    instruction = "Return your final response within \\boxed{}. "
    labels = ("automath", None, None, "nvidia_math", None, "tiger_math", None, None)
    rows = []
    for number, example in enumerate(maths):
        lead = instruction if number % 3 == 0 else ""
        roles = ("human", "gpt") if number % 10 == 9 else ("user", "assistant")
        talk = turns(f"{lead}{example.question}\n", example.response, roles)
        rows.append(_ot2_row(example.question, talk, labels[number % len(labels)]))
    roles = ("user", "assistant")
    for example in maths[:2]:
        rows.append(_ot2_row(example.question, turns(example.question, example.response, roles)))
    for example in maths[4:6]:
        text = respelled(example.question)
        rows.append(_ot2_row(text, turns(text, example.response, roles)))
    # The same problem in two sources: the one that the recipe names first keeps it.
    for one in code[3:5]:
        rows.append(_ot2_row(one.question, turns(one.question, one.response, roles), "magicoder"))
    defects = conversation_defects(maths[7])
    rows += [_ot2_row(question, talk) for question, talk in defects]
    return [row | {"id": number % 50} for number, row in enumerate(rows)]


def _ot2_row(question: str | None, talk: list[Row], source: str | None = None) -> dict[str, Any]:
    return {"conversations": talk, "question": question, "source": source}
