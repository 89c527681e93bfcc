r"""Verification on Ray: one worker against two, and against this machine's processes, in one run.

    .venv/bin/python benchmarks/flows/scale_out.py --problems 160 --rounds 2

A real cluster on loopback: a head that does no work, and one or two nodes of one processor each.
The stage ``verified`` runs on generated solutions: maths answers of which the rules settle some and
math-verify has to compare others, and programs that the sandbox runs on tests. Nothing waits for a
teacher. Two figures say what a second worker brings:

- ``wall``: seconds of the stage, the best of all rounds. It needs a core for each worker and one
  for the command; on fewer cores, or shared ones, it says how busy the machine was.
- ``critical``: processor seconds of the busiest of the command and the workers with all their
  children, which is what the stage takes where each has a core.

``balance`` is the second figure without the noise between two runs: how many times the busiest
worker's share the workers did together. On cores that others use too, a processor second does less
when both are busy, and only this one is steady.

Ends with one JSON line; exit code 1 when two workers bring less than 1.7 by the critical path, or
any byte of the versions differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before Ray is imported: everything on loopback, nothing reported.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from pipeline.manifest import Version
from pipeline.records import Domain, Judgement, Problem, Rating, Solution
from pipeline.settings.recipe import load_recipe
from pipeline.stages import BatchResult, Stage, run_stage, split_batches
from promptcot.run_context import SynthesisRun
from promptcot.verify import run_verification

BAR = 1.7
SAMPLES = 8
BATCH = 4
THINKING = "Consider the next case and note what remains of it. " * 160
NODE = {
    "num_cpus": 1,
    "object_store_memory": 80 << 20,
    "node_ip_address": "127.0.0.1",
    "include_dashboard": False,
}
RECIPE = f"""
name = "scale-out"
seed = 3
[teachers.default]
engine = "scripted"
script = "script.jsonl"
[synthesis]
batch_size = {BATCH}
[synthesis.solutions]
samples_per_problem = {SAMPLES}
form = "constrained"
"""
SCRIPT = [
    {
        "match": "",
        "text": ["Input: 20\nOutput: 210", "Input: 300\nOutput: 45150", "Input: 7\nOutput: 28"],
    }
]
SPELLINGS = (
    ("{n}", "{n}.0", r"\frac{{{d}}}{{2}}"),
    (r"\frac{{{n}}}{{7}}", r"{n}/7", r"\dfrac{{{d}}}{{14}}"),
    (r"{n}\sqrt{{3}}", r"\sqrt{{3}}\cdot {n}", r"\frac{{{d}\sqrt{{3}}}}{{2}}"),
    (r"\sum_{{k=1}}^{{{m}}} k", r"\frac{{{m}({m}+1)}}{{2}}", r"\sum_{{j=1}}^{{{m}}} j"),
    (r"\int_0^{{{m}}} 2x\,dx", r"{m}^2", r"\int_0^{{{m}}} 2t\,dt"),
)
"""Each line is one value in three ways; the last two lines are left to math-verify."""
PROGRAMS = (
    "n = int(input())\nprint(sum(range(n + 1)))",
    "n = int(input())\ntotal = 0\nfor k in range(n + 1):\n    total += k\nprint(total)",
    "n = int(input())\nprint(n * (n + 1) // 2)",
    "n = int(input())\nprint(sum(range(n)))",
)
"""The last one is wrong."""


def make_solutions(num_problems: int) -> list[Solution]:
    """Three in four are maths; the samples of a problem lie beside each other."""
    dice = random.Random(7)
    rows: list[Solution] = []
    for number in range(num_problems):
        domain: Domain = "code" if number % 4 == 3 else "math"
        rows += [_sample(number, domain, n, dice) for n in range(SAMPLES)]
    return rows


def _sample(number: int, domain: Domain, sample: int, dice: random.Random) -> Solution:
    if domain == "code":
        answer = f"```python\n{dice.choice(PROGRAMS)}\n# {number}-{sample}\n```"
    else:
        value = number if dice.random() < 0.8 else number + 1
        spelling = dice.choice(SPELLINGS[number % len(SPELLINGS)])
        boxed = spelling.format(n=value + 11, d=2 * (value + 11), m=3 + value % 40)
        answer = f"So the value is $\\boxed{{{boxed}}}$."
    problem = Problem(
        id=f"p{number:06d}", combination_id="c", concepts=["a", "b"], level="AIME", domain=domain,
        rationale="r", statement=f"Task {number}.", teacher="t", prompt_hash="h", seed=1,
    )  # fmt: skip
    judgement = Judgement(
        problem_id=problem.id, judge="j", model="m", vote=0, prompt_hash="h", seed=1,
        format=Rating.PERFECT, factual_accuracy=Rating.PERFECT, solvability=Rating.PERFECT,
        difficulty_alignment=Rating.PERFECT, concept_coverage=Rating.PERFECT,
        verdict=Rating.PERFECT,
    )  # fmt: skip
    return Solution(
        id=f"{problem.id}-{sample}", problem=problem, judgements=[judgement], thinking=THINKING,
        answer=answer, finish_reason="stop", teacher="t", temperature=1.0, top_p=1.0,
        prompt_hash="h", seed=sample, num_prompt_tokens=50, num_completion_tokens=2000 + sample,
    )  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Who verifies."""

    name: str
    settings: tuple[str, ...]
    num_nodes: int


