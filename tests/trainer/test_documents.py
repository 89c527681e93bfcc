"""Documents of a row never meet, wherever they begin and however they are told."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import (
    gradients,
    largest_error,
    make_documents,
    make_model,
    pack,
    separate_gradients,
)
from torch import Tensor

from trainer.model import scan as scan_module
from trainer.model.documents import label_documents
from trainer.model.operations import causal_conv1d
from trainer.model.scan import Carry, ScanInputs, scan

IDS = torch.zeros(1, 6, dtype=torch.long)


def row(*values: int) -> Tensor:
    return torch.tensor([values])


@pytest.mark.parametrize(
    ("told", "numbers"),
    [
        ({"seq_idx": row(5, 5, 2, 2, 2, 9)}, [0, 0, 1, 1, 1, 2]),
        ({"seq_idx": row(0, 0, 1, 1, 0, 0)}, [0, 0, 1, 1, 2, 2]),
        ({"position_ids": row(0, 1, 0, 1, 2, 0)}, [0, 0, 1, 1, 1, 2]),
        ({"position_ids": row(7, 8, 9, 0, 1, 2)}, [0, 0, 0, 1, 1, 1]),
        ({"attention_mask": row(0, 0, 1, 1, 1, 0)}, [0, 0, 1, 1, 1, 2]),
        (
            {"attention_mask": row(0, 1, 1, 1, 1, 0), "seq_idx": row(8, 0, 0, 1, 1, 8)},
            [0, 1, 1, 2, 2, 3],
        ),
        (
            {"attention_mask": row(0, 0, 1, 1, 1, 1), "position_ids": row(0, 0, 0, 1, 2, 3)},
            [0, 0, 1, 1, 1, 1],
        ),
    ],
)
def test_all_descriptions_become_running_numbers(
    told: dict[str, Tensor], numbers: list[int]
) -> None:
    found = label_documents(IDS, **told)
    assert found is not None
    assert found.tolist() == [numbers]
    assert found.dtype == torch.int32


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"seq_idx": row(3, 3, 3, 3, 3, 3)},
        {"attention_mask": row(1, 1, 1, 1, 1, 1)},
        {"position_ids": row(0, 1, 2, 3, 4, 5)},
    ],
)
def test_one_document_a_row_needs_no_numbers(told: dict[str, Tensor]) -> None:
    assert label_documents(IDS, **told) is None


def test_descriptions_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match="seq_idx and position_ids put boundaries"):
        label_documents(IDS, seq_idx=row(0, 0, 1, 1, 1, 1), position_ids=row(0, 1, 2, 0, 1, 2))


def test_they_may_disagree_about_padding() -> None:
    found = label_documents(
        IDS,
        attention_mask=row(1, 1, 1, 1, 0, 0),
        seq_idx=row(0, 0, 1, 1, 1, 1),
        position_ids=row(0, 1, 0, 1, 0, 0),
    )
    assert found is not None
    assert found.tolist() == [[0, 0, 1, 1, 2, 2]]


def test_a_description_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"seq_idx has shape \(1, 2\)"):
        label_documents(IDS, seq_idx=row(0, 1))


def draw_inputs(length: int, batch: int = 1, groups: int = 2, seed: int = 0) -> ScanInputs:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return ScanInputs(
        x=normal(batch, length, 4, 3),
        dt=normal(batch, length, 4),
        A=-normal(4).exp(),
        B=normal(batch, length, groups, 5),
        C=normal(batch, length, groups, 5),
        D=normal(4),
        dt_bias=normal(4),
    )


def scan_step_by_step(inputs: ScanInputs, numbers: Tensor | None) -> Tensor:
    """The recurrence as it is written, one token after the other."""
    batch, length, heads, width = inputs.x.shape
    repeat = heads // inputs.B.shape[2]
    state = inputs.x.new_zeros(batch, heads, width, inputs.B.shape[3])
    outputs = []
    for t in range(length):
        if numbers is not None and t > 0:
            same = numbers[:, t] == numbers[:, t - 1]
            state = state * same[:, None, None, None]
        step = torch.nn.functional.softplus(inputs.dt[:, t] + inputs.dt_bias)
        key = inputs.B[:, t].repeat_interleave(repeat, dim=1)
        query = inputs.C[:, t].repeat_interleave(repeat, dim=1)
        added = (step[..., None] * inputs.x[:, t])[..., None] * key[:, :, None]
        state = (step * inputs.A).exp()[..., None, None] * state + added
        outputs.append((state @ query[..., None])[..., 0] + inputs.D[:, None] * inputs.x[:, t])
    return torch.stack(outputs, dim=1)


@st.composite
def rows_of_documents(draw: st.DrawFn) -> list[int]:
    return draw(st.lists(st.integers(1, 12), min_size=1, max_size=6))


@settings(max_examples=60, deadline=None)
@given(
    lengths=rows_of_documents(),
    chunk=st.sampled_from([1, 2, 3, 4, 7, 8, 64]),
    max_scores=st.sampled_from([1, 1 << 24]),
)
def test_the_scan_is_the_recurrence_wherever_documents_begin(
    lengths: list[int], chunk: int, max_scores: int
) -> None:
    inputs = draw_inputs(sum(lengths))
    numbers = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    wanted = scan_step_by_step(inputs, numbers)
    with pytest.MonkeyPatch.context() as patch:
        # 1: each chunk is a part of its own that backward computes again.
        patch.setattr(scan_module, "_MAX_SCORES", max_scores)
        found, _ = scan(inputs, chunk_size=chunk, seq_idx=numbers)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)


@pytest.mark.parametrize("max_scores", [1, 1 << 24])
def test_gradients_of_the_scan_are_those_of_the_recurrence(
    max_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_module, "_MAX_SCORES", max_scores)
    numbers = torch.tensor([[0] * 5 + [1] * 11 + [2] * 7, [0] * 8 + [1] * 8 + [2] * 7])
    inputs = ScanInputs(*(value.requires_grad_() for value in draw_inputs(23, batch=2)))
    weights = torch.randn(2, 23, 4, 3, dtype=torch.float64)
    found = torch.autograd.grad(
        (scan(inputs, chunk_size=8, seq_idx=numbers)[0] * weights).sum(), inputs
    )
    wanted = torch.autograd.grad((scan_step_by_step(inputs, numbers) * weights).sum(), inputs)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(2, 30), cut=st.integers(1, 29), chunk=st.sampled_from([1, 4, 8]))
def test_a_scan_in_two_parts_is_one_scan(length: int, cut: int, chunk: int) -> None:
    cut = min(cut, length - 1)
    inputs = draw_inputs(length, batch=2)
    parts = [
        inputs._replace(
            x=inputs.x[:, at], dt=inputs.dt[:, at], B=inputs.B[:, at], C=inputs.C[:, at]
        )
        for at in (slice(0, cut), slice(cut, length))
    ]
    whole, last = scan(inputs, chunk_size=chunk)
    first, state = scan(parts[0], chunk_size=chunk)
    second, end = scan(parts[1], chunk_size=chunk, carry=Carry(state, None))
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(end, last, rtol=0, atol=1e-12)


def test_float32_keeps_its_precision_far_into_a_long_chunk() -> None:
    # Sums of log-decays reach thousands; in float32 neighbours' difference would lose 4 digits.
    inputs = draw_inputs(256)._replace(A=torch.full((4,), -30.0, dtype=torch.float64))
    single = ScanInputs(*(value.float() for value in inputs))
    found, _ = scan(single, chunk_size=256)
    wanted = scan_step_by_step(inputs, None)
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-6


@pytest.mark.parametrize("width", [2, 3, 4])
def test_the_convolution_and_its_gradients_see_one_document(width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 14, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(6, width, generator=generator, dtype=torch.float64)
    bias = torch.randn(6, generator=generator, dtype=torch.float64)
    tensors = [value.requires_grad_() for value in (x, weight, bias)]
    numbers = torch.tensor([[0] * 5 + [1] + [2] * 2 + [3] * 6])
    together = causal_conv1d(*tensors, numbers)
    pieces = [causal_conv1d(part, weight, bias) for part in x.split([5, 1, 2, 6], dim=1)]
    alone = torch.cat(pieces, dim=1)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-14)
    slopes = torch.randn(together.shape, generator=generator, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad((together * slopes).sum(), tensors),
        torch.autograd.grad((alone * slopes).sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(lambda *t: causal_conv1d(*t, numbers), tensors)


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=2, max_size=5))
def test_packed_gradients_are_those_one_by_one(lengths: list[int]) -> None:
    if sum(lengths) == len(lengths):
        lengths = [*lengths, 2]
    model, documents = make_model(), make_documents(lengths)
    batch = pack(documents)
    total = sum(lengths) - len(lengths)
    packed = gradients(model, [{**batch, "num_items_in_batch": total}])
    separate = separate_gradients(model, documents)
    scale = max(float(g.norm()) for g in separate.values())
    for name, wanted in separate.items():
        assert float((packed[name] - wanted).norm()) <= 1e-10 * scale, name


def test_positions_and_masks_tell_the_same_as_numbers() -> None:
    model, documents = make_model(), make_documents([9, 3, 12, 8])
    batch = pack(documents)
    numbers = batch.pop("seq_idx")
    positions = torch.cat([torch.arange(len(d)) for d in documents])[None]
    wanted = gradients(model, [{**batch, "seq_idx": numbers}])
    for told in ({"position_ids": positions}, {"position_ids": positions, "seq_idx": numbers}):
        assert largest_error(gradients(model, [{**batch, **told}]), wanted) == 0
