"""100,000 requests through every stage, with a teacher that answers at once: what the code costs.

    .venv/bin/python benchmarks/synthesis_throughput.py --requests 100000

The scripted teacher invents problems, judges and solves them (maths only: programs would measure
the sandbox). Rows are what goes into each stage, summed; the bar is 2,000 a CPU second, and at most
1 GiB for the whole tree of processes. Memory is sampled twice a second; ``growth_mib`` is the
median of a stage's second half less that of its first: near 0 where memory does not grow with the
corpus. One JSON line, then a table by stage. ``--profile FILE`` adds a cProfile of each stage, of
its main thread; it costs time itself.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from teacher_server import WORDS, invent, judge

from pipeline import console
from pipeline.settings import load_recipe
from promptcot.engines.ledger import read_ledger
from promptcot.synthesis import chain_of, run_one_stage

ROWS_BAR, RSS_BAR_MIB = 2000.0, 1024.0
_SAMPLE_S = 0.5
_REQUESTS_PER_COMBINATION = 5
_NUM_SEEDS = 4000
RECIPE = """
name = "throughput"
[teachers.default]
engine = "scripted"
script = "script.jsonl"
[synthesis]
bank = "bank.jsonl"
batch_size = {batch_size}
domains = ["math"]
[synthesis.combinations]
num_combinations = {combinations}
math_share = 1.0
# At 0.2 six of seven draws from a bank of this size repeat a known set: the sampler has a benchmark
# of its own.
temperature = 1.0
[synthesis.distinct]
decontaminate = false
[synthesis.solutions]
samples_per_problem = 4
[[synthesis.judging.judges]]
teacher = "default"
"""


def main() -> int:
    """Measure in a child process, print, and fail below the bars."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--out", type=Path, help="keep the run here instead of deleting it")
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_stages(options.child, options.profile)
        return 0
    with tempfile.TemporaryDirectory(prefix="throughput-") as name:
        folder = options.out or Path(name)
        write_run(folder, options.requests // _REQUESTS_PER_COMBINATION, options.batch_size)
        result = measure(folder, options.profile)
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    stages = result["stages"]
    console.use_json_output()
    console.table("Throughput by stage", list(stages[0]), [list(s.values()) for s in stages])
    return 0 if result["rows_per_cpu_s"] >= ROWS_BAR and result["peak_mib"] <= RSS_BAR_MIB else 1


def write_run(folder: Path, combinations: int, batch_size: int) -> None:
    """The recipe and the script; three times more problems than are drawn keep most distinct."""
    rng = random.Random(7)
    problems: list[str] = []
    while len(problems) < 3 * combinations:
        text = invent(rng, is_code=False)
        if text.endswith("-->"):
            problems.append(text)
    solutions = [
        f"<think>\n{_thought(rng, 120)}\n</think>\n\nThe answer is $\\boxed{{{answer}}}$."
        for answer in [42] * 45 + [17] * 5
    ]
    rows = [
        {"match": "Final Judgement", "text": [judge(rng) for _ in range(60)]},
        {"match": "BEGIN PROBLEM", "text": problems},
        {"match": "", "text": solutions},
    ]
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "script.jsonl").write_text(lines, encoding="utf-8")
    (folder / "bank.jsonl").write_text(_bank(rng), encoding="utf-8")
    text = RECIPE.format(combinations=combinations, batch_size=batch_size)
    (folder / "throughput.toml").write_text(text, encoding="utf-8")


