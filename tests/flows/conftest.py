"""One Prefect server for the flow tests that need one, and a small recipe of the whole loop."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_server import OwnServer, talking_to

from pipeline.settings.recipe import RECIPES

JUDGEMENT = """Format: Perfect - clear
Factual Accuracy: Perfect - true
Difficulty Alignment: Perfect - right
Concept Coverage: Perfect - needed
Solvability: Perfect - one answer
Final Judgement: Perfect"""

PROBLEM = """<!-- BEGIN RATIONALE -->
Counting pairs joins an equation, an order and a bound that keeps everything finite.
<!-- END RATIONALE -->
<!-- BEGIN PROBLEM -->
{statement}
<!-- END PROBLEM -->"""

SOLUTION = """<think>
x runs from 1 up to the largest integer below {total}/2, since y = {total} - x must exceed x.
</think>
The final answer is $\\boxed{{{answer}}}$."""

RECIPE = """name = "scripted"
description = "A teacher that answers from a file, and the smallest student."
teachers.default = {{ engine = "scripted", script = "script.jsonl" }}
benchmarks = [{{ name = "demo-math", path = "{recipes}/../evaluation/data/demo_math.jsonl", domain = "math" }}]
model = {{ hidden_size = 32, num_hidden_layers = 1, head_dim = 16, state_size = 16, n_groups = 2, chunk_size = 64, tie_word_embeddings = true }}

[synthesis]
bank = "{recipes}/../promptcot/data/seeds.jsonl"
domains = ["math"]
num_workers = 1
batch_size = 8
combinations.num_combinations = 8
solutions.samples_per_problem = 2

[curriculum]
num_workers = 1
sources = [{{ name = "promptcot", kind = "synthesized", licence = "apache-2.0" }}]
phases.1 = {{ sources = [{{ source = "promptcot" }}], max_tokens = 512 }}
phases.2 = {{ sources = [{{ source = "promptcot" }}], max_tokens = 512 }}

[training]
documents_per_step = 4
precision = "float32"
phases.1 = {{ max_length = 512, max_steps = 2 }}
phases.2 = {{ max_length = 512, max_steps = 1 }}

[evaluation]
samples_per_item = 1
max_new_tokens = 8
"""


@pytest.fixture
def scripted_recipe(tmp_path: Path) -> Path:
    """A recipe of the whole loop whose teacher answers from a file."""
    totals = range(20, 52, 4)
    statements = {
        f"Find the number of ordered pairs of positive integers (x, y) with x + y = {total} "
        "and x < y.": total
        for total in totals
    }
    problems = [PROBLEM.format(statement=statement) for statement in statements]
    rules: list[dict[str, object]] = [
        {"match": "BEGIN RATIONALE", "text": [*problems, "I would rather not."]},
        {"match": "strict reviewer", "text": JUDGEMENT},
    ]
    rules += [
        {"match": statement, "text": SOLUTION.format(total=total, answer=(total - 1) // 2)}
        for statement, total in statements.items()
    ]
    script = "\n".join(json.dumps(rule) for rule in rules)
    (tmp_path / "script.jsonl").write_text(script, encoding="utf-8")
    path = tmp_path / "scripted.toml"
    path.write_text(RECIPE.format(recipes=RECIPES), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """One for all files, because a start takes 10 s; a test may end it, and the next starts it."""
    server = OwnServer(tmp_path_factory.mktemp("prefect"))
    yield server
    if server.process is not None:
        server.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def prefect_server(own_server: OwnServer) -> Iterator[OwnServer]:
    """The server, for the flows that a file's tests run in this process."""
    own_server.start()
    with talking_to(own_server.url):
        yield own_server
