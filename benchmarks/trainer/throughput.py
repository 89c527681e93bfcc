"""Training throughput on one GPU: ours and the peers in one run, and where a layer's time goes.

    python benchmarks/trainer/throughput.py [--check] [--cases a,b,c] [--repeats 3] [--list]

Each model case is the forward and backward pass of one micro-batch with random weights made on the
GPU: median of the repeats after warm-up passes, which compile. MFU counts 6 operations a matmul
parameter and token plus three times the scan's, of 780 TFLOP/s; recomputation does not count.
GiB is the peak allocated with gradients and without an optimiser. Peers that need causal-conv1d
get our convolution where it is not installed ("stand_in": true).

``--check`` first holds every kernel against float64 (errors as shares of their limits). A case that
fails (out of memory, say) is recorded and the others go on. One JSON line per case and a last one
with everything go to standard output, progress to standard error; exit code 1 if a case failed or
an error is over its limit.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from gpu_models import (
    SIZES,
    Step,
    make_mamba_ssm,
    make_ours,
    make_transformers,
    stand_in_for_convolution,
)
from kernel_times import check_kernels, sweep_tiles, time_kernels

from pipeline.student import VOCAB_SIZE
from trainer.flops import flops_per_token, peak_flops
from trainer.kernels.precompile import Workload, precompile_all
from trainer.kernels.tiles import pin_tiles, read_tiles
from trainer.model import build_config

LENGTH = 16_384
MULTIPLE = 128
Batch = dict[str, torch.Tensor]
Result = dict[str, Any]


def draw_lengths(num_documents: int, seed: int = 5) -> list[int]:
    """Log-normal lengths of documents, mean about 6,000 and median 4,700, at most 16,384."""
    rng = random.Random(seed)
    return [
        min(LENGTH, max(64, round(rng.lognormvariate(math.log(4_700), 0.7))))
        for _ in range(num_documents)
    ]


def make_batch(rows: list[list[int]], length: int, *, packed: bool = True) -> Batch:
    """A micro-batch of rows of documents, padded to a length; packed rows name their documents."""
    shape = (len(rows), length)
    ids = torch.randint(3, VOCAB_SIZE, shape, device="cuda")
    labels = ids.clone()
    seq_idx = torch.zeros(shape, dtype=torch.int32, device="cuda")
    mask = torch.zeros(shape, dtype=torch.int64, device="cuda")
    for row, lengths in enumerate(rows):
        end = 0
        for number, tokens in enumerate(lengths):
            seq_idx[row, end : end + tokens] = number
            end += tokens
        mask[row, :end] = 1
        labels[row, end:] = -100
        seq_idx[row, end:] = len(lengths)
    documents = {"seq_idx": seq_idx} if packed else {"attention_mask": mask}
    return {"input_ids": ids, "labels": labels, **documents}


def time_steps(model: Any, step: Step, batches: list[Batch], repeats: int) -> list[float]:
    """Seconds of passes over all batches, after one pass that compiles and one that warms up."""
    seconds = []
    for run in range(repeats + 2):
        torch.cuda.synchronize()
        if run == 1:
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        for batch in batches:
            step(batch)
        torch.cuda.synchronize()
        if run > 1:
            seconds.append(time.perf_counter() - began)
        model.zero_grad(set_to_none=True)
    return seconds


def measure(size: str, made: tuple[Any, Step], batches: list[Batch], repeats: int) -> Result:
    """Tokens a second (real ones), MFU of them, and the peak of memory."""
    model, step = made
    seconds = time_steps(model, step, batches, repeats)
    tokens = sum(int((b["labels"] != -100).sum()) for b in batches)
    slots = sum(b["labels"].numel() for b in batches)
    rate = tokens / statistics.median(seconds)
    peak = peak_flops(torch.cuda.get_device_name()) or math.nan
    return {
        "size": size,
        "tokens_per_s": round(rate),
        "mfu": round(rate * flops_per_token(SIZES[size]) / peak, 4),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "real_share": round(tokens / slots, 4),
        "seconds": [round(s, 4) for s in seconds],
    }


def run_ours(size: str, activation: str, repeats: int, *, autocast: bool = False) -> Result:
    """One packed row of six documents, 16,384 tokens."""
    batch = make_batch([_cut_evenly(LENGTH, 6)], LENGTH)
    return measure(size, make_ours(size, activation, autocast=autocast), [batch], repeats)


def run_transformers(size: str, repeats: int, *, autocast: bool) -> Result:
    """The peers as they come; one document, since they lose the labels of documents."""
    batch = make_batch([[LENGTH]], LENGTH)
    del batch["seq_idx"]
    result = measure(size, make_transformers(size, autocast=autocast), [batch], repeats)
    return result | {"stand_in": stand_in_for_convolution()}


def run_mamba_ssm(size: str, repeats: int, *, checkpointed: bool) -> Result:
    """mamba-ssm's own model; one document."""
    batch = make_batch([[LENGTH]], LENGTH)
    made = make_mamba_ssm(size, checkpointed=checkpointed)
    return measure(size, made, [batch], repeats) | {"stand_in": stand_in_for_convolution()}


