"""Recipes and rows of the scaling benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import long_rows

BIG = {"hidden": 2048, "layers": 48, "head": 64, "state": 128, "groups": 8, "chunk": 256}
SMALL = {"hidden": 512, "layers": 12, "head": 64, "state": 128, "groups": 1, "chunk": 256}
SCALES: dict[str, dict[str, Any]] = {
    "full": {
        "rows": 176, "mean": 6_000, "max": 16_384, "documents": 16, "steps": 10, "skipped": 3,
        "precision": "bf16_autocast",
        "big": BIG, "small": SMALL,
    },
    "paper": {
        "rows": 256, "mean": 6_000, "max": 16_384, "documents": 64, "steps": 4, "skipped": 1,
        "precision": "bf16_autocast",
        "big": BIG, "small": SMALL,
    },
    "tiny": {
        "rows": 44, "mean": 100, "max": 2_048, "documents": 4, "steps": 6, "skipped": 3,
        "precision": "float32",
        "big": {"hidden": 32, "layers": 2, "head": 16, "state": 16, "groups": 2, "chunk": 32},
        "small": {"hidden": 32, "layers": 2, "head": 16, "state": 16, "groups": 1, "chunk": 32},
    },
}  # fmt: skip
RECIPE = """
name = "{name}"

[model]
hidden_size = {hidden}
num_hidden_layers = {layers}
head_dim = {head}
state_size = {state}
n_groups = {groups}
chunk_size = {chunk}
tie_word_embeddings = {tied}

[training]
learning_rate = 5e-6
warmup_steps = 0
documents_per_step = {documents}
packing = "exact"
precision = "{precision}"
activation = "all"
save_steps = {save}
keep_checkpoints = 2

[training.phases.1]
max_length = {max}
max_steps = {steps}
"""


def write_recipe(work: Path, scale: str, name: str) -> Path:
    """The recipe of ``scaling`` and ``bare`` (big), or of ``resume`` (small)."""
    sizes, is_small = SCALES[scale], name == "small"
    text = RECIPE.format(
        name=name,
        **sizes[name],
        tied=str(is_small).lower(),
        documents=sizes["documents"],
        precision=sizes["precision"],
        max=sizes["max"],
        save=10 if is_small else 10_000,
        steps=30 if is_small else sizes["steps"],
    )
    path = work / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def make_dataset(work: Path, scale: str) -> Path:
    """The folder of a version of just enough rows."""
    sizes = SCALES[scale]
    long_rows.MEAN_TOKENS, long_rows.MAX_LENGTH = sizes["mean"], sizes["max"]
    return long_rows.write_version(work / "data", sizes["rows"], seed=1).folder
