"""Decoding equals the full forward pass, with memory that does not grow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import make_config, make_documents, make_model, pad_rows
from transformers import GenerationConfig, Mamba2ForCausalLM

from trainer.model.cache import StateCache

LENGTHS = [12, 5, 20]
NUM_NEW = 16
EOS = 2


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model(num_hidden_layers=3, initializer_range=0.5).eval()


def settings(**changes: Any) -> GenerationConfig:
    fixed = {"max_new_tokens": NUM_NEW, "pad_token_id": 0, "bos_token_id": 1}
    return GenerationConfig(**{**fixed, "do_sample": False, **changes})


@torch.no_grad()
def continue_greedily(model: Any, document: torch.Tensor) -> list[int]:
    """By the full forward pass over everything so far, for each token; padding after the end."""
    ids = document[None]
    for _ in range(NUM_NEW):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    written: list[int] = ids[0, len(document) :].tolist()
    if EOS in written:
        end = written.index(EOS) + 1
        written[end:] = [0] * (NUM_NEW - end)
    return written


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_padded_on_either_side_continue_as_the_full_pass(model: Any, side: str) -> None:
    documents = make_documents(LENGTHS)
    missing, none = [20 - length for length in LENGTHS], [0] * 3
    padding = (missing, none) if side == "left" else (none, missing)
    batch = pad_rows(documents, *padding)
    output = model.generate(
        batch["input_ids"], attention_mask=batch["attention_mask"], generation_config=settings()
    )
    wanted = [continue_greedily(model, document) for document in documents]
    assert output[:, 20:].tolist() == wanted
    assert len({tuple(row) for row in wanted}) == 3


def test_sampling_draws_what_transformers_draws() -> None:
    model = make_model(torch.float32, initializer_range=0.5).eval()
    stock = Mamba2ForCausalLM(make_config()).eval()
    stock.load_state_dict(model.state_dict())
    ids = torch.stack(make_documents([15, 15]))
    drawn = []
    for each in (model, stock):
        torch.manual_seed(3)
        drawn.append(
            each.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                generation_config=settings(do_sample=True, top_k=0, top_p=0.95, temperature=0.8),
            )
        )
    assert torch.equal(*drawn)


def test_beams_are_those_of_transformers() -> None:
    model = make_model(torch.float32, initializer_range=0.5).eval()
    stock = Mamba2ForCausalLM(make_config()).eval()
    stock.load_state_dict(model.state_dict())
    ids = torch.stack(make_documents([15, 15]))
    options = {"attention_mask": torch.ones_like(ids), "generation_config": settings(num_beams=3)}
    assert torch.equal(model.generate(ids, **options), stock.generate(ids, **options))


def test_without_a_cache_generate_gives_the_same(model: Any) -> None:
    ids = torch.stack(make_documents([15, 15]))
    options = {"attention_mask": torch.ones_like(ids)}
    cached = model.generate(ids, **options, generation_config=settings())
    plain = model.generate(ids, **options, generation_config=settings(use_cache=False))
    assert torch.equal(cached, plain)


@torch.no_grad()
@pytest.mark.parametrize("parts", [[1] * 25, [24, 1], [2, 3, 4, 16], [7, 9, 9]])
def test_reading_in_parts_gives_the_logits_of_the_whole(model: Any, parts: list[int]) -> None:
    ids = torch.stack(make_documents([25, 25]))
    cache, found = StateCache(3), []
    for part in ids.split(parts, dim=1):
        found.append(model(part, cache_params=cache).logits)
    wanted = model(ids).logits
    torch.testing.assert_close(torch.cat(found, dim=1), wanted, rtol=0, atol=1e-11)


@torch.no_grad()
def test_right_padded_reading_leaves_the_state_of_the_last_real_token(model: Any) -> None:
    documents = make_documents([9, 2, 14])
    batch = pad_rows(documents, [0] * 3, [5, 12, 0])
    first = model(batch["input_ids"], batch["attention_mask"], use_cache=True, logits_to_keep=1)
    token = torch.tensor([[5], [6], [7]])
    after = model(token, cache_params=first.cache_params).logits
    for number, document in enumerate(documents):
        whole = model(torch.cat([document, token[number]])[None]).logits[0]
        torch.testing.assert_close(first.logits[number, 0], whole[-2], rtol=0, atol=1e-11)
        torch.testing.assert_close(after[number, 0], whole[-1], rtol=0, atol=1e-11)


@torch.no_grad()
def test_memory_does_not_grow_with_tokens(model: Any) -> None:
    cache, sizes = StateCache(3), []
    for part in torch.stack(make_documents([60, 60])).split([40, 1, 19], dim=1):
        model(part, cache_params=cache)
        sizes.append(cache.num_bytes)
    assert cache.get_seq_length() == 60
    # 3 layers, 2 rows, float64: 64 x 8 states and 3 inputs of 96 channels.
    assert sizes == [3 * 2 * 8 * (64 * 8 + 3 * 96)] * 3


def test_what_goes_with_no_cache_is_refused(model: Any) -> None:
    ids = make_documents([6])[0][None]
    with pytest.raises(ValueError, match=r"under torch\.no_grad"):
        model(ids, use_cache=True)
    with torch.no_grad():
        with pytest.raises(ValueError, match="a row is one document"):
            model(ids, use_cache=True, seq_idx=torch.zeros_like(ids))
        with pytest.raises(ValueError, match="no loss"):
            model(ids, use_cache=True, labels=ids)
        with pytest.raises(ValueError, match="ends of rows only"):
            model(ids, torch.tensor([[1, 1, 0, 0, 1, 1]]), use_cache=True)
        cache = model(ids, use_cache=True).cache_params
        with pytest.raises(ValueError, match="continue a cached row"):
            model(ids, torch.tensor([[0, 0, 1, 1, 1, 1]]), cache_params=cache)


def test_generate_refuses_packed_rows(model: Any) -> None:
    ids = make_documents([6])[0][None]
    with pytest.raises(ValueError, match="one document a row"):
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            position_ids=torch.tensor([[0, 1, 2, 0, 1, 2]]),
            generation_config=settings(),
        )


@torch.no_grad()
def test_a_bf16_model_keeps_its_state_in_float32() -> None:
    model = make_model(torch.bfloat16).eval()
    cache = model(make_documents([9])[0][None], use_cache=True).cache_params
    assert {state.dtype for state in cache.states} == {torch.float32}
    assert {inputs.dtype for inputs in cache.convolutions} == {torch.bfloat16}
