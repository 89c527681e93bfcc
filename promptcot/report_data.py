"""The figures of the synthesis page: read from versions, the ledger and nothing else.

Rows are streamed and only narrow columns are read; what is kept is counts, and one integer per
solution (its length).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ManifestMismatch, SourceError
from pipeline.manifest import Version
from pipeline.settings.recipe import Recipe
from promptcot.costs import StageCost, collect_costs, newest_versions
from promptcot.stage_names import EXTRACTED, SEED_STAGES, STAGES

CUT_OFF = ("truncated", "cut_off", "too_long")
"""Names under which stages refuse a reply that the token limit ended."""
_BENCHMARK = "benchmark"
_NUM_TOP = 8


@dataclass(frozen=True, slots=True)
class ConceptUse:
    """How the concepts of one domain's combinations are spread, as the sampler recorded it."""

    domain: str
    num_known: int
    """Concepts in the bank."""
    num_used: int
    entropy: float
    """Of a concept drawn from all that were used, in bits."""
    max_entropy: float
    """Of an even use of the whole bank."""
    histogram: Sequence[tuple[str, int]]
    """Times used → concepts."""
    most_used: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class BenchmarkRefusal:
    """One row that was a benchmark item."""

    stage: str
    row_id: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisFacts:
    """Everything that the page shows besides single rows."""

    versions: Mapping[str, Version]
    """The newest version of every stage, in the chain's order."""
    costs: Sequence[StageCost]
    concepts: Sequence[ConceptUse] = ()
    levels: Mapping[tuple[str, str], Mapping[str, int]] = field(default_factory=dict)
    """(domain, level) → stage → rows."""
    agreement: Mapping[float, int] = field(default_factory=dict)
    """Agreement → problems with that agreement among the verified ones."""
    methods: Mapping[str, int] = field(default_factory=dict)
    lengths: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Tokens of every well-formed solution."""
    num_refused_items: int = 0
    refused_items: Sequence[BenchmarkRefusal] = ()

    @property
    def chain(self) -> list[tuple[str, Version]]:
        """The chain's stages that have run."""
        return [(s, self.versions[s]) for s in (*SEED_STAGES, *STAGES) if s in self.versions]

    @property
    def num_cut_off(self) -> int:
        """Solutions that the token limit ended."""
        solutions = self.versions.get("solutions")
        if solutions is None:
            return 0
        reasons = solutions.manifest.rejected.values()
        return sum(found.get(name, 0) for found in reasons for name in CUT_OFF)


def collect_synthesis(recipe: Recipe, out: Path, *, max_refused_items: int = 20) -> SynthesisFacts:
    """Read the newest versions of a run folder.

    Raises:
        SourceError: No stage of synthesis has been run there, or a shard is unreadable.
        ManifestMismatch: A shard is missing.
    """
    versions = newest_versions(out)
    if not any(stage in versions for stage in STAGES):
        raise SourceError(
            f"no synthesis has been run in {out}",
            hint=f"run `python -m promptcot run --recipe {recipe.name} --out {out}` first",
        )
    verified = _describe_verified(versions.get("verified"))
    items = list(_refused_items(versions))
    return SynthesisFacts(
        versions=versions,
        costs=collect_costs(recipe, out),
        concepts=_describe_concepts(versions.get("combinations")),
        levels=_count_levels(versions),
        agreement=verified[0],
        methods=verified[1],
        lengths=_read_lengths(versions.get("solutions")),
        num_refused_items=len(items),
        refused_items=items[:max_refused_items],
    )


def read_batches(
    path: Path, columns: Sequence[str] | None = None, *, size: int = 4096
) -> Iterator[pa.RecordBatch]:
    """Stream columns of a Parquet file; nested ones are named with dots.

    Raises:
        ManifestMismatch: The file is missing.
        SourceError: It cannot be read.
    """
    if not path.is_file():
        raise ManifestMismatch(
            f"{path} is listed in the manifest but missing",
            hint=f"delete {path.parent.parent} and build it again",
        )
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=size, columns=columns)
    except (pa.ArrowInvalid, pa.ArrowIOError) as exc:
        raise SourceError(
            f"{path}: not a readable Parquet file ({str(exc).splitlines()[0]})",
            hint=f"delete {path.parent.parent} and build it again",
        ) from exc


