"""Two GPUs against one, TRL against a bare loop, resuming on a GPU, and 7B on one card.

    python benchmarks/trainer/scaling.py WORK [--part scaling,bare,resume,optimizers]
        [--launcher accelerate] [--scale full|paper|tiny]

``scaling``: the project's own command line trains 1.3B on generated long rows, in one process and
with torchrun in two: loss and gradient norm step by step, tokens a second, memory.
``bare``: the same rows in one process without TRL and accelerate.
``resume``: 38M trained once undisturbed and once killed and continued by the same command; logs and
weights must be equal byte for byte. ``sharded-resume``: the same in two processes.
``optimizers``: a step of 7B with ``host_master`` and ``stochastic``.

``--scale paper`` gives a step the paper's 64 documents instead of 16, so that what a step does once
(gradients reduced, weights updated) has the share it has in a real run. The runs of ``scaling`` are
ended after their last step, before they write 20 GB. Each part prints a JSON line; progress goes to
standard error. Exit code 1 if a bar is missed or a part fails. ``tiny`` runs everything on two CPU
cores in a minute, where speeds are no bars. WORK is used again: what has been measured there for
``scaling`` is what ``bare`` is held against.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scaling_inputs import SCALES, make_dataset, write_recipe
from sft_runs import Run, hash_folder, run_helper, run_until, say, wait_for

from pipeline import console

BARS = {
    "difference": 2e-2,
    "two_over_one": 1.8,
    "sft_over_bare": 0.95,
    "peak_gib": 62.0,
}
Result = dict[str, Any]


def measure_scaling(work: Path, scale: str, launcher: str) -> Result:
    """The same recipe in one process and in two."""
    runs = {"one": ("python", 1), "two": ("torchrun", 2)}
    if launcher == "accelerate":
        runs["accelerate"] = ("accelerate", 2)
    result: Result = {}
    one: Result = {}
    for name, (starter, processes) in runs.items():
        run = Run(work / name, work / "big.toml", make_dataset(work, scale), starter, processes)
        try:
            found = train_and_store(run, scale)
        except RuntimeError as exc:
            # The other runs still tell something.
            result[name] = {"error": str(exc)}
            continue
        result[name] = summarise(found)
        if name == "one":
            one = found
        elif one:
            result[name] |= compare(one, found)
            result[name]["over_one"] = round(median_rate(found) / median_rate(one), 3)
    return result | {"missed": missed_scaling(result)}


def train_and_store(run: Run, scale: str) -> Result:
    """A fresh run's two logs, also kept beside its folder, which is deleted."""
    shutil.rmtree(run.out, ignore_errors=True)
    try:
        found = run_until(run, SCALES[scale]["steps"])
    finally:
        shutil.rmtree(run.out, ignore_errors=True)
    found["skipped"] = SCALES[scale]["skipped"]
    run.out.with_suffix(".json").write_text(json.dumps(found), encoding="utf-8")
    say(f"{run.out.name}: {median_rate(found):,.0f} tokens/s")
    return found


def missed_scaling(result: Result) -> list[str]:
    missed = []
    for name, run in result.items():
        if "error" in run:
            missed.append(f"{name}: failed")
        if "over_one" not in run:
            continue
        if not run["largest_difference"] <= BARS["difference"]:
            missed.append(f"{name}: loss or gradient norm differs by {run['largest_difference']}")
        if run["over_one"] < BARS["two_over_one"]:
            missed.append(f"{name}: {run['over_one']} of one GPU")
    return missed


def median_rate(run: Result) -> float:
    """Tokens a second of the steps after the first ones."""
    counted = run["speed"][run["skipped"] :]
    return float(statistics.median(lap["tokens_per_second"] for lap in counted))


def summarise(run: Result) -> Result:
    return {
        "tokens_per_s": round(median_rate(run)),
        "seconds_a_step": [lap["seconds"] for lap in run["speed"]],
        "real_share": run["speed"][-1]["real_share"],
        "mfu": run["speed"][-1]["mfu"],
        "peak_gib": run["speed"][-1]["memory_gib"],
        "loss": [line["loss"] for line in run["log"]],
        "grad_norm": [line["grad_norm"] for line in run["log"]],
        "first_step_after_s": run["first_step_after_s"],
        "took_s": run["took_s"],
    }


def compare(one: Result, other: Result) -> Result:
    """Largest relative differences of loss and gradient norm over all steps."""
    found = {
        key: max(
            abs(a[key] - b[key]) / abs(a[key])
            for a, b in zip(one["log"], other["log"], strict=True)
        )
        for key in ("loss", "grad_norm")
    }
    return {
        "loss_difference": found["loss"],
        "grad_norm_difference": found["grad_norm"],
        "largest_difference": max(found.values()),
    }


