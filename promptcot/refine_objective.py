"""The objective of refinement per round: means with bootstrap intervals, a file and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.hashing import derive_seed
from pipeline.manifest import Version
from pipeline.store import read_rows, write_json, write_text
from promptcot.run_context import SynthesisRun

Floats = npt.NDArray[np.float64]

FOLDER = "refinement"
_NUM_RESAMPLES = 1000
_CONFIDENCE = 0.95
_PER_CHUNK = 2_000_000
"""Numbers drawn at once while resampling: 16 MB."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One round, in nats: 24 bytes per problem while it is computed, nothing afterwards."""

    num_problems: int
    num_candidates: int
    chosen: float
    """Mean score of the rationales that were kept."""
    chosen_interval: tuple[float, float]
    drawn: float
    """Mean over problems of the mean of all that were drawn: exactly what a random choice gives."""
    drawn_interval: tuple[float, float]
    all_drawn: float
    """Mean over all rationales, whichever problem they are of."""
    gain: float
    """Mean of kept minus random, problem by problem."""
    gain_interval: tuple[float, float]

    def as_extra(self) -> dict[str, Any]:
        """JSON-ready figures for a manifest."""
        return {
            "problems": self.num_problems,
            "candidates": self.num_candidates,
            "chosen": round(self.chosen, 6),
            "chosen_interval": [round(v, 6) for v in self.chosen_interval],
            "drawn": round(self.drawn, 6),
            "drawn_interval": [round(v, 6) for v in self.drawn_interval],
            "all_drawn": round(self.all_drawn, 6),
            "gain": round(self.gain, 6),
            "gain_interval": [round(v, 6) for v in self.gain_interval],
        }


def measure(shards: Sequence[Path], root_seed: int) -> Objective | None:
    """The objective of a round's rows; none without rows."""
    columns = ["score", "mean_score", "num_candidates"]
    values = [tuple(row[c] for c in columns) for path in shards for row in read_rows(path, columns)]
    if not values:
        return None
    chosen, drawn, counts = np.array(values, dtype=np.float64).T
    seed = derive_seed(root_seed, "objective")
    gains = chosen - drawn
    return Objective(
        num_problems=len(chosen),
        num_candidates=int(counts.sum()),
        chosen=float(chosen.mean()),
        chosen_interval=_interval(chosen, seed),
        drawn=float(drawn.mean()),
        drawn_interval=_interval(drawn, seed),
        all_drawn=float((drawn * counts).sum() / counts.sum()),
        gain=float(gains.mean()),
        gain_interval=_interval(gains, seed),
    )


def _interval(values: Floats, seed: int) -> tuple[float, float]:
    """Percentile interval of the mean, by resampling problems."""
    generator = np.random.default_rng(seed)
    means: list[Floats] = []
    remaining, at_once = _NUM_RESAMPLES, max(1, _PER_CHUNK // len(values))
    while remaining > 0:
        size = min(remaining, at_once)
        picks = generator.integers(0, len(values), size=(size, len(values)))
        means.append(values[picks].mean(axis=1))
        remaining -= size
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def write_rounds(
    run: SynthesisRun, versions: Sequence[Version], after_fit: Sequence[float | None]
) -> None:
    """Write ``rounds.json`` and ``objective.svg`` for the rounds so far."""
    from promptcot.plots import plot_objective

    folder = run.folder(FOLDER)
    rounds: list[dict[str, Any]] = [
        {
            "round": number,
            "version": version.name,
            "objective": version.manifest.extra.get("objective"),
            "after_fit": fitted,
        }
        for number, (version, fitted) in enumerate(zip(versions, after_fit, strict=True), start=1)
    ]
    settings = run.settings.refinement
    write_json(
        folder / "rounds.json",
        {
            "normalisation": settings.normalisation,
            "confidence": _CONFIDENCE,
            "rounds": rounds,
        },
    )
    measured = [found for entry in rounds if (found := entry["objective"])]
    if measured:
        write_text(folder / "objective.svg", plot_objective(measured))
