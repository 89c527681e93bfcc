"""docs/data-model.md tells every column of every record, and none that does not exist."""

from __future__ import annotations

import importlib
import inspect
import re
import types
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from evaluation.report_data import Score, TrainingRecord
from pipeline.manifest import InputRef, Manifest, ShardRef
from pipeline.records import Record
from promptcot.stage_names import STAGES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data-model.md"
RECORD_MODULES = [
    "pipeline.records",
    *(
        ["evaluation.records"]
        if Path(PAGE.parents[1] / "evaluation" / "records.py").is_file()
        else []
    ),
]
SCALARS = {str: "text", int: "int", float: "float", bool: "bool"}


def find_records() -> dict[str, type[BaseModel]]:
    """All records that are written to disk, by name."""
    found: dict[str, type[BaseModel]] = {m.__name__: m for m in (Manifest, InputRef, ShardRef)}
    for name in RECORD_MODULES:
        for _, model in inspect.getmembers(importlib.import_module(name), inspect.isclass):
            if issubclass(model, Record) and model is not Record and model.__module__ == name:
                found[model.__name__] = model
    return found


def read_tables() -> dict[str, dict[str, str]]:
    """Heading → column → type, for the third-level headings of the page."""
    tables = {}
    for section in re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        heading = section.splitlines()[0].strip().strip("`")
        body = re.split(r"^## ", section, flags=re.MULTILINE)[0]
        rows = re.findall(r"^\| `([^`]+)` \| (.+?) \| .+ \|$", body, flags=re.MULTILINE)
        tables[heading] = dict(rows)
        assert len(tables[heading]) == len(rows), f"{heading} names a column twice"
    return tables


def describe_type(annotation: Any) -> str:
    """A field's type in the page's words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        inner = next(a for a in arguments if a is not types.NoneType)
        return f"{describe_type(inner)} or null"
    if origin is list:
        return f"list of {describe_type(arguments[0])}"
    if origin is dict:
        return "object"
    if origin is Literal or issubclass(annotation, StrEnum):
        return "text"
    return SCALARS.get(annotation) or f"`{annotation.__name__}`"


RECORDS, TABLES = find_records(), read_tables()


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_every_column_is_documented_with_its_type(name: str) -> None:
    fields = RECORDS[name].model_fields
    assert name in TABLES, f"docs/data-model.md has no section ### `{name}`"
    assert TABLES[name] == {key: describe_type(f.annotation) for key, f in fields.items()}


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_columns_are_told_in_the_order_of_the_files(name: str) -> None:
    assert list(TABLES[name]) == list(RECORDS[name].model_fields)


def test_the_page_describes_nothing_that_does_not_exist() -> None:
    assert set(TABLES) == set(RECORDS) | {"training.json", "Scores"}


def test_what_the_report_reads_is_documented() -> None:
    assert set(TrainingRecord.model_fields) <= set(TABLES["training.json"])
    assert set(Score.model_fields) == set(TABLES["Scores"])


def test_the_run_folder_names_every_stage() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for stage in STAGES:
        assert f"`synthesis/{stage}/<version>/`" in page


def test_links_of_the_table_of_contents_lead_somewhere() -> None:
    page = PAGE.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^a-z0-9-]", "", title.lower().replace(" ", "-"))
        for title in re.findall(r"^#+ (.+)$", page, flags=re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= headings
