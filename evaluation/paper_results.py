"""The paper's published numbers, as the report quotes them; none of them stands in code.

In: ``evaluation/data/paper_results.toml``, which names the source of every cell. Out: typed tables,
and what can be worked out from them.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import resources
from math import sqrt
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from pipeline.errors import SourceError

FILE = "paper_results.toml"
_NOT_A_NAME = re.compile(r"[^a-z0-9+]")


class _Quoted(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class QuotedCell(_Quoted):
    """One number in per cent, and where it was read."""

    value: float
    source: str
    difference: float | None = None
    """To the full recipe in points, as the source states it."""
    approximate: bool = False


class QuotedBenchmark(_Quoted):
    """A column of the paper's tables."""

    key: str
    title: str
    items: int
    samples: int | None = None
    """The paper's k, where it is published."""
    window: str = ""
    names: tuple[str, ...]
    """What recipes call it, without case, hyphens and underscores."""


class QuotedModel(_Quoted):
    """A row of the paper's tables."""

    key: str
    title: str
    billions: float
    """Parameters."""
    role: Literal["own", "baseline"]


class QuotedTable(_Quoted):
    """One of the paper's tables."""

    key: str
    title: str
    own: str
    """The row that ours stands beside."""
    models: tuple[str, ...]


class QuotedAblation(_Quoted):
    """What is known of one of the paper's leave-one-out runs."""

    key: str
    title: str
    cells: dict[str, QuotedCell]


class Caveat(_Quoted):
    """What a table cannot carry, in words."""

    table: str
    text: str


class Paper(_Quoted):
    """Where the numbers come from."""

    title: str
    arxiv: str


class Protocol(_Quoted):
    """How the paper sampled and graded."""

    temperature: float
    top_p: float
    repetition_penalty: float
    max_new_tokens: int
    grader: str


class PaperResults(_Quoted):
    """Everything that is quoted."""

    paper: Paper
    sources: dict[str, str]
    protocol: Protocol
    benchmarks: tuple[QuotedBenchmark, ...]
    models: tuple[QuotedModel, ...]
    tables: tuple[QuotedTable, ...]
    cells: dict[str, dict[str, QuotedCell]]
    """Model to benchmark to cell; what is not there was not published."""
    ablations: tuple[QuotedAblation, ...]
    caveats: tuple[Caveat, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> PaperResults:
        models = {model.key for model in self.models}
        columns = {benchmark.key for benchmark in self.benchmarks}
        rows = [*self.cells.values(), *(ablation.cells for ablation in self.ablations)]
        for name in (*self.cells, *(key for table in self.tables for key in table.models)):
            if name not in models:
                raise ValueError(f"no model {name!r}")
        for cells in rows:
            for key, cell in cells.items():
                if key not in columns:
                    raise ValueError(f"no benchmark {key!r}")
                if cell.source not in self.sources:
                    raise ValueError(f"no source {cell.source!r}")
        return self

    def benchmark_of(self, name: str) -> QuotedBenchmark | None:
        """The paper's benchmark that a recipe calls so; none when it has no such one."""
        plain = _NOT_A_NAME.sub("", name.lower())
        return next((entry for entry in self.benchmarks if plain in entry.names), None)

    def model(self, key: str) -> QuotedModel:
        """A model by its key."""
        return next(model for model in self.models if model.key == key)

    def caveats_of(self, table: str) -> list[str]:
        """What a table cannot carry."""
        return [caveat.text for caveat in self.caveats if caveat.table == table]

    def rivals_ahead(self, table: QuotedTable) -> list[tuple[QuotedBenchmark, QuotedModel]]:
        """Baselines of the same size or less that lead the table's own row, by benchmark."""
        own = self.cells[table.own]
        size = max(self.model(table.own).billions, 8)
        found = []
        for benchmark in self.benchmarks:
            for key in table.models:
                model, cell = self.model(key), self.cells[key].get(benchmark.key)
                is_rival = model.role == "baseline" and model.billions <= size
                if is_rival and cell is not None and cell.value > own[benchmark.key].value:
                    found.append((benchmark, model))
        return found


def standard_error(value: float, num_items: int) -> float:
    """The largest standard error of a score in per cent over so many problems, in points.

    Reached when every problem is solved always or never; samples of a problem lower it only as far
    as they differ.
    """
    share = value / 100
    return 100 * sqrt(share * (1 - share) / num_items)


@cache
def load_paper() -> PaperResults:
    """The bundled numbers.

    Raises:
        SourceError: The file does not fit its schema.
    """
    path = resources.files("evaluation") / "data" / FILE
    try:
        return PaperResults.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (ValidationError, tomllib.TOMLDecodeError) as exc:
        raise SourceError(
            f"evaluation/data/{FILE} is malformed: {str(exc).splitlines()[0]}",
            hint="restore the file from the repository",
        ) from exc
