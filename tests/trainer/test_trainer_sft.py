"""Training a phase, as a user sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_experiment import Experiment, make_dataset, make_row

from pipeline.cli import exit_code_of
from pipeline.errors import (
    ConfigError,
    ManifestMismatch,
    SourceError,
    StateLeak,
    StoreError,
)
from trainer import checkpoints
from trainer.failures import explain_save_errors
from trainer.sft import app, train_phase


def read_log(checkpoint: Path) -> list[dict[str, Any]]:
    lines = (checkpoint / "train_log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def run_cli(experiment: Experiment, *arguments: str) -> int:
    options = ["--recipe", str(experiment.folder / "tiny.toml"), "--out", str(experiment.out)]
    return exit_code_of(app, "python -m trainer.sft", [*arguments, *options])


def test_both_phases_train_and_load(
    shared_experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    recipe, out = shared_experiment.recipe(), shared_experiment.out
    first = train_phase(recipe, "1", out)
    assert first.checkpoint == out / "checkpoints" / "phase-1"
    assert (first.num_rows, first.num_steps, first.reused) == (14, 8, False)
    assert first.last_loss < first.first_loss - 0.5
    second = train_phase(recipe, "2", out)
    assert second.first_loss < first.first_loss - 0.5, "phase 2 starts where phase 1 ended"
    assert not list((out / "checkpoints").glob(".staging*"))

    shown = capsys.readouterr().out
    assert "loss" in shown
    assert "falling back" not in shown

    model = AutoModelForCausalLM.from_pretrained(second.checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(second.checkpoint)
    batch = tokenizer("Add 3 and 6", return_tensors="pt")
    reply = model.generate(input_ids=batch.input_ids, max_new_tokens=3, do_sample=False)
    assert reply.shape == (1, batch.input_ids.shape[1] + 3)
    assert model.config.use_cache
    assert model.generation_config.eos_token_id == 2


def test_training_json_says_what_was_done(shared_experiment: Experiment) -> None:
    train_phase(shared_experiment.recipe(), "1", shared_experiment.out)
    folder = shared_experiment.out / "checkpoints" / "phase-1"
    values = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    log = read_log(folder)
    assert values["dataset_version"] == shared_experiment.dataset.name
    assert values["settings"]["training"]["phase"]["max_length"] == 200
    assert "2" not in values["settings"]["training"], "another phase's settings do not matter"
    assert [entry["step"] for entry in log] == list(range(1, 9))
    assert (values["first_loss"], values["last_loss"]) == (log[0]["loss"], log[-1]["loss"])
    tokens = sum(r["num_tokens"] for r in shared_experiment.dataset.rows(["num_tokens"]))
    assert values["tokens_seen"] == 2 * tokens == log[-1]["num_tokens"]
    assert str(shared_experiment.folder) not in json.dumps(values)


def test_training_again_reuses_and_other_settings_keep_the_old(
    shared_experiment: Experiment,
) -> None:
    recipe, out = shared_experiment.recipe(), shared_experiment.out
    first = train_phase(recipe, "1", out)
    weights = first.checkpoint / "model.safetensors"
    original, stamp = weights.read_bytes(), weights.stat().st_mtime_ns
    assert train_phase(recipe, "1", out).reused
    assert weights.stat().st_mtime_ns == stamp

    train_phase(shared_experiment.recipe("training.phases.1.max_steps=1"), "1", out)
    (kept,) = (out / "checkpoints" / "archive").iterdir()
    assert (kept / "model.safetensors").read_bytes() == original
    assert weights.read_bytes() != original

    back = train_phase(recipe, "1", out)
    assert back.reused
    assert weights.read_bytes() == original
    assert len(list((out / "checkpoints" / "archive").iterdir())) == 1


def test_a_damaged_finished_checkpoint_is_not_reused(experiment: Experiment) -> None:
    recipe = experiment.recipe("training.phases.1.max_steps=1")
    weights = train_phase(recipe, "1", experiment.out).checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(ManifestMismatch, match="damaged"):
        train_phase(recipe, "1", experiment.out)


def test_phase_two_without_phase_one_names_the_command(experiment: Experiment) -> None:
    with pytest.raises(SourceError) as caught:
        train_phase(experiment.recipe(), "2", experiment.out)
    assert "trainer.sft --phase 1" in caught.value.hint


def test_packed_training_has_exactly_the_documents_of_a_step(
    shared_experiment: Experiment,
) -> None:
    recipe = shared_experiment.recipe("training.packing=exact", "training.micro_batch=1")
    result = train_phase(recipe, "1", shared_experiment.out)
    log = read_log(result.checkpoint)
    assert [line["num_documents"] for line in log] == [4, 4, 4, 2] * 2
    values = json.loads((result.checkpoint / "training.json").read_text(encoding="utf-8"))
    assert values["data"]["rows_per_step"] < 4
    assert values["probe"]["error"] < 1e-4 < 0.05 < values["probe"]["control"]


def test_packing_changes_no_loss(shared_experiment: Experiment) -> None:
    logs = []
    for packing in ("off", "exact"):
        overrides = (f"training.packing={packing}", "training.micro_batch=1")
        result = train_phase(shared_experiment.recipe(*overrides), "1", shared_experiment.out)
        logs.append([line["loss"] for line in read_log(result.checkpoint)])
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


@pytest.mark.parametrize("precision", ["host_master", "stochastic"])
def test_bf16_weights_do_not_go_with_several_processes(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    from trainer.recipe import refuse_unsupported

    monkeypatch.setenv("WORLD_SIZE", "2")
    recipe = experiment.recipe(f"training.precision={precision}")
    with pytest.raises(ConfigError, match="one of 2 processes"):
        refuse_unsupported(recipe.settings.training)


def test_a_tracker_that_is_not_installed_is_named(experiment: Experiment) -> None:
    recipe = experiment.recipe('training.report_to=["wandb"]')
    with pytest.raises(ConfigError, match="wandb is not installed"):
        train_phase(recipe, "1", experiment.out)


def test_an_unknown_phase_is_refused(experiment: Experiment) -> None:
    with pytest.raises(ConfigError, match=r"training\.phases\.3"):
        train_phase(experiment.recipe(), "3", experiment.out)


def test_a_leak_on_the_path_stops_the_run_before_the_first_step(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.student_trainer import StudentTrainer

    original = StudentTrainer.compute_loss

    def forget(self: Any, model: Any, inputs: Any, *rest: Any, **kwargs: Any) -> Any:
        inputs = {name: value for name, value in inputs.items() if name != "seq_idx"}
        return original(self, model, inputs, *rest, **kwargs)

    monkeypatch.setattr(StudentTrainer, "compute_loss", forget)
    with pytest.raises(StateLeak, match="packed documents influence each other") as caught:
        train_phase(experiment.recipe(), "1", experiment.out)
    assert caught.value.exit_code == 3
    assert not list(experiment.out.rglob("checkpoint-*"))


def test_two_trainings_of_one_phase_exclude_each_other(experiment: Experiment) -> None:
    from pipeline.store import exclusive_lock

    with (
        exclusive_lock(experiment.out / "checkpoints" / ".lock-phase-1", "phase 1"),
        pytest.raises(StoreError, match="another process"),
    ):
        train_phase(experiment.recipe(), "1", experiment.out)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
        OSError(28, "No space left on device"),
        "safetensors",
    ],
)
def test_a_full_disk_is_explained(tmp_path: Path, error: Any) -> None:
    from safetensors import SafetensorError

    if error == "safetensors":
        error = SafetensorError("I/O error: No space left on device (os error 28)")
    with (
        pytest.raises(StoreError, match="cannot write") as caught,
        explain_save_errors(tmp_path),
    ):
        raise error
    assert "free some disk space" in caught.value.hint


def test_other_runtime_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shape"), explain_save_errors(tmp_path):
        raise RuntimeError("shape mismatch")


def test_dry_run_plans_and_writes_nothing(
    experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(experiment.out.rglob("*"))
    assert run_cli(experiment, "--phase", "1", "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["num_rows"], plan["num_steps"]) == (14, 8)
    assert plan["num_parameters"] == 1_064_376
    assert plan["memory_gib"] > 0
    assert sorted(experiment.out.rglob("*")) == before


def test_a_plan_before_anything_is_built_has_what_the_recipe_alone_tells(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = ["--recipe", str(experiment.folder / "tiny.toml"), "--out", str(tmp_path / "nowhere")]
    code = exit_code_of(app, "python -m trainer.sft", [*nowhere, "--phase", "2", "--dry-run"])
    assert code == 0
    shown = capsys.readouterr()
    assert "1,064,376" in shown.out
    assert "a device at the longest row" in shown.out
    for command in ("curriculum.build --phase 2", "trainer.sft --phase 1"):
        assert command in shown.out + shown.err
    assert not (tmp_path / "nowhere").exists()

    # What is there but not sound stays an error.
    wrong = ["--phase", "1", "--dataset", "nowhere", "--dry-run"]
    assert exit_code_of(app, "python -m trainer.sft", [*nowhere, *wrong]) == 2


def test_settings_are_held_against_the_machine_before_a_finished_run_is_shown(
    experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(experiment, "--phase", "1", "--set", "training.phases.1.max_steps=1") == 0
    again = ("--phase", "1", "--set", "training.phases.1.max_steps=1")
    assert run_cli(experiment, *again, "--set", "training.backend=split") == 2
    assert "split backend needs" in capsys.readouterr().err
    assert run_cli(experiment, *again) == 0
    assert "finished before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--phase", "2"], 2, "trainer.sft --phase 1"),
        (["--phase", "7"], 2, "training.phases.7"),
        (["--phase", "1", "--dataset", "nowhere"], 2, "not a finished version"),
        (["--phase", "1", "--set", "training.phases.1.max_length=33"], 3, "no row of dataset"),
        (["--phase", "1", "--set", "training.trl.packing=true"], 2, "trl.packing is refused"),
        (["--phase", "1", "--set", "training.precision=bf16"], 2, "lose 97 % of the update"),
        (["--phase", "1", "--set", "training.backend=split"], 2, "split backend needs"),
        (["--phase", "1", "--set", "training.micro_batch=3"], 2, "no multiple"),
    ],
)
def test_mistakes_end_in_one_message_and_the_documented_code(
    experiment: Experiment,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    assert run_cli(experiment, *arguments) == code
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert not (experiment.out / "checkpoints" / "phase-1").exists()


def test_json_output_is_one_object(
    experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--phase", "1", "--json", "--set", "training.phases.1.max_steps=1")
    assert run_cli(experiment, *arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["num_steps"] == 1
    assert Path(result["checkpoint"]).is_dir()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "stored"),
    [
        ("bf16_autocast", torch.float32),
        ("host_master", torch.float32),
        ("stochastic", torch.bfloat16),
    ],
)
def test_every_precision_and_recomputation_trains(
    experiment: Experiment, precision: str, stored: torch.dtype
) -> None:
    recipe = experiment.recipe(
        f"training.precision={precision}",
        "training.activation=every_second",
        "training.phases.1.max_steps=3",
    )
    result = train_phase(recipe, "1", experiment.out)
    assert abs(result.first_loss - 10.6) < 0.3
    assert result.last_loss < result.first_loss
    from safetensors.torch import load_file

    weights = load_file(result.checkpoint / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {stored}


@pytest.mark.slow
def test_phase_two_can_go_on_with_the_moments_of_phase_one(experiment: Experiment) -> None:
    carry = experiment.recipe("training.carry_optimizer=true", "training.warmup_steps=0")
    fresh = experiment.recipe("training.warmup_steps=0")
    train_phase(fresh, "1", experiment.out)
    with pytest.raises(SourceError, match="holds no moments"):
        train_phase(carry, "2", experiment.out)
    train_phase(carry, "1", experiment.out)
    going_on = train_phase(carry, "2", experiment.out)
    started_again = train_phase(fresh, "2", experiment.out)
    assert going_on.first_loss == started_again.first_loss
    assert going_on.last_loss != started_again.last_loss


def test_a_named_dataset_changes_the_key(experiment: Experiment) -> None:
    recipe = experiment.recipe("training.phases.1.max_steps=1")
    train_phase(recipe, "1", experiment.out)
    first = checkpoints.read_key(experiment.out / "checkpoints" / "phase-1")
    other = make_dataset(experiment.folder / "elsewhere", [make_row(n) for n in range(5)])
    train_phase(recipe, "1", experiment.out, dataset=other.folder)
    assert checkpoints.read_key(experiment.out / "checkpoints" / "phase-1") != first
