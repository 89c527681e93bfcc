"""Rows, sources and recipes for the curriculum's tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curriculum.candidates import Candidate, Origin, PreparedRow
from curriculum.sources.open_code_reasoning import REQUIRED
from curriculum.texts import Trace
from pipeline.manifest import Version
from pipeline.settings import Recipe, load_recipe

OCR = pa.schema([pa.field(name, pa.string()) for name in (*REQUIRED, "index")])
OT2 = pa.schema(
    [
        ("conversations", pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))),
        ("question", pa.string()),
        ("source", pa.string()),
        ("id", pa.int64()),
    ]
)
GOOD_CODE = (
    "<think>\nRead the line and print it, nothing more is asked.\n</think>\n\n"
    "```python\nprint(input())\n```"
)
GOOD_MATH = "<think>\nTwo and two make four, and one is taken away.\n</think>\n\n$\\boxed{3}$"


def ocr_row(question: str | None, output: str | None = GOOD_CODE, **changes: Any) -> dict[str, Any]:
    row = dict.fromkeys(OCR.names)
    base = {"id": "q", "source": "aizu", "license": "mit", "dataset": "-", "split": "-"}
    return {**row, **base, "input": question, "output": output, **changes}


def ot2_row(question: str | None, answer: str | None = GOOD_MATH, **changes: Any) -> dict[str, Any]:
    turns = [{"from": "user", "value": question}, {"from": "assistant", "value": answer}]
    return {"conversations": turns, "question": question, "source": None, "id": 1, **changes}


def prepared_row(*, question: str, thinking: str, answer: str) -> PreparedRow:
    candidate = Candidate(
        row_id="0" * 32,
        source="s",
        source_revision="r",
        source_id="1",
        question=question,
        user_text=question,
        response=None,
        licence="mit",
        domain="other",
        difficulty=None,
        provenance=Origin(),
    )
    return PreparedRow(
        candidate=candidate,
        question=question,
        user_text=question,
        trace=Trace.of_texts(thinking, answer),
    )


def write(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    return path


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_recipe(
    folder: Path,
    ot2: Sequence[Mapping[str, Any]] = (),
    ocr: Sequence[Mapping[str, Any]] = (),
    *,
    overrides: Sequence[str] = (),
) -> Recipe:
    """A recipe whose phase 1 reads the given rows, code before maths."""
    folder.mkdir(parents=True, exist_ok=True)
    text, used = ['name = "t"'], []
    for name, kind, rows, schema in (
        ("code", "open_code_reasoning", ocr, OCR),
        ("talk", "open_thoughts2", ot2, OT2),
    ):
        if rows:
            write(folder / f"{name}.parquet", rows, schema)
            text.append(
                f'[[curriculum.sources]]\nname = "{name}"\nkind = "{kind}"\n'
                f'paths = ["{name}.parquet"]\nlicence = "apache-2.0"'
            )
            used.append(f'{{ source = "{name}" }}')
    text.append(f"[curriculum.phases.1]\nsources = [{', '.join(used)}]\nmax_tokens = 400")
    path = folder / "t.toml"
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return load_recipe(str(path), ["curriculum.num_workers=1", *overrides])


def questions(count: int) -> list[dict[str, Any]]:
    """Different well-formed maths rows."""
    return [
        ot2_row(
            f"What is {n} plus {n * n + 1}? Explain every step of it.",
            f"<think>\nAdd {n} and {n * n + 1} to get {n + n * n + 1}.\n</think>\n\n"
            f"\\boxed{{{n + n * n + 1}}}",
        )
        for n in range(count)
    ]


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def reasons_of(version: Version) -> dict[str, int]:
    return {r: n for reasons in version.manifest.rejected.values() for r, n in reasons.items()}


def as_text(value: Any) -> Any:
    """A raw value with its views of long texts decoded."""
    if isinstance(value, memoryview):
        return str(value, "utf-8")
    if isinstance(value, dict):
        return {name: as_text(one) for name, one in value.items()}
    return [as_text(one) for one in value] if isinstance(value, list) else value
