"""A run of the whole chain on a local server, for the benchmarks that disturb one."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SERVER = (sys.executable, str(Path(__file__).with_name("teacher_server.py")))
_RECIPE = """
name = "chain"
seed = 11
[teachers.default]
engine = "http"
model = "stand"
base_urls = ["{url}"]
max_concurrency = {concurrency}
timeout_s = {timeout_s}
[synthesis]
bank = "{bank}"
batch_size = 32
[synthesis.combinations]
num_combinations = {combinations}
math_share = 0.9
[synthesis.verification]
minimum_agreement = 0.4
"""


def chain_command(
    folder: Path, url: str, *, combinations: int, concurrency: int, timeout_s: float = 600.0
) -> list[str]:
    """Write a recipe into a new folder; the command that runs it and leaves ``out`` there."""
    recipe = folder / "recipe.toml"
    text = _RECIPE.format(
        url=url,
        concurrency=concurrency,
        timeout_s=timeout_s,
        bank=ROOT / "promptcot" / "data" / "seeds.jsonl",
        combinations=combinations,
    )
    recipe.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "promptcot", "run", "--recipe", str(recipe)]
    return [*command, "--out", str(folder / "out")]
