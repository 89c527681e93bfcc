"""The comparison with vLLM instead of our decode loops, in processes of its own interpreter.

vLLM is held to a budget by its own ``gpu_memory_utilization``. Batches are those of the plan; a
sequence "at position t" has a prompt of t random tokens. Prompts of a whole Mamba-2 batch are long
work at tens of thousands of tokens, so its positions end at ``_LONGEST_MAMBA_PROMPT``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.throughput.records import Group, Point
from evaluation.throughput.shapes import GB, Subject
from evaluation.throughput.tasks import Task, list_tasks
from pipeline.errors import ConfigError, StoreError
from pipeline.hashing import content_hash, file_sha256
from pipeline.keys import child_environment
from pipeline.settings.recipe import Recipe
from pipeline.settings.throughput import TransformerShape
from pipeline.store import write_json
from pipeline.student import VOCAB_SIZE

_WORKER = Path(__file__).with_name("vllm_worker.py")
_LONGEST_MAMBA_PROMPT = 4096
_LOOK = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"


def measure_with_vllm(recipe: Recipe, subjects: Sequence[Subject], folder: Path) -> dict[str, Any]:
    """What :func:`evaluation.throughput.run.run_throughput` returns, measured by vLLM.

    Raises:
        ConfigError: The interpreter has no vLLM, or vLLM cannot run the model.
    """
    from evaluation.throughput.run import summarise_groups

    settings = recipe.settings.throughput
    python = settings.vllm_python or sys.executable
    require_vllm(python)
    groups: list[Group] = []
    told: dict[str, Any] = {}
    prefills = []
    for subject in subjects:
        for budget in settings.budgets_gb:
            tasks = [task for task in list_tasks(settings, subject) if task.budget_gb == budget]
            job = make_job(recipe, subject, tasks, folder)
            lines = run_job(python, job, folder, settings.vllm_timeout_s) if job["cases"] else []
            found = {line["case"]: line for line in lines}
            groups += [_make_group(recipe, subject, task, found) for task in tasks]
            told = told or {name: lines[0][name] for name in ("device", "torch", "vllm") if lines}
            if lines and budget == settings.budgets_gb[0]:
                first = {"tokens": settings.prompt_tokens, "ms": lines[0]["prefill_ms"]}
                about = {"model": subject.name, "state_dtype": subject.state_dtype}
                prefills.append({**about, **first})
    if not told:
        raise ConfigError(
            "not one sequence of either model fits the budgets",
            hint="raise --budget-gb, or lower throughput.assumed_overhead_gb",
        )
    weights = {subject.name: _weights(recipe, subject) or "random" for subject in subjects}
    told |= {"utilisation": settings.utilisation, "prefill": prefills, "walks": []}
    return {**told, "weights": weights, **summarise_groups(recipe, subjects, groups, [])}


def require_vllm(python: str) -> None:
    """Look whether an interpreter has vLLM, without importing it.

    Raises:
        ConfigError: It has none, or is no interpreter.
    """
    try:
        found = subprocess.run([python, "-c", _LOOK], check=False, capture_output=True)
    except OSError as exc:
        raise ConfigError(
            f"throughput.vllm_python = {python!r} cannot be started: {exc.strerror}",
            hint="give the path of an interpreter that has vLLM",
        ) from exc
    if found.returncode:
        raise ConfigError(
            f"{python} has no vLLM, and throughput.engine is vllm",
            hint="pip install 'promptcot-mamba[vllm]' on a GPU machine, name another interpreter "
            "in throughput.vllm_python, or use throughput.engine = transformers",
        )


def make_job(
    recipe: Recipe, subject: Subject, tasks: Sequence[Task], folder: Path
) -> dict[str, Any]:
    """What the worker reads: one model under one budget, and the batches to time.

    Args:
        recipe: Settings and weights.
        subject: The model.
        tasks: Of one budget.
        folder: Where the model's configuration and the results go.
    """
    settings = recipe.settings.throughput
    cases: list[dict[str, Any]] = []
    for task in tasks:
        batch = planned_batch(recipe, subject, task)
        for position in _positions(subject, task):
            if batch:
                name = f"{task.mode}-{task.length}-{position}-{batch}"
                cases.append({"case": name, "batch": batch, "position": position})
    weights = _weights(recipe, subject)
    is_mamba = subject.kind == "mamba2"
    states = {"mamba_ssm_cache_dtype": subject.state_dtype} if is_mamba else {}
    longest = max((case["position"] for case in cases), default=0)
    job = {
        "model": str(recipe.file(weights) if weights else folder / f"vllm-{subject.kind}"),
        "load_format": "auto" if weights else "dummy",
        "dtype": settings.dtype,
        "seed": settings.seed,
        "limit_bytes": int(tasks[0].budget_gb * GB * settings.utilisation),
        "max_model_len": longest + settings.steps + 1,
        "max_num_seqs": max((case["batch"] for case in cases), default=1),
        "engine_args": states,
        "steps": settings.steps,
        "vocab_size": VOCAB_SIZE if is_mamba else settings.transformer.vocab_size,
        "cases": cases,
    }
    if not weights:
        write_json(folder / f"vllm-{subject.kind}" / "config.json", make_config(recipe, subject))
    key = content_hash([job, file_sha256(_WORKER)])
    return {**job, "results": str(folder / f"vllm-{key}.jsonl")}


def planned_batch(recipe: Recipe, subject: Subject, task: Task) -> int:
    """Whole sequences that the plan says fit."""
    settings = recipe.settings.throughput
    usable = (task.budget_gb * settings.utilisation - settings.assumed_overhead_gb) * GB
    room = usable - subject.weight_bytes
    return max(0, min(settings.max_batch, int(room // subject.cache_bytes(task.tokens))))


def make_config(recipe: Recipe, subject: Subject) -> dict[str, Any]:
    """``config.json`` of a model whose weights vLLM makes up."""
    if subject.kind == "transformer":
        return _qwen2_config(recipe.settings.throughput.transformer)
    from trainer.model import build_config

    values: dict[str, Any] = build_config(recipe.settings.model).to_dict()
    return {**values, "architectures": ["Mamba2ForCausalLM"]}


def _qwen2_config(shape: TransformerShape) -> dict[str, Any]:
    values = shape.model_dump(exclude={"name"})
    return {
        **values,
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "max_position_embeddings": 131_072,
        "use_sliding_window": False,
    }


def run_job(
    python: str, job: dict[str, Any], folder: Path, timeout_s: float
) -> list[dict[str, Any]]:
    """Run the worker and return its lines; the process and all it started end within the limit.

    Raises:
        ConfigError: It failed, or took too long; finished cases are kept.
    """
    results = Path(job["results"])
    path, log = results.with_suffix(".job.json"), results.with_suffix(".log")
    write_json(path, job)
    with log.open("w", encoding="utf-8") as handle:
        process = subprocess.Popen(
            [python, str(_WORKER), str(path)],
            env=child_environment(),
            stdout=handle,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as exc:
            raise ConfigError(
                f"vLLM took more than {timeout_s:g} s; finished cases are kept, its words are in "
                f"{log}",
                hint="run the same command again, or raise throughput.vllm_timeout_s",
            ) from exc
        finally:
            _end(process)
    if code:
        words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ConfigError(
            f"vLLM failed: {words[-1] if words else f'exit code {code}'} (all of it: {log})",
            hint="read the log; a smaller throughput.max_batch or utilisation may fit",
        )
    return _read_lines(results)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a worker's whole group; vLLM starts processes of its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as exc:
        raise StoreError(
            f"{path}: not what the worker writes", hint="delete that file and measure again"
        ) from exc


def _positions(subject: Subject, task: Task) -> list[int]:
    if subject.kind != "mamba2":
        return list(task.positions)
    return [p for p in task.positions if p <= _LONGEST_MAMBA_PROMPT] or [task.positions[0]]


def _make_group(
    recipe: Recipe, subject: Subject, task: Task, found: dict[str, dict[str, Any]]
) -> Group:
    batch = planned_batch(recipe, subject, task)
    points = []
    for position in _positions(subject, task) if batch else ():
        line = found[f"{task.mode}-{task.length}-{position}-{batch}"]
        steps = recipe.settings.throughput.steps
        ms = line["ms"]
        points.append(Point(position, ms, ms, ms, steps, f"vLLM {line['vllm']}"))
    return Group(
        model=subject.name,
        kind=subject.kind,
        state_dtype=subject.state_dtype,
        budget_gb=task.budget_gb,
        mode=task.mode,
        length=task.length,
        tokens=task.tokens,
        batch=batch,
        peak_bytes=int(task.budget_gb * GB * recipe.settings.throughput.utilisation),
        cache_bytes=batch * subject.cache_bytes(task.tokens),
        refused=(),
        points=tuple(points),
    )


def _weights(recipe: Recipe, subject: Subject) -> str | None:
    settings = recipe.settings.throughput
    return settings.mamba_from if subject.kind == "mamba2" else settings.transformer_from
