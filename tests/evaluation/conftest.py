"""A tiny random Mamba-2 that stands in for a trained checkpoint, and a recipe with two benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.settings.recipe import Recipe, load_recipe

RECIPE = """
name = "tiny"
[[benchmarks]]
name = "sums"
path = "sums.jsonl"
domain = "math"
[[benchmarks]]
name = "programs"
path = "programs.jsonl"
domain = "code"
[evaluation]
samples_per_item = 2
max_new_tokens = 6
batch_size = 4
num_threads = 1
code_timeout_s = 2.0
memory_limit_mib = 256
"""


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide initial weights, so that greedy decoding does not only repeat one token."""
    torch = pytest.importorskip("torch", reason="needs the train extra")
    transformers = pytest.importorskip("transformers", reason="needs the train extra")
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    config = transformers.Mamba2Config(
        hidden_size=64,
        num_hidden_layers=2,
        expand=2,
        head_dim=16,
        num_heads=8,
        n_groups=2,
        state_size=16,
        vocab_size=32768,
        chunk_size=32,
        initializer_range=0.4,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    folder = tmp_path_factory.mktemp("checkpoints") / "phase-1"
    transformers.Mamba2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    sums = [{"id": f"s{n}", "question": f"What is {n} + 1?", "answer": n + 1} for n in range(3)]
    programs = [
        {
            "id": "p0",
            "question": "Print the double of the input.",
            "tests": [{"input": "2\n", "output": "4\n"}, {"input": "5\n", "output": "10\n"}],
        }
    ]
    write_lines(tmp_path / "sums.jsonl", sums)
    write_lines(tmp_path / "programs.jsonl", programs)
    (tmp_path / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    return load_recipe(str(tmp_path / "tiny.toml"))
