"""``python -m evaluation throughput``: generated tokens a second under a memory budget."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipeline import cli

app = typer.Typer()


@app.command()
def throughput(
    budgets_gb: Annotated[
        list[float] | None,
        typer.Option("--budget-gb", help="Memory of the card to imitate; may be repeated."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Decode steps timed at each position.")
    ] = None,
    recipe: cli.RecipeOption = "demo",
    overrides: cli.SetOption = None,
    out: cli.OutOption = None,
    dry_run: cli.DryRunOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Compare a Mamba-2 with a Transformer of its size: tokens/s by length under a memory budget.

    Each gets the largest batch that fits. What is finished is kept, so the same command goes on
    where an earlier one was stopped.

    Example: python -m evaluation throughput --recipe paper --budget-gb 24 --budget-gb 72
    """
    from pipeline import console
    from pipeline.settings.recipe import load_recipe

    if as_json:
        console.use_json_output()
    chosen = list(overrides or ())
    if budgets_gb:
        chosen.append(f"throughput.budgets_gb={list(budgets_gb)}")
    if steps is not None:
        chosen.append(f"throughput.steps={steps}")
    loaded = load_recipe(recipe, chosen)
    folder = loaded.out(out)
    console.say(f"recipe {loaded.name} ({loaded.path.name}), output {folder}")
    from evaluation.throughput.plan import describe_plan, show_plan

    result: dict[str, Any] = {"plan": describe_plan(loaded)}
    show_plan(result["plan"])
    if not dry_run:
        from evaluation.throughput.run import run_throughput
        from evaluation.throughput.view import show_result

        result |= run_throughput(loaded, folder / "throughput")
        show_result(result)
    if as_json:
        console.print_json(result)
