"""The model card of a published checkpoint: data, recipe and figures, from the run's own record."""

from __future__ import annotations

import json
from typing import Any

from pipeline.manifest import Manifest

PAPER = "https://arxiv.org/abs/2505.22425"
_HUB_LICENCES = frozenset({"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0"})


def render_card(summary: dict[str, Any], manifest: Manifest) -> str:
    """Text of the folder's ``README.md``: a Hub header, then tables.

    Args:
        summary: What ``training.json`` says.
        manifest: The manifest of the dataset version trained on.
    """
    parts = [
        _header(summary, manifest),
        _opening(summary),
        "## Training\n\n" + _table(["what", "value"], _training_rows(summary)),
        "## Data\n\n" + _table(["what", "value"], _data_rows(summary, manifest)),
        _use(),
        _files(),
    ]
    return "\n\n".join(parts) + "\n"


def _title(summary: dict[str, Any]) -> str:
    return f"{summary['recipe']}, phase {summary['phase']}"


def _header(summary: dict[str, Any], manifest: Manifest) -> str:
    licences = sorted(manifest.licences)
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation", "language:"]
    lines.append("- en")
    if len(licences) == 1 and licences[0] in _HUB_LICENCES:
        lines.append(f"license: {licences[0]}")
    else:
        # JSON strings are YAML strings: whatever a licence is called stays one value.
        name = json.dumps("-and-".join(licences) or "unknown")
        lines += ["license: other", f"license_name: {name}", "license_link: README.md"]
    lines += ["tags:", "- mamba2", "- reasoning", "- sft", "- trl"]
    lines.append(f"model_name: {json.dumps(_title(summary))}")
    return "\n".join([*lines, "---"])


def _opening(summary: dict[str, Any]) -> str:
    model = summary["settings"]["model"]
    start = {
        "random": "random weights",
        "folder": f"the weights `{summary['init']['identity']}`",
        "hub": f"hub weights (identity `{summary['init']['identity']}`)",
    }[summary["init"]["kind"]]
    return (
        f"# {_title(summary)}\n\nA pure Mamba-2 without attention ({summary['num_parameters']:,} "
        f"parameters: {model['num_hidden_layers']} layers of width {model['hidden_size']}, "
        f"{model['n_groups']} groups, state {model['state_size']}), fine-tuned from {start} on "
        f"phase {summary['phase']} of the curriculum of [PromptCoT-Mamba]({PAPER}). It answers in "
        "the form `<think> … </think>` and an answer."
    )


def _training_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    training = summary["settings"]["training"]
    phase, data = training["phase"], summary["data"]
    documents = data["documents_per_step"]
    rate = phase["learning_rate"] or training["learning_rate"]
    probe = summary["probe"]
    return [
        ("optimiser steps", f"{summary['num_steps']:,}"),
        ("tokens seen, prompts included", f"{summary['tokens_seen']:,}"),
        (
            "documents a step",
            f"{documents['mean']:g} on average ({documents['min']} to {documents['max']})",
        ),
        ("loss, first → last step", f"{summary['first_loss']:.4f} → {summary['last_loss']:.4f}"),
        ("accuracy of the next token, last step", f"{summary['last_accuracy']:.1%}"),
        ("jumps of loss or gradient", f"{summary['num_events']}"),
        ("learning rate", f"{rate:g}, {training['schedule']}, warm-up {training['warmup_steps']}"),
        (
            "AdamW",
            f"betas {training['adam_beta1']:g} and {training['adam_beta2']:g}, epsilon "
            f"{training['adam_epsilon']:g}, decay {training['weight_decay']:g} (matrices only), "
            f"gradient norm at most {training['max_grad_norm']:g}",
        ),
        ("precision", training["precision"]),
        ("longest document", f"{phase['max_length']:,} tokens; longer ones were left out"),
        ("packing", f"{training['packing']}, backend {summary['backend']}"),
        (
            "packed against separate gradients",
            f"{probe['error']:.1e} (without document labels {probe['control']:.1e})",
        ),
        ("seed", str(training["seed"])),
        ("key, code", f"`{summary['key']}`, `{summary['code_version']}`"),
    ]


def _data_rows(summary: dict[str, Any], manifest: Manifest) -> list[tuple[str, str]]:
    rejected = ", ".join(f"{count} {reason}" for reason, count in summary["rejected"].items())
    licences = ", ".join(f"{name} ({count:,})" for name, count in manifest.licences.items())
    data = summary["data"]
    return [
        ("dataset version", f"`{summary['dataset_version']}`"),
        ("rows", f"{summary['num_rows']:,} (left out: {rejected or 'none'})"),
        ("tokens of one epoch", f"{data['tokens_per_epoch']:,}"),
        ("with loss", f"{data['labelled_tokens_per_epoch']:,}"),
        ("padding", f"{data['padding_share']:.1%} of what passed through the model"),
        ("licences of its rows", licences or "none stated"),
        *[(f"input {ref.name}", f"`{ref.version}`") for ref in manifest.inputs],
    ]


def _use() -> str:
    return (
        "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'tokenizer = AutoTokenizer.from_pretrained(".")\n'
        'model = AutoModelForCausalLM.from_pretrained(".")\n'
        'messages = [{"role": "user", "content": "What is 17 + 25?"}]\n'
        "prompt = tokenizer.apply_chat_template(\n"
        "    messages, add_generation_prompt=True, tokenize=False\n)\n"
        'inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")\n'
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=512)[0]))\n```\n\n"
        "transformers 5.23 or newer: older ones compute another model for `n_groups > 1`."
    )


def _files() -> str:
    return (
        "## Files\n\n`training.json` is the record of the run with all settings, "
        "`train_log.jsonl` has a line a step, `events.jsonl` jumps of loss or gradient, "
        "`report.html` the curves. `speed_log.jsonl` and the report depend on the machine and the "
        "hour; everything else is equal for equal runs."
    )


def _table(columns: list[str], rows: list[tuple[str, str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    # A bar inside a cell would end it.
    lines += ["| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows]
    return "\n".join(lines)
