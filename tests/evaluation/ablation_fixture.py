"""Finished ablations with invented verdicts, for what reads and tabulates them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from answers_fixture import build_answers

TITLES = {
    "full": "full recipe",
    "without-promptcot": "without PromptCoT",
    "without-open-thoughts2": "without OpenThoughts2",
}
RATES = {"full": 0.6, "without-promptcot": 0.35, "without-open-thoughts2": 0.58}


def build_run(
    out: Path, name: str, seed: int, *, matching: str = "none", rate: float = 0.5
) -> Path:
    """One variant with one seed: 40 problems of AIME 24, 4 answers each."""
    label = name if matching == "none" else f"{name}-{matching}"
    folder = out / "ablations" / label / str(seed)
    rng = np.random.default_rng([seed, *label.encode()])
    ease = np.clip(np.linspace(rate - 0.3, rate + 0.3, 40), 0, 1)
    verdicts = [[bool(x) for x in rng.random(4) < chance] for chance in ease]
    version = build_answers(folder / "evaluation" / "phase-2", {"aime24": verdicts})
    phases = {
        "1": {"num_steps": 100, "num_rows": 800, "num_tokens": 90_000},
        "2": {"num_steps": 40, "num_rows": 300, "num_tokens": 50_000},
    }
    if name == "without-promptcot" and matching == "none":
        del phases["2"]
    record = {
        "name": name,
        "title": TITLES[name],
        "matching": matching,
        "paper": "" if name == "full" else name,
        "seed": seed,
        "evaluation": f"evaluation/phase-2/{version.name}",
        "phases": {
            phase: {**counts, "dataset": "d", "variant": None, "checkpoint": f"{label}-{seed}"}
            for phase, counts in phases.items()
        },
    }
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def build_ablations(out: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """The full recipe and two variants."""
    for name, rate in RATES.items():
        for seed in seeds:
            build_run(out, name, seed, rate=rate)
