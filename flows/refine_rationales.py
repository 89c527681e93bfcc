"""Flow ``refine-rationales``: PromptCoT 2.0's loop over rationales, one task a round.

prefect deployment run refine-rationales --watch
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prefect import State, flow

from flows.failures import tell_crash
from flows.forms import Count, RefinementConfig, Seed
from flows.parameters import Request, run_label, run_request, this_request
from flows.steps import Outcome, Step
from pipeline.errors import ConfigError
from pipeline.settings.recipe import Recipe

EMPTY_FORM = RefinementConfig()


def name_run() -> str:
    """E.g. ``demo-refine-2x8``: rounds times rationales of each problem."""
    request = this_request()
    try:
        refinement = request.load().settings.synthesis.refinement
    except ConfigError:
        # The run itself says what is wrong with the recipe.
        return run_label(request, "refine")
    return run_label(request, f"refine-{refinement.rounds}x{refinement.rationales_per_problem}")


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


def make_steps(request: Request) -> list[Step]:
    """A step for each round; one if the recipe cannot be read, which then says why."""
    try:
        rounds = request.load().settings.synthesis.refinement.rounds
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


@flow(
    name="refine-rationales", flow_run_name=name_run, persist_result=False, on_crashed=[tell_crash]
)
def refine_rationales(
    recipe: str = "demo",
    out: str = "",
    rounds: Count = 0,
    teacher: str = "",
    seed: Seed = -1,
    dry_run: bool = False,
    config: RefinementConfig = EMPTY_FORM,
    overrides: Sequence[str] = (),
) -> State[Any]:
    """Draw rationales of seed problems, score them and keep the best, round by round.

    Args:
        recipe: Which experiment: demo, small, math, paper, or a path to a TOML file.
        out: Output folder; empty takes runs/RECIPE-NAME. Finished work in it is reused.
        rounds: How often rationales are drawn and chosen; 0 takes the recipe's number.
        teacher: Who draws: a name among the recipe's [teachers].
        seed: Root of all randomness; -1 takes the recipe's.
        config: Further settings; what is empty stays as the recipe says.
        overrides: Any other recipe values, each as section.key=value. These win.
        dry_run: Only check and plan: nothing is asked, nothing is written.
    """
    request = this_request()
    return run_request(request, make_steps(request), next_command="")
