"""From a phase's dataset version to token ids and labels, one optimiser step after the other.

Rows keep the version's order: the curriculum has already shuffled or sorted them. Only within the
rows of one optimiser step are they sorted by length, which saves padding and leaves the step's
gradient as it is, because the loss is averaged over all tokens of the step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from pipeline import console
from pipeline.errors import SourceError, TooManyRejected
from pipeline.manifest import Version, load_version, resolve_version, verify_version
from pipeline.records import Message
from pipeline.store import atomic_path
from pipeline.student import encode_example

_Item = TypeVar("_Item")

IGNORED = -100
"""Label of a token without loss."""


@dataclass(frozen=True, slots=True)
class Example:
    """One tokenised document."""

    input_ids: list[int]
    labels: list[int]


@dataclass(slots=True)
class Counts:
    """What became of a version's rows."""

    num_rows: int = 0
    """Rows trained on in one epoch."""
    rejected: Counter[str] = field(default_factory=Counter)
    step_tokens: list[int] = field(default_factory=list)
    """Tokens of each optimiser step of one epoch."""

    @property
    def num_tokens(self) -> int:
        """Tokens of one epoch, prompts included."""
        return sum(self.step_tokens)


def open_dataset(out: Path, phase: str, dataset: Path | None) -> Version:
    """The phase's newest dataset version, or the one the user named, checked against its hashes.

    Raises:
        SourceError: Not built yet.
        ManifestMismatch: A shard is missing or differs from its manifest.
    """
    if dataset is not None:
        version = load_version(dataset)
    else:
        root = out / "datasets" / f"phase-{phase}"
        try:
            version = resolve_version(root)
        except SourceError as exc:
            raise SourceError(
                f"no dataset of phase {phase}: {exc}",
                hint=f"run `python -m curriculum.build --phase {phase}` with the same --recipe and "
                "--out first, or pass --dataset",
            ) from exc
    verify_version(version)
    return version


def write_examples(
    version: Version, path: Path, *, max_length: int, documents_per_step: int
) -> Counts:
    """Tokenise a version into one Arrow file that ``datasets`` maps into memory.

    Over-long rows are dropped and counted, never cut: a cut row would teach the model to stop
    nowhere.

    Raises:
        TooManyRejected: No row is left.
    """
    import pyarrow as pa

    schema = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])
    counts = Counts()
    total = version.manifest.rows_out
    with (
        atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_stream(sink, schema) as writer,
        console.progress("tokenise", total=total) as advance,
    ):
        examples = _encode_rows(version, max_length, counts)
        for step in _group(examples, documents_per_step):
            ordered = sorted(step, key=lambda example: len(example.input_ids))
            writer.write_batch(_to_batch(ordered, schema))
            counts.num_rows += len(step)
            counts.step_tokens.append(sum(len(example.input_ids) for example in step))
            advance(len(step))
        require_rows(version, counts, max_length)
    return counts


def plan_examples(version: Version, *, max_length: int, documents_per_step: int) -> Counts:
    """The counts of :func:`write_examples` from the version's own token counts, for a dry run."""
    counts = Counts()
    kept = []
    for row in version.rows(["num_tokens"]):
        if row["num_tokens"] > max_length:
            counts.rejected["over_max_length"] += 1
        else:
            kept.append(row["num_tokens"])
    counts.num_rows = len(kept)
    counts.step_tokens = [sum(step) for step in _group(kept, documents_per_step)]
    require_rows(version, counts, max_length)
    return counts


def require_rows(version: Version, counts: Counts, max_length: int) -> None:
    """Refuse to train on nothing.

    Raises:
        TooManyRejected: No row is left.
    """
    if counts.num_rows == 0:
        reasons = ", ".join(f"{name} ({n})" for name, n in sorted(counts.rejected.items()))
        raise TooManyRejected(
            f"no row of dataset {version.name} can be trained on with max_length {max_length}; "
            f"rejected: {reasons or 'the dataset is empty'}",
            hint="raise training.phases.N.max_length, or build the dataset with shorter rows",
        )


def _group(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Consecutive groups of ``size``; the last may be smaller."""
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group


def _encode_rows(version: Version, max_length: int, counts: Counts) -> Iterator[Example]:
    for row in version.rows(["id", "prompt", "completion"]):
        example = _encode_row(row, version)
        if isinstance(example, str):
            counts.rejected[example] += 1
        elif len(example.input_ids) > max_length:
            counts.rejected["over_max_length"] += 1
        else:
            yield example


def _encode_row(row: dict[str, Any], version: Version) -> Example | str:
    """An example, or the reason why the row cannot be one."""
    try:
        prompt = _messages(row["prompt"])
        completion = _messages(row["completion"])
    except ValidationError as exc:
        raise SourceError(
            f"{version.folder}: row {row['id']} is not in the training schema: "
            f"{exc.errors(include_url=False)[0]['msg']}",
            hint="build the dataset with curriculum.build",
        ) from exc
    try:
        encoded = encode_example(prompt, completion)
    except ValueError:
        return "not_encodable"
    masked = [IGNORED] * encoded.num_prompt_tokens
    return Example(encoded.input_ids, masked + encoded.input_ids[encoded.num_prompt_tokens :])


def _messages(turns: Sequence[dict[str, Any]] | None) -> list[Message]:
    return [Message.model_validate(turn) for turn in turns or ()]


def _to_batch(examples: Sequence[Example], schema: Any) -> Any:
    import pyarrow as pa

    columns = [[e.input_ids for e in examples], [e.labels for e in examples]]
    return pa.record_batch(
        [pa.array(column, type=kind.type) for column, kind in zip(columns, schema, strict=True)],
        schema=schema,
    )
