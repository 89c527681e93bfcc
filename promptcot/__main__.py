"""``python -m promptcot``: synthesis, whole or stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import cli

if TYPE_CHECKING:
    from pipeline.manifest import Version
    from pipeline.settings.recipe import Recipe

app = cli.make_app(
    "promptcot",
    "PromptCoT synthesis: concepts to problems to judged problems to solutions to verified traces.",
)


@app.command()
def run(
    recipe: cli.RecipeOption = "demo",
    set_: cli.SetOption = None,
    out: cli.OutOption = None,
    dry_run: cli.DryRunOption = False,
    json: cli.JsonOption = False,
) -> None:
    """Run all stages; finished ones are reused, interrupted ones go on.

    Example: python -m promptcot run --recipe demo --out runs/demo
    """
    loaded, folder = _open(recipe, set_, out, json=json)
    if dry_run:
        _show_estimate(loaded, folder, (), json=json)
        return
    from promptcot.synthesis import synthesize_all

    _finish(synthesize_all(loaded, folder), json=json)


@app.command()
def estimate(
    recipe: cli.RecipeOption = "demo",
    set_: cli.SetOption = None,
    out: cli.OutOption = None,
    json: cli.JsonOption = False,
) -> None:
    """Show requests, tokens and time that a run needs at most; write nothing.

    Example: python -m promptcot estimate --recipe demo
    """
    loaded, folder = _open(recipe, set_, out, json=json)
    _show_estimate(loaded, folder, (), json=json)


@app.command()
def concepts(
    recipe: cli.RecipeOption = "demo",
    set_: cli.SetOption = None,
    out: cli.OutOption = None,
    dry_run: cli.DryRunOption = False,
    json: cli.JsonOption = False,
) -> None:
    """Draw the combinations of concepts, domain and level.

    Example: python -m promptcot concepts --set synthesis.combinations.num_combinations=100
    """
    _run_stage("combinations", (recipe, set_, out), dry_run=dry_run, json=json)


@app.command()
def problems(
    recipe: cli.RecipeOption = "demo",
    set_: cli.SetOption = None,
    out: cli.OutOption = None,
    dry_run: cli.DryRunOption = False,
    json: cli.JsonOption = False,
) -> None:
    """Write a rationale and a problem for each combination.

    Example: python -m promptcot problems --out runs/demo
    """
    _run_stage("problems", (recipe, set_, out), dry_run=dry_run, json=json)


@app.command()
def judge(
    recipe: cli.RecipeOption = "demo",
    set_: cli.SetOption = None,
    out: cli.OutOption = None,
    dry_run: cli.DryRunOption = False,
    json: cli.JsonOption = False,
) -> None:
    """Rate the problems and keep the good ones.

    Example: python -m promptcot judge --set synthesis.judging.minimum_verdict=acceptable
    """
    _run_stage("judged", (recipe, set_, out), dry_run=dry_run, json=json)


@app.command()
def solve(
    recipe: cli.RecipeOption = "demo",
    set_: cli.SetOption = None,
    out: cli.OutOption = None,
    dry_run: cli.DryRunOption = False,
    json: cli.JsonOption = False,
) -> None:
    """Sample solutions of the judged problems.

    Example: python -m promptcot solve --set synthesis.solutions.samples_per_problem=8
    """
    _run_stage("solutions", (recipe, set_, out), dry_run=dry_run, json=json)


@app.command()
def verify(
    recipe: cli.RecipeOption = "demo",
    set_: cli.SetOption = None,
    out: cli.OutOption = None,
    dry_run: cli.DryRunOption = False,
    json: cli.JsonOption = False,
) -> None:
    """Confirm solutions by majority (maths) or by tests in a sandbox (code).

    Example: python -m promptcot verify --out runs/demo
    """
    _run_stage("verified", (recipe, set_, out), dry_run=dry_run, json=json)


def _open(
    recipe: str, overrides: Sequence[str] | None, out: Path | None, *, json: bool
) -> tuple[Recipe, Path]:
    """Load the recipe and say which one is used, and where its results go."""
    from pipeline import console
    from pipeline.settings.recipe import load_recipe

    if json:
        console.use_json_output()
    loaded = load_recipe(recipe, overrides or ())
    folder = loaded.out(out)
    console.say(f"recipe {loaded.name} ({loaded.path}), run folder {folder}")
    return loaded, folder


def _run_stage(
    stage: str,
    options: tuple[str, Sequence[str] | None, Path | None],
    *,
    dry_run: bool,
    json: bool,
) -> None:
    loaded, folder = _open(*options, json=json)
    if dry_run:
        _show_estimate(loaded, folder, (stage,), json=json)
        return
    from promptcot.synthesis import run_one_stage

    _finish({stage: run_one_stage(loaded, folder, stage)}, json=json)


def _show_estimate(recipe: Recipe, out: Path, stages: Sequence[str], *, json: bool) -> None:
    from pipeline import console
    from promptcot.estimate import estimate_run, show_estimate

    found = estimate_run(recipe, out, stages)
    show_estimate(found)
    if json:
        console.print_json(found.as_json())


def _finish(versions: dict[str, Version], *, json: bool) -> None:
    """Show the table, the last version's folder, and with ``--json`` all of it as one object."""
    from pipeline import console
    from promptcot.synthesis import show_summary

    show_summary(versions)
    last = list(versions.values())[-1]
    console.say(f"written to {last.folder}")
    if json:
        console.print_json(
            {
                stage: {
                    "version": version.name,
                    "path": str(version.folder),
                    "rows_in": version.manifest.rows_in,
                    "rows_out": version.manifest.rows_out,
                    "rejected": version.manifest.rejected,
                    "reused": version.reused,
                }
                for stage, version in versions.items()
            }
        )


if __name__ == "__main__":
    cli.run_app(app, "python -m promptcot")
