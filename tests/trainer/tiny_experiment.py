"""A small dataset version and a tiny recipe, made with the project's own stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.hashing import content_hash
from pipeline.manifest import Version
from pipeline.records import Message, Provenance, TrainingRow
from pipeline.settings import Recipe, load_recipe
from pipeline.stages import Batch, BatchResult, Stage, run_stage, split_batches
from pipeline.student import assistant_turn, encode_example, user_turn

TINY = """
name = "tiny"

[model]
hidden_size = 32
num_hidden_layers = 2
head_dim = 16
state_size = 8
n_groups = 2
chunk_size = 16
tie_word_embeddings = true

[training]
learning_rate = 3e-3
warmup_steps = 2
documents_per_step = 4
micro_batch = 2
packing = "off"
precision = "float32"
activation = "none"
save_steps = 2
keep_checkpoints = 3
num_threads = 1

[training.phases.1]
max_length = 200
epochs = 2

[training.phases.2]
max_length = 200
epochs = 1
"""


def make_row(number: int, length: int = 1) -> TrainingRow:
    """A small addition, its reasoning repeated ``length`` times."""
    question = f"Add {number} and {number + 3} and give the sum."
    steps = f"First take {number}. Then add {number + 3}. The sum is {2 * number + 3}.\n" * length
    prompt = [Message(role="user", content=user_turn(question, "math"))]
    turn = assistant_turn(steps, f"The sum is \\boxed{{{2 * number + 3}}}.")
    completion = [Message(role="assistant", content=turn)]
    encoded = encode_example(prompt, completion)
    return TrainingRow(
        id=content_hash([question, steps]),
        prompt=prompt,
        completion=completion,
        question=question,
        source="fixture",
        source_revision="1",
        source_id=str(number),
        licence="Apache-2.0",
        domain="math",
        difficulty=None,
        num_prompt_tokens=encoded.num_prompt_tokens,
        num_completion_tokens=encoded.num_completion_tokens,
        num_tokens=len(encoded.input_ids),
        provenance=Provenance(),
    )


def make_dataset(out: Path, rows: Sequence[TrainingRow], phase: str = "1") -> Version:
    """Publish rows as the newest dataset version of a phase."""
    stage = Stage(
        name=f"phase-{phase}",
        root=out / "datasets" / f"phase-{phase}",
        record=TrainingRow,
        settings={"rows": [row.id for row in rows]},
        inputs=(),
        packages=("pipeline",),
        min_rows=0,
    )

    def keep(batch: Batch) -> BatchResult:
        return BatchResult(num_in=len(batch.rows), rows=batch.rows)

    return run_stage(stage, split_batches(rows, 50, lambda row: row.id), keep)


def load_tiny(folder: Path, *overrides: str) -> Recipe:
    """The tiny recipe with ``section.key=value`` overrides."""
    path = folder / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return load_recipe(str(path), overrides)


@dataclass(frozen=True)
class Experiment:
    """A run folder with both datasets, and its recipe."""

    folder: Path
    out: Path
    dataset: Version

    def recipe(self, *overrides: str) -> Recipe:
        return load_tiny(self.folder, *overrides)


def make_experiment(folder: Path) -> Experiment:
    out = folder / "run"
    dataset = make_dataset(out, [make_row(n, 1 + n % 2) for n in range(14)])
    make_dataset(out, [make_row(n + 50) for n in range(6)], "2")
    load_tiny(folder)
    return Experiment(folder=folder, out=out, dataset=dataset)


CLOCKED = {"speed_log.jsonl", "report.html"}
"""The two files that tell how fast this machine was."""


def assert_equal_results(ours: Path, theirs: Path) -> None:
    """All published files, byte for byte: weights, logs, card, summary."""
    names = sorted(path.name for path in theirs.iterdir())
    assert sorted(path.name for path in ours.iterdir()) == names
    for name in set(names) - CLOCKED:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
