"""What share of a synthesis run is Prefect and the run's page, and not the work itself.

    python -m benchmarks.flows.orchestration_share RECIPE OUT

Runs the flow in this process, against the server of ``PREFECT_API_URL``. Work is what happens
inside of the steps; everything else in the flow is orchestration. Processor time is this
process's, so the server's own is not in it; wall time on a busy machine is an upper bound.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from flows import running
from flows.steps import Outcome, Step, run_recorded
from flows.synth_promptcot import synth_promptcot
from pipeline import console
from pipeline.settings.recipe import Recipe


def main() -> None:
    """Run, and print both shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("out")
    options = parser.parse_args()
    spent = {"wall": 0.0, "cpu": 0.0}

    def measure(step: Step, recipe: Recipe, out: Path) -> Outcome:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            return run_recorded(step, recipe, out)
        finally:
            spent["wall"] += time.perf_counter() - wall
            spent["cpu"] += time.process_time() - cpu

    setattr(running, "run_recorded", measure)  # noqa: B010
    wall, cpu = time.perf_counter(), time.process_time()
    state = synth_promptcot(recipe=options.recipe, out=options.out, return_state=True)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    console.say(str(state.message))
    for name, total, inner in (("wall", wall, spent["wall"]), ("processor", cpu, spent["cpu"])):
        outside = total - inner
        console.say(
            f"{name}: {total:.2f} s, outside of the steps {outside:.2f} s, "
            f"{outside / wall:.1%} of the wall time"
        )


if __name__ == "__main__":
    main()
