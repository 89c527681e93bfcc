"""Each problem's mean score out of an evaluation version, and versions by name.

In: a version's rows (only the columns that count). Out: per benchmark, items with their answers
counted. What compares two versions starts here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.report_data import read_columns
from pipeline.errors import SourceError
from pipeline.hashing import content_hash
from pipeline.manifest import LATEST, MANIFEST, Version, load_version, resolve_version

COLUMNS = ("benchmark", "item_id", "question", "gold", "correct")


@dataclass(slots=True)
class ItemScore:
    """One problem's graded answers, counted."""

    content: str
    """Hash of question and gold: tells whether two versions mean the same problem."""
    num_samples: int = 0
    num_correct: int = 0

    @property
    def mean(self) -> float:
        """Share of correct answers."""
        return self.num_correct / self.num_samples


@dataclass(frozen=True, slots=True)
class ItemScores:
    """All problems of one benchmark in one version."""

    items: dict[str, ItemScore] = field(default_factory=dict)

    @property
    def num_samples(self) -> int:
        """k: answers of the item that has the fewest."""
        return min(item.num_samples for item in self.items.values())


def find_evaluation(out: Path, name: str) -> Version:
    """An evaluation version by its folder, its folder of versions, or a checkpoint's name.

    Args:
        out: The run folder, for names.
        name: E.g. ``phase-2``, ``runs/demo/evaluation/phase-2`` or a version under it.

    Raises:
        SourceError: There is none.
    """
    for folder in (Path(name), out / "evaluation" / name):
        if (folder / MANIFEST).is_file():
            return load_version(folder)
        if (folder / LATEST).is_file():
            return resolve_version(folder)
    known = sorted(path.parent.name for path in (out / "evaluation").glob(f"*/{LATEST}"))
    raise SourceError(
        f"no evaluation {name!r}: neither a folder of one nor a checkpoint evaluated under {out}",
        hint=f"pass one of {', '.join(known)}, or a folder"
        if known
        else "run python -m evaluation run first, or pass the folder of an evaluation version",
    )


def read_item_scores(version: Version) -> Mapping[str, ItemScores]:
    """Every benchmark's problems with their answers counted.

    Raises:
        SourceError: The rows are no graded answers.
        ManifestMismatch: A shard is missing.
    """
    found: dict[str, ItemScores] = {}
    for path in version.shard_paths():
        for batch in read_columns(path, COLUMNS):
            columns = [batch.column(name).to_pylist() for name in COLUMNS]
            for benchmark, item_id, question, gold, correct in zip(*columns, strict=True):
                items = found.setdefault(benchmark, ItemScores()).items
                if item_id not in items:
                    items[item_id] = ItemScore(content_hash([question, gold]))
                items[item_id].num_samples += 1
                items[item_id].num_correct += bool(correct)
    return found
