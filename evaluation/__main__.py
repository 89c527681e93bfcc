"""``python -m evaluation``: score checkpoints, grade answer files, write the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evaluation import benchmark_commands, throughput_commands
from pipeline import cli

if TYPE_CHECKING:
    from pipeline.settings.recipe import Recipe

app = cli.make_app(
    "evaluation",
    "Score checkpoints, grade answers of any model, write the report.\n\n"
    "Example: python -m evaluation run --recipe demo",
)
app.add_typer(throughput_commands.app)
app.add_typer(benchmark_commands.app)


@app.command()
def run(
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="Model folder (default: the recipe's phases in OUT)."),
    ] = None,
    recipe: cli.RecipeOption = "demo",
    overrides: cli.SetOption = None,
    out: cli.OutOption = None,
    dry_run: cli.DryRunOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Sample and grade answers of checkpoints; print their scores.

    Example: python -m evaluation run --checkpoint runs/demo/checkpoints/phase-2
    """
    loaded, folder = _open(recipe, overrides, out, as_json)
    from evaluation.checkpoints import choose_checkpoints
    from evaluation.run import claim_evaluations
    from pipeline.events import recording
    from pipeline.run_folder import prepare_run_folder

    chosen = choose_checkpoints(loaded, folder, checkpoint)
    if dry_run:
        _finish(_describe_plan(loaded, chosen), as_json)
        return
    names = [_name(loaded, path) for path in chosen]
    with (
        claim_evaluations(folder, names),
        recording(folder, loaded.settings.events, "evaluation"),
    ):
        prepare_run_folder(loaded, folder)
        results = [_evaluate(loaded, path, folder) for path in chosen]
    _finish({"recipe": loaded.name, "out": str(folder), "evaluations": results}, as_json)


