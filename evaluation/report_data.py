"""Read what one run left on disk, as the figures its report shows.

Inputs: the versions under ``synthesis/``, ``datasets/`` and ``evaluation/`` and the records of
training beside each checkpoint. Manifests are read once; of the data itself only three narrow
columns (domain, source, length).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipeline.errors import ManifestMismatch, SourceError, StoreError
from pipeline.manifest import LATEST, Version, resolve_version
from pipeline.settings.recipe import Recipe
from promptcot.stage_names import SEED_STAGES, STAGES

PHASES = ("1", "2")


class LabelScore(BaseModel):
    """avg@k over the items that share a label's value, e.g. level 5."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    num_items: int
    avg_at_k: float
    interval: tuple[float, float]


class Score(BaseModel):
    """One benchmark's scores of one checkpoint; rates are shares between 0 and 1."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    benchmark: str
    domain: str
    num_items: int
    samples_per_item: int
    avg_at_k: float
    interval: tuple[float, float]
    interval_note: str = ""
    sampling_interval: tuple[float, float] | None = None
    pass_at_k: float
    pass_at: dict[str, float] = Field(default_factory=dict)
    majority_at_k: float | None
    majority_unsettled: int = 0
    truncated_rate: float
    format_rate: float
    mean_tokens: float
    mean_tokens_correct: float | None = None
    token_quantiles: dict[str, float] = Field(default_factory=dict)
    by_label: dict[str, dict[str, LabelScore]] = Field(default_factory=dict)
    reasons: dict[str, int] = Field(default_factory=dict)

    @property
    def passes(self) -> list[tuple[int, float]]:
        """pass@k of every k over 1, the smallest first."""
        told = self.pass_at or {str(self.samples_per_item): self.pass_at_k}
        return sorted((int(k), rate) for k, rate in told.items() if k != "1")


class TrainingStep(BaseModel):
    """One line of a checkpoint's ``train_log.jsonl``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    step: int
    loss: float
    learning_rate: float | None = None


class TrainingInit(BaseModel):
    """What a phase's weights started from."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: str
    """``random``, or where pretrained weights came from."""
    identity: str


class TrainingRecord(BaseModel):
    """What ``training.json`` says about one phase of SFT."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    phase: str
    dataset_version: str
    code_version: str
    num_rows: int
    rejected: dict[str, int]
    num_steps: int
    first_loss: float
    last_loss: float
    num_parameters: int
    documents_per_step: int
    tokens_seen: int
    init: TrainingInit


@dataclass(frozen=True, slots=True)
class PhaseFacts:
    """A phase's dataset version and the shape of its rows."""

    version: Version
    lengths: NDArray[np.int64]
    """Tokens of every row, prompt and completion together."""
    domains: Mapping[str, int]
    sources: Mapping[str, int]

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows."""
        return int(self.lengths.sum())


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """A trained phase and its log."""

    record: TrainingRecord
    steps: Sequence[TrainingStep]


@dataclass(frozen=True, slots=True)
class EvaluationFacts:
    """One evaluated checkpoint."""

    name: str
    version: Version
    scores: Sequence[Score]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Everything the report needs; what has not run is absent."""

    synthesis: Mapping[str, Version] = field(default_factory=dict)
    phases: Mapping[str, PhaseFacts] = field(default_factory=dict)
    training: Mapping[str, TrainingFacts] = field(default_factory=dict)
    evaluations: Sequence[EvaluationFacts] = ()


def collect_run(recipe: Recipe, out: Path) -> RunFacts:
    """Read the newest version of every part of a run.

    Raises:
        SourceError: Nothing has been built under ``out``, or a shard is unreadable.
        ManifestMismatch: A manifest is corrupt, or names a shard that is missing.
        StoreError: A checkpoint's records are corrupt.
    """
    facts = RunFacts(
        synthesis={
            stage: version
            for stage in (*SEED_STAGES, *STAGES)
            if (version := _newest(out / "synthesis" / stage)) is not None
        },
        phases={
            phase: _describe_phase(version)
            for phase in PHASES
            if (version := _newest(out / "datasets" / f"phase-{phase}")) is not None
        },
        training={
            phase: training
            for phase in PHASES
            if (training := _read_training(out / "checkpoints" / f"phase-{phase}")) is not None
        },
        evaluations=list(_read_evaluations(recipe, out / "evaluation")),
    )
    if not (facts.synthesis or facts.phases or facts.training or facts.evaluations):
        raise SourceError(
            f"nothing has been built under {out}: no synthesis, dataset, checkpoint or evaluation",
            hint=f"build something first, e.g. python -m curriculum.build --phase 1 --out {out}",
        )
    return facts


