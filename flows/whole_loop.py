"""The whole loop in one process, without Prefect: ``python -m flows.whole_loop``.

In: a recipe and the files it names. Out: the run folder with synthesis, datasets, checkpoints,
evaluation and ``report/index.html``. Finished work is reused, so running again continues.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import cli

if TYPE_CHECKING:
    from pipeline.settings.recipe import Recipe

app = cli.make_app(
    "whole_loop",
    "Synthesise, build both datasets, train, evaluate and report.\n\n"
    "Example: python -m flows.whole_loop --recipe demo --out runs/demo",
)


def run_whole_loop(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Run every step in order and return the closing summary.

    Args:
        recipe: The experiment.
        out: The run folder.

    Returns:
        The summary (``flows.summary.summarize``) with ``steps``: seconds, line and reuse of each.

    Raises:
        PipelineError: A step cannot be done; what was finished before it stays.
    """
    from flows import steps
    from flows.preflight import check_whole_loop
    from flows.summary import summarize
    from pipeline import console
    from pipeline.claims import claiming
    from pipeline.events import recording
    from pipeline.run_folder import prepare_run_folder

    check_whole_loop(recipe)
    steps.stay_offline(recipe)
    done = []
    with (
        claiming(out, [step.claim for step in steps.WHOLE_LOOP]),
        recording(out, recipe.settings.events, "whole loop"),
    ):
        prepare_run_folder(recipe, out)
        for number, step in enumerate(steps.WHOLE_LOOP, start=1):
            console.heading(f"{number}/{len(steps.WHOLE_LOOP)} {step.title}")
            start = time.monotonic()
            outcome = steps.run_recorded(step, recipe, out)
            seconds = round(time.monotonic() - start, 1)
            mark = "reused: " if outcome.reused else ""
            console.say(f"    {mark}{outcome.line} ({seconds:.0f} s)")
            entry = {"step": step.key, "seconds": seconds, "reused": outcome.reused}
            done.append({**entry, "line": outcome.line, "path": str(outcome.path)})
    return {**summarize(recipe, out), "steps": done}


@app.command()
def whole_loop(
    recipe: cli.RecipeOption = "demo",
    overrides: cli.SetOption = None,
    out: cli.OutOption = None,
    dry_run: cli.DryRunOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Synthesise, build both datasets, train, evaluate and report.

    Example: python -m flows.whole_loop --recipe demo --out runs/demo
    """
    from flows.summary import show_summary
    from pipeline import console
    from pipeline.settings.recipe import load_recipe

    if as_json:
        console.use_json_output()
    loaded = load_recipe(recipe, overrides or [])
    folder = loaded.out(out)
    console.say(f"recipe {loaded.name} ({loaded.path}), output folder {folder}")
    if dry_run:
        plan = _show_plan(loaded, folder)
        if as_json:
            console.print_json(plan)
        return
    start = time.monotonic()
    summary = run_whole_loop(loaded, folder)
    show_summary(summary)
    console.say(f"the whole loop took {time.monotonic() - start:.0f} s")
    if as_json:
        console.print_json(summary)


def _show_plan(recipe: Recipe, out: Path) -> dict[str, Any]:
    """What would run, checked as far as it can be without doing it."""
    from flows.preflight import check_whole_loop, named_files
    from flows.steps import WHOLE_LOOP
    from pipeline import console
    from pipeline.relaxed_gates import relaxed_gates

    check_whole_loop(recipe)
    for number, step in enumerate(WHOLE_LOOP, start=1):
        console.say(f"  {number}/{len(WHOLE_LOOP)} {step.title}")
    files = list(named_files(recipe))
    console.say(f"all {len(files)} files that the recipe names are there; nothing was written")
    return {
        "recipe": recipe.name,
        "out": str(out),
        "steps": [step.key for step in WHOLE_LOOP],
        "files": {key: str(path) for key, path in files},
        "relaxed_gates": relaxed_gates(recipe.settings),
    }


if __name__ == "__main__":
    cli.run_app(app, "python -m flows.whole_loop")