@app.command()
def grade(
    benchmark: Annotated[
        str, typer.Option("--benchmark", help="Name in the recipe, or a JSONL file of items.")
    ],
    answers: Annotated[
        Path, typer.Option("--answers", help="JSONL of {id, answer}; 'sample' numbers repeats.")
    ],
    recipe: cli.RecipeOption = "demo",
    overrides: cli.SetOption = None,
    dry_run: cli.DryRunOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Grade a file of answers from any model; --json prints the verdict on each.

    Example: python -m evaluation grade --benchmark demo-math --answers answers.jsonl
    """
    loaded, _ = _open(recipe, overrides, None, as_json)
    from evaluation.answer_files import check_answers, grade_answers, load_items, score_outcomes
    from pipeline import console

    items = load_items(loaded, benchmark)
    file = check_answers(answers, items)
    num_missing, num_answers = file.count_missing(items), len(file.answered)
    plan = {"benchmark": items[0].benchmark, "num_items": len(items), "num_answers": num_answers}
    console.say(f"{num_answers} answers to {len(items)} items of {items[0].benchmark}")
    if num_missing:
        console.warn(f"{num_missing} items have no answer and count as wrong")
    if dry_run:
        _finish(plan, as_json)
        return
    outcomes, verdicts = [], []
    for verdict in grade_answers(items, file, loaded.settings.evaluation):
        outcomes.append(verdict.as_outcome(items[0]))
        if as_json:
            verdicts.append(verdict.as_json())
        if not verdict.grade.correct:
            shown = verdict.grade.extracted if items[0].domain == "math" else None
            detail = verdict.grade.detail or (f"answered {shown}" if shown else "")
            console.say(f"{verdict.item_id}: {verdict.grade.reason} {detail}".rstrip())
    scores = score_outcomes(items, outcomes, loaded.settings.evaluation)
    _show_scores("scores", [scores])
    report = {**plan, "num_missing": num_missing, "scores": scores, "verdicts": verdicts}
    _finish(report, as_json)


@app.command()
def report(
    recipe: cli.RecipeOption = "demo",
    overrides: cli.SetOption = None,
    out: cli.OutOption = None,
    dry_run: cli.DryRunOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Write the run's page from whatever has been built so far.

    Example: python -m evaluation report --recipe demo --out runs/demo
    """
    loaded, folder = _open(recipe, overrides, out, as_json)
    from pipeline import console

    path = folder / "report" / "index.html"
    if dry_run:
        console.say(f"would write {path}")
    else:
        from evaluation.report import write_report

        path = write_report(loaded, folder)
        console.say(f"written: {path}")
    _finish({"recipe": loaded.name, "path": str(path)}, as_json)


@app.command()
def compare(
    first: Annotated[
        str,
        typer.Argument(
            metavar="A", help="Folder of an evaluation version, or a checkpoint's name."
        ),
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="The same; the difference is B - A.")],
    recipe: cli.RecipeOption = "demo",
    overrides: cli.SetOption = None,
    out: cli.OutOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Compare two evaluated checkpoints, problem by problem; nothing is written.

    Example: python -m evaluation compare phase-1 phase-2 --recipe demo
    """
    loaded, folder = _open(recipe, overrides, out, as_json)
    from evaluation.compare import compare_versions
    from evaluation.comparison_view import show_comparison
    from evaluation.item_scores import find_evaluation

    versions = [find_evaluation(folder, name) for name in (first, second)]
    found = compare_versions(versions[0], versions[1], loaded.settings.evaluation)
    show_comparison(found, versions)
    rows = [entry.as_json() for entry in found.benchmarks]
    values = {"a": versions[0].name, "b": versions[1].name, "notes": list(found.notes)}
    _finish({**values, "benchmarks": rows}, as_json)


@app.command()
def ablation(
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A variant; again for more (default: all).")
    ] = None,
    matched: Annotated[
        str, typer.Option("--matched", help="none, steps or tokens (default: the recipe's).")
    ] = "",
    seeds: Annotated[str, typer.Option("--seeds", help="E.g. 0,1,2 (default: the recipe's).")] = "",
    recipe: cli.RecipeOption = "demo",
    overrides: cli.SetOption = None,
    out: cli.OutOption = None,
    dry_run: cli.DryRunOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Train and evaluate the recipe and its leave-one-out variants over seeds; tabulate them.

    Example: python -m evaluation ablation --recipe demo --only no-open-thoughts2 --seeds 0,1
    """
    loaded, folder = _open(recipe, overrides, out, as_json)
    from evaluation.ablation_plan import list_arms, read_options
    from evaluation.ablation_view import describe_plan, run_and_show

    matching, numbers = read_options(loaded, matched, seeds)
    arms = list_arms(loaded, only or (), matching)
    if dry_run:
        runs = describe_plan(loaded, arms, numbers, folder)
        _finish({"recipe": loaded.name, "out": str(folder), "runs": runs}, as_json)
        return
    table = run_and_show(loaded, arms, numbers, folder)
    _finish({"recipe": loaded.name, "out": str(folder), **table}, as_json)


def _open(
    recipe: str, overrides: Sequence[str] | None, out: Path | None, as_json: bool
) -> tuple[Recipe, Path]:
    """Load the recipe and say which one is used."""
    from pipeline import console
    from pipeline.settings.recipe import load_recipe

    if as_json:
        console.use_json_output()
    loaded = load_recipe(recipe, overrides or ())
    folder = loaded.out(out)
    console.say(f"recipe {loaded.name} ({loaded.path.name}), output {folder}")
    return loaded, folder


def _evaluate(recipe: Recipe, checkpoint: Path | None, out: Path) -> dict[str, Any]:
    """Evaluate one checkpoint, or a teacher's own model, and show its scores."""
    from evaluation.run import evaluate_checkpoint
    from pipeline import console

    name = _name(recipe, checkpoint)
    console.heading(f"evaluating {name}")
    version = evaluate_checkpoint(recipe, checkpoint, out, name)
    scores = version.manifest.extra["scores"]
    _show_scores(f"{name}: version {version.name}", scores)
    console.say(f"{'reused' if version.reused else 'written'}: {version.folder}")
    return {
        "checkpoint": name,
        "version": version.name,
        "path": str(version.folder),
        "reused": version.reused,
        "rows_in": version.manifest.rows_in,
        "rows_out": version.manifest.rows_out,
        "rejected": version.manifest.rejected,
        "scores": scores,
    }


def _name(recipe: Recipe, checkpoint: Path | None) -> str:
    """Under which a checkpoint is evaluated, or a teacher's own model."""
    return checkpoint.resolve().name if checkpoint else recipe.settings.evaluation.engine


def _finish(values: dict[str, Any], as_json: bool) -> None:
    from pipeline import console

    if as_json:
        console.print_json(values)


def _describe_plan(recipe: Recipe, checkpoints: Sequence[Path | None]) -> dict[str, Any]:
    """What a run would sample; nothing is written."""
    from evaluation.run import load_benchmarks, plan_batches
    from pipeline import console

    settings = recipe.settings.evaluation
    benchmarks = load_benchmarks(recipe)
    num_items = {name: len(items) for name, items in benchmarks.items()}
    batches = plan_batches(benchmarks, recipe)
    num_answers = sum(len(batch.rows) for batch in batches)
    plan = {
        "engine": settings.engine,
        "checkpoints": [str(path) for path in checkpoints if path is not None],
        "benchmarks": num_items,
        "answers_per_checkpoint": num_answers,
        "batches_per_checkpoint": len(batches),
        "most_tokens_per_checkpoint": num_answers * settings.max_new_tokens,
    }
    console.table("plan", ["what", "value"], [[key, str(value)] for key, value in plan.items()])
    return plan


def _show_scores(title: str, scores: Sequence[dict[str, Any]]) -> None:
    from pipeline import console

    columns = ["benchmark", "items", "k", "avg@k", "interval", "pass@k", "answered"]
    rows = [
        [
            score["benchmark"],
            score["num_items"],
            score["samples_per_item"],
            f"{score['avg_at_k']:.1%}",
            f"{score['interval'][0]:.1%} – {score['interval'][1]:.1%}",
            f"{score['pass_at_k']:.1%}",
            f"{score['format_rate']:.1%}",
        ]
        for score in scores
    ]
    console.table(title, columns, rows)
    for score in scores:
        if score["interval_note"]:
            console.say(f"{score['benchmark']}: {score['interval_note']}")
        verdicts = ", ".join(f"{count} {reason}" for reason, count in score["reasons"].items())
        console.say(f"{score['benchmark']} verdicts: {verdicts}")


if __name__ == "__main__":
    cli.run_app(app, "python -m evaluation")