def read_columns(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Stream some columns of a version's shard as Arrow batches.

    Raises:
        ManifestMismatch: The shard is missing, though a manifest names it.
        SourceError: The shard is unreadable or lacks a column.
    """
    if not path.is_file():
        raise ManifestMismatch(
            f"{path} is listed in the manifest but missing",
            hint=f"delete {path.parent.parent} and build it again",
        )
    try:
        with pq.ParquetFile(path) as file:
            missing = sorted(set(columns) - set(file.schema_arrow.names))
            if missing:
                raise SourceError(
                    f"{path}: missing column(s) {', '.join(missing)}",
                    hint=f"delete {path.parent.parent} and build it again",
                )
            yield from file.iter_batches(columns=list(columns))
    except (pa.ArrowInvalid, pa.ArrowIOError) as exc:
        raise SourceError(
            f"{path}: not a readable Parquet file ({str(exc).splitlines()[0]})",
            hint=f"delete {path.parent.parent} and build it again",
        ) from exc


def _newest(root: Path) -> Version | None:
    """The newest version under a folder, or nothing when none was ever published."""
    return resolve_version(root) if (root / LATEST).is_file() else None


def _describe_phase(version: Version) -> PhaseFacts:
    domains: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    lengths = [np.zeros(0, dtype=np.int64)]
    for path in version.shard_paths():
        for batch in read_columns(path, ("domain", "source", "num_tokens")):
            domains.update(_count_values(batch.column("domain")))
            sources.update(_count_values(batch.column("source")))
            lengths.append(batch.column("num_tokens").to_numpy(zero_copy_only=False))
    return PhaseFacts(
        version=version,
        lengths=np.concatenate(lengths),
        domains=_most_first(domains),
        sources=_most_first(sources),
    )


def _count_values(column: Any) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in column.value_counts().to_pylist()}


def _most_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _read_training(checkpoint: Path) -> TrainingFacts | None:
    path = checkpoint / "training.json"
    if not path.is_file():
        return None
    try:
        record = TrainingRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as exc:
        raise _corrupt_training(path, exc) from exc
    return TrainingFacts(record=record, steps=_read_steps(checkpoint / "train_log.jsonl"))


def _read_steps(path: Path) -> list[TrainingStep]:
    """The logged steps in order; a step logged again after a resume counts once, as last said."""
    if not path.is_file():
        return []
    steps: dict[int, TrainingStep] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            # The trainer's closing line sums the run up and has no loss of its own.
            if "loss" in entry:
                step = TrainingStep.model_validate(entry)
                steps[step.step] = step
    except (ValidationError, ValueError, TypeError) as exc:
        raise _corrupt_training(path, exc) from exc
    return [steps[number] for number in sorted(steps)]


def _corrupt_training(path: Path, exc: Exception) -> StoreError:
    return StoreError(
        f"{path} is not a valid record of training: {str(exc).splitlines()[0]}",
        hint=f"delete {path.parent} and train this phase again",
    )


def _read_evaluations(recipe: Recipe, root: Path) -> Iterator[EvaluationFacts]:
    """Evaluated checkpoints: the recipe's in its order, then any others by name."""
    found = sorted(path.parent.name for path in root.glob(f"*/{LATEST}"))
    planned = [name for name in recipe.settings.evaluation.checkpoints if name in found]
    for name in [*planned, *(name for name in found if name not in planned)]:
        version = resolve_version(root / name)
        yield EvaluationFacts(name=name, version=version, scores=_read_scores(version))


def _read_scores(version: Version) -> list[Score]:
    try:
        return TypeAdapter(list[Score]).validate_python(version.manifest.extra["scores"])
    except (KeyError, ValidationError) as exc:
        raise ManifestMismatch(
            f"{version.folder / 'manifest.json'}: extra.scores is missing or malformed "
            f"({str(exc).splitlines()[0]})",
            hint=f"delete {version.folder} and evaluate again",
        ) from exc
