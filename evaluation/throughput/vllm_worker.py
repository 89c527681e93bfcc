"""Runs under the interpreter that has vLLM, as a file of its own: times batches of one model.

    python vllm_worker.py JOB.json

The job names a model folder, the share of the card that vLLM may use, and cases: batches whose
sequences have read ``position`` tokens. A step's cost is the time of generating ``steps`` + 1
tokens less the time of generating one, by ``steps``: the reading of prompts cancels out. A line a
case goes to the job's file of results; cases that are there already are not run again.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any


def main(path: Path) -> None:
    """Do a job."""
    job = json.loads(path.read_text(encoding="utf-8"))
    results = Path(job["results"])
    done = set()
    if results.is_file():
        lines = results.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        results.write_text("".join(whole), encoding="utf-8")
        done = {json.loads(line)["case"] for line in whole}
    missing = [case for case in job["cases"] if case["case"] not in done]
    if not missing:
        return
    engine = load(job)
    with results.open("a", encoding="utf-8") as handle:
        for case in missing:
            handle.write(json.dumps(time_case(engine, job, case)) + "\n")
            handle.flush()
            os.fsync(handle.fileno())


def load(job: dict[str, Any]) -> Any:
    """The engine with the model in it."""
    import torch
    from vllm import LLM

    share = job["limit_bytes"] / torch.cuda.get_device_properties(0).total_memory
    if share > 1:
        raise SystemExit(f"the card is smaller than the budget ({share:.2f} times)")
    return LLM(
        model=job["model"],
        load_format=job["load_format"],
        skip_tokenizer_init=True,
        dtype=job["dtype"],
        seed=job["seed"],
        gpu_memory_utilization=share,
        max_model_len=job["max_model_len"],
        max_num_seqs=job["max_num_seqs"],
        enable_prefix_caching=False,
        **job["engine_args"],
    )


def time_case(engine: Any, job: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of a step at the case's batch and position."""
    import torch
    import vllm

    generator = random.Random(job["seed"])
    prompts = [
        {
            "prompt_token_ids": [
                generator.randrange(3, job["vocab_size"]) for _ in range(case["position"])
            ]
        }
        for _ in range(case["batch"])
    ]
    generate(engine, prompts, 1)  # compiles
    one = min(generate(engine, prompts, 1) for _ in range(2))
    many = min(generate(engine, prompts, 1 + job["steps"]) for _ in range(2))
    if many <= one:
        raise SystemExit(
            f"{job['steps']} steps drown in the noise of reading prompts: raise --steps"
        )
    return {
        "case": case["case"],
        "ms": (many - one) / job["steps"] * 1000,
        "prefill_ms": one * 1000 / case["batch"],
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(0),
    }


def generate(engine: Any, prompts: list[dict[str, Any]], tokens: int) -> float:
    """Seconds until every sequence has ``tokens`` more tokens."""
    from vllm import SamplingParams

    how = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False)
    began = time.perf_counter()
    outputs = engine.generate(prompts, how, use_tqdm=False)
    seconds = time.perf_counter() - began
    short = [len(o.outputs[0].token_ids) for o in outputs if len(o.outputs[0].token_ids) != tokens]
    if short:
        raise SystemExit(f"{len(short)} sequences ended early, the first after {short[0]} tokens")
    return seconds


if __name__ == "__main__":
    main(Path(sys.argv[1]))
