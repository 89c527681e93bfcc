"""The student's shape and weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_experiment import load_tiny

from pipeline.errors import ConfigError, SourceError
from pipeline.settings.training import ModelSettings
from trainer.model import count_parameters, load_model, resolve_init

TINY = ModelSettings(
    hidden_size=32,
    num_hidden_layers=2,
    head_dim=16,
    state_size=8,
    n_groups=2,
    chunk_size=16,
    tie_word_embeddings=True,
)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder of tiny Mamba-2 weights beside the recipe."""
    recipe = load_tiny(tmp_path)
    model = load_model(recipe.settings.model, resolve_init(recipe, "1", tmp_path), seed=5)
    model.save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


def load_from(weights: Path, *overrides: str) -> Any:
    recipe = load_tiny(weights.parent, "model.init_from=weights", *overrides)
    return load_model(recipe.settings.model, resolve_init(recipe, "1", weights.parent), seed=0)


def test_the_default_shape_is_codestral_mamba_to_the_parameter() -> None:
    assert count_parameters(ModelSettings()) == 7_285_403_648


def test_random_weights_follow_the_seed(tmp_path: Path) -> None:
    recipe = load_tiny(tmp_path)
    init = resolve_init(recipe, "1", tmp_path)
    first, again, other = (load_model(recipe.settings.model, init, seed=s) for s in (1, 1, 2))
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    ids = (first.config.pad_token_id, first.config.bos_token_id, first.config.eos_token_id)
    assert ids == (0, 1, 2)


def test_pretrained_weights_are_loaded(weights: Path) -> None:
    recipe = load_tiny(weights.parent)
    original = load_model(recipe.settings.model, resolve_init(recipe, "1", weights.parent), seed=5)
    loaded = load_from(weights)
    for name, parameter in original.named_parameters():
        assert torch.equal(parameter, loaded.get_parameter(name)), name


def test_weights_of_another_shape_are_refused_by_name(weights: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.state_size is 16 in the recipe but 8"):
        load_from(weights, "model.state_size=16")


def test_weights_of_another_architecture_are_refused(weights: Path) -> None:
    config = weights / "config.json"
    values = {**json.loads(config.read_text()), "model_type": "llama"}
    config.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match="not mamba2"):
        load_from(weights)


def test_cut_off_weights_are_refused(weights: Path) -> None:
    path = weights / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceError, match="cannot load weights"):
        load_from(weights)


def test_missing_tensors_are_not_filled_in(weights: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights / "model.safetensors")
    tensors.pop("backbone.layers.1.mixer.A_log")
    save_file(tensors, weights / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"lacks 1 tensor.*A_log"):
        load_from(weights)


def test_a_hub_id_needs_a_pinned_revision(tmp_path: Path) -> None:
    recipe = load_tiny(tmp_path, "model.init_from=owner/name")
    with pytest.raises(ConfigError, match=r"without model\.revision"):
        resolve_init(recipe, "1", tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    recipe = load_tiny(tmp_path, "model.init_from=./nowhere")
    with pytest.raises(SourceError, match="nowhere"):
        resolve_init(recipe, "1", tmp_path)


def test_the_same_weights_elsewhere_have_the_same_identity(weights: Path, tmp_path: Path) -> None:
    weights.rename(tmp_path / "moved")
    recipe = load_tiny(tmp_path, "model.init_from=moved")
    moved = resolve_init(recipe, "1", tmp_path).identity
    (tmp_path / "moved").rename(weights)
    recipe = load_tiny(tmp_path, "model.init_from=weights")
    assert resolve_init(recipe, "1", tmp_path).identity == moved


@pytest.mark.parametrize("num_padding", [1, 20])
def test_right_padding_changes_neither_loss_nor_gradient(tmp_path: Path, num_padding: int) -> None:
    recipe = load_tiny(tmp_path)
    model = load_model(recipe.settings.model, resolve_init(recipe, "1", tmp_path), seed=0).train()
    ids = torch.randint(3, 32_768, (1, 37), generator=torch.Generator().manual_seed(1))
    plain = loss_and_gradients(model, ids, torch.ones_like(ids), ids)
    padded_ids = torch.nn.functional.pad(ids, (0, num_padding))
    mask = torch.nn.functional.pad(torch.ones_like(ids), (0, num_padding))
    labels = torch.nn.functional.pad(ids, (0, num_padding), value=-100)
    padded = loss_and_gradients(model, padded_ids, mask, labels)
    torch.testing.assert_close(padded[0], plain[0], rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(padded[1], plain[1], strict=True):
        scale = float(theirs.abs().max()) or 1.0
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=1e-5)


def loss_and_gradients(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    model.zero_grad()
    loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in model.parameters()]
