"""The vLLM engine of the throughput comparison, with a stand-in for vLLM and the card."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from evaluation.throughput.shapes import describe_subjects
from evaluation.throughput.tasks import list_tasks
from evaluation.throughput.vllm_engine import make_job, measure_with_vllm, planned_batch
from pipeline.errors import ConfigError
from pipeline.settings.recipe import Recipe, load_recipe

TORCH = """
__version__ = "9.9"
class cuda:
    @staticmethod
    def get_device_properties(number):
        return type("Properties", (), {"total_memory": 80 << 30})
    @staticmethod
    def get_device_name(number):
        return "stand-in card"
"""
VLLM = """
import json, os, time
from pathlib import Path
__version__ = "0.99"
clock = [0.0]
time.perf_counter = lambda: clock[0]
class SamplingParams:
    def __init__(self, **how):
        self.how = how
class LLM:
    def __init__(self, **how):
        config = json.loads((Path(how["model"]) / "config.json").read_text())
        with open(os.environ["STAND_IN_LOG"], "a") as log:
            log.write(json.dumps({**how, "config": config}) + "\\n")
    def generate(self, prompts, how, use_tqdm):
        if os.environ.get("STAND_IN_FAILS"):
            raise RuntimeError("no room for the cache")
        tokens = how.how["max_tokens"]
        clock[0] += 0.5 + float(os.environ.get("STAND_IN_STEP", "0.002")) * tokens
        one = type("Answer", (), {"token_ids": [7] * tokens})
        return [type("Output", (), {"outputs": [one]}) for _ in prompts]
"""
SETTINGS = (
    "budgets_gb=[24, 72]",
    "lengths=[8192, 65536]",
    "steps=4",
    'engine="vllm"',
    'transformer="qwen2.5-7b"',
    'dtype="bfloat16"',
    'state_dtypes=["bfloat16"]',
    "assumed_overhead_gb=2.0",
    "max_batch=256",
)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The paper's shapes, and an interpreter that finds the stand-ins."""
    site = tmp_path / "site"
    (site / "vllm").mkdir(parents=True)
    (site / "torch.py").write_text(TORCH, encoding="utf-8")
    (site / "vllm" / "__init__.py").write_text(VLLM, encoding="utf-8")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={site} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("STAND_IN_LOG", str(tmp_path / "loads.jsonl"))
    settings = [*SETTINGS, f'vllm_python="{python}"']
    return load_recipe("paper", [f"throughput.{setting}" for setting in settings])


def test_both_models_are_timed_in_the_other_interpreter(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    subjects = describe_subjects(recipe.settings)
    result = measure_with_vllm(recipe, subjects, folder)
    assert result["device"] == "stand-in card"
    rows = {(r["budget_gb"], r["mode"], r["length"]): r for r in result["rows"]}
    assert rows[24.0, "constant", 65_536]["batch"] == 46
    assert rows[24.0, "reserved", 65_536]["batch"] == 1
    assert rows[72.0, "constant", 8192]["batch"] == 256  # vLLM's usual limit, a setting here
    assert rows[24.0, "constant", 65_536]["step_ms"] == pytest.approx(2.0)
    assert {row["route"] for row in result["rows"]} == {"vLLM 0.99"}
    loads = [json.loads(line) for line in (tmp_path / "loads.jsonl").read_text().splitlines()]
    assert [load["config"]["architectures"][0] for load in loads] == [
        "Mamba2ForCausalLM",
        "Mamba2ForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen2ForCausalLM",
    ]
    assert loads[0]["gpu_memory_utilization"] == pytest.approx(0.9 * 24 / 80)
    assert loads[0]["mamba_ssm_cache_dtype"] == "bfloat16"
    assert loads[3]["max_model_len"] >= 65_536
    # What is finished is not run again: the model is not even loaded.
    again = measure_with_vllm(recipe, subjects, folder)
    assert again == result
    assert len((tmp_path / "loads.jsonl").read_text().splitlines()) == 4


def test_a_failure_of_vllm_is_told_with_its_log(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_FAILS", "1")
    with pytest.raises(ConfigError, match=r"no room for the cache.*\.log"):
        measure_with_vllm(recipe, describe_subjects(recipe.settings), tmp_path / "out")


def test_steps_that_cost_nothing_measurable_are_no_result(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_STEP", "0")
    with pytest.raises(ConfigError, match="raise --steps"):
        measure_with_vllm(recipe, describe_subjects(recipe.settings), tmp_path / "out")


def test_an_interpreter_without_vllm_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "site" / "vllm" / "__init__.py").unlink()
    (tmp_path / "site" / "vllm").rmdir()
    with pytest.raises(ConfigError, match="has no vLLM"):
        measure_with_vllm(recipe, describe_subjects(recipe.settings), tmp_path / "out")


def test_a_job_holds_what_fits_and_no_more(recipe: Recipe, tmp_path: Path) -> None:
    mamba, opponent = describe_subjects(recipe.settings)
    tasks = [t for t in list_tasks(recipe.settings.throughput, opponent) if t.budget_gb == 24]
    job = make_job(recipe, opponent, tasks, tmp_path)
    assert {case["batch"] for case in job["cases"]} == {
        planned_batch(recipe, opponent, task) for task in tasks
    }
    # Whole batches of long prompts would take hours for a Mamba-2, whose steps cost the same.
    tasks = [t for t in list_tasks(recipe.settings.throughput, mamba) if t.budget_gb == 72]
    assert (
        max(case["position"] for case in make_job(recipe, mamba, tasks, tmp_path)["cases"]) < 4097
    )
