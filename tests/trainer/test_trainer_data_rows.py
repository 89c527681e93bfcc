"""Rows of a run: ids and labels as the format says, and the same row wherever it is read from."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_experiment import make_dataset, make_row

from pipeline.manifest import Version
from pipeline.store import read_rows
from pipeline.student import EOS_ID, decode, encode_example, render_completion
from trainer.data import IGNORED, Collator, DataSettings, PhaseData, plan_data, prepare_rows

ROWS = [make_row(n, 1 + n % 5) for n in range(23)]
ENCODED = [encode_example(row.prompt, row.completion) for row in ROWS]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return make_dataset(tmp_path_factory.mktemp("dataset"), ROWS)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens")


def settings_with(**values: Any) -> DataSettings:
    given = {"packing": "exact", "documents_per_step": 5, "max_length": 400, **values}
    return DataSettings(**{"max_row_tokens": 600, "pad_multiple": 64, **given})


def prepare(version: Version, cache: Path, **values: Any) -> PhaseData:
    return prepare_rows(version, settings_with(**values), cache=cache, num_workers=1)


def split_row(row: dict[str, np.ndarray]) -> list[tuple[list[int], list[int]]]:
    """Ids and labels of each document of a row."""
    cuts = np.flatnonzero(np.diff(row["seq_idx"])) + 1
    if not len(row["input_ids"]):
        return []
    pieces = (np.split(row[name], cuts) for name in ("input_ids", "labels"))
    return [(ids.tolist(), labels.tolist()) for ids, labels in zip(*pieces, strict=True)]


@pytest.mark.parametrize("packing", ["off", "exact", "best_fit"])
@pytest.mark.parametrize("order", ["as_given", "shuffled"])
def test_an_epoch_has_every_documents_ids_and_only_completions_carry_loss(
    version: Version, cache: Path, packing: str, order: str
) -> None:
    data = prepare(version, cache, packing=packing, order=order)
    found = [document for row in data.dataset for document in split_row(row)]
    wanted = [
        (e.input_ids, [IGNORED] * e.num_prompt_tokens + e.input_ids[e.num_prompt_tokens :])
        for e in ENCODED
    ]
    assert sorted(found) == sorted(wanted)


def test_labels_are_the_answer_and_its_end(version: Version, cache: Path) -> None:
    row = prepare(version, cache, packing="off", documents_per_step=1).dataset[7]
    labels = row["labels"][row["labels"] != IGNORED].tolist()
    assert labels[-1] == EOS_ID
    assert decode(labels) == render_completion(ROWS[7].completion)


@pytest.mark.parametrize("num_processes", [1, 2, 3])
@pytest.mark.parametrize("micro_batch", [1, 2])
def test_processes_share_out_the_rows_of_each_step(
    version: Version, cache: Path, num_processes: int, micro_batch: int
) -> None:
    data = prepare(version, cache, num_processes=num_processes, micro_batch=micro_batch)
    for step in range(data.num_steps):
        taken = [
            number
            for rank in range(num_processes)
            for rows in data.dataset.row_numbers(
                step, rank=rank, num_processes=num_processes, micro_batch=micro_batch
            )
            for number in rows
        ]
        first = step * data.rows_per_step
        assert sorted(taken) == list(range(first, first + data.rows_per_step))
        documents = [d for number in taken for d in split_row(data.dataset[number])]
        if step < data.num_steps - 1:
            assert sorted(ids for ids, _ in documents) == sorted(
                e.input_ids for e in ENCODED[step * 5 : step * 5 + 5]
            )


def test_a_row_is_the_same_read_at_random_in_another_process_or_in_turn(
    version: Version, cache: Path
) -> None:
    values = {"order": "shuffled", "epochs": 2.5}
    in_turn = list(prepare(version, cache, **values).dataset)
    again = pickle.loads(pickle.dumps(prepare(version, cache, **values).dataset))
    for number in reversed(range(len(in_turn))):
        for name, value in in_turn[number].items():
            assert again[number][name].tolist() == value.tolist()
    with pytest.raises(IndexError):
        again[len(in_turn)]


def test_padding_is_a_document_of_its_own_without_loss(version: Version, cache: Path) -> None:
    rows = [{name: np.arange(3, dtype=np.int32) for name in ("input_ids", "labels")}]
    rows[0]["seq_idx"] = np.array([0, 0, 1], np.int32)
    rows.append({name: np.empty(0, np.int32) for name in ("input_ids", "labels", "seq_idx")})
    batch = Collator(pad_multiple=4)(rows)
    assert batch["input_ids"].tolist() == [[0, 1, 2, 0], [0] * 4]
    assert batch["labels"].tolist() == [[0, 1, 2, IGNORED], [IGNORED] * 4]
    assert batch["seq_idx"].tolist() == [[0, 0, 1, 2], [0] * 4]
    kinds = [batch[name].dtype for name in ("input_ids", "labels", "seq_idx")]
    assert kinds == [torch.int64, torch.int64, torch.int32]


def test_documents_are_traced_to_their_rows(tmp_path: Path) -> None:
    rows = [make_row(n, 1 + n % 2) for n in range(120)]
    version = make_dataset(tmp_path, rows)
    values = {"order": "shuffled", "max_length": max(row.num_tokens for row in rows) - 1}
    dataset = prepare(version, tmp_path / "c", **values).dataset
    numbers = dataset.kept[dataset.schedule.step(3)]
    ids = [list(version.rows(["id"]))[number]["id"] for number in numbers]
    shards = [[row["id"] for row in read_rows(path, ["id"])] for path in version.shard_paths()]
    assert [shards[shard][row] for shard, row in dataset.files.places(numbers.tolist())] == ids


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65])
def test_lengths_are_whole_multiples(size: int) -> None:
    row = {name: np.zeros(size, np.int32) for name in ("input_ids", "labels", "seq_idx")}
    length = Collator(64)([row])["input_ids"].shape[1]
    assert length == (128 if size == 65 else 64)


@pytest.mark.slow
def test_a_data_loader_with_workers_gives_the_same_batches(version: Version, cache: Path) -> None:
    data = prepare(version, cache)
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        data.dataset,  # type: ignore[arg-type]
        batch_size=2,
        collate_fn=data.collate,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    for number, batch in enumerate(loader):
        own = data.collate([data.dataset[place] for place in range(2 * number, 2 * number + 2)])
        assert all(torch.equal(batch[name], own[name]) for name in own)
    assert number + 1 == len(data.dataset) // 2


def test_trl_gets_the_same_rows_as_a_dataset(version: Version, cache: Path) -> None:
    data = prepare(version, cache)
    dataset = data.dataset.as_dataset()
    assert len(dataset) == len(data.dataset)
    for number in (0, len(dataset) - 1):
        for name, value in data.dataset[number].items():
            assert list(dataset[number][name]) == value.tolist()
    assert set(next(iter(dataset))) == {"input_ids", "labels", "seq_idx"}


@pytest.mark.parametrize("packing", ["off", "exact", "best_fit"])
def test_the_dry_runs_figures_are_the_real_ones(
    version: Version, cache: Path, packing: str
) -> None:
    limit = sorted(row.num_tokens for row in ROWS)[-4]
    values = {"packing": packing, "max_length": limit, "micro_batch": 2, "epochs": 1.5}
    real = prepare(version, cache, **values).counts
    assert plan_data(version, settings_with(**values)) == real
    assert real.rejected["over_max_length"] == sum(row.num_tokens > limit for row in ROWS) > 0
    assert real.num_tokens == sum(r.num_tokens for r in ROWS if r.num_tokens <= limit)


def test_the_report_says_what_steps_are_made_of(version: Version, cache: Path) -> None:
    report = prepare(version, cache).counts.describe()
    assert report["documents_per_step"] == {"min": 3, "mean": 4.6, "max": 5}
    assert report["num_steps"] == 5
    assert report["documents_per_epoch"] == 23
    assert report["tokens_per_epoch"] == sum(len(e.input_ids) for e in ENCODED)
    assert report["labelled_tokens_per_epoch"] == sum(e.num_completion_tokens for e in ENCODED)
    assert report["real_token_share"] + report["padding_share"] == pytest.approx(1)
    assert len(report["row_fill"]["edges"]) == len(report["row_fill"]["counts"]) + 1
