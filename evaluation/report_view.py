"""Turn a run's figures into what the report says: stages, tiles, tables and plain sentences.

Nothing here reads a file or draws; every number has been collected by ``report_data``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from evaluation.report_data import PHASES, EvaluationFacts, RunFacts, Score
from pipeline.manifest import Version
from promptcot.stage_names import BANK, SEED_STAGES, STAGES, TITLES


@dataclass(frozen=True, slots=True)
class Reason:
    """Why rows were refused, and how many."""

    text: str
    count: int


@dataclass(frozen=True, slots=True)
class StageRow:
    """One arrow of the pipeline with its counts; without counts it has not run."""

    key: str
    title: str
    command: str
    unit: str = "rows"
    num_in: int | None = None
    num_out: int = 0
    reasons: Sequence[Reason] = ()
    note: str = ""

    @property
    def num_rejected(self) -> int:
        """Refused rows, over all reasons."""
        return sum(reason.count for reason in self.reasons)

    @property
    def is_balanced(self) -> bool:
        """Whether rows in = rows out + rows rejected."""
        return self.num_in == self.num_out + self.num_rejected

    @property
    def accepted_share(self) -> float:
        """Share of the incoming rows that went on."""
        return self.num_out / self.num_in if self.num_in else 0.0


@dataclass(frozen=True, slots=True)
class Lane:
    """A row of the pipeline picture."""

    title: str
    stages: Sequence[StageRow]
    is_chain: bool
    """Whether each stage works on what the one before it made."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One headline number."""

    label: str
    value: str
    details: Sequence[str]


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One benchmark's scores of one checkpoint."""

    checkpoint: str
    score: Score


@dataclass(frozen=True, slots=True)
class ContaminationRow:
    """What one benchmark's decontamination did to one phase."""

    phase: str
    benchmark: str
    num_items: int
    num_removed: int
    num_twins: int


def describe_contamination(facts: RunFacts) -> list[ContaminationRow]:
    """A row per phase and benchmark that the phase was checked against."""
    rows = []
    for phase, found in facts.phases.items():
        report = found.version.manifest.extra.get("decontamination", {"benchmarks": {}})
        rows += [
            ContaminationRow(
                phase=phase,
                benchmark=benchmark,
                num_items=counts["items"],
                num_removed=counts["rows_flagged"],
                num_twins=counts["template_twins"],
            )
            for benchmark, counts in report["benchmarks"].items()
        ]
    return rows


def describe_lanes(facts: RunFacts) -> list[Lane]:
    """The pipeline, lane by lane, in the order of the data."""
    chain = (*SEED_STAGES, *STAGES) if BANK in facts.synthesis else STAGES
    return [
        Lane("Synthesis", [_synthesis_row(facts, stage) for stage in chain], True),
        Lane("Curriculum", [_phase_row(facts, phase) for phase in PHASES], False),
        Lane("Training", [_training_row(facts, phase) for phase in PHASES], True),
        Lane(
            "Evaluation",
            [_evaluation_row(entry) for entry in facts.evaluations]
            or [StageRow("evaluation", "Evaluation", "python -m evaluation run")],
            False,
        ),
    ]


def _synthesis_row(facts: RunFacts, stage: str) -> StageRow:
    version = facts.synthesis.get(stage)
    title, command = TITLES[stage], "python -m promptcot run"
    if version is None:
        return StageRow(stage, title, command)
    return StageRow(
        stage,
        title,
        command,
        unit=str(version.manifest.extra.get("unit", "rows")),
        num_in=version.manifest.rows_in,
        num_out=version.manifest.rows_out,
        reasons=_manifest_reasons(version),
    )


def _phase_row(facts: RunFacts, phase: str) -> StageRow:
    key, title = f"dataset-{phase}", f"Phase {phase} dataset"
    command = f"python -m curriculum.build --phase {phase}"
    found = facts.phases.get(phase)
    if found is None:
        return StageRow(key, title, command)
    return StageRow(
        key,
        title,
        command,
        num_in=found.version.manifest.rows_in,
        num_out=found.version.manifest.rows_out,
        reasons=_manifest_reasons(found.version),
        note="from " + join_counts(found.sources),
    )


