"""What the pipeline costs beside the engine: 1.0 would be nothing; the bar is 0.95.

    .venv/bin/python benchmarks/synthesis_overhead.py embedded --prompts 128 --group-size 64
    .venv/bin/python benchmarks/synthesis_overhead.py http --concurrency 64 512

``embedded``: tokens/s of a stage over batches and groups, stored answers and all, divided by what
OpenVINO's continuous batching reaches when it is handed all the same prompts at once. ``http``: the
shortest time in which so many slots could do requests of the server's seeded latencies, taken in
their order, divided by the time that a stage needed. One JSON line, then a table.
"""

from __future__ import annotations

import argparse
import heapq
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from teacher_server import latency_s

from pipeline import console
from pipeline.records import ConceptCombination
from pipeline.settings import Recipe, load_recipe
from pipeline.settings.teacher import TeacherSettings
from pipeline.stages import Batch, BatchResult, BatchStream, run_stage
from promptcot.engines.ledger import read_ledger
from promptcot.engines.protocol import Answer, Request
from promptcot.forms import problem_form
from promptcot.prompting import render_prompt
from promptcot.run_context import SynthesisRun

BAR = 0.95
_CONCEPTS = (
    "modular arithmetic", "prime numbers", "binomial coefficients", "circles", "arithmetic "
    "sequences", "probability", "vectors", "logarithms", "triangles", "divisors", "ratios",
    "percentages", "permutations", "area", "speed and distance", "averages",
)  # fmt: skip
_EXAMPLE = """Example
Rationale: Ratios and averages meet when parts of a mixture are weighed. Sharing a known total by a
ratio gives each part, and their mean follows.
Problem: A baker mixes 12 bags of flour and 18 bags of sugar. Each bag weighs 5 kilograms. What is
the average weight of flour and sugar together?"""


def main() -> int:
    """Measure, print, and fail below the bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="engine", required=True)
    embedded = parts.add_parser("embedded")
    embedded.add_argument("--prompts", type=int, default=128)
    embedded.add_argument("--max-tokens", type=int, default=160)
    embedded.add_argument("--group-size", type=int, nargs="+", default=[_default("group_size")])
    embedded.add_argument("--kv-cache-gib", type=int, default=_default("kv_cache_gib"))
    embedded.add_argument("--num-threads", type=int, default=_default("num_threads"))
    embedded.add_argument("--batch-size", type=int, default=64)
    embedded.add_argument("--repeats", type=int, default=3)
    http = parts.add_parser("http")
    http.add_argument("--concurrency", type=int, nargs="+", default=[64, 512])
    http.add_argument("--rounds", type=int, default=20, help="requests = rounds x concurrency")
    http.add_argument("--batch-size", type=int, default=64)
    http.add_argument("--median-ms", type=float, default=1500.0)
    http.add_argument("--sigma", type=float, default=0.5)
    options = parser.parse_args()
    console.use_json_output()
    rows = measure_embedded(options) if options.engine == "embedded" else measure_http(options)
    sys.stdout.write(json.dumps({"benchmark": f"overhead/{options.engine}", "rows": rows}) + "\n")
    sys.stdout.flush()
    console.table(f"Pipeline overhead, {options.engine}", list(rows[0]), [
        list(row.values()) for row in rows
    ])  # fmt: skip
    return 0 if all(row["ratio"] >= BAR for row in rows) else 1


def _default(name: str) -> int:
    return int(TeacherSettings.model_fields[name].default)


def measure_http(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Ideal time over measured time, for each number of concurrent requests."""
    rows = []
    for concurrency in options.concurrency:
        requests = [_request(i, max_tokens=400) for i in range(concurrency * options.rounds)]
        latencies = [latency_s(r.seed, options.median_ms, options.sigma) for r in requests]
        with _serving(options) as url, tempfile.TemporaryDirectory() as folder:
            recipe = _recipe(
                Path(folder),
                f'engine = "http"\nmodel = "sleeper"\nbase_urls = ["{url}"]\n'
                f"max_concurrency = {concurrency}\n",
                options.batch_size,
            )
            with SynthesisRun(recipe, Path(folder)) as run:
                cpu = time.process_time()
                seconds = _run_stage(run, requests)
                cpu = time.process_time() - cpu
        ideal = ideal_s(latencies, concurrency)
        rows.append(
            {
                "concurrency": concurrency,
                "requests": len(requests),
                "ideal_s": round(ideal, 2),
                "measured_s": round(seconds, 2),
                "ratio": round(ideal / seconds, 4),
                "cpu_share": round(cpu / seconds, 2),
            }
        )
    return rows


def ideal_s(latencies: Sequence[float], slots: int) -> float:
    """Time of a list schedule: each request starts as soon as a slot is free."""
    free = [0.0] * slots
    for latency in latencies:
        heapq.heapreplace(free, free[0] + latency)
    return max(free)


