"""A real learning run: does the curriculum teach what the same compute without it does not?

    python benchmarks/trainer/learning.py WORK [--scale full|short|tiny] [--part PART] [--seed 1]

A Mamba-2 of 38M parameters starts from random weights and learns arithmetic in words with worked
reasoning in ``<think>``: phase 1 one operation, phase 2 chains of four to seven with a fifth of
phase 1 replayed. Against it, from the same start and with as many tokens: both kinds mixed, and
chains only. After each training every checkpoint answers held-out questions of both kinds,
greedily. Everything runs through the project's own build, trainer and evaluation.

Parts: ``data`` (CPU), ``curriculum``, ``mixed``, ``chains`` (train and evaluate), ``report``;
``all`` is the default. Each goes on where it stopped and is done once. ``report`` writes
WORK/learning.png and prints one JSON line; progress goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.hashing import derive_random
from pipeline.manifest import Version
from pipeline.settings import Recipe, load_recipe

PARTS = ("data", "curriculum", "mixed", "chains", "report")
SCALES: dict[str, dict[str, Any]] = {
    "full": {
        "rows": 60_000, "items": 200, "hidden": 512, "layers": 12, "head": 64, "state": 128,
        "chunk": 256, "documents": 256, "epochs": 3, "warmup": 100, "rate": 1e-3, "tokens": 160,
        "row_tokens": 16_384, "workers": 12,
    },
    "short": {
        "rows": 60_000, "items": 500, "hidden": 512, "layers": 12, "head": 64, "state": 128,
        "chunk": 256, "documents": 256, "epochs": 1, "warmup": 50, "rate": 1e-3, "tokens": 160,
        "row_tokens": 16_384, "workers": 12,
    },
    "tiny": {
        "rows": 40, "items": 4, "hidden": 32, "layers": 2, "head": 16, "state": 16, "chunk": 32,
        "documents": 8, "epochs": 1, "warmup": 2, "rate": 3e-3, "tokens": 12, "row_tokens": 1024,
        "workers": 1,
    },
}  # fmt: skip
RECIPE = """
name = "learning"
seed = {seed}

[model]
hidden_size = {hidden}
num_hidden_layers = {layers}
head_dim = {head}
state_size = {state}
n_groups = 1
chunk_size = {chunk}
tie_word_embeddings = true

[training]
seed = {seed}
learning_rate = {rate}
schedule = "cosine"
warmup_steps = {warmup}
documents_per_step = {documents}
max_row_tokens = {row_tokens}
precision = "{precision}"
activation = "none"
save_steps = 200
keep_checkpoints = 2

[training.phases.1]
max_length = 512
epochs = {epochs}

[training.phases.2]
max_length = 512
epochs = {epochs}

[[benchmarks]]
name = "one-step"
path = "one-step-items.jsonl"
domain = "math"

[[benchmarks]]
name = "chains"
path = "chains-items.jsonl"
domain = "math"

[[curriculum.sources]]
name = "one-step"
kind = "mapping"
paths = ["one-step.jsonl"]
licence = "cc0-1.0"
domain = "math"
mapping = {{ question = "question", thinking = "thinking", answer = "answer", id = "id" }}

[[curriculum.sources]]
name = "chains"
kind = "mapping"
paths = ["chains.jsonl"]
licence = "cc0-1.0"
domain = "math"
mapping = {{ question = "question", thinking = "thinking", answer = "answer", id = "id" }}

[curriculum]
# Held-out questions are left out of the rows when they are made; all questions differ.
deduplicate = false
near_duplicates = false
num_workers = {workers}

[curriculum.decontamination]
enabled = false

[curriculum.phases.1]
sources = [{{ source = "one-step" }}]
max_tokens = 512

[curriculum.phases.1.variants]
mixed = {{ sources = [{{ source = "one-step" }}, {{ source = "chains" }}] }}
chains = {{ sources = [{{ source = "chains" }}] }}

[curriculum.phases.2]
sources = [{{ source = "chains" }}]
replay = {{ phase = "1", ratio = 0.2 }}
max_tokens = 512