def _training_row(facts: RunFacts, phase: str) -> StageRow:
    """Rows that came in are the dataset's, so that a row lost on the way would show."""
    key, title = f"training-{phase}", f"SFT phase {phase}"
    command = f"python -m trainer.sft --phase {phase}"
    found = facts.training.get(phase)
    if found is None:
        return StageRow(key, title, command)
    record = found.record
    num_in = record.num_rows + sum(record.rejected.values())
    dataset = facts.phases.get(phase)
    if dataset is not None and dataset.version.name == record.dataset_version:
        num_in = dataset.version.manifest.rows_out
    return StageRow(
        key,
        title,
        command,
        num_in=num_in,
        num_out=record.num_rows,
        reasons=_sorted_reasons(record.rejected),
        note=f"{record.num_steps:,} steps, loss {record.first_loss:.2f} → {record.last_loss:.2f}",
    )


def _evaluation_row(entry: EvaluationFacts) -> StageRow:
    return StageRow(
        f"evaluation-{entry.name}",
        f"Evaluation of {entry.name}",
        "python -m evaluation run",
        unit=str(entry.version.manifest.extra.get("unit", "answers")),
        num_in=entry.version.manifest.rows_in,
        num_out=entry.version.manifest.rows_out,
        reasons=_manifest_reasons(entry.version),
        note=", ".join(f"{s.benchmark} {s.avg_at_k:.1%}" for s in entry.scores),
    )


def _manifest_reasons(version: Version) -> list[Reason]:
    """Reasons of a manifest; named with their step where the stage has several."""
    rejected = version.manifest.rejected
    one_step = len(rejected) == 1 and set(rejected) == {version.manifest.extra.get("stage")}
    counts = {
        reason if one_step else f"{step}: {reason}": count
        for step, reasons in rejected.items()
        for reason, count in reasons.items()
    }
    return _sorted_reasons({text.replace("_", " "): count for text, count in counts.items()})


def _sorted_reasons(counts: Mapping[str, int]) -> list[Reason]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Reason(text.replace("_", " "), count) for text, count in ordered]


def join_counts(counts: Mapping[str, int]) -> str:
    """``a 12, b 3``, for a short list of parts."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def describe_tiles(facts: RunFacts) -> list[Tile]:
    """The headline numbers of what has run."""
    tiles = []
    if judged := facts.synthesis.get("judged"):
        manifest = judged.manifest
        tiles.append(
            Tile("Problems accepted", f"{manifest.rows_out:,}", [f"of {manifest.rows_in:,} judged"])
        )
    if verified := facts.synthesis.get("verified"):
        manifest = verified.manifest
        tiles.append(
            Tile("Traces kept", f"{manifest.rows_out:,}", [f"of {manifest.rows_in:,} solutions"])
        )
    for phase, found in facts.phases.items():
        rows = found.version.manifest.rows_out
        tiles.append(
            Tile(f"Phase {phase} data", f"{rows:,} rows", [f"{found.num_tokens:,} tokens"])
        )
    for phase, training in facts.training.items():
        record = training.record
        change = f"{record.first_loss:.2f} → {record.last_loss:.2f}"
        tiles.append(Tile(f"Loss, SFT phase {phase}", change, [f"in {record.num_steps:,} steps"]))
    return tiles + _score_tiles(facts.evaluations)


def describe_scores(evaluations: Sequence[EvaluationFacts]) -> list[ScoreRow]:
    """All scores, a benchmark's checkpoints beside each other."""
    rows = [ScoreRow(entry.name, score) for entry in evaluations for score in entry.scores]
    order = list(dict.fromkeys(row.score.benchmark for row in rows))
    return sorted(rows, key=lambda row: order.index(row.score.benchmark))


def _score_tiles(evaluations: Sequence[EvaluationFacts]) -> list[Tile]:
    """One tile per benchmark, its checkpoints in order."""
    return [
        Tile(
            label=f"{benchmark}, avg@{found[0].score.samples_per_item}",
            value=" → ".join(f"{row.score.avg_at_k:.1%}" for row in found),
            details=[f"{row.checkpoint}: {format_interval(row.score)}" for row in found],
        )
        for benchmark, group in groupby(
            describe_scores(evaluations), key=lambda row: row.score.benchmark
        )
        if (found := list(group))
    ]


def format_interval(score: Score) -> str:
    """The interval of avg@k in per cent, e.g. ``2.1–9.8 %``."""
    return format_span(score.interval)


def format_span(interval: tuple[float, float]) -> str:
    """Two shares in per cent."""
    low, high = interval
    return f"{100 * low:.1f}–{100 * high:.1f}%"
