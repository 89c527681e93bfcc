"""``python -m evaluation throughput`` from the command line, at tiny shapes on a CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation.__main__ import app
from evaluation.throughput.fitting import Overhead, Search
from evaluation.throughput.memory import OverBudget, open_memory, ran_out
from evaluation.throughput.records import Records
from evaluation.throughput.shapes import Subject
from pipeline import cli, console
from pipeline.errors import ConfigError, StoreError
from pipeline.settings.recipe import load_recipe

RECIPE = """
name = "tiny"
[model]
hidden_size = 32
num_hidden_layers = 2
head_dim = 8
state_size = 8
n_groups = 2
chunk_size = 8
tie_word_embeddings = true
[throughput]
dtype = "float32"
state_dtypes = ["float32", "bfloat16"]
budgets_gb = [0.00001, 1.0]
lengths = [8, 32]
prompt_tokens = 4
max_batch = 8
steps = 2
warmup_steps = 1
walk_steps = 20
num_threads = 1
[throughput.transformer]
name = "Tiny"
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 8
intermediate_size = 48
vocab_size = 64
"""


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    (tmp_path / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    threads = torch.get_num_threads()

    def call(*options: str) -> tuple[int, str]:
        console.reset()
        where = ["--recipe", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "out")]
        code = cli.exit_code_of(app, "python -m evaluation", ["throughput", *where, *options])
        console.reset()
        captured = capsys.readouterr()
        return code, captured.out if code == 0 else captured.err

    yield call
    torch.set_num_threads(threads)


def test_a_run_writes_table_figures_and_plot_and_is_not_measured_twice(
    run: Any, tmp_path: Path
) -> None:
    code, text = run("--json")
    assert code == 0, text
    result = json.loads(text)
    folder = tmp_path / "out" / "throughput"
    names = {"throughput.json", "throughput.jsonl", "throughput.md", "throughput.svg"}
    assert names | {"throughput.png", "points.jsonl"} <= {path.name for path in folder.iterdir()}
    assert result["weights"] == {"Mamba-2": "random", "Tiny": "random"}
    # Nothing fits ten kilobytes, and that is told.
    small = [row for row in result["rows"] if row["budget_gb"] == 0.00001]
    assert {(row["batch"], row["tokens_per_s"]) for row in small} == {(0, 0.0)}
    large = [row for row in result["rows"] if row["budget_gb"] == 1.0]
    assert {row["batch"] for row in large} == {8}
    assert all(row["tokens_per_s"] > 0 for row in large)
    page = (folder / "throughput.md").read_text(encoding="utf-8")
    assert "random weights" in page
    assert "none fits" in page
    lines = (folder / "points.jsonl").read_bytes()
    # A kill tore the last line; the others are not measured again, and the result is the same.
    (folder / "points.jsonl").write_bytes(lines + b'{"key": "to')
    code, again = run("--json")
    assert code == 0
    assert json.loads(again) == result
    assert (folder / "points.jsonl").read_bytes() == lines
    code, text = run("--steps", "3", "--budget-gb", "1", "--set", "throughput.lengths=[8]")
    assert code == 0
    assert "tokens/s under 1 GB" in text
    assert len((folder / "points.jsonl").read_bytes()) > len(lines)


def test_a_dry_run_writes_nothing(run: Any, tmp_path: Path) -> None:
    code, text = run("--dry-run", "--budget-gb", "24", "--budget-gb", "72")
    assert code == 0
    assert "24 GB" in text
    assert "72 GB" in text
    assert not (tmp_path / "out").exists()


def test_budgets_that_hold_nothing_are_named(run: Any, tmp_path: Path) -> None:
    code, text = run("--budget-gb", "0.00001")
    assert code == 2
    assert "not one sequence of any model fits in 1e-05 GB" in text
    assert not (tmp_path / "out" / "throughput" / "throughput.md").exists()


def test_an_unknown_preset_is_named(run: Any) -> None:
    code, text = run("--dry-run", "--set", "throughput.transformer=llama")
    assert code == 2
    assert "qwen2.5-7b" in text


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "points.jsonl").write_text('{"key": "a"}\nnonsense\n', encoding="utf-8")
    with pytest.raises(StoreError, match="line 2"):
        Records(tmp_path)


def test_records_are_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text('{"key": "a"}\n{"key"', encoding="utf-8")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "points.jsonl").symlink_to(tmp_path / "victim")
    with pytest.raises(StoreError, match="symbolic link"):
        Records(tmp_path / "out")
    (tmp_path / "victim").unlink()
    with pytest.raises(StoreError, match="symbolic link"):
        Records(tmp_path / "out").add("b", {})
    assert not (tmp_path / "victim").exists()


class FakeMemory:
    """Refuses batches over a number, and says how much one takes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.batch = 0

    def restrict(self, limit: int) -> None: ...

    def start(self) -> None: ...

    def peak(self) -> int:
        return 100 + 10 * self.batch

    def check(self, limit: int, counted: int) -> None:
        if self.batch > self.most:
            raise OverBudget


class FakeRunner:
    """A model of 100 bytes whose sequences take 10 each."""

    device = torch.device("cpu")
    weight_bytes = 100
    subject = Subject("fake", "mamba2", 50, 100, 100, 10, 0, "float32")

    def __init__(self, memory: FakeMemory) -> None:
        self.memory = memory
        self.num_open = 0
        self.cache_bytes = 0

    def open(self, batch: int, tokens: int) -> FakeRunner:
        self.memory.batch = batch
        self.cache_bytes = 10 * batch
        self.num_open += 1
        return self

    def step_at(self, position: int) -> tuple[Any, str]:
        return lambda: None, ""

    def close(self) -> None:
        self.num_open -= 1


@pytest.mark.parametrize(
    ("allowed", "overhead", "expected"),
    [
        (1000, Overhead(0, 0), 90),  # as calculated
        (1000, Overhead(500, 0), 90),  # the overhead was too careful: it grows
        (80, Overhead(0, 0), 80),  # refused until it fits
        (0, Overhead(0, 0), 0),
        (1000, Overhead(5000, 0), 0),
    ],
)
def test_the_search_ends_at_the_largest_batch(
    allowed: int, overhead: Overhead, expected: int
) -> None:
    memory = FakeMemory(allowed)
    runner: Any = FakeRunner(memory)
    fit, session = Search(runner, memory, 1000, overhead, 500).find(7)  # type: ignore[arg-type]
    assert fit.batch == expected
    assert (session is not None) == (expected > 0)
    assert runner.num_open == (1 if expected else 0)


def test_resident_memory_is_held_to_the_budget() -> None:
    memory = open_memory(torch.device("cpu"))
    memory.start()
    memory.check(1 << 20, counted=0)
    with pytest.raises(OverBudget):
        memory.check(1 << 20, counted=2 << 20)
    held = torch.ones(1 << 24)
    assert memory.peak() >= 1 << 26
    with pytest.raises(OverBudget):
        memory.check(1 << 20, counted=0)
    assert ran_out(RuntimeError("x")) is False
    error = RuntimeError("capture failed")
    error.__context__ = torch.OutOfMemoryError("out of memory")
    assert ran_out(error)
    del held


def test_settings_that_make_no_sense_are_refused() -> None:
    for bad in ("lengths=[64, 8]", "budgets_gb=[]", "budgets_gb=[0]", "state_dtypes=['int8']"):
        with pytest.raises(ConfigError):
            load_recipe("demo", [f"throughput.{bad}"])
