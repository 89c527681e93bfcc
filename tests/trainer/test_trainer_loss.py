"""The loss counts completion tokens and nothing else, on the path that the trainer takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_experiment import load_tiny, make_dataset, make_row

from pipeline.errors import ConfigError
from trainer.data import IGNORED
from trainer.job import open_job, prepare_job_data
from trainer.optim import list_decayed
from trainer.refusals import CONSTRUCTOR, REFUSED
from trainer.run import build_trainer, quiet_libraries
from trainer.run_log import RunLog


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("loss")
    overrides = ("training.packing=exact", "training.documents_per_step=5")
    recipe = load_tiny(folder, *overrides, "training.micro_batch=1")
    make_dataset(folder, [make_row(n, 1 + n % 2) for n in range(5)])
    job = open_job(recipe, "1", folder, None)
    with quiet_libraries(1):
        from trainer.processes import find_processes

        data = prepare_job_data(job, find_processes(), "torch")
        yield build_trainer(job, data, "torch", RunLog(folder))


@pytest.fixture
def batch(trainer: Any) -> dict[str, torch.Tensor]:
    """The first row: several documents, and padding."""
    inputs: dict[str, torch.Tensor] = next(iter(trainer.get_train_dataloader()))
    assert int(inputs["seq_idx"].max()) >= 2
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
    """Mean of -log p(token) over labelled tokens, document by document, without padding."""
    terms = []
    ids, documents = batch["input_ids"][0], batch["seq_idx"][0]
    for number in documents.unique():
        own = documents == number
        logits = trainer.model(input_ids=ids[own][None]).logits[0]
        for place, label in enumerate(labels[0][own].tolist()):
            if place and label != IGNORED:
                terms.append(-logits[place - 1].log_softmax(-1)[label])
    return torch.stack(terms).mean()


def test_loss_and_gradient_are_those_of_each_completion_by_hand(
    trainer: Any, batch: dict[str, torch.Tensor]
) -> None:
    loss = trainer.compute_loss(trainer.model, dict(batch))
    by_hand = hand_loss(trainer, batch, batch["labels"])
    torch.testing.assert_close(loss, by_hand, rtol=1e-6, atol=1e-6)
    assert_close(gradients(trainer, loss), gradients(trainer, by_hand))


def test_training_on_the_prompt_would_be_noticed(
    trainer: Any, batch: dict[str, torch.Tensor]
) -> None:
    ours = gradients(trainer, trainer.compute_loss(trainer.model, dict(batch)))
    prompts_too = gradients(trainer, hand_loss(trainer, batch, batch["input_ids"]))
    with pytest.raises(AssertionError):
        assert_close(ours, prompts_too)


def test_forward_passes_add_up_to_the_step(trainer: Any) -> None:
    rows = [trainer.train_dataset[number] for number in range(trainer.parts.data.rows_per_step)]
    rows = [row for row in rows if len(row["input_ids"])]
    assert len(rows) > 1
    whole = trainer.data_collator(rows)
    num_items = (whole["labels"] != IGNORED).sum()
    at_once = gradients(trainer, trainer.compute_loss(trainer.model, whole))
    trainer.model.zero_grad()
    for row in rows:
        single = trainer.data_collator([row])
        trainer.compute_loss(trainer.model, single, num_items_in_batch=num_items).backward()
    one_by_one = {name: p.grad.clone() for name, p in trainer.model.named_parameters()}
    assert_close(one_by_one, at_once)


def test_trls_own_output_head_is_not_on_the_path(trainer: Any) -> None:
    assert "forward" not in vars(trainer.model)
    with pytest.raises(TypeError, match="fused_lm_head"):
        trainer.model(input_ids=torch.ones(1, 4, dtype=torch.long), fused_lm_head=True)


@pytest.mark.parametrize("name", sorted(CONSTRUCTOR))
def test_arguments_that_lead_around_the_path_are_refused_by_name(trainer: Any, name: str) -> None:
    from trainer.student_trainer import StudentTrainer

    with pytest.raises(ConfigError, match=f"{name} is refused"):
        StudentTrainer(None, None, trainer.parts, processing_class=None, **{name: object()})


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("packing=true", "packing is refused: TRL's own packing lets the state run across"),
        ("label_smoothing_factor=0.1", "needs the public forward with all logits"),
        ("use_liger_kernel=true", "Liger replaces the model's forward"),
        ("learning_rate=1e-3", "would overrule this project's own setting"),
        ("learing_rate=1e-3", "SFTConfig has no such option"),
    ],
)
def test_trl_options_are_refused_with_the_reason(tmp_path: Path, option: str, message: str) -> None:
    from trainer.recipe import refuse_unsupported

    recipe = load_tiny(tmp_path, f"training.trl.{option}")
    with pytest.raises(ConfigError, match=message):
        refuse_unsupported(recipe.settings.training)


def test_every_refused_option_exists_in_trl() -> None:
    from dataclasses import fields

    from trl import SFTConfig

    assert set(REFUSED) <= {field.name for field in fields(SFTConfig)}


def test_harmless_trl_options_are_passed_on(tmp_path: Path) -> None:
    from trainer.recipe import build_sft_config, phase_settings

    recipe = load_tiny(tmp_path, "training.trl.log_level=error", "training.schedule=cosine")
    config = build_sft_config(
        recipe.settings.training, phase_settings(recipe, "1"), tmp_path, num_steps=7, accumulation=3
    )
    assert (config.log_level, config.max_steps) == ("error", 7)
    assert (config.gradient_accumulation_steps, config.lr_scheduler_type) == (3, "cosine")
    assert not (config.bf16 or config.fp16 or config.packing)
    assert config.max_length is None


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