def measure_embedded(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Pipeline tokens/s over offline tokens/s, in turns, for each group size.

    Both also by CPU second, which is the steadier figure on a machine that others use.
    """
    speeds: dict[int, list[Speed]] = {size: [] for size in [0, *options.group_size]}
    requests = [_request(i, max_tokens=options.max_tokens) for i in range(options.prompts)]
    for _ in range(options.repeats):
        speeds[0].append(offline_speed(requests, options))
        for size in options.group_size:
            speeds[size].append(_stage_speed(requests, size, options))
    median = {
        size: Speed(*(statistics.median(values) for values in zip(*found, strict=True)))
        for size, found in speeds.items()
    }
    return [
        {
            "group_size": size,
            "kv_cache_gib": options.kv_cache_gib,
            "prompts": options.prompts,
            "offline_tok_s": round(median[0].wall, 1),
            "pipeline_tok_s": round(median[size].wall, 1),
            "ratio": round(median[size].wall / median[0].wall, 4),
            "cpu_ratio": round(median[size].cpu / median[0].cpu, 4),
        }
        for size in options.group_size
    ]


class Speed(NamedTuple):
    """Generated tokens per second."""

    wall: float
    cpu: float


def _stage_speed(
    requests: Sequence[Request], group_size: int, options: argparse.Namespace
) -> Speed:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        teacher = (
            f'engine = "embedded"\ngroup_size = {group_size}\n'
            f"kv_cache_gib = {options.kv_cache_gib}\nnum_threads = {options.num_threads}\n"
        )
        recipe = _recipe(out, teacher, max(options.batch_size, group_size))
        with SynthesisRun(recipe, out) as run:
            # Loads the model, and compiles the form, before the clock runs.
            run.teacher("default").answer_all([_request(10**6, max_tokens=4)], "warm-up")
            cpu = time.process_time()
            seconds = _run_stage(run, requests)
            cpu = time.process_time() - cpu
        tokens = sum(n.completion_tokens for n in read_ledger(out) if n.stage == "problems")
    return Speed(tokens / seconds, tokens / cpu)


def offline_speed(requests: Sequence[Request], options: argparse.Namespace) -> Speed:
    """Generated tokens/s of the engine by itself: all prompts added, then steps until done."""
    import openvino_genai as genai

    from promptcot.engines.embedded import find_weights

    scheduler = genai.SchedulerConfig()
    scheduler.max_num_batched_tokens = 4096
    scheduler.cache_size = options.kv_cache_gib
    threads = {"INFERENCE_NUM_THREADS": options.num_threads}
    pipeline = genai.ContinuousBatchingPipeline(str(find_weights()), scheduler, "CPU", {}, threads)
    handles: list[Any] = []

    def add(request: Request) -> None:
        config = genai.GenerationConfig()
        config.max_new_tokens = request.max_tokens
        config.rng_seed = request.seed
        config.do_sample = True
        config.temperature, config.top_p = request.temperature, request.top_p
        assert request.constraint is not None
        config.structured_output_config = genai.StructuredOutputConfig(
            regex=request.constraint.value
        )
        text = f"<|im_start|>user\n{request.messages[0].content}<|im_end|>\n"
        handles.append(pipeline.add_request(len(handles), f"{text}<|im_start|>assistant\n", config))

    def finish() -> int:
        while pipeline.has_non_finished_requests():
            pipeline.step()
        return sum(len(handle.read_all()[0].generated_ids) for handle in handles)

    add(_request(10**6, max_tokens=4))
    finish()
    handles.clear()
    start, cpu = time.monotonic(), time.process_time()
    for request in requests:
        add(request)
    tokens = finish()
    return Speed(tokens / (time.monotonic() - start), tokens / (time.process_time() - cpu))


def _request(number: int, *, max_tokens: int) -> Request:
    concepts = [_CONCEPTS[(number * step + step) % len(_CONCEPTS)] for step in (1, 3, 5, 7, 11)]
    return Request(
        messages=render_prompt(
            "problem_constrained_math", examples=_EXAMPLE, concepts=", ".join(concepts)
        ),
        temperature=0.6,
        top_p=0.95,
        max_tokens=max_tokens,
        seed=number,
        constraint=problem_form("math"),
    )


def _recipe(folder: Path, teacher: str, batch_size: int) -> Recipe:
    path = folder / "overhead.toml"
    text = f'name = "overhead"\n[teachers.default]\n{teacher}[synthesis]\n'
    path.write_text(f"{text}batch_size = {batch_size}\n", encoding="utf-8")
    return load_recipe(str(path))


def _run_stage(run: SynthesisRun, requests: Sequence[Request]) -> float:
    """A stage that asks for everything; seconds from its beginning to the published version."""

    def ask(batch: Batch) -> BatchResult:
        answers: list[Answer] = run.teacher("default").answer_all(batch.rows, "problems")
        rows = [
            ConceptCombination(id=str(r.seed), concepts=[a.text], domain="math", level="x")
            for r, a in zip(batch.rows, answers, strict=True)
        ]
        return BatchResult(num_in=len(rows), rows=rows)

    stage = run.stage(
        "problems", record=ConceptCombination, settings={}, inputs=[], teachers=["default"]
    )
    stream = BatchStream(
        rows=lambda: requests,
        num_rows=len(requests),
        size=run.settings.batch_size,
        key=lambda request: str(request.seed),
    )
    start = time.monotonic()
    run_stage(stage, stream, ask)
    return time.monotonic() - start


@contextmanager
def _serving(options: argparse.Namespace) -> Iterator[str]:
    command = [sys.executable, str(Path(__file__).with_name("teacher_server.py")), "--words", "300"]
    command += ["--median-ms", str(options.median_ms), "--sigma", str(options.sigma)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        server.kill()


if __name__ == "__main__":
    sys.exit(main())
