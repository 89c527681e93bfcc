"""A whole build of a generated corpus beside its peers, in processor time and memory.

    .venv/bin/python benchmarks/curriculum/corpus.py --rows 200000 --out corpus
    .venv/bin/python benchmarks/curriculum/build.py corpus --work work
    .venv/bin/python benchmarks/curriculum/build.py corpus --work work --datatrove-python PATH

The peers (peer_polars.py with kitoken, peer_datatrove.py) do the same job and less, see there. One
contender runs after the other, each in its own process; time and memory are those of the process
and all its descendants. ``--datatrove-python`` is the Python of an environment with datatrove:

    python3.11 -m venv ../datatrove
    ../datatrove/bin/pip install 'datatrove[io]==0.10.1' spacy 'xxhash<4' sentencepiece ftfy regex

It takes about ten seconds a thousand rows: 20,000 rows are enough. Ends with one JSON line; exit
code 1 when a bar of docs/results.md is missed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from measuring import Cost, measure

from pipeline.benchmarks import load_benchmark
from pipeline.settings.recipe import load_recipe
from pipeline.student import tokenizer_path

HERE = Path(__file__).parent
BARS = {"polars": 2.5, "datatrove": 15.0}
"""How many times our processor time a peer must take at least."""
PEAK_MIB = {200_000: 1024, 1_000_000: 1536}
"""Most memory of the tree for corpora of up to so many rows."""
OURS = "curriculum"


def write_items(corpus: Path) -> None:
    """The benchmark items in one plain file for the peers."""
    recipe = load_recipe(str(corpus / "recipe.toml"))
    with (corpus / "items.jsonl").open("w", encoding="utf-8") as handle:
        for settings in recipe.settings.benchmarks:
            for item in load_benchmark(recipe, settings):
                handle.write(json.dumps({"id": item.id, "question": item.question}) + "\n")


def commands(options: argparse.Namespace) -> dict[str, list[str]]:
    """The contenders."""
    corpus, work, tokenizer = options.corpus, options.work, str(tokenizer_path())
    recipe, workers = str(corpus / "recipe.toml"), options.workers
    build = [sys.executable, "-m", "curriculum.build", "--phase", "1", "--recipe", recipe]
    build += ["--set", f"curriculum.num_workers={workers}", "--out", str(work / OURS), "--json"]
    found = {OURS: build}
    if options.without_peers:
        return found
    if find_spec("polars") and find_spec("kitoken"):
        peer = str(HERE / "peer_polars.py")
        found["polars"] = [sys.executable, peer, str(corpus), str(work / "polars"), tokenizer]
    if options.datatrove_python:
        peer, out = str(HERE / "peer_datatrove.py"), str(work / "datatrove")
        found["datatrove"] = [str(options.datatrove_python), peer, str(corpus), out, tokenizer]
    return found


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All contenders, one after the other."""
    write_items(options.corpus)
    labels = pq.read_metadata(options.corpus / "labels.parquet")
    result: dict[str, Any] = {"rows": labels.num_rows, "contenders": {}}
    environment = {"POLARS_MAX_THREADS": str(options.workers)}
    for name, command in commands(options).items():
        shutil.rmtree(options.work / name, ignore_errors=True)
        cost = measure(command, options.work / f"{name}.log", environment)
        numbers = describe(cost, result["rows"])
        result["contenders"][name] = numbers
        sys.stderr.write(f"{name}: {json.dumps(numbers)}\n")
        (options.work / f"{name}.json").write_text(json.dumps(asdict(cost)))
        if name != OURS and not options.keep:
            shutil.rmtree(options.work / name)
    ours = result["contenders"][OURS]["cpu_s"]
    result["times_our_cpu"] = {
        name: round(numbers["cpu_s"] / ours, 2)
        for name, numbers in result["contenders"].items()
        if name != OURS
    }
    return result


def describe(cost: Cost, num_rows: int) -> dict[str, Any]:
    """Numbers of one contender."""
    return {
        "cpu_s": round(cost.cpu_s, 1),
        "wall_s": round(cost.wall_s, 1),
        "us_per_row": round(cost.cpu_s / num_rows * 1e6),
        "peak_mib": cost.peak_mib,
        "rows_out": json.loads(cost.output.strip().splitlines()[-1])["rows_out"],
    }


def misses(result: dict[str, Any]) -> list[str]:
    """Bars that are not met."""
    missed = [
        f"{name} takes only {times} times our processor time, not {BARS[name]}"
        for name, times in result["times_our_cpu"].items()
        if times < BARS[name]
    ]
    limit = next((mib for rows, mib in PEAK_MIB.items() if result["rows"] <= rows), None)
    peak = result["contenders"][OURS]["peak_mib"]
    if limit is not None and peak > limit:
        missed.append(f"peak of {peak} MiB, not {limit}")
    return missed


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, help="a folder that corpus.py wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is built")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--datatrove-python", type=Path, help="Python of datatrove's environment")
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep what the peers wrote")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    result = run(options)
    missed = misses(result)
    for line in missed:
        sys.stderr.write(line + "\n")
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
