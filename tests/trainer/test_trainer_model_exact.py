"""Packing and padding change no gradient; the loss is the one by hand; what is unknown is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_models import (
    VOCABULARY,
    gradients,
    largest_error,
    make_documents,
    make_model,
    pack,
    pad_rows,
    separate_gradients,
)
from torch.nn.functional import cross_entropy

from pipeline.errors import ConfigError
from trainer.model import loss as loss_module
from trainer.model import scan as scan_module
from trainer.model.student import StudentModel

LENGTHS = [37, 2, 5, 24, 1, 8, 19]


@pytest.mark.parametrize("num_groups", [1, 2, 8])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["f64", "f32"]
)
def test_packed_is_separate(num_groups: int, dtype: torch.dtype, tolerance: float) -> None:
    model, documents = make_model(dtype, n_groups=num_groups), make_documents(LENGTHS)
    packed = gradients(model, [pack(documents)])
    assert largest_error(packed, separate_gradients(model, documents)) <= tolerance


def test_without_labels_of_documents_it_is_not() -> None:
    model, documents = make_model(), make_documents(LENGTHS)
    batch = pack(documents)
    del batch["seq_idx"]
    assert largest_error(gradients(model, [batch]), separate_gradients(model, documents)) > 0.1


@pytest.mark.parametrize("activation", ["all", "every_second"])
def test_recomputing_blocks_changes_no_gradient(activation: str) -> None:
    documents = make_documents(LENGTHS)
    kept = gradients(make_model(num_hidden_layers=3), [pack(documents)])
    model = make_model(num_hidden_layers=3, activation=activation)
    calls = [count_calls(layer.mixer.in_proj) for layer in model.backbone.layers]
    assert largest_error(gradients(model, [pack(documents)]), kept) == 0
    wanted = {"all": [2, 2, 2], "every_second": [2, 1, 2]}[activation]
    assert [len(found) for found in calls] == wanted


def count_calls(module: Any) -> list[Any]:
    calls: list[Any] = []
    module.register_forward_hook(lambda *arguments: calls.append(1))
    return calls


@pytest.mark.parametrize("activation", ["none", "all"])
def test_a_scan_in_parts_changes_no_gradient(
    activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = make_documents(LENGTHS)
    wanted = gradients(make_model(), [pack(documents)])
    # Each chunk is computed again in backward, within a block that may be, too.
    monkeypatch.setattr(scan_module, "_MAX_SCORES", 1)
    found = gradients(make_model(activation=activation), [pack(documents)])
    assert largest_error(found, wanted) < 1e-12


def test_the_chunk_size_changes_nothing() -> None:
    documents = make_documents(LENGTHS)
    wanted = gradients(make_model(chunk_size=8), [pack(documents)])
    for size in (3, 16, 96, 256):
        found = gradients(make_model(chunk_size=size), [pack(documents)])
        assert largest_error(found, wanted) < 1e-12


@pytest.mark.parametrize(("left", "right"), [([0, 4, 9], [9, 5, 0]), ([9] * 3, [0] * 3)])
def test_padding_on_either_side_is_none(left: list[int], right: list[int]) -> None:
    lengths = [20 - before - after for before, after in zip(left, right, strict=True)]
    model, documents = make_model(), make_documents(lengths)
    padded = pad_rows(documents, left, right)
    wanted = separate_gradients(model, documents)
    assert largest_error(gradients(model, [padded]), wanted) <= 1e-12
    with torch.no_grad():
        logits = model(padded["input_ids"], padded["attention_mask"]).logits
        separate = [model(document[None]).logits[0] for document in documents]
    for number, alone in enumerate(separate):
        found = logits[number, left[number] : left[number] + len(alone)]
        assert float((found - alone).abs().max() / alone.abs().max()) <= 1e-12


def test_the_loss_is_the_one_by_hand_and_counts_correct_tokens() -> None:
    model, documents = make_model(), make_documents([11, 6])
    batch = pack(documents)
    batch["labels"] = batch["labels"].clone()
    batch["labels"][0, 3:6] = -100
    logits = model(batch["input_ids"], seq_idx=batch["seq_idx"]).logits[0]
    # Of token 11, the second document's first, nothing is predicted.
    scored = [0, 1, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15]
    targets = batch["input_ids"][0, [place + 1 for place in scored]]
    wanted = cross_entropy(logits[scored], targets)
    found = model(**batch)
    torch.testing.assert_close(found.loss, wanted, rtol=1e-12, atol=1e-12)
    assert int(found.num_correct) == int((logits[scored].argmax(-1) == targets).sum())
    assert found.logits is None, "logits of a training pass are never all held"
    assert model(**batch, return_logits=True).logits.shape == (1, 17, VOCABULARY)
    step = model(**batch, num_items_in_batch=torch.tensor(24)).loss
    torch.testing.assert_close(step, wanted / 2, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_a_model_that_knows_the_next_token_counts_all_as_correct() -> None:
    model = make_model(torch.float32)
    ids = torch.full((1, 9), 5)
    model.lm_head.weight.zero_()
    uniform = model(input_ids=ids, labels=ids)
    assert float(uniform.loss) == pytest.approx(math.log(VOCABULARY))
    hidden = model.backbone(ids).last_hidden_state[0]
    # The output row of token 5 answers its own hidden states, which are nearly one vector.
    model.lm_head.weight[5] = hidden.mean(0) * 10
    assert int(model(input_ids=ids, labels=ids).num_correct) == 8
    assert int(model(input_ids=ids, labels=ids + 1).num_correct) == 0


@pytest.mark.parametrize("entries", [1, VOCABULARY * 5, 1 << 22])
def test_tiles_of_any_size_give_the_same_gradients(
    entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, documents = make_model(), make_documents(LENGTHS)
    wanted = gradients(model, [pack(documents)])
    monkeypatch.setitem(loss_module._TILE_ENTRIES, "cpu", entries)
    assert largest_error(gradients(model, [pack(documents)]), wanted) < 1e-13


def test_gradients_of_the_head_are_those_of_all_logits_at_once() -> None:
    model, documents = make_model(tie_word_embeddings=True), make_documents([30])
    ids = documents[0][None]
    wanted_loss = cross_entropy(model(ids).logits[0, :-1], ids[0, 1:])
    model.zero_grad()
    wanted_loss.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    assert largest_error(gradients(model, [{"input_ids": ids, "labels": ids}]), wanted) < 1e-12


def test_two_backward_passes_give_the_same_gradient_twice() -> None:
    model, documents = make_model(), make_documents([12])
    loss = model(input_ids=documents[0][None], labels=documents[0][None]).loss
    first = torch.autograd.grad(loss, model.lm_head.weight, retain_graph=True)[0]
    again = torch.autograd.grad(loss * 3, model.lm_head.weight)[0]
    torch.testing.assert_close(again, first * 3, rtol=1e-12, atol=0)


def test_rows_without_labels_are_a_loss_of_zero() -> None:
    model, documents = make_model(), make_documents([12])
    ids = documents[0][None]
    loss = model(input_ids=ids, labels=torch.full_like(ids, -100)).loss
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(float(p.grad.abs().sum()) == 0 for p in model.parameters())


def test_bf16_under_autocast_is_near_float64() -> None:
    documents = make_documents(LENGTHS)
    wanted = gradients(make_model(), [pack(documents)])
    model = make_model(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**pack(documents)).loss
    loss.backward()
    assert loss.dtype == torch.float32
    found = {name: p.grad.double() for name, p in model.named_parameters()}
    assert largest_error(found, wanted) < 0.05


def test_the_residual_stream_is_float32_in_a_bf16_model() -> None:
    model = make_model(torch.bfloat16)
    dtypes = []
    for layer in model.backbone.layers:
        layer.register_forward_hook(
            lambda _, __, out: dtypes.append([value.dtype for value in out])
        )
    model(make_documents([9])[0][None])
    assert dtypes == [[torch.bfloat16, torch.float32]] * 2


@pytest.mark.parametrize(
    "unknown", [{"cu_seq_lens_q": torch.tensor([0, 3])}, {"inputs_embeds": torch.zeros(1)}]
)
def test_unknown_arguments_are_refused_not_dropped(unknown: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"does not know {next(iter(unknown))}"):
        make_model()(make_documents([5])[0][None], **unknown)


def test_arguments_that_say_nothing_pass() -> None:
    ids = make_documents([5])[0][None]
    model = make_model()
    found = model(ids, return_dict=True, output_attentions=False, inputs_embeds=None).logits
    assert torch.equal(found, model(ids).logits)


def test_unknown_words_of_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown backend 'cuda'"):
        make_model(backend="cuda")
    with pytest.raises(ConfigError, match="unknown activation policy 'some'"):
        make_model(activation="some")
    with pytest.raises(ConfigError, match="SiLU only"):
        make_model(hidden_act="gelu")


def test_kernels_that_are_missing_are_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU has them")
    with pytest.raises(ConfigError, match="split backend needs"):
        make_model(backend="split")


def test_trl_calls_the_backbone_itself_and_documents_hold_there_too() -> None:
    model: StudentModel = make_model()
    documents = make_documents([9, 14])
    batch = pack(documents)
    hidden = model.base_model(batch["input_ids"], seq_idx=batch["seq_idx"], use_cache=False)
    alone = model.base_model(documents[1][None]).last_hidden_state
    torch.testing.assert_close(hidden.last_hidden_state[:, 9:], alone, rtol=0, atol=1e-12)