def measure_bare(work: Path, scale: str, launcher: str) -> Result:
    """The plain loop in a process of its own, against the run of one process."""
    stored = work / "one.json"
    if not stored.is_file():
        run = Run(work / "one", work / "big.toml", make_dataset(work, scale), "python", 1)
        train_and_store(run, scale)
    sft = json.loads(stored.read_text(encoding="utf-8"))
    dataset = make_dataset(work, scale)
    bare = run_helper("bare", str(work / "big.toml"), str(dataset), str(work / "bare"))
    if "error" in bare:
        return bare
    bare["skipped"] = sft["skipped"]
    share = round(median_rate(sft) / median_rate(bare), 3)
    difference = compare(sft, bare)
    is_low = share < BARS["sft_over_bare"]
    is_other = not difference["largest_difference"] <= BARS["difference"]
    return {
        "sft_tokens_per_s": round(median_rate(sft)),
        "bare_tokens_per_s": round(median_rate(bare)),
        "sft_over_bare": share,
        "sft_peak_gib": sft["speed"][-1]["memory_gib"],
        "bare_peak_gib": bare["peak_gib"],
        "sft_seconds": [lap["seconds"] for lap in sft["speed"]],
        "bare_seconds": [lap["seconds"] for lap in bare["speed"]],
        **difference,
        "missed": [f"{share} of the bare loop"] * is_low + ["another loss"] * is_other,
    }


def measure_resume(work: Path, scale: str, launcher: str) -> Result:
    """Undisturbed, and killed and continued, in one process."""
    return kill_and_continue(work, scale, "python", 1)


def measure_sharded_resume(work: Path, scale: str, launcher: str) -> Result:
    """The same in two processes, whose weights and checkpoints are in pieces."""
    return kill_and_continue(work, scale, launcher, 2)


def kill_and_continue(work: Path, scale: str, starter: str, processes: int) -> Result:
    """Whether a killed run ends in the same losses and weights."""
    dataset, recipe = make_dataset(work, scale), work / "small.toml"
    whole, cut = (
        Run(work / f"{name}-{processes}", recipe, dataset, starter, processes)
        for name in ("whole", "cut")
    )
    for run in (whole, cut):
        shutil.rmtree(run.out, ignore_errors=True)
    wait_for(whole)
    killed = run_until(cut, 13)
    # The tiles of the run's own folder must do: this machine's memory of them is put away.
    tiles = cut.read_tiles()
    forget_tiles()
    kept = [path.name for path in cut.list_checkpoints()]
    wait_for(cut)
    logs = [(run.final / "train_log.jsonl").read_bytes().splitlines() for run in (whole, cut)]
    same = {
        "equal_logs": logs[0] == logs[1],
        "equal_weights": hash_folder(whole.final) == hash_folder(cut.final),
    }
    pairs = enumerate(zip(*logs, strict=False), 1)
    return {
        **same,
        "processes": processes,
        "killed_after_step": len(killed["log"]),
        "checkpoints_then": kept,
        "first_other_step": next((number for number, (a, b) in pairs if a != b), None),
        "first_and_last_loss": [json.loads(logs[1][place])["loss"] for place in (0, -1)],
        "tiles": tiles,
        "missed": [what for what, holds in same.items() if not holds],
    }


def forget_tiles() -> None:
    from trainer.kernels.precompile import cache_folder

    for path in cache_folder().glob("tiles-*.json"):
        path.unlink()


def measure_optimizers(work: Path, scale: str, launcher: str) -> Result:
    """A 7B step of both policies, each in a process of its own: memory may run out."""
    result = {
        policy: run_helper("optimizer", policy, scale) for policy in ("stochastic", "host_master")
    }
    missed = []
    for policy, found in result.items():
        if "error" in found:
            missed.append(f"{policy}: {found['error']}")
        elif found["peak_gib"] > BARS["peak_gib"]:
            missed.append(f"{policy}: {found['peak_gib']} GiB")
    return {**result, "missed": missed}


PARTS: dict[str, Callable[[Path, str, str], Result]] = {
    "scaling": measure_scaling,
    "bare": measure_bare,
    "resume": measure_resume,
    "sharded-resume": measure_sharded_resume,
    "optimizers": measure_optimizers,
}


def run_part(part: str, options: argparse.Namespace) -> Result:
    """A part's line; a failure is recorded and the next part goes on."""
    began = time.monotonic()
    say(f"{part} ...")
    try:
        found = PARTS[part](options.work, options.scale, options.launcher)
    except Exception as exc:
        found = {"error": f"{type(exc).__name__}: {str(exc)[:2000]}"}
    seconds = round(time.monotonic() - began, 1)
    say(f"{part}: {seconds} s; {found.get('error') or found.get('missed') or 'all bars held'}")
    return {"part": part, "scale": options.scale, **found, "seconds": seconds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--part", default="scaling,bare,resume,optimizers", help=", ".join(PARTS))
    parser.add_argument("--scale", choices=sorted(SCALES), default="full")
    parser.add_argument("--launcher", choices=("torchrun", "accelerate"), default="torchrun")
    options = parser.parse_args()
    console.use_json_output()
    chosen = options.part.split(",")
    if unknown := set(chosen) - PARTS.keys():
        parser.error(f"unknown parts {', '.join(sorted(unknown))}")
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    for name in ("big", "small"):
        write_recipe(options.work, options.scale, name)
    has_failed, is_timed = False, options.scale != "tiny"
    for part in chosen:
        result = run_part(part, options)
        sys.stdout.write(json.dumps(result, sort_keys=True) + "\n")
        sys.stdout.flush()
        has_failed |= "error" in result or bool(is_timed and result.get("missed"))
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(main())
