"""Options of TRL and transformers that would lead around the tested path, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pipeline.errors import ConfigError

_OWN_DATA = "rows come packed, masked and measured from trainer.data"
_FULL_LOGITS = "needs the public forward with all logits, which is another path than the one probed"
_STATE_LEAK = "TRL's own packing lets the state run across documents on every route but one"
_PRECISION = "precision is one policy with its optimiser: set training.precision"
_SHARDING = "sharding is done by trainer.sharding: start with torchrun --nproc-per-node N"

REFUSED: Mapping[str, str] = {
    "packing": f"{_STATE_LEAK}: set training.packing",
    "packing_strategy": f"{_STATE_LEAK}; 'wrapped' even cuts documents: set training.packing",
    "padding_free": f"{_STATE_LEAK}: set training.packing",
    "eval_packing": f"{_STATE_LEAK}",
    "max_length": f"TRL cuts there, and a cut answer teaches to stop nowhere; {_OWN_DATA}",
    "truncation_mode": f"nothing is ever cut; {_OWN_DATA}",
    "pad_to_multiple_of": _OWN_DATA,
    "dataset_kwargs": _OWN_DATA,
    "dataset_text_field": _OWN_DATA,
    "dataset_num_proc": "set training.tokenise_workers",
    "shuffle_dataset": "set training.order",
    "completion_only_loss": f"the loss is on completions; {_OWN_DATA}",
    "assistant_only_loss": f"the loss is on completions; {_OWN_DATA}",
    "chat_template_path": "the student's format is fixed in pipeline.student",
    "eos_token": "the student's format is fixed in pipeline.student",
    "pad_token": "padding is a document of its own, whatever its tokens",
    "loss_type": "the loss is the model's own, over the tokens of the whole step",
    "label_smoothing_factor": f"label smoothing {_FULL_LOGITS}",
    "use_liger_kernel": "Liger replaces the model's forward, also the reset between documents",
    "liger_kernel_config": "Liger replaces the model's forward, also the reset between documents",
    "neftune_noise_alpha": "its hook on the embeddings is not part of the path that is probed",
    "torch_compile": "a compiled forward is another path than the one probed",
    "torch_compile_backend": "a compiled forward is another path than the one probed",
    "torch_compile_mode": "a compiled forward is another path than the one probed",
    "auto_find_batch_size": "it would change the rows of a step: set training.micro_batch",
    "model_init_kwargs": "set [model]",
    "bf16": _PRECISION,
    "fp16": f"float16 overflows in the scan; {_PRECISION}",
    "optim": _PRECISION,
    "optim_args": _PRECISION,
    "optim_target_modules": _PRECISION,
    "gradient_checkpointing": "set training.activation",
    "gradient_checkpointing_kwargs": "set training.activation",
    "activation_checkpointing": "set training.activation",
    "activation_checkpointing_kwargs": "set training.activation",
    "activation_offloading": "set training.activation",
    "fsdp": _SHARDING,
    "fsdp_config": _SHARDING,
    "deepspeed": _SHARDING,
    "parallelism_config": _SHARDING,
    "accelerator_config": _SHARDING,
    "train_sampling_strategy": "the order is the schedule's: set training.order",
    "ignore_data_skip": "a resumed run would see other rows than an uninterrupted one",
    "dataloader_drop_last": "it would lose the rows of the last step",
    "average_tokens_across_devices": "the loss is always over the tokens of the whole step",
    "per_device_train_batch_size": "set training.micro_batch",
    "gradient_accumulation_steps": "it follows from training.documents_per_step",
    "logging_nan_inf_filter": "it would hide a NaN behind the mean of the losses before it",
    "eval_strategy": "evaluation is `python -m evaluation run`, on the published checkpoint",
    "load_best_model_at_end": "there is no evaluation inside a run to choose by",
}
"""Option → why it is not taken from a recipe."""

_BY_SETTING = {
    "output_dir": "--out",
    "num_train_epochs": "training.phases.N.epochs",
    "max_steps": "training.phases.N.max_steps",
    "learning_rate": "training.learning_rate",
    "lr_scheduler_type": "training.schedule",
    "warmup_steps": "training.warmup_steps",
    "weight_decay": "training.weight_decay",
    "adam_beta1": "training.adam_beta1",
    "adam_beta2": "training.adam_beta2",
    "adam_epsilon": "training.adam_epsilon",
    "max_grad_norm": "training.max_grad_norm",
    "seed": "training.seed",
    "save_strategy": "training.save_steps",
    "save_steps": "training.save_steps",
    "save_total_limit": "training.keep_checkpoints",
    "logging_steps": "training.logging_steps",
    "report_to": "training.report_to",
}
"""Option → the setting of ours that says the same."""

CONSTRUCTOR: Mapping[str, str] = {
    "compute_loss_func": f"it {_FULL_LOGITS}",
    "compute_metrics": f"it {_FULL_LOGITS}",
    "preprocess_logits_for_metrics": f"it {_FULL_LOGITS}",
    "formatting_func": _OWN_DATA,
    "peft_config": "adapters on out_proj and conv1d are bypassed by the fused kernels",
    "quantization_config": "quantised weights are not what the kernels multiply with",
    "optimizers": _PRECISION,
    "optimizer_cls_and_kwargs": _PRECISION,
    "data_collator": _OWN_DATA,
    "train_dataset": _OWN_DATA,
    "eval_dataset": "evaluation is `python -m evaluation run`, on the published checkpoint",
}
"""Argument of ``SFTTrainer`` → why :class:`trainer.student_trainer.StudentTrainer` has none."""


def check_trl_options(options: Mapping[str, Any]) -> None:
    """Hold ``[training.trl]`` of a recipe against the lists above.

    Raises:
        ConfigError: An option is refused, is a setting of ours, or does not exist.
    """
    for name in options:
        if name in REFUSED:
            raise ConfigError(
                f"training.trl.{name} is refused: {REFUSED[name]}", hint="remove this option"
            )
        if name in _BY_SETTING:
            raise ConfigError(
                f"training.trl.{name} would overrule this project's own setting",
                hint=f"use {_BY_SETTING[name]} instead",
            )
    if options:
        from trl import SFTConfig

        known = {field.name for field in fields(SFTConfig)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ConfigError(
                f"training.trl.{unknown[0]}: TRL's SFTConfig has no such option",
                hint="check the spelling, or remove it",
            )


def check_constructor(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of ``SFTTrainer`` that route around our path.

    Raises:
        ConfigError: One is given.
    """
    for name in arguments:
        reason = CONSTRUCTOR.get(name, "StudentTrainer has no such argument")
        raise ConfigError(f"SFTTrainer's {name} is refused: {reason}", hint="remove this argument")
