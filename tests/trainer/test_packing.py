"""Every document once, none cut, the right number of documents a step, whoever reads which row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.packing import balance, count_rows_needed, fill_rows
from trainer.data.report import count_run
from trainer.data.schedule import Schedule, make_schedule
from trainer.data.settings import DataSettings

CAP = 100
LENGTHS = st.lists(st.integers(1, CAP), min_size=1, max_size=80)
PACKINGS = ["off", "exact", "best_fit"]


@st.composite
def cases(draw: st.DrawFn, /, **fixed: Any) -> tuple[np.ndarray, DataSettings]:
    """Lengths, and settings that they can be laid out with."""
    chosen = {
        "packing": draw(st.sampled_from(PACKINGS)),
        "documents_per_step": draw(st.integers(1, 12)),
        "max_length": CAP,
        "max_row_tokens": draw(st.integers(CAP, 3 * CAP)),
        "order": draw(st.sampled_from(["as_given", "shuffled"])),
        "seed": draw(st.integers(0, 5)),
        "epochs": draw(st.sampled_from([0.3, 1, 1.5, 2, 3])),
        "max_steps": draw(st.sampled_from([-1, -1, 1, 7])),
        "micro_batch": draw(st.integers(1, 3)),
        "num_processes": draw(st.integers(1, 4)),
        "window": draw(st.sampled_from([1, 5, 32])),
        "pad_multiple": 16,
    }
    return np.array(draw(LENGTHS), np.int64), DataSettings(**{**chosen, **fixed})


def lay_out(lengths: np.ndarray, data: DataSettings) -> Schedule:
    return make_schedule(lengths, np.arange(len(lengths)), data)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_every_document_is_in_an_epoch_once(case: tuple[np.ndarray, DataSettings]) -> None:
    lengths, data = case
    for epoch in lay_out(lengths, data).epochs:
        assert sorted(epoch.documents.tolist()) == list(range(len(lengths)))
        assert epoch.starts[0] == 0
        assert epoch.starts[-1] == len(lengths)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_no_row_is_longer_than_allowed(case: tuple[np.ndarray, DataSettings]) -> None:
    lengths, data = case
    for epoch in lay_out(lengths, data).epochs:
        rows = np.split(epoch.documents, epoch.starts[1:-1])
        assert [int(lengths[row].sum()) for row in rows] == epoch.loads.tolist()
        assert epoch.loads.max() <= data.max_row_tokens
        if data.packing == "off":
            assert max(map(len, rows)) == 1


@settings(max_examples=100, deadline=None)
@given(cases(packing="exact", max_steps=-1, epochs=3))
def test_exact_steps_hold_the_next_documents(case: tuple[np.ndarray, DataSettings]) -> None:
    lengths, data = case
    schedule = lay_out(lengths, data)
    wanted = data.documents_per_step
    per_epoch = -(-len(lengths) // wanted)
    sizes = [len(schedule.step(step)) for step in range(schedule.num_steps)]
    last = len(lengths) - wanted * (per_epoch - 1)
    assert sizes == ([wanted] * (per_epoch - 1) + [last]) * 3
    if data.order == "as_given":
        for step in range(schedule.num_steps):
            first = step % per_epoch * wanted
            assert sorted(schedule.step(step)) == list(range(first, first + sizes[step]))


@settings(max_examples=100, deadline=None)
@given(cases(num_processes=1), st.integers(2, 5))
def test_steps_have_the_same_documents_for_any_number_of_processes(
    case: tuple[np.ndarray, DataSettings], num_processes: int
) -> None:
    lengths, alone = case
    together = DataSettings(**{**_fields(alone), "num_processes": num_processes})
    one, many = lay_out(lengths, alone), lay_out(lengths, together)
    assert one.num_steps == many.num_steps
    for step in range(one.num_steps):
        assert sorted(one.step(step)) == sorted(many.step(step))


@settings(max_examples=100, deadline=None)
@given(cases())
def test_rows_divide_evenly_among_processes(case: tuple[np.ndarray, DataSettings]) -> None:
    lengths, data = case
    schedule = lay_out(lengths, data)
    assert schedule.rows_per_step % data.row_unit == 0
    assert len(schedule) == schedule.num_steps * schedule.rows_per_step


@settings(max_examples=100, deadline=None)
@given(cases(max_steps=-1))
def test_a_longer_run_begins_with_the_shorter_one(case: tuple[np.ndarray, DataSettings]) -> None:
    lengths, data = case
    if data.packing == "exact":
        return  # Its rows per step are chosen for all of its epochs; its steps are tested above.
    short = lay_out(lengths, DataSettings(**{**_fields(data), "epochs": 1}))
    long = lay_out(lengths, DataSettings(**{**_fields(data), "epochs": 2}))
    for number in range(len(short)):
        assert short.row(number).tolist() == long.row(number).tolist()


@settings(max_examples=100, deadline=None)
@given(cases())
def test_figures_are_those_of_the_rows(case: tuple[np.ndarray, DataSettings]) -> None:
    lengths, data = case
    schedule = lay_out(lengths, data)
    counts = count_run(lengths, lengths // 2, schedule, data)
    steps = [schedule.step(step) for step in range(schedule.num_steps)]
    assert counts.step_documents == [len(step) for step in steps]
    assert counts.step_tokens == [int(lengths[step].sum()) for step in steps]
    loads = [int(lengths[schedule.row(number)].sum()) for number in range(len(schedule))]
    passes = np.reshape(loads, (-1, data.micro_batch)).max(axis=1)
    padded = np.maximum(1, -(-passes // 16)) * 16
    assert counts.padded_tokens == int(padded.sum()) * data.micro_batch
    assert counts.longest_row == padded.max()
    assert counts.num_empty_rows == loads.count(0)
    assert sum(counts.row_fill.counts) == len(loads) - loads.count(0)
    assert counts.padding_share == pytest.approx(1 - sum(loads) / counts.padded_tokens)


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(1, 12))
def test_more_rows_never_make_the_fullest_fuller(lengths: list[int], num_rows: int) -> None:
    rows, fullest = balance(lengths, num_rows)
    loads = np.bincount(rows, weights=lengths, minlength=num_rows)
    assert fullest == loads.max()
    assert balance(lengths, num_rows + 1)[1] <= fullest
    best = max(max(lengths), -(-sum(lengths) // num_rows))
    # Against the lower bound of the best one, list scheduling is at most twice as full.
    assert fullest <= 2 * best


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(1, 12), st.integers(CAP, 2 * CAP))
def test_rows_needed_are_the_fewest(lengths: list[int], wanted: int, max_tokens: int) -> None:
    sizes = np.array(lengths)
    needed = count_rows_needed(sizes, wanted, max_tokens=max_tokens)
    steps = [lengths[start : start + wanted] for start in range(0, len(lengths), wanted)]
    assert all(balance(step, needed)[1] <= max_tokens for step in steps)
    assert needed == 1 or any(balance(step, needed - 1)[1] > max_tokens for step in steps)


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(CAP, 3 * CAP))
def test_no_two_rows_of_a_window_would_fit_into_one(lengths: list[int], max_tokens: int) -> None:
    rows, num_rows = fill_rows(np.array(lengths), len(lengths), max_tokens)
    loads = np.sort(np.bincount(rows, weights=lengths, minlength=num_rows))
    assert loads.min() > 0
    assert loads[-1] <= max_tokens
    assert len(loads) == 1 or loads[0] + loads[1] > max_tokens


def test_best_fit_takes_the_tightest_row() -> None:
    rows, num_rows = fill_rows(np.array([60, 50, 45, 40, 30]), 5, 100)
    assert num_rows == 3
    # 40 goes to 60 (no room left), not to the row of 50 and 45.
    assert rows.tolist() == [0, 1, 1, 0, 2]


def test_best_fit_rows_follow_their_longest_documents_through_the_window() -> None:
    rows, _ = fill_rows(np.array([10, 90, 20, 95, 80]), 5, 100)
    # Longest documents of the rows: 90 (first), 95, 80.
    assert rows.tolist() == [0, 0, 2, 1, 2]


def test_best_fit_of_long_rows_wastes_little() -> None:
    drawn = np.random.default_rng(0).lognormal(np.log(4700), 0.75, 4000)
    lengths = np.minimum(drawn, 16_384).astype(np.int64)
    _, num_rows = fill_rows(lengths, 1024, 16_384)
    assert lengths.sum() / (num_rows * 16_384) > 0.985


def test_best_fit_means_the_wanted_documents() -> None:
    lengths = np.random.default_rng(0).integers(10, 100, 5000)
    data = _settings(packing="best_fit", documents_per_step=64, max_row_tokens=200)
    counts = count_run(lengths, lengths, lay_out(lengths, data), data)
    described = counts.describe()["documents_per_step"]
    assert described["mean"] == pytest.approx(64, rel=0.03)
    assert described["min"] < 64 < described["max"]


def test_balanced_rows_of_a_step_are_nearly_equal() -> None:
    drawn = np.random.default_rng(1).lognormal(np.log(4700), 0.75, 640)
    lengths = np.minimum(drawn, 16_384).astype(np.int64)
    data = _settings(packing="exact", documents_per_step=64, max_row_tokens=20_480)
    schedule = lay_out(lengths, data)
    loads = schedule.epochs[0].loads.reshape(-1, schedule.rows_per_step)
    for step, rows in enumerate(loads):
        assert rows.max() <= max(lengths[schedule.step(step)].max(), 1.08 * rows.mean())


def test_a_shuffled_order_changes_by_epoch_and_seed_and_not_by_what_is_left_out() -> None:
    lengths = np.full(50, 10)
    data = _settings(packing="off", documents_per_step=50, order="shuffled", epochs=2)
    schedule = lay_out(lengths, data)
    first, second = schedule.step(0).tolist(), schedule.step(1).tolist()
    assert first != second != sorted(second)
    other = lay_out(lengths, DataSettings(**{**_fields(data), "seed": 9}))
    assert other.step(0).tolist() != first
    # Documents 0, 10, … left out: the others keep their order.
    names = np.flatnonzero(np.arange(50) % 10)
    fewer = make_schedule(lengths[: len(names)], names, data)
    assert names[fewer.step(0)].tolist() == [name for name in first if name % 10]


@pytest.mark.parametrize(
    ("epochs", "steps"), [(1, 4), (0.25, 1), (0.3, 2), (1.5, 6), (2, 8), (2.1, 9)]
)
def test_fractional_epochs_are_rounded_up_to_whole_steps(epochs: float, steps: int) -> None:
    data = _settings(packing="exact", documents_per_step=4, epochs=epochs)
    assert lay_out(np.full(13, 10), data).num_steps == steps


def test_steps_given_outright_cut_and_repeat_epochs() -> None:
    for steps in (1, 4, 11):
        data = _settings(packing="best_fit", documents_per_step=4, max_steps=steps, epochs=9)
        assert lay_out(np.full(13, 60), data).num_steps == steps


def test_empty_rows_end_the_last_step() -> None:
    data = _settings(packing="exact", documents_per_step=4, max_row_tokens=100)
    schedule = lay_out(np.full(5, 90), data)
    assert schedule.rows_per_step == 4
    assert [len(schedule.row(number)) for number in range(8)] == [1, 1, 1, 1, 1, 0, 0, 0]
    with pytest.raises(IndexError):
        schedule.row(8)


def _settings(**values: Any) -> DataSettings:
    return DataSettings(**{"max_length": CAP, "max_row_tokens": CAP, **values})


def _fields(data: DataSettings) -> dict[str, Any]:
    return {name: getattr(data, name) for name in DataSettings.__dataclass_fields__}