def run_lengths(repeats: int) -> Result:
    """Cost of a token by the row's length, with at least 16,384 tokens in each micro-batch."""
    made = make_ours("1.3b", "all")
    rates = {}
    for length in (4_096, 8_192, 16_384, 32_768, 65_536):
        batch = make_batch([[length]] * max(1, LENGTH // length), length)
        rates[length] = measure("1.3b", made, [batch], max(2, repeats - 1))["tokens_per_s"]
    mean = statistics.mean(rates.values())
    worst = max(abs(rate / mean - 1) for rate in rates.values())
    return {"tokens_per_s_by_length": rates, "largest_deviation": round(worst, 4)}


def run_packed(repeats: int) -> Result:
    """40 documents: packed rows against random batches of four padded to their longest."""
    lengths = draw_lengths(40)
    made = make_ours("1.3b", "all")
    rows = _pack(lengths)
    packed = [make_batch([row], _round_up(sum(row))) for row in rows]
    padded = [
        make_batch(
            [[n] for n in lengths[i : i + 4]], _round_up(max(lengths[i : i + 4])), packed=False
        )
        for i in range(0, len(lengths), 4)
    ]
    found = {
        "packed": measure("1.3b", made, packed, max(1, repeats - 2)),
        "padded_4": measure("1.3b", made, padded, max(1, repeats - 2)),
    }
    ratio = found["packed"]["tokens_per_s"] / found["padded_4"]["tokens_per_s"]
    return {**found, "packed_over_padded": round(ratio, 3), "documents": lengths}


def _cut_evenly(total: int, parts: int) -> list[int]:
    cuts = [total * i // parts for i in range(parts + 1)]
    return [b - a for a, b in pairwise(cuts)]


def _pack(lengths: list[int]) -> list[list[int]]:
    """Rows of at most 16,384 tokens, best fit with the longest first."""
    rows: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row in rows if sum(row) + length <= LENGTH]
        if fitting:
            max(fitting, key=sum).append(length)
        else:
            rows.append([length])
    return rows


def _round_up(tokens: int) -> int:
    return -(-tokens // MULTIPLE) * MULTIPLE


def list_cases() -> dict[str, Callable[[int], Result]]:
    """Name → case; the default set is all but those whose name starts with ``more-``."""
    ours, hf, mamba = run_ours, run_transformers, run_mamba_ssm
    return {
        "kernels": lambda _: time_kernels("1.3b", LENGTH),
        "1.3b": partial(ours, "1.3b", "all"),
        "1.3b-none": partial(ours, "1.3b", "none"),
        "1.3b-autocast": partial(ours, "1.3b", "all", autocast=True),
        "1.3b-transformers": partial(hf, "1.3b", autocast=True),
        "1.3b-mamba-ssm": partial(mamba, "1.3b", checkpointed=True),
        "1.3b-none-mamba-ssm": partial(mamba, "1.3b", checkpointed=False),
        "7b": partial(ours, "7b", "all"),
        "7b-transformers": partial(hf, "7b", autocast=False),
        "2.7b": partial(ours, "2.7b", "all"),
        "lengths": run_lengths,
        "packed": run_packed,
        "1.3b-every-second": partial(ours, "1.3b", "every_second"),
        "2.7b-every-second": partial(ours, "2.7b", "every_second"),
        "more-tiles": lambda _: sweep_tiles("1.3b", LENGTH),
        "more-2.7b-transformers": partial(hf, "2.7b", autocast=True),
        "more-1.3b-transformers-bf16": partial(hf, "1.3b", autocast=False),
        "more-370m": partial(ours, "370m", "all"),
        "more-370m-none": partial(ours, "370m", "none"),
        "more-7b-kernels": lambda _: time_kernels("7b", LENGTH),
    }


def run_cases(names: list[str], repeats: int) -> Iterator[Result]:
    """Results of the cases, each with its name and duration; a failed one has ``error``."""
    cases = list_cases()
    for name in names:
        began = time.perf_counter()
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            result = cases[name](repeats)
        except Exception as exc:
            result = {"error": f"{type(exc).__name__}: {str(exc)[:400]}"}
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        yield {"case": name, **result, "took_s": round(time.perf_counter() - began, 1)}


def prepare_kernels() -> Result:
    """Compile, let each kernel of the scan choose its tile at 1.3B, and keep peers to these tiles.

    The peers run the same kernels; choosing again for each combination of dtypes takes minutes.
    """
    base, big = (build_config(SIZES[size]) for size in ("1.3b", "7b"))
    bf16 = torch.bfloat16
    first = precompile_all([Workload(base, bf16, LENGTH)])
    print(f"compiled: {first}", file=sys.stderr, flush=True)
    began = time.perf_counter()
    model, step = make_ours("1.3b", "all", num_layers=1)
    step(make_batch([_cut_evenly(LENGTH, 6)], LENGTH))
    tiles = read_tiles()
    pin_tiles(tiles)
    del model, step
    chosen = time.perf_counter() - began
    rest = precompile_all(
        [
            Workload(base, bf16, LENGTH, weight_dtype=torch.float32),
            Workload(base, bf16, LENGTH, weight_dtype=torch.float32, has_documents=False),
            Workload(base, bf16, LENGTH, has_documents=False),
            Workload(base, bf16, LENGTH, batch=4),
            Workload(base, bf16, LENGTH - MULTIPLE),
            Workload(base, bf16, LENGTH - 17 * MULTIPLE),
            Workload(base, bf16, LENGTH - 17 * MULTIPLE, batch=4),
            Workload(big, bf16, LENGTH),
            Workload(big, bf16, LENGTH, has_documents=False),
            Workload(build_config(SIZES["2.7b"]), bf16, LENGTH),
        ]
    )
    stand_in_for_convolution()
    return {"compiled": asdict(first), "more": asdict(rest), "choosing_s": chosen, "tiles": tiles}


def compare(results: dict[str, Result]) -> dict[str, float]:
    """Ratios of ours to peers measured in this run."""
    pairs = {
        "1.3b over transformers + TRL, autocast both": ("1.3b-autocast", "1.3b-transformers"),
        "1.3b bf16 over transformers + TRL, autocast": ("1.3b", "1.3b-transformers"),
        "1.3b over mamba-ssm": ("1.3b", "1.3b-mamba-ssm"),
        "1.3b unchecked over mamba-ssm": ("1.3b-none", "1.3b-none-mamba-ssm"),
        "7b over transformers + TRL, bf16": ("7b", "7b-transformers"),
    }
    rates = {name: r["tokens_per_s"] for name, r in results.items() if "tokens_per_s" in r}
    return {
        name: round(rates[a] / rates[b], 3)
        for name, (a, b) in pairs.items()
        if a in rates and b in rates
    }


def main() -> int:
    cases = list_cases()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(n for n in cases if not n.startswith("more-")))
    parser.add_argument("--check", action="store_true", help="errors against float64 first")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--list", action="store_true", help="names of the cases")
    options = parser.parse_args()
    if options.list:
        print("\n".join(cases))
        return 0
    names = [name for name in options.cases.split(",") if name]
    unknown = [name for name in names if name not in cases]
    if unknown:
        parser.error(f"unknown cases {', '.join(unknown)}; see --list")
    report: Result = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    report |= prepare_kernels()
    print(json.dumps(report), file=sys.stderr, flush=True)
    if options.check:
        report["errors_of_limit"] = check_kernels()
        print(json.dumps(report), flush=True)
    results = {}
    for result in run_cases(names, options.repeats):
        results[result["case"]] = result
        print(json.dumps(result), flush=True)
    report |= {"ratios": compare(results), "cases": results}
    print(json.dumps(report))
    is_off = any(not error < 1 for error in report.get("errors_of_limit", {}).values())
    return int(is_off or any("error" in result for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
