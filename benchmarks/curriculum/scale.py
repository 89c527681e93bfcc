"""A corpus of any size through the whole build: what was caught, what it cost, is it repeatable.

    .venv/bin/python benchmarks/curriculum/corpus.py --rows 1000000 --out corpus
    .venv/bin/python benchmarks/curriculum/scale.py corpus --work work --against scale-200k.json

Builds phase 1 and reports, in one JSON line (also written to ``WORK/scale.json``):

- ``quality``: recall and precision of everything planted (scale_labels.py);
- ``build``: rows a second, processor time a row, bytes of prepared sources and of the version,
  peak memory over the tree of processes, whose curve goes to ``WORK/memory.png`` with the bound;
- ``rebuild``: the same in a second folder, and which files differ;
- ``executors``, with ``--executors serial,pool,ray``: the same bytes and the cost of each; Ray's
  processes are nobody's descendants, so it is compared by the processor time of the whole machine,
  on which nothing else should run;
- ``against``: cost of a row over that of an earlier, smaller run (its ``scale.json``).

Exit code 1 when a bar of docs/results.md is missed. It can be done in parts: with ``--reuse``, what
an earlier call built and measured in ``WORK`` (or build.py, there too) is not built again, and
``--without-rebuild`` leaves the second folder for later. Second builds are deleted once compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from build import OURS, build_command, peak_limit, warm_up
from measuring import Cost, measure
from scale_labels import find_misses, judge_version

FIRST = OURS["full"]
EXECUTORS = {
    "serial": ("execution.executor=local", "curriculum.num_workers=1"),
    "pool": ("execution.executor=local", "curriculum.num_workers={workers}"),
    "ray": ("execution.executor=ray", "curriculum.num_workers={workers}"),
}
MOST_RAY, MOST_GROWTH = 1.3, 1.15
"""The machine's processor time with Ray over that with the pool; cost of a row over
that in a smaller corpus."""
MIB = 1 << 20


def build(options: argparse.Namespace, name: str, kind: str) -> dict[str, Any]:
    """Build the corpus into a folder, or find that it was; what it cost and what came out."""
    folder, record = options.work / name, options.work / f"{name}.json"
    if not (options.reuse and (record.is_file() or (folder / "datasets").is_dir())):
        record.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        settings = [text.format(workers=options.workers) for text in EXECUTORS[kind]]
        command = build_command(options.corpus, folder, *settings)
        cost = measure(command, options.work / f"{name}.log", {})
        record.write_text(json.dumps(asdict(cost)))
    found: dict[str, Any] = json.loads(record.read_text()) if record.is_file() else {}
    if "files" not in found:
        version = find_version(folder)
        found |= {"version": version.name, "files": hash_files(version)}
        found["prepared_bytes"] = count_bytes(folder / "prepared")
        found["version_bytes"] = count_bytes(version)
        record.write_text(json.dumps(found))
    if name != FIRST and not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def find_version(folder: Path) -> Path:
    """The version that a build published."""
    phase = folder / "datasets" / "phase-1"
    return phase / (phase / "LATEST").read_text().strip()


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of all files below a folder."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        found[path.relative_to(folder).as_posix()] = digest
    return found


def count_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def describe(found: dict[str, Any], num_rows: int) -> dict[str, Any]:
    """A build's figures; those of time and memory only where it was measured."""
    sizes = {name: found[name] for name in ("version", "prepared_bytes", "version_bytes")}
    if "cpu_s" not in found:
        return sizes
    cost = Cost(found["cpu_s"], found["wall_s"], found["peak_mib"])
    cost.machine_s = found.get("machine_s", 0.0)
    return sizes | {
        "cpu_s": round(cost.cpu_s, 1),
        "machine_s": round(cost.machine_s, 1),
        "wall_s": round(cost.wall_s, 1),
        "rows_per_s": round(num_rows / cost.wall_s),
        "us_per_row": round(cost.cpu_s / num_rows * 1e6, 1),
        "peak_mib": cost.peak_mib,
    }


