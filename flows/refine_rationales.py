"""Flow ``refine-rationales``: PromptCoT 2.0's loop over rationales, one task a round.

prefect deployment run refine-rationales --watch
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prefect import State, flow
from prefect.runtime import flow_run

from flows.running import run_label, run_steps
from flows.steps import Outcome, Step
from pipeline.errors import ConfigError
from pipeline.settings.recipe import Recipe, load_recipe


def name_run() -> str:
    """E.g. ``demo-refine-2x8``: rounds times rationales of each problem."""
    parameters = flow_run.parameters
    try:
        settings = load_recipe(parameters["recipe"], parameters["overrides"]).settings
    except ConfigError:
        # The run itself says what is wrong with the recipe.
        return run_label("refine")
    refinement = settings.synthesis.refinement
    return run_label(f"refine-{refinement.rounds}x{refinement.rationales_per_problem}")


def refine(recipe: Recipe, out: Path, *, round_number: int) -> Outcome:
    """One round: draw rationales, score them, keep the best, fit the scoring model if wanted."""
    from promptcot.refine import run_refinement
    from promptcot.run_context import SynthesisRun

    with SynthesisRun(recipe, out) as run:
        version = run_refinement(run, until=round_number)[-1]
    found = version.manifest.extra.get("objective", {})
    line = f"{version.manifest.rows_out:,} of {version.manifest.rows_in:,} problems"
    if found:
        line += f", objective {found['chosen']:.2f}, of a random choice {found['drawn']:.2f}"
    return Outcome(line=line, path=version.folder, reused=version.reused)


def make_steps(recipe: str, overrides: Sequence[str]) -> list[Step]:
    """A step for each round; one if the recipe cannot be read, which then says why."""
    try:
        rounds = load_recipe(recipe, overrides).settings.synthesis.refinement.rounds
    except ConfigError:
        rounds = 1
    return [
        Step(
            key=f"refined-{number}",
            title=f"refinement, round {number}",
            stages=(),
            run=partial(refine, round_number=number),
            part="refinement",
        )
        for number in range(1, rounds + 1)
    ]


@flow(name="refine-rationales", flow_run_name=name_run, persist_result=False)
def refine_rationales(
    recipe: str = "demo", out: str = "", overrides: Sequence[str] = ()
) -> State[Any]:
    """Draw rationales of seed problems, score them and keep the best, round by round.

    Args:
        recipe: Name of a file in recipes/, or a path to a TOML file.
        out: Output folder; runs/RECIPE-NAME when empty.
        overrides: Recipe values to change, each as section.key=value.
    """
    return run_steps(
        make_steps(recipe, overrides), recipe, out=out, overrides=overrides, next_run=""
    )
