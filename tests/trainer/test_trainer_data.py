"""Rows become ids and labels; what does not fit is left out whole and counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset
from tiny_experiment import make_dataset, make_row

from pipeline.errors import ManifestMismatch, SourceError, TooManyRejected
from pipeline.student import EOS_ID, decode, render_completion
from trainer.callbacks import tokens_after
from trainer.data import IGNORED, open_dataset, plan_examples, write_examples

ROWS = [make_row(n, 1 + n % 4) for n in range(10)]


def test_only_the_completion_carries_loss(tmp_path: Path) -> None:
    row = make_row(7, 2)
    version = make_dataset(tmp_path, [row])
    write_examples(version, tmp_path / "a.arrow", max_length=500, documents_per_step=4)
    example = Dataset.from_file(str(tmp_path / "a.arrow"))[0]
    labels, ids = example["labels"], example["input_ids"]
    assert labels[: row.num_prompt_tokens] == [IGNORED] * row.num_prompt_tokens
    assert labels[row.num_prompt_tokens :] == ids[row.num_prompt_tokens :]
    assert labels[-1] == EOS_ID
    assert decode(labels[row.num_prompt_tokens :]) == render_completion(row.completion)


def test_over_long_rows_are_dropped_whole_and_counted(tmp_path: Path) -> None:
    version = make_dataset(tmp_path, ROWS)
    lengths = sorted(row.num_tokens for row in ROWS)
    limit = lengths[6]
    counts = write_examples(version, tmp_path / "a.arrow", max_length=limit, documents_per_step=3)
    kept = sum(length <= limit for length in lengths)
    assert (counts.num_rows, counts.rejected) == (kept, {"over_max_length": len(ROWS) - kept})
    written = [len(ids) for ids in Dataset.from_file(str(tmp_path / "a.arrow"))["input_ids"]]
    assert sorted(written) == [length for length in lengths if length <= limit]


def test_a_step_holds_the_versions_next_rows_shortest_first(tmp_path: Path) -> None:
    version = make_dataset(tmp_path, ROWS)
    counts = write_examples(version, tmp_path / "a.arrow", max_length=500, documents_per_step=4)
    written = [len(ids) for ids in Dataset.from_file(str(tmp_path / "a.arrow"))["input_ids"]]
    stored = [row.num_tokens for row in ROWS]
    for start in range(0, len(ROWS), 4):
        assert written[start : start + 4] == sorted(stored[start : start + 4])
    assert counts.step_tokens == [sum(stored[:4]), sum(stored[4:8]), sum(stored[8:])]


def test_the_dry_runs_counts_are_the_real_ones(tmp_path: Path) -> None:
    version = make_dataset(tmp_path, ROWS)
    limit = sorted(row.num_tokens for row in ROWS)[6]
    real = write_examples(version, tmp_path / "a.arrow", max_length=limit, documents_per_step=4)
    assert plan_examples(version, max_length=limit, documents_per_step=4) == real


@pytest.mark.parametrize("rows", [[], ROWS])
def test_nothing_to_train_on_is_refused(tmp_path: Path, rows: list[object]) -> None:
    version = make_dataset(tmp_path, rows)  # type: ignore[arg-type]
    with pytest.raises(TooManyRejected, match="no row of dataset") as caught:
        write_examples(version, tmp_path / "a.arrow", max_length=32, documents_per_step=4)
    assert caught.value.exit_code == 3
    assert not list(tmp_path.glob("*.arrow"))


def test_a_damaged_shard_is_refused(tmp_path: Path) -> None:
    version = make_dataset(tmp_path, ROWS)
    shard = version.shard_paths()[0]
    shard.write_bytes(shard.read_bytes()[:-9] + b"corrupted")
    with pytest.raises(ManifestMismatch, match="differs from its manifest"):
        open_dataset(tmp_path, "1", None)


def test_a_missing_dataset_names_the_command_that_builds_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        open_dataset(tmp_path, "2", None)
    assert "curriculum.build --phase 2" in caught.value.hint


def test_a_named_dataset_is_used_instead_of_the_newest(tmp_path: Path) -> None:
    older = make_dataset(tmp_path, ROWS[:3])
    make_dataset(tmp_path, ROWS)
    assert open_dataset(tmp_path, "1", older.folder).name == older.name


def test_tokens_seen_count_whole_epochs_and_the_rest() -> None:
    assert [tokens_after(step, [10, 7, 3]) for step in (0, 1, 3, 5)] == [0, 10, 20, 37]
