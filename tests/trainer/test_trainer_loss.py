"""The loss counts completion tokens and nothing else, whichever way it is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tiny_experiment import load_tiny, make_dataset, make_row
from trl import SFTTrainer

from trainer.data import IGNORED, write_examples
from trainer.model import load_model, resolve_init
from trainer.recipe import build_sft_config, phase_settings
from trainer.run import quiet_libraries
from trainer.student_trainer import StudentTrainer, list_decayed
from trainer.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("loss")
    recipe = load_tiny(folder)
    version = make_dataset(folder, [make_row(n, 1 + n % 2) for n in range(4)])
    write_examples(version, folder / "a.arrow", max_length=500, documents_per_step=4)
    with quiet_libraries(1):
        yield StudentTrainer(
            model=load_model(recipe.settings.model, resolve_init(recipe, "1", folder), 0),
            args=build_sft_config(recipe.settings.training, phase_settings(recipe, "1"), folder),
            train_dataset=Dataset.from_file(str(folder / "a.arrow")),
            processing_class=build_tokenizer(),
        )


@pytest.fixture
def batch(trainer: Any) -> dict[str, torch.Tensor]:
    inputs: dict[str, torch.Tensor] = trainer.data_collator(list(trainer.train_dataset))
    assert inputs["attention_mask"].min() == 0, "rows of different length, so some padding"
    return inputs


def gradients(trainer: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    trainer.model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in trainer.model.named_parameters()}


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    for name, gradient in theirs.items():
        scale = float(gradient.abs().max()) or 1.0
        torch.testing.assert_close(ours[name] / scale, gradient / scale, rtol=0, atol=2e-5)


def hand_loss(trainer: Any, batch: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Mean of -log p(token) over labelled tokens, row by row, without padding."""
    terms = []
    for ids, mask, label in zip(batch["input_ids"], batch["attention_mask"], labels, strict=True):
        length = int(mask.sum())
        logits = trainer.model(input_ids=ids[None, :length], use_cache=False).logits[0]
        for position in range(1, length):
            if label[position] != IGNORED:
                terms.append(-logits[position - 1].log_softmax(-1)[ids[position]])
    return torch.stack(terms).mean()


def test_loss_and_gradient_are_those_of_the_completion_by_hand(
    trainer: Any, batch: dict[str, torch.Tensor]
) -> None:
    loss = trainer.compute_loss(trainer.model, dict(batch))
    by_hand = hand_loss(trainer, batch, batch["labels"])
    torch.testing.assert_close(loss, by_hand, rtol=1e-6, atol=1e-6)
    assert_close(gradients(trainer, loss), gradients(trainer, by_hand))


def test_training_on_the_prompt_would_be_noticed(
    trainer: Any, batch: dict[str, torch.Tensor]
) -> None:
    loss = trainer.compute_loss(trainer.model, dict(batch))
    whole = torch.where(batch["attention_mask"] == 1, batch["input_ids"], IGNORED)
    ours = gradients(trainer, loss)
    prompts_too = gradients(trainer, hand_loss(trainer, batch, whole))
    with pytest.raises(AssertionError):
        assert_close(ours, prompts_too)


def test_no_prediction_of_a_prompt_token_gets_a_gradient(
    trainer: Any, batch: dict[str, torch.Tensor]
) -> None:
    kept: list[torch.Tensor] = []

    def keep(module: Any, arguments: Any, logits: torch.Tensor) -> None:
        logits.retain_grad()
        kept.append(logits)

    handle = trainer.model.lm_head.register_forward_hook(keep)
    try:
        trainer.compute_loss(trainer.model, dict(batch)).backward()
    finally:
        handle.remove()
    gradient = kept[0].grad
    assert gradient is not None
    # Logits at position i predict token i + 1; only the last ones were computed at all.
    labels = batch["labels"][:, -gradient.shape[1] + 1 :]
    touched = gradient[:, :-1].abs().sum(-1) > 0
    assert torch.equal(touched, labels != IGNORED)


def test_the_quick_loss_equals_trls_own(trainer: Any, batch: dict[str, torch.Tensor]) -> None:
    ours = trainer.compute_loss(trainer.model, dict(batch))
    ours_gradients = gradients(trainer, ours)
    trls = SFTTrainer.compute_loss(trainer, trainer.model, dict(batch))
    torch.testing.assert_close(ours, trls, rtol=1e-6, atol=1e-6)
    assert_close(ours_gradients, gradients(trainer, trls))


def test_micro_batches_add_up_to_the_step(trainer: Any) -> None:
    rows = list(trainer.train_dataset)
    whole = trainer.data_collator(rows)
    num_items = (whole["labels"][:, 1:] != IGNORED).sum()
    at_once = gradients(trainer, trainer.compute_loss(trainer.model, whole))
    trainer.model.zero_grad()
    for row in rows:
        single = trainer.data_collator([row])
        trainer.compute_loss(trainer.model, single, num_items_in_batch=num_items).backward()
    one_by_one = {name: p.grad.clone() for name, p in trainer.model.named_parameters()}
    assert_close(one_by_one, at_once)


def test_only_matrices_and_convolutions_decay(trainer: Any) -> None:
    trainer.create_optimizer()
    decayed = {
        id(p) for g in trainer.optimizer.param_groups if g["weight_decay"] for p in g["params"]
    }
    kinds: dict[bool, set[str]] = {True: set(), False: set()}
    for name, parameter in trainer.model.named_parameters():
        kinds[id(parameter) in decayed].add(name.split(".layers.")[-1].split(".", 1)[-1])
    assert kinds[True] == {
        "embeddings.weight",
        "mixer.conv1d.weight",
        "mixer.in_proj.weight",
        "mixer.out_proj.weight",
    }
    assert {"mixer.A_log", "mixer.D", "mixer.dt_bias", "mixer.norm.weight"} <= kinds[False]
    assert len(list_decayed(trainer.model)) == 7
