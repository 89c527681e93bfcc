"""Does refinement find better rationales than a random choice, and does fitting p help?

Draws rationales of the bundled seed problems with the embedded teacher, scores them with the same
model through transformers, and prints the objective of every round: the kept rationales against a
random choice among the drawn ones, with bootstrap intervals over problems; with ``--fit`` also the
objective of the kept triples after the M-step. Output: the table, and ``rounds.json`` and
``objective.svg`` in the run folder. Command:

    python benchmarks/refinement.py --out runs/refinement --problems 24 --rationales 8 --rounds 2
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from pipeline import console
from pipeline.run_folder import prepare_run_folder
from pipeline.settings.recipe import load_recipe
from promptcot.refine import run_refinement
from promptcot.refine_objective import FOLDER
from promptcot.run_context import SynthesisRun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--problems", type=int, default=24)
    parser.add_argument("--rationales", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--fit", action="store_true", help="also run the M-step of every round")
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--per-token", action="store_true")
    arguments = parser.parse_args()
    prefix = "synthesis.refinement"
    overrides = [
        f"{prefix}.max_problems={arguments.problems}",
        f"{prefix}.rationales_per_problem={arguments.rationales}",
        f"{prefix}.rounds={arguments.rounds}",
        f"{prefix}.form=constrained",
        f"{prefix}.num_examples=1",
        f"{prefix}.max_tokens=120",
        f"{prefix}.scorer.batch_tokens=2048",
        f"{prefix}.normalisation={'per_token' if arguments.per_token else 'sum'}",
        f"{prefix}.fit.enabled={str(arguments.fit).lower()}",
        f"{prefix}.fit.learning_rate={arguments.learning_rate}",
        f"{prefix}.fit.documents_per_step=4",
        f"{prefix}.fit.max_length=1024",
        "synthesis.batch_size=16",
    ]
    recipe = load_recipe("demo", overrides)
    prepare_run_folder(recipe, arguments.out)
    start = time.monotonic()
    with SynthesisRun(recipe, arguments.out) as run:
        run_refinement(run)
        path = run.folder(FOLDER) / "rounds.json"
    rounds = json.loads(path.read_text(encoding="utf-8"))["rounds"]
    console.table(
        f"Objective, nats ({time.monotonic() - start:.0f} s)",
        ("round", "problems", "rationales", "random choice", "kept", "gain", "kept after fit"),
        [
            (
                entry["round"],
                found["problems"],
                found["candidates"],
                show(found["drawn"], found["drawn_interval"]),
                show(found["chosen"], found["chosen_interval"]),
                show(found["gain"], found["gain_interval"]),
                "" if entry["after_fit"] is None else f"{entry['after_fit']:.2f}",
            )
            for entry in rounds
            for found in [entry["objective"]]
        ],
    )


def show(value: float, interval: list[float]) -> str:
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


if __name__ == "__main__":
    main()