def compare(first: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Files of two builds that are not the same."""
    if first["version"] != other["version"]:
        # Another name means other settings, inputs or code: no file need be compared.
        return {"files": 0, "differing": [f"version {other['version']}, not {first['version']}"]}
    ours, theirs = first["files"], other["files"]
    differing = [name for name in sorted(ours | theirs) if ours.get(name) != theirs.get(name)]
    return {"files": len(ours), "differing": differing}


def draw_memory(curve: list[tuple[float, int]], bound: int, path: Path) -> None:
    """Memory of the tree of processes over time, as a PNG."""
    from pipeline.plot_style import BLUE, VERMILLION, new_figure, use_whole_numbers

    with new_figure(2.8) as figure:
        figure.set_facecolor("white")
        axes = figure.subplots()
        # A point a second at most shows as much and keeps the line thin.
        step = max(len(curve) // 2000, 1)
        pieces = [curve[at : at + step] for at in range(0, len(curve), step)]
        axes.plot(
            [piece[0][0] / 60 for piece in pieces],
            [max(mib for _, mib in piece) for piece in pieces],
            color=BLUE,
            linewidth=1.2,
        )
        axes.axhline(bound, color=VERMILLION, linestyle="--", linewidth=1.4)
        axes.annotate(f"bound: {bound:,} MiB", (1, bound), xycoords=("axes fraction", "data"),
                      xytext=(0, 4), textcoords="offset points", ha="right",
                      color=VERMILLION)  # fmt: skip
        axes.set_xlabel("minutes")
        axes.set_ylabel("MiB in memory")
        axes.set_xlim(left=0)
        axes.set_ylim(0, max(bound, *(mib for _, mib in curve)) * 1.15)
        axes.grid(axis="y")
        use_whole_numbers(axes.yaxis, 6)
        figure.savefig(path, dpi=160)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All that the options ask for."""
    labels = options.corpus / "labels.parquet"
    num_rows = pq.read_metadata(labels).num_rows
    if not (options.reuse and (options.work / f"{FIRST}.json").is_file()):
        warm_up(options.work)
    first = build(options, FIRST, "pool")
    result = {"rows": num_rows, "build": describe(first, num_rows)}
    if first.get("curve"):
        draw_memory(first["curve"], peak_limit(num_rows), options.work / "memory.png")
    result["quality"] = judge_version(labels, find_version(options.work / FIRST))
    if not options.without_rebuild:
        second = build(options, "second", "pool")
        result["rebuild"] = describe(second, num_rows) | compare(first, second)
    executors = {}
    for kind in options.executors:
        found = build(options, f"executor-{kind}", kind)
        executors[kind] = describe(found, num_rows) | compare(first, found)
    result |= {"executors": executors} if executors else {}
    if options.against:
        result["against"] = weigh(result, json.loads(options.against.read_text()))
    return result


def weigh(result: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Cost of a row over that in an earlier run.

    Raises:
        SystemExit: One of the two was not measured.
    """
    costs = [one["build"].get("us_per_row") for one in (earlier, result)]
    if None in costs:
        sys.exit("cost of a row: one of the two builds was reused and never measured")
    return {
        "rows": earlier["rows"],
        "us_per_row": costs[0],
        "times": round(costs[1] / costs[0], 3),
    }


def misses(result: dict[str, Any]) -> list[str]:
    """Bars that are not met."""
    missed = find_misses(result["quality"])
    limit, peak = peak_limit(result["rows"]), result["build"].get("peak_mib", 0)
    if peak > limit:
        missed.append(f"peak of {peak} MiB, not {limit}")
    builds = {"rebuild": result.get("rebuild"), **result.get("executors", {})}
    for name, found in builds.items():
        if found and found["differing"]:
            missed.append(f"{name}: {len(found['differing'])} differ, {found['differing'][:3]}")
    # A build that was there already has no such figure, or none of the machine's.
    executors = result.get("executors", {}).items()
    costs = {kind: found["machine_s"] for kind, found in executors if found.get("machine_s")}
    if {"pool", "ray"} <= costs.keys() and costs["ray"] > MOST_RAY * costs["pool"]:
        missed.append(f"Ray takes {costs['ray'] / costs['pool']:.2f} times the pool's time")
    if "against" in result and result["against"]["times"] > MOST_GROWTH:
        missed.append(f"a row costs {result['against']['times']} times as much, not {MOST_GROWTH}")
    return missed


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, help="a folder that corpus.py wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is built")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--reuse", action="store_true", help="keep builds that are in WORK")
    parser.add_argument("--without-rebuild", action="store_true")
    parser.add_argument("--executors", type=lambda text: text.split(","), default=[])
    parser.add_argument("--against", type=Path, help="scale.json of a smaller corpus")
    parser.add_argument("--keep", action="store_true", help="keep second builds")
    options = parser.parse_args()
    if unknown := set(options.executors) - EXECUTORS.keys():
        parser.error(f"no executor {sorted(unknown)}: choose of {', '.join(EXECUTORS)}")
    options.work.mkdir(parents=True, exist_ok=True)
    result = run(options)
    result["missed"] = misses(result)
    for line in result["missed"]:
        sys.stderr.write(line + "\n")
    (options.work / "scale.json").write_text(json.dumps(result) + "\n")
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