[evaluation]
samples_per_item = 1
temperature = 0.0
max_new_tokens = {tokens}
batch_size = 200
"""


def make_problem(rng: random.Random, num_steps: int) -> tuple[str, str, str]:
    """Question, reasoning and answer of a chain of additions and subtractions in words."""
    # One step starts anywhere that a chain can get to.
    total = rng.randint(10, 99) if num_steps > 1 else rng.randint(10, 500)
    question, lines = f"What is {total}", [f"We start with {total}."]
    for _ in range(num_steps):
        number = rng.randint(10, 99)
        word = "minus" if number <= total and rng.random() < 0.5 else "plus"
        result = total - number if word == "minus" else total + number
        question += f" {word} {number}"
        lines.append(f"{total} {word} {number} is {result}.")
        total = result
    return f"{question}?", "\n".join(lines), f"The result is \\boxed{{{total}}}."


def make_rows(kind: str, count: int, seed: int) -> Iterator[dict[str, str]]:
    """Problems of a kind, no question twice."""
    rng = derive_random(seed, "learning", kind)
    seen: set[str] = set()
    while len(seen) < count:
        steps = 1 if kind == "one-step" else rng.randint(4, 7)
        question, thinking, answer = make_problem(rng, steps)
        if question not in seen:
            seen.add(question)
            number = f"{kind}-{len(seen)}"
            yield {"id": number, "question": question, "thinking": thinking, "answer": answer}


def write_inputs(work: Path, scale: str, seed: int) -> None:
    """Recipe, sources, and held-out items: the first questions, which are no rows."""
    import torch

    sizes = SCALES[scale]
    precision = "bf16_autocast" if torch.cuda.is_available() else "float32"
    work.mkdir(parents=True, exist_ok=True)
    for kind in ("one-step", "chains"):
        rows = list(make_rows(kind, sizes["rows"] + sizes["items"], seed))
        items = [
            {
                "id": row["id"],
                "question": row["question"],
                "answer": row["answer"].partition("{")[2].partition("}")[0],
            }
            for row in rows[: sizes["items"]]
        ]
        write_lines(work / f"{kind}-items.jsonl", items)
        write_lines(work / f"{kind}.jsonl", rows[sizes["items"] :])
    text = RECIPE.format(seed=seed, precision=precision, **sizes)
    (work / "learning.toml").write_text(text, encoding="utf-8")


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def open_recipe(work: Path, *overrides: str) -> Recipe:
    return load_recipe(str(work / "learning.toml"), overrides)


def build(work: Path, phase: str, variant: str | None = None) -> Version:
    from curriculum.build import build_phase

    return build_phase(open_recipe(work), phase, work / "data", variant)


def build_all(work: Path) -> None:
    """All four datasets, in one run folder, so that sources are prepared once."""
    for phase, variant in (("1", None), ("2", None), ("1", "mixed"), ("1", "chains")):
        version = build(work, phase, variant)
        console.say(f"phase {phase} {variant or ''}: {version.manifest.rows_out:,} rows")


def train_curriculum(work: Path) -> None:
    """Phase 1, then phase 2, each evaluated."""
    from trainer.sft import train_phase

    out = work / "curriculum"
    for phase in ("1", "2"):
        train_phase(open_recipe(work), phase, out, build(work, phase).folder)
        evaluate(work, "curriculum", f"phase-{phase}")


def train_control(work: Path, variant: str) -> None:
    """One phase on a variant's rows, with as many tokens as both phases of the curriculum."""
    from trainer.sft import train_phase

    version = build(work, "1", variant)
    tokens = sum(record["tokens_seen"] for record in read_records(work, "curriculum"))
    documents = open_recipe(work).settings.training.documents_per_step
    per_step = version.manifest.tokens["total"] / version.manifest.rows_out * documents
    recipe = open_recipe(work, f"training.phases.1.max_steps={round(tokens / per_step)}")
    train_phase(recipe, "1", work / variant, version.folder)
    evaluate(work, variant, "phase-1")


def evaluate(work: Path, run: str, name: str) -> None:
    from evaluation.run import evaluate_checkpoint

    checkpoint = work / run / "checkpoints" / name
    evaluate_checkpoint(open_recipe(work), checkpoint, work / run, name)


