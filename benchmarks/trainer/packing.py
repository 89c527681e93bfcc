"""The trainer's data pipeline against `datasets.map` and TRL's packing, on the same long rows.

    .venv/bin/python benchmarks/trainer/packing.py [--rows 2000] [--out FOLDER]

Writes a phase version of worked solutions (log-normal lengths, 6,000 tokens on average, at most
16,384) with the project's own stage. Then each of these runs in a process of its own, with two
workers, and is charged for the processor time and memory of itself and all its descendants:

- ours: tokenise into the cache, lay out an epoch (`exact`), read every row, collate it;
- ours again, from the cache: what every later run pays;
- peer: `Dataset.map` with TRL's tokenising of prompt-completion rows, `pack_dataset` with `bfd`,
  then reading every packed row and collating it.

Padding is compared for the same documents: `exact`, `best_fit`, TRL's `bfd`, and random batches of
four padded to their longest. Progress goes to standard error, one JSON object to standard output;
exit code 1 if a case failed or the pipeline is slower than five H100s of the 1.3B model consume.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "curriculum"))
from long_rows import MAX_LENGTH, write_version
from measuring import measure

from pipeline.manifest import Version, load_version
from pipeline.records import Message
from pipeline.student import render_completion, render_prompt
from trainer.data import DataSettings, plan_data, prepare_rows
from trainer.data.encoding import encode_by_chunks

DOCUMENTS_PER_STEP = 64
MULTIPLE = 128
WORKERS = 2
H100_TOKENS_PER_S = 32_600
"""1.3B parameters, rows of 16k tokens, all blocks recomputed: `throughput.py`, docs/results.md."""
WANTED = 5 * H100_TOKENS_PER_S


def settings_of(packing: str) -> DataSettings:
    return DataSettings(
        packing=packing,  # type: ignore[arg-type]
        documents_per_step=DOCUMENTS_PER_STEP,
        max_length=MAX_LENGTH,
        max_row_tokens=MAX_LENGTH,
        order="shuffled",
        pad_multiple=MULTIPLE,
    )


def run_ours(version: Version, cache: Path) -> dict[str, Any]:
    """Everything between a version on disk and batches for the model."""
    started = time.monotonic()
    data = prepare_rows(version, settings_of("exact"), cache=cache, num_workers=WORKERS)
    prepared = time.monotonic()
    # The first batch imports PyTorch.
    data.collate([data.dataset[0]])
    began, before = time.monotonic(), time.process_time()
    tokens = 0
    for row in data.dataset:
        batch = data.collate([row])
        tokens += len(row["input_ids"])
        assert batch["input_ids"].shape[1] % MULTIPLE == 0
    return {
        "tokens": tokens,
        "prepare_s": round(prepared - started, 2),
        "read_s": round(time.monotonic() - began, 2),
        "read_tokens_per_cpu_s": round(tokens / (time.process_time() - before)),
    }


def run_peer(version: Version, cache: Path) -> dict[str, Any]:
    """What TRL's trainer does with prompt-completion rows, its own functions where it has them."""
    from datasets import Dataset
    from trl.data_utils import pack_dataset
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from trainer.tokenizer import build_tokenizer

    started = time.monotonic()
    tokenizer = build_tokenizer()
    rows = Dataset.from_parquet(
        [str(path) for path in version.shard_paths()],
        columns=["prompt", "completion"],
        cache_dir=str(cache / "datasets"),
    )

    def tokenise(row: dict[str, Any]) -> dict[str, Any]:
        prompt = render_prompt([Message(**turn) for turn in row["prompt"]])
        answer = render_completion([Message(**turn) for turn in row["completion"]])
        options = {"split_special_tokens": True, "add_special_tokens": False}
        prompt_ids = [1, *tokenizer(prompt, **options)["input_ids"]]
        ids = [1, *tokenizer(prompt + answer, **options)["input_ids"], 2]
        assert ids[: len(prompt_ids)] == prompt_ids
        labels = [-100] * len(prompt_ids) + ids[len(prompt_ids) :]
        return {"input_ids": ids, "labels": labels}

    mapped = rows.map(tokenise, num_proc=WORKERS, remove_columns=rows.column_names)
    packed = pack_dataset(mapped, MAX_LENGTH, "bfd", {"num_proc": WORKERS})
    prepared = time.monotonic()
    collate = DataCollatorForLanguageModeling(
        pad_token_id=0, padding_free=True, pad_to_multiple_of=MULTIPLE
    )
    loads = []
    for row in packed:
        collate([row])
        loads.append(len(row["input_ids"]))
    return {
        "tokens": sum(loads),
        "prepare_s": round(prepared - started, 2),
        "read_s": round(time.monotonic() - prepared, 2),
        "loads": loads,
    }


CASES: dict[str, Callable[[Version, Path], dict[str, Any]]] = {"ours": run_ours, "peer": run_peer}


