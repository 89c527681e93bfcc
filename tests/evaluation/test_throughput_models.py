"""The two models of the throughput comparison: what they compute, and what they hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from evaluation.throughput.attention import choose_route, list_routes
from evaluation.throughput.qwen2 import convert, load
from evaluation.throughput.runners import open_runner
from evaluation.throughput.shapes import (
    count_mamba_parameters,
    count_transformer_parameters,
    describe_mamba,
    describe_subjects,
)
from pipeline.errors import ConfigError, SourceError
from pipeline.settings.recipe import load_recipe
from pipeline.settings.throughput import PRESETS
from pipeline.settings.training import ModelSettings
from trainer.model import count_parameters


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads of so small products wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_qwen2(*, tied: bool, **changes: Any) -> Any:
    """A Qwen2 with wide weights, biases and norms, so that every part of it matters."""
    config = transformers.Qwen2Config(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        intermediate_size=96,
        vocab_size=300,
        initializer_range=0.3,
        tie_word_embeddings=tied,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        **changes,
    )
    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.3)
    return model


@pytest.mark.parametrize("tied", [False, True])
def test_the_opponent_writes_what_transformers_writes(tied: bool) -> None:
    model = make_qwen2(tied=tied)
    ids = torch.randint(1, 300, (3, 11), generator=torch.Generator().manual_seed(1))
    wanted = model.generate(
        ids, max_new_tokens=40, do_sample=False, attention_mask=torch.ones_like(ids)
    )[:, 11:]
    ours = convert(model)
    assert torch.equal(ours.generate(ids, 40), wanted)
    assert wanted.unique().numel() > 20  # no single token repeated
    own = sum(p.numel() * p.element_size() for p in model.parameters())
    assert ours.weight_bytes == own
    assert count_transformer_parameters(ours.shape) * 4 == own


def test_weights_of_a_folder_are_the_same_model(tmp_path: Path) -> None:
    model = make_qwen2(tied=False)
    model.save_pretrained(tmp_path)
    ids = torch.arange(1, 9)[None]
    loaded = load(tmp_path, device=torch.device("cpu"), dtype=torch.float32)
    assert torch.equal(loaded.generate(ids, 12), convert(model).generate(ids, 12))
    with pytest.raises(SourceError, match=r"config\.json"):
        load(tmp_path / "nothing", device=torch.device("cpu"), dtype=torch.float32)


def test_a_model_that_the_loop_would_compute_wrongly_is_refused() -> None:
    windowed = make_qwen2(tied=True, use_sliding_window=True, sliding_window=8)
    with pytest.raises(ConfigError, match="sliding window"):
        convert(windowed)


def test_all_routes_of_attention_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 3, 4, 16, generator=generator)
    k, v = (torch.randn(2, 3, 50, 16, generator=generator)[:, :, :37] for _ in range(2))
    results = [attend(q, k, v) for attend in list_routes(q.device).values()]
    for result in results:
        torch.testing.assert_close(result, results[0])
    name, attend = choose_route(q, k, v, repeats=1)
    assert name in list_routes(q.device)
    torch.testing.assert_close(attend(q, k, v), results[0])


def test_parameters_are_those_of_the_real_models() -> None:
    assert count_mamba_parameters(ModelSettings()) == 7_285_403_648
    assert count_transformer_parameters(PRESETS["qwen2.5-7b"]) == 7_615_616_512
    assert count_transformer_parameters(PRESETS["qwen2.5-1.5b"]) == 1_543_714_304
    small = ModelSettings(
        hidden_size=64, num_hidden_layers=2, head_dim=16, n_groups=2, tie_word_embeddings=True
    )
    assert count_mamba_parameters(small) == count_parameters(small)


def test_calculated_bytes_are_allocated_bytes() -> None:
    recipe = load_recipe("demo", ['throughput.state_dtypes=["float32", "bfloat16"]'])
    for subject in describe_subjects(recipe.settings):
        runner = open_runner(recipe, subject, torch.device("cpu"))
        assert runner.weight_bytes == subject.weight_bytes
        session = runner.open(8, 50)
        assert session.cache_bytes == 8 * subject.cache_bytes(50)
        session.close()


def test_a_state_of_the_seven_billion_model_is_what_the_paper_fits_into_a_card() -> None:
    narrow, wide = (
        describe_mamba(ModelSettings(), dtype="bfloat16", state_dtype=dtype)
        for dtype in ("bfloat16", "float32")
    )
    assert narrow.sequence_bytes == 128 * 2**20 + 64 * 10_240 * 3 * 2
    assert wide.sequence_bytes - narrow.sequence_bytes == 128 * 2**20