def _batches_of(version: Version | None, *columns: str) -> Iterator[pa.RecordBatch]:
    for path in version.shard_paths() if version else ():
        yield from read_batches(path, columns)


def _describe_concepts(version: Version | None) -> list[ConceptUse]:
    domains: Mapping[str, Any] = version.manifest.extra.get("domains", {}) if version else {}
    return [
        ConceptUse(
            domain=domain,
            num_known=found["concepts"],
            num_used=found["concepts_used"],
            entropy=found["entropy_bits"],
            max_entropy=found["max_entropy_bits"],
            histogram=[(_bin_name(bar), bar["concepts"]) for bar in found["usage_histogram"]],
            most_used=[(top["concept"], top["used"]) for top in found["top_concepts"][:_NUM_TOP]],
        )
        for domain, found in sorted(domains.items(), key=lambda item: (item[0] != "math", item[0]))
    ]


def _bin_name(bar: Mapping[str, int]) -> str:
    return f"{bar['from']:,}" if bar["from"] == bar["to"] else f"{bar['from']:,}–{bar['to']:,}"


_LEVEL_COLUMNS = {
    "combinations": "",
    "problems": "",
    "distinct": "",
    "judged": "problem",
    "verified": "solution.problem",
}
"""Where a stage's rows hold domain and level; solutions repeat their problem's."""


def _count_levels(versions: Mapping[str, Version]) -> dict[tuple[str, str], dict[str, int]]:
    """Rows by domain and level; traces of one problem count once."""
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for stage, prefix in _LEVEL_COLUMNS.items():
        before = None
        for problem in _problems(versions.get(stage), prefix):
            if problem[0] != before:
                cell = counts.setdefault((problem[1], problem[2]), {})
                cell[stage] = cell.get(stage, 0) + 1
            before = problem[0]
    return dict(sorted(counts.items(), key=lambda item: (item[0][0] != "math", item[0])))


def _problems(version: Version | None, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Id, domain and level of each row's problem."""
    names = ("id", "domain", "level")
    dotted = [f"{prefix}.{name}" if prefix else name for name in names]
    for batch in _batches_of(version, *dotted):
        columns: Any = batch
        for part in prefix.split(".") if prefix else ():
            columns = _field(columns, part)
        yield from zip(*(_field(columns, name).to_pylist() for name in names), strict=True)


def _field(columns: Any, name: str) -> Any:
    return columns.column(name) if isinstance(columns, pa.RecordBatch) else columns.field(name)


def _describe_verified(version: Version | None) -> tuple[dict[float, int], dict[str, int]]:
    """Agreement of each problem, and traces by method."""
    agreement: Counter[float] = Counter()
    methods: Counter[str] = Counter()
    before = None
    for batch in _batches_of(version, "agreement", "method", "solution.problem.id"):
        problems = batch.column("solution").field("problem").field("id").to_pylist()
        methods.update(batch.column("method").to_pylist())
        for problem, share in zip(problems, batch.column("agreement").to_pylist(), strict=True):
            # Traces of one problem follow each other.
            if problem != before:
                agreement[round(share, 4)] += 1
            before = problem
    return dict(sorted(agreement.items())), dict(sorted(methods.items()))


def _read_lengths(version: Version | None) -> npt.NDArray[np.int64]:
    parts = [
        batch.column("num_completion_tokens").to_numpy(zero_copy_only=False)
        for batch in _batches_of(version, "num_completion_tokens")
    ]
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)


def rejected_paths(version: Version) -> list[Path]:
    """Files of a version's refused rows, in order."""
    return sorted((version.folder / "rejected").glob("*.parquet"))


def _refused_items(versions: Mapping[str, Version]) -> Iterator[BenchmarkRefusal]:
    for stage in (EXTRACTED, "distinct"):
        for path in rejected_paths(versions[stage]) if stage in versions else ():
            for batch in read_batches(path):
                for row in batch.to_pylist():
                    if _BENCHMARK in row["reason"]:
                        yield BenchmarkRefusal(stage, row["row_id"], row["detail"])