def run_case(name: str, case: str, version: Version, out: Path) -> dict[str, Any]:
    """Run a case in a process of its own and charge it for what it took."""
    print(f"{name} …", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--case", case, "--version", str(version.folder)]
    cost = measure(
        [*command, "--out", str(out)],
        out / f"{name}.log",
        {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
    )
    result: dict[str, Any] = json.loads(cost.output.splitlines()[-1])
    per_cpu_s = result["tokens"] / cost.cpu_s
    print(f"{name}: {per_cpu_s:,.0f} tokens per CPU second", file=sys.stderr, flush=True)
    return {
        **result,
        "cpu_s": round(cost.cpu_s, 2),
        "wall_s": round(cost.wall_s, 2),
        "tokens_per_cpu_s": round(per_cpu_s),
        "peak_mib": cost.peak_mib,
    }


def share_padding(loads: np.ndarray, batch: int) -> float:
    """Padding's share where rows are batched in the given order and padded to the longest."""
    whole = np.concatenate([loads, np.zeros(-len(loads) % batch, np.int64)]).reshape(-1, batch)
    longest = -(-whole.max(axis=1) // MULTIPLE) * MULTIPLE
    # The last batch holds as many rows as are left.
    sizes = np.full(len(whole), batch)
    sizes[-1] -= -len(loads) % batch
    return round(1 - int(loads.sum()) / int((longest * sizes).sum()), 4)


def compare_padding(version: Version, peer_loads: list[int] | None) -> dict[str, Any]:
    """Shares of the tokens that pass through the model which are padding."""
    found: dict[str, Any] = {}
    for packing in ("exact", "best_fit"):
        report = plan_data(version, settings_of(packing)).describe()
        found[packing] = {
            "padding_share": report["padding_share"],
            "documents_per_step": report["documents_per_step"],
            "rows_per_step": report["rows_per_step"],
            "row_fill": _mean_fill(report),
        }
    lengths = np.array([row["num_tokens"] for row in version.rows(["num_tokens"])])
    shuffled = np.random.default_rng(0).permutation(lengths)
    found["padded_4"] = {"padding_share": share_padding(shuffled, 4)}
    if peer_loads is not None:
        loads = np.array(peer_loads)
        per_row = len(lengths) / len(loads)
        found["trl_bfd"] = {
            "padding_share": share_padding(loads, 1),
            "documents_per_row": round(per_row, 2),
            "row_fill": round(float(loads.mean()) / MAX_LENGTH, 4),
        }
    return found


def _mean_fill(report: dict[str, Any]) -> float:
    steps, rows = report["num_steps"], report["rows_per_step"]
    total = report["tokens_per_step"]["mean"] * steps
    return round(total / ((steps * rows - report["empty_rows"]) * MAX_LENGTH), 4)


def run_all(out: Path, num_rows: int, seed: int) -> dict[str, Any]:
    """All cases; a failed one is recorded and the others go on."""
    version = write_version(out, num_rows, seed)
    # Compiled once on a machine, for all later runs.
    encode_by_chunks([("a\n", "b")])
    cases = {"ours": "ours", "ours_from_cache": "ours", "peer": "peer"}
    results: dict[str, Any] = {"rows": num_rows, "load_average": os.getloadavg()[0]}
    results["tokens"] = version_tokens = sum(_tokens(version))
    results["mean_tokens"] = round(version_tokens / num_rows)
    errors: dict[str, str] = {}
    for name, case in cases.items():
        try:
            results[name] = run_case(name, case, version, out)
        except (RuntimeError, OSError, ValueError) as exc:
            errors[name] = str(exc)
    peer_loads = results.get("peer", {}).pop("loads", None)
    results["padding"] = compare_padding(version, peer_loads)
    results["wanted_tokens_per_s"] = WANTED
    if "ours" in results:
        two_cores = WORKERS * results["ours"]["tokens_per_cpu_s"]
        results["two_cores_tokens_per_s"] = two_cores
        results["times_one_h100"] = round(two_cores / H100_TOKENS_PER_S, 1)
        if two_cores < WANTED:
            errors["bar"] = f"{two_cores:,} tokens/s from two cores, wanted {WANTED:,}"
    if "ours" in results and "peer" in results:
        ratio = results["ours"]["tokens_per_cpu_s"] / results["peer"]["tokens_per_cpu_s"]
        results["times_peer"] = round(ratio, 2)
    results["errors"] = errors
    return results


def _tokens(version: Version) -> Iterator[int]:
    return (row["num_tokens"] for row in version.rows(["num_tokens"]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", choices=sorted(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--version", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        result = CASES[options.case](load_version(options.version), options.out / "cache")
        print(json.dumps(result))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        out.mkdir(parents=True, exist_ok=True)
        results = run_all(out, options.rows, options.seed)
    print(json.dumps(results))
    return 1 if results["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