def _bank(rng: random.Random) -> str:
    """Seeds with a problem, a rationale and five of 6,000 concepts, the first ones frequent."""
    syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    words = ["".join(rng.choices(syllables, k=3)) for _ in range(12_000)]
    concepts = [f"{a} {b}" for a, b in zip(words[::2], words[1::2], strict=True)]
    weights = [1 / (rank + 5) for rank in range(len(concepts))]
    lines = []
    while len(lines) < _NUM_SEEDS:
        chosen = set(rng.choices(concepts, weights, k=8))
        if len(chosen) < 5:
            continue
        rationale, _, problem = invent(rng, is_code=False).partition("<!-- END RATIONALE -->")
        seed = {
            "concepts": sorted(chosen)[:5],
            "domain": "math",
            "level": "AIME",
            "problem": problem.replace("<!-- BEGIN PROBLEM -->", "").split("<!--")[0].strip(),
            "rationale": rationale.replace("<!-- BEGIN RATIONALE -->", "").strip(),
        }
        lines.append(json.dumps(seed) + "\n")
    return "".join(lines)


def _thought(rng: random.Random, num_words: int) -> str:
    """Sentences as varied as a chain of thought is: no link words that come again and again."""
    words = [rng.choice(WORDS) for _ in range(num_words)]
    pieces = [words[start : start + 9] for start in range(0, num_words, 9)]
    return " ".join(f"{' '.join(piece).capitalize()}." for piece in pieces)


def run_stages(folder: Path, profile: Path | None) -> None:
    """The child's work: each stage, with what it took, one JSON line each."""
    recipe = load_recipe(str(folder / "throughput.toml"))
    console.use_json_output()
    for stage in chain_of(recipe):
        start, cpu = time.time(), _cpu_s()
        if profile is not None:
            import cProfile

            with cProfile.Profile() as profiler:
                version = run_one_stage(recipe, folder / "out", stage)
            profiler.dump_stats(profile.with_suffix(f".{stage}"))
        else:
            version = run_one_stage(recipe, folder / "out", stage)
        manifest = version.manifest
        console.print_json(
            {
                "stage": stage,
                "start": start,
                "seconds": time.time() - start,
                "cpu_s": _cpu_s() - cpu,
                "rows_in": manifest.rows_in,
                "rows_out": manifest.rows_out,
            }
        )


def _cpu_s() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def measure(folder: Path, profile: Path | None) -> dict[str, Any]:
    """Run the child, sample its memory, and put the figures together."""
    command = [sys.executable, str(Path(__file__)), "--child", str(folder)]
    command += ["--profile", str(profile)] if profile else []
    samples: list[tuple[float, float]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        while child.poll() is None:
            samples.append((time.time(), tree_mib(child.pid)))
            time.sleep(_SAMPLE_S)
        stages = [json.loads(line) for line in child.stdout]
    if child.returncode:
        raise RuntimeError(f"the run ended with {child.returncode}: run it with --child {folder}")
    requests = {line.stage: line.requests for line in read_ledger(folder / "out")}
    for stage in stages:
        within = [mib for at, mib in samples if 0 <= at - stage["start"] <= stage["seconds"]]
        half = len(within) // 2
        stage |= {
            "peak_mib": round(max(within, default=0.0)),
            "growth_mib": round(_median(within[half:]) - _median(within[:half])),
            "requests": requests.get(stage["stage"], 0),
            "seconds": round(stage["seconds"], 1),
            "cpu_s": round(stage["cpu_s"], 1),
        }
        del stage["start"]
    cpu_s = sum(stage["cpu_s"] for stage in stages)
    rows = sum(stage["rows_in"] for stage in stages)
    return {
        "benchmark": "synthesis_throughput",
        "rows": rows,
        "requests": sum(requests.values()),
        "seconds": round(sum(stage["seconds"] for stage in stages), 1),
        "cpu_s": round(cpu_s, 1),
        "rows_per_cpu_s": round(rows / cpu_s),
        "requests_per_cpu_s": round(sum(requests.values()) / cpu_s),
        "peak_mib": max(stage["peak_mib"] for stage in stages),
        "stages": stages,
    }


def _median(values: list[float]) -> float:
    return statistics.median(values) if values else 0.0


def tree_mib(pid: int) -> float:
    """Resident memory of a process and all below it."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return 0.0
    own = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return own + sum(tree_mib(int(child)) for child in children)


if __name__ == "__main__":
    sys.exit(main())