def read_records(work: Path, run: str) -> list[dict[str, Any]]:
    """``training.json`` of every phase of a run."""
    paths = sorted((work / run / "checkpoints").glob("phase-*/training.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def read_scores(work: Path, run: str, name: str) -> dict[str, float]:
    from pipeline.manifest import resolve_version

    version = resolve_version(work / run / "evaluation" / name)
    return {s["benchmark"]: s["avg_at_k"] for s in version.manifest.extra["scores"]}


def report(work: Path, scale: str) -> dict[str, Any]:
    """Collect what has been run, draw it, and return the line."""
    from trainer.processes import device_name

    runs = [run for run in ("curriculum", "mixed", "chains") if read_records(work, run)]
    accuracy = {
        f"{run}, phase {record['phase']}" if run == "curriculum" else run: read_scores(
            work, run, f"phase-{record['phase']}"
        )
        for run in runs
        for record in read_records(work, run)
    }
    draw(work, runs, accuracy)
    times = work / "seconds.json"
    return {
        "benchmark": "learning",
        "scale": scale,
        "device": device_name(),
        "parameters": read_records(work, runs[0])[0]["num_parameters"],
        "tokens": {run: sum(r["tokens_seen"] for r in read_records(work, run)) for run in runs},
        "steps": {run: sum(r["num_steps"] for r in read_records(work, run)) for run in runs},
        "last_loss": {run: read_records(work, run)[-1]["last_loss"] for run in runs},
        "items": SCALES[scale]["items"],
        "accuracy": accuracy,
        "seconds": json.loads(times.read_text(encoding="utf-8")) if times.is_file() else {},
    }


def draw(work: Path, runs: list[str], accuracy: dict[str, dict[str, float]]) -> None:
    """Loss over tokens of every run, and held-out accuracy of every checkpoint."""
    from matplotlib.figure import Figure

    from pipeline.plot_style import CATEGORY_COLOURS

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for run, colour in zip(runs, CATEGORY_COLOURS, strict=False):
        offset = 0
        for path in sorted((work / run / "checkpoints").glob("phase-*/train_log.jsonl")):
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            seen = [(offset + line["num_tokens"]) / 1e6 for line in lines]
            label = run if not offset else None
            left.plot(seen, [line["loss"] for line in lines], color=colour, lw=1.2, label=label)
            if offset:
                left.axvline(offset / 1e6, color="#8c959f", linestyle=":")
            offset += lines[-1]["num_tokens"]
    left.set(xlabel="million tokens", ylabel="loss (nats per token)", yscale="log")
    left.legend(frameon=False)
    left.grid(alpha=0.4)
    for number, (kind, colour) in enumerate(zip(("one-step", "chains"), CATEGORY_COLOURS[3:])):  # noqa: B905
        places = [place + 0.38 * number for place in range(len(accuracy))]
        values = [100 * scores[kind] for scores in accuracy.values()]
        bars = right.barh(places, values, height=0.36, color=colour, label=f"held-out {kind}")
        right.bar_label(bars, fmt="%.1f", padding=3)
    right.set_yticks([place + 0.19 for place in range(len(accuracy))], list(accuracy))
    right.invert_yaxis()
    right.set(xlabel="per cent of answers correct", xlim=(0, 112))
    right.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    figure.savefig(work / "learning.png", dpi=150)


def run_part(part: str, work: Path, scale: str) -> None:
    """Do one part and note its time."""
    start = time.monotonic()
    if part == "data":
        build_all(work)
    elif part == "curriculum":
        train_curriculum(work)
    else:
        train_control(work, part)
    path = work / "seconds.json"
    seconds = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    # A part that was done before takes no time; what it took then is what counts.
    seconds[part] = max(seconds.get(part, 0), round(time.monotonic() - start, 1))
    path.write_text(json.dumps(seconds), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("work", type=Path)
    parser.add_argument("--scale", choices=sorted(SCALES), default="full")
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    console.use_json_output()
    write_inputs(options.work, options.scale, options.seed)
    chosen = PARTS if options.part == "all" else (options.part,)
    for part in chosen:
        if part != "report":
            run_part(part, options.work, options.scale)
    if "report" in chosen or options.part in ("mixed", "chains"):
        sys.stdout.write(json.dumps(report(options.work, options.scale), sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
