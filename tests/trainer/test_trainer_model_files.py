"""Files are transformers' own, both ways, and so is the function."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tiny_models import make_config, make_documents, make_model
from transformers import AutoModelForCausalLM, Mamba2ForCausalLM
from transformers.utils import logging

from trainer.model.student import StudentModel

IDS = torch.stack(make_documents([50, 50]))


@pytest.fixture(autouse=True)
def quiet() -> Any:
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_stock(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("num_groups", [1, 2, 8])
def test_what_we_save_is_transformers_and_the_reverse(
    tmp_path: Path, num_groups: int, tied: bool
) -> None:
    model = make_model(torch.float32, n_groups=num_groups, tie_word_embeddings=tied).eval()
    model.save_pretrained(tmp_path / "ours")
    stock = load_stock(tmp_path / "ours").eval()
    assert type(stock) is Mamba2ForCausalLM
    with torch.no_grad():
        wanted = model(IDS).logits
        assert relative(stock(IDS).logits, wanted) <= 1e-5
    stock.save_pretrained(tmp_path / "theirs")
    again, report = StudentModel.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not any(report.values())
    with torch.no_grad():
        assert torch.equal(again.eval()(IDS).logits, wanted)


@pytest.mark.parametrize("num_groups", [1, 2, 8])
def test_gradients_agree_with_transformers(num_groups: int) -> None:
    model = make_model(torch.float32, n_groups=num_groups)
    stock = Mamba2ForCausalLM(make_config(n_groups=num_groups)).train()
    stock.load_state_dict(model.state_dict())
    stock(IDS, labels=IDS, use_cache=False).loss.backward()
    model(input_ids=IDS, labels=IDS).loss.backward()
    scale = max(float(p.grad.norm()) for p in stock.parameters())
    for (name, ours), (other, theirs) in zip(
        model.named_parameters(), stock.named_parameters(), strict=True
    ):
        assert name == other
        assert float((ours.grad - theirs.grad).norm()) <= 1e-5 * scale, name


def test_a_saved_folder_says_what_readers_look_for(tmp_path: Path) -> None:
    model = make_model(torch.bfloat16)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["Mamba2ForCausalLM"]
    assert (config["model_type"], config["dtype"]) == ("mamba2", "bfloat16")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
        assert file.get_tensor("lm_head.weight").dtype == torch.bfloat16
    assert {
        "backbone.embeddings.weight",
        "backbone.layers.1.mixer.conv1d.weight",
        "backbone.layers.0.mixer.A_log",
        "backbone.norm_f.weight",
    } <= names
    assert set(Mamba2ForCausalLM(make_config()).state_dict()) == names


def test_large_models_are_split_over_files_and_read_again(tmp_path: Path) -> None:
    model = make_model(torch.float32)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    for loaded in (StudentModel.from_pretrained(tmp_path), load_stock(tmp_path)):
        for name, wanted in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], wanted), name


def test_loading_takes_backend_activation_and_dtype(tmp_path: Path) -> None:
    make_model(torch.float32).save_pretrained(tmp_path)
    loaded = StudentModel.from_pretrained(
        tmp_path, dtype=torch.bfloat16, backend="torch", activation="all"
    )
    assert (loaded.dtype, loaded.activation) == (torch.bfloat16, "all")
    assert all(layer.recomputes for layer in loaded.backbone.layers)


@torch.no_grad()
def test_random_weights_are_transformers_distribution() -> None:
    ours, theirs = make_model(torch.float32), Mamba2ForCausalLM(make_config())
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        if a.numel() > 1000:
            assert float(a.std()) == pytest.approx(float(b.std()), rel=0.15), name
        assert torch.isfinite(a).all()
    mixer, other = ours.backbone.layers[0].mixer, theirs.backbone.layers[0].mixer
    assert torch.equal(mixer.A_log, other.A_log)
    steps = torch.nn.functional.softplus(mixer.dt_bias)
    assert float(steps.min()) >= 1e-3 * 0.99
    assert float(steps.max()) <= 0.1 * 1.01