@dataclass
class Measured:
    """One verification."""

    wall_s: float
    command_s: float
    """Processor seconds of the command itself; with local processes, of these too."""
    workers_s: list[float]
    """Of each node with all its children."""
    digest: str

    @property
    def critical_s(self) -> float:
        """Processor seconds of whoever had most to do."""
        return max([self.command_s, *self.workers_s])


def verify(
    folder: Path, case: Case, solutions: Sequence[Solution], nodes: Sequence[Any]
) -> Measured:
    """Run the stage in a folder of its own."""
    folder.mkdir(parents=True)
    (folder / "script.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in SCRIPT), encoding="utf-8"
    )
    (folder / "r.toml").write_text(RECIPE, encoding="utf-8")
    recipe = load_recipe(str(folder / "r.toml"), case.settings)
    with SynthesisRun(recipe, folder / "out") as run:
        published = publish(run, solutions)
        own, start = own_seconds(), time.perf_counter()
        with watching([_raylet(node) for node in nodes]) as spent:
            version = run_verification(run, published)
        wall = time.perf_counter() - start
        return Measured(wall, own_seconds() - own, spent, digest(version))


@contextmanager
def watching(raylets: Sequence[int]) -> Iterator[list[float]]:
    """What each node spends, looked at all the time: Ray ends workers as soon as they are idle."""
    before = [node_seconds(pid) for pid in raylets]
    spent = [0.0] * len(raylets)
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(0.4):
            for place, pid in enumerate(raylets):
                spent[place] = max(spent[place], node_seconds(pid) - before[place])

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield spent
    finally:
        is_over.set()
        watcher.join()


def publish(run: SynthesisRun, solutions: Sequence[Solution]) -> Version:
    """The solutions as their stage would leave them."""
    stage = Stage(
        name="solutions", root=run.folder("solutions"), record=Solution, settings={}, inputs=[],
        packages=["pipeline"],
    )  # fmt: skip
    batches = split_batches(solutions, 480, key=lambda row: row.id)
    return run_stage(stage, batches, lambda b: BatchResult(num_in=len(b.rows), rows=b.rows))


def digest(version: Version) -> str:
    """Of all files of a version, with their names."""
    found = hashlib.sha256()
    for path in sorted(version.folder.rglob("*")):
        if path.is_file():
            found.update(str(path.relative_to(version.folder)).encode() + b"\0")
            found.update(path.read_bytes())
    return found.hexdigest()


def own_seconds() -> float:
    """Processor seconds of this process and of the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def node_seconds(raylet: int) -> float:
    """Processor seconds of a node's processes and their children, ended children included.

    Workers are told by their environment: Ray detaches them from what starts them.
    """
    mark, tick = f"RAY_RAYLET_PID={raylet}".encode(), os.sysconf("SC_CLK_TCK")
    total = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(folder.name) == raylet or mark in (folder / "environ").read_bytes().split(b"\0"):
                stat = (folder / "stat").read_text(encoding="utf-8")
                total += sum(map(int, stat.rpartition(")")[2].split()[11:15])) / tick
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue  # it has ended, or is another user's
    return total


def _raylet(node: Any) -> int:
    pid: int = node.all_processes["raylet"][0].process.pid
    return pid


@contextmanager
def open_cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0})
    try:
        yield cluster
    finally:
        cluster.shutdown()


def measure(options: argparse.Namespace, folder: Path) -> dict[str, list[Measured]]:
    """All cases, round after round."""
    solutions = make_solutions(options.problems)
    found: dict[str, list[Measured]] = {}
    with open_cluster() as cluster:
        joined = ("execution.executor=ray", f'execution.ray_address="{cluster.address}"')
        cases = [
            Case("local 2", ("synthesis.num_workers=2",), 0),
            Case("ray 1", (*joined, "synthesis.num_workers=1"), 1),
            Case("ray 2", (*joined, "synthesis.num_workers=2"), 2),
        ]
        for number in range(options.rounds):
            for case in cases:
                nodes = [cluster.add_node(**NODE) for _ in range(case.num_nodes)]
                one = verify(
                    folder / f"{number}-{case.name[-1]}-{case.name[0]}", case, solutions, nodes
                )
                for node in nodes:
                    cluster.remove_node(node)
                found.setdefault(case.name, []).append(one)
                print(
                    f"round {number} {case.name}: {one.wall_s:.1f} s, processor: command "
                    f"{one.command_s:.1f}, workers {[round(s, 1) for s in one.workers_s]}, "
                    f"load {os.getloadavg()[0]:.1f}",
                    file=sys.stderr,
                )
    return found


def report(found: dict[str, list[Measured]]) -> dict[str, Any]:
    """Ratios of the best rounds."""
    wall = {name: min(one.wall_s for one in runs) for name, runs in found.items()}
    critical = {name: min(one.critical_s for one in runs) for name, runs in found.items()}
    balance = max(sum(one.workers_s) / max(one.workers_s) for one in found["ray 2"])
    digests = {one.digest for runs in found.values() for one in runs}
    return {
        "wall_s": {name: round(value, 2) for name, value in wall.items()},
        "critical_s": {
            name: round(value, 2) for name, value in critical.items() if name.startswith("ray")
        },
        "command_s": round(min(one.command_s for one in found["ray 2"]), 2),
        "wall_ratio": round(wall["ray 1"] / wall["ray 2"], 3),
        "critical_ratio": round(critical["ray 1"] / critical["ray 2"], 3),
        "balance": round(balance, 3),
        "same_bytes": len(digests) == 1,
        "cores": os.cpu_count(),
    }


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--problems", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = report(measure(options, Path(folder)))
    print(json.dumps(result))
    return 0 if result["same_bytes"] and result["critical_ratio"] >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
