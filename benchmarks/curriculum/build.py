r"""A whole build of a generated corpus beside its peers, in processor time and memory.

    .venv/bin/python benchmarks/curriculum/corpus.py --rows 200000 --out corpus
    .venv/bin/python benchmarks/curriculum/build.py corpus --work work
    .venv/bin/python benchmarks/curriculum/build.py corpus --work work --datatrove-python PATH

Two builds of ours stand beside the peers (peer_polars.py with kitoken, peer_datatrove.py):

- ``full``: the recipe as it is. It does all that the peers do (normalise, exact and near
  duplicates, benchmark items in questions, exact tokens, length limit, seeded order, Parquet) and
  also looks for items in the reasoning and for items retold, parses programs, looks for loops,
  foreign languages and spam, scores and names what it refuses, maps duplicates, measures
  difficulty, keeps provenance.
- ``equal``: the same with what settings can switch off switched off (``EQUAL``), which is nearer to
  the peers' work. Reasons, maps of duplicates, difficulty and provenance are still made.

One contender runs after the other, each in its own process; time and memory are those of the
process and all its descendants. Kernels are compiled before. With ``--repeats`` all run in turns
and the cheapest run of each counts; the first one of ours keeps the index of the benchmark items
in the user's cache, which spares the later ones three seconds. The peers need polars and kitoken
(``pip install kitoken``). ``--datatrove-python`` is the Python of an environment with datatrove:

    python3.11 -m venv ../datatrove
    ../datatrove/bin/pip install --only-binary :all: 'datatrove[io]==0.10.1' spacy 'xxhash<4' \
        sentencepiece tokenizers ftfy regex

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

from pipeline.benchmarks import load_questions
from pipeline.settings.recipe import load_recipe
from pipeline.student import tokenizer_path

HERE = Path(__file__).parent
BARS = {"polars": 2.5, "datatrove": 15.0}
"""How many times our processor time a peer must take at least."""
PEAK_MIB = {200_000: 1024, 1_000_000: 1536}
"""Most memory of the tree for corpora of up to so many rows; flat after the last."""
OURS = {"full": "curriculum", "equal": "curriculum-equal"}
"""Folders of our builds."""
EQUAL = (
    "curriculum.decontamination.thinking_chars=0",
    "curriculum.decontamination.find_rewordings=false",
    "curriculum.validation.check_gold=false",
    "curriculum.validation.check_syntax=false",
    "curriculum.validation.max_foreign_share=1",
    "curriculum.validation.max_link_share=1",
    "curriculum.validation.min_distinct_ngrams=0",
)
"""Settings that leave out what the peers do not do."""


def write_items(corpus: Path) -> None:
    """The benchmark items in one plain file for the peers."""
    recipe = load_recipe(str(corpus / "recipe.toml"))
    with (corpus / "items.jsonl").open("w", encoding="utf-8") as handle:
        for settings in recipe.settings.benchmarks:
            for item in load_questions(recipe, settings):
                handle.write(json.dumps({"id": item.id, "question": item.question}) + "\n")


def build_command(corpus: Path, out: Path, *settings: str) -> list[str]:
    """Our build of a corpus."""
    recipe = str(corpus / "recipe.toml")
    command = [sys.executable, "-m", "curriculum.build", "--phase", "1", "--recipe", recipe]
    for setting in settings:
        command += ["--set", setting]
    return [*command, "--out", str(out), "--json"]


def warm_up(work: Path) -> None:
    """Compile the kernels, which happens once on a machine, by a build of the demo's rows."""
    command = [sys.executable, "-m", "curriculum.build", "--phase", "1", "--recipe", "demo"]
    measure([*command, "--out", str(work / "warm"), "--json"], work / "warm.log", {})
    shutil.rmtree(work / "warm")


def commands(options: argparse.Namespace) -> dict[str, list[str]]:
    """The contenders.

    Raises:
        SystemExit: A peer's package is missing.
    """
    corpus, work, tokenizer = options.corpus, options.work, str(tokenizer_path())
    found = {}
    for kind in ("full", "equal") if options.ours == "both" else (options.ours,):
        settings = [
            f"curriculum.num_workers={options.workers}",
            *(EQUAL if kind == "equal" else ()),
        ]
        found[OURS[kind]] = build_command(corpus, work / OURS[kind], *settings)
    if options.without_peers:
        return found
    if not (find_spec("polars") and find_spec("kitoken")):
        sys.exit("the peer needs polars and kitoken: install them, or pass --without-peers")
    peer = str(HERE / "peer_polars.py")
    found["polars"] = [sys.executable, peer, str(corpus), str(work / "polars"), tokenizer]
    if options.datatrove_python:
        peer, out = str(HERE / "peer_datatrove.py"), str(work / "datatrove")
        found["datatrove"] = [str(options.datatrove_python), peer, str(corpus), out, tokenizer]
    return found


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All contenders, one after the other."""
    write_items(options.corpus)
    warm_up(options.work)
    labels = pq.read_metadata(options.corpus / "labels.parquet")
    result: dict[str, Any] = {"rows": labels.num_rows, "contenders": {}}
    contenders = result["contenders"]
    environment = {"POLARS_MAX_THREADS": str(options.workers)}
    for _ in range(options.repeats):
        for name, command in commands(options).items():
            shutil.rmtree(options.work / name, ignore_errors=True)
            cost = measure(command, options.work / f"{name}.log", environment)
            numbers = describe(cost, result["rows"])
            sys.stderr.write(f"{name}: {json.dumps(numbers)}\n")
            if name not in contenders or numbers["cpu_s"] < contenders[name]["cpu_s"]:
                contenders[name] = numbers
                (options.work / f"{name}.json").write_text(json.dumps(asdict(cost)))
            if name != OURS["full"] and not options.keep:
                shutil.rmtree(options.work / name)
    result["times_our_cpu"] = {
        kind: {
            peer: round(contenders[peer]["cpu_s"] / contenders[name]["cpu_s"], 2)
            for peer in BARS
            if peer in contenders
        }
        for kind, name in OURS.items()
        if name in contenders
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
        f"{peer} takes only {times} times the processor time of our {kind} build, not {BARS[peer]}"
        for kind, peers in result["times_our_cpu"].items()
        for peer, times in peers.items()
        if times < BARS[peer]
    ]
    for name in OURS.values():
        peak = result["contenders"].get(name, {"peak_mib": 0})["peak_mib"]
        if peak > peak_limit(result["rows"]):
            missed.append(f"{name}: peak of {peak} MiB, not {peak_limit(result['rows'])}")
    return missed


def peak_limit(num_rows: int) -> int:
    """Most MiB that a build of so many rows may take."""
    return next((mib for rows, mib in PEAK_MIB.items() if num_rows <= rows), max(PEAK_MIB.values()))


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, help="a folder that corpus.py wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is built")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--datatrove-python", type=Path, help="Python of datatrove's environment")
    parser.add_argument("--ours", choices=("both", "full", "equal"), default="both")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep all that was built")
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
