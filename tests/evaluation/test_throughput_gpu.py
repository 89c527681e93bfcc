"""What only a GPU shows of the throughput comparison: graphs, refusals, routes. Small and quick."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from evaluation.throughput.attention import choose_route, list_routes
from evaluation.throughput.fitting import Search, measure_overhead
from evaluation.throughput.memory import GpuMemory, ran_out
from evaluation.throughput.run import run_throughput
from evaluation.throughput.runners import TransformerSession, open_runner
from evaluation.throughput.shapes import describe_subjects
from evaluation.throughput.timing import capture
from evaluation.throughput.transformer import KeyValueCache, make_random
from pipeline.settings.recipe import load_recipe
from pipeline.settings.throughput import PRESETS

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda", 0)
SETTINGS = (
    'dtype="bfloat16"',
    'state_dtypes=["bfloat16", "float32"]',
    "budgets_gb=[2, 4]",
    "utilisation=1.0",
    "lengths=[64, 1024]",
    "max_batch=32",
    "walk_steps=40",
)


@pytest.fixture
def memory() -> Iterator[GpuMemory]:
    memory = GpuMemory(DEVICE)
    yield memory
    memory.release()


def test_a_captured_step_gives_the_tokens_of_an_eager_one() -> None:
    model = make_random(PRESETS["tiny"], device=DEVICE, dtype=torch.bfloat16, seed=0)
    ids = torch.arange(3, 19, device=DEVICE)
    cache = KeyValueCache(model.shape, 16, 200, model.embeddings)
    cache.fill(torch.Generator(DEVICE).manual_seed(0))
    wanted = model.step(ids, cache, 150)
    chosen = torch.empty_like(ids)

    def step() -> None:
        chosen.copy_(model.step(ids, cache, 150))

    replay = capture(step, DEVICE, warmup=2)
    chosen.zero_()
    replay()
    assert torch.equal(chosen, wanted)


@pytest.mark.parametrize("tokens", [37, 4096])
def test_routes_that_run_here_agree(tokens: int) -> None:
    generator = torch.Generator(DEVICE).manual_seed(0)
    q = torch.randn(4, 4, 7, 128, device=DEVICE, dtype=torch.bfloat16, generator=generator)
    shape = (4, 4, tokens + 9, 128)
    k, v = (
        torch.randn(shape, device=DEVICE, dtype=torch.bfloat16, generator=generator)[:, :, :tokens]
        for _ in range(2)
    )
    scores = q.double() @ k.double().transpose(-1, -2) / 128**0.5
    exact = scores.softmax(-1) @ v.double()
    name, attend = choose_route(q, k, v)
    assert name in list_routes(DEVICE)
    assert float((attend(q, k, v).double() - exact).norm() / exact.norm()) < 1e-2


def test_the_allocator_refuses_what_goes_over_the_budget(memory: GpuMemory) -> None:
    memory.restrict(2 << 30)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(4 << 30, dtype=torch.uint8, device=DEVICE)
    assert ran_out(caught.value)
    memory.release()
    held = torch.empty(4 << 30, dtype=torch.uint8, device=DEVICE)
    assert memory.held() >= 4 << 30
    del held


def test_the_search_ends_within_the_budget_and_near_it(memory: GpuMemory) -> None:
    recipe = load_recipe("demo", [f"throughput.{setting}" for setting in SETTINGS])
    runner = open_runner(recipe, describe_subjects(recipe.settings)[-1], DEVICE)
    overhead = measure_overhead(runner, memory)
    limit, tokens = 3 << 30, 8192
    fit, session = Search(runner, memory, limit, overhead, 1 << 20).find(tokens)
    assert isinstance(session, TransformerSession)
    each = runner.subject.cache_bytes(tokens)
    assert fit.peak_bytes <= limit
    assert fit.peak_bytes > limit - 0.05 * limit - 2 * each
    session.close()


def test_a_whole_comparison_at_tiny_shapes(tmp_path: Path) -> None:
    recipe = load_recipe("demo", [f"throughput.{setting}" for setting in SETTINGS])
    result = run_throughput(recipe, tmp_path)
    assert result["kernels"] == "triton"
    assert all(row["tokens_per_s"] > 0 for row in result["rows"])
    assert all(row["peak_gb"] <= row["budget_gb"] for row in result["rows"])
    assert all(walk["grown_bytes"] == 0 for walk in result["walks"])
    assert json.loads((tmp_path / "throughput.json").read_text(encoding="utf-8"))["rows"]
