"""``python -m promptcot``: synthesis, whole or stage by stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pipeline import cli
from promptcot.commands import Options

app = cli.make_app(
    "promptcot",
    "PromptCoT synthesis: concepts to problems to judged problems to solutions to verified traces.",
)

PilotOption = Annotated[
    int,
    typer.Option(
        "--pilot", min=0, help="Run this many combinations first, in OUT/pilot, and measure them."
    ),
]
GpusOption = Annotated[
    str,
    typer.Option("--gpus", help="Hours and money of the whole experiment on each, e.g. 1,8,64."),
]
ConstantsOption = Annotated[
    Path | None,
    typer.Option(
        "--constants", help="With --gpus: TOML of your measurements (promptcot/data/capacity.toml)."
    ),
]
PageOption = Annotated[
    Path | None, typer.Option("--page", help="With --gpus: also write a page, .html or .md.")
]
SeedsOption = Annotated[
    list[Path] | None,
    typer.Option("--seeds", help="File of seed problems (JSON, JSONL, Parquet); repeatable."),
]
MapOption = Annotated[
    list[str] | None,
    typer.Option("--map", help="Where a --seeds file has a field, e.g. problem=question."),
]
DomainOption = Annotated[
    str | None,
    typer.Option("--domain", help="math or code: of --seeds files where no column tells."),
]
LabelsOption = Annotated[
    Path, typer.Option("--labels", help="JSONL of problems that a person labelled.")
]


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
    from promptcot import commands

    options = Options(recipe=recipe, overrides=set_, out=out, as_json=json)
    commands.run_all(options, dry_run=dry_run)


@app.command()
def estimate(
    recipe: cli.RecipeOption = "demo",
    set_: cli.SetOption = None,
    out: cli.OutOption = None,
    pilot: PilotOption = 0,
    gpus: GpusOption = "",
    constants: ConstantsOption = None,
    page: PageOption = None,
    dry_run: cli.DryRunOption = False,
    json: cli.JsonOption = False,
) -> None:
    """Tell what a run needs: tokens, time, money and disk, stage by stage.

    Without a pilot these are upper bounds and nothing is written. A pilot is measured once; what it
    asked is stored and not asked again by the run. With --gpus: the whole experiment, training and
    evaluation included, on so many GPUs.

    Example: python -m promptcot estimate --recipe demo --pilot 50
    """
    from promptcot import commands

    options = Options(recipe=recipe, overrides=set_, out=out, as_json=json)
    if gpus or constants or page:
        commands.show_capacity(options, gpus or "1,8,64", constants, None if dry_run else page)
        return
    commands.show_estimate(options, pilot=0 if dry_run else pilot)


@app.command()
def concepts(
    recipe: cli.RecipeOption = "demo",
    set_: cli.SetOption = None,
    out: cli.OutOption = None,
    seeds: SeedsOption = None,
    map_: MapOption = None,
    domain: DomainOption = None,
    dry_run: cli.DryRunOption = False,
    json: cli.JsonOption = False,
) -> None:
    """Make the concept bank from seed problems.

    Example: python -m promptcot concepts --seeds problems.jsonl --domain math
    """
    from promptcot import commands

    options = Options(recipe=recipe, overrides=set_, out=out, as_json=json)
    commands.run_concepts(options, seeds or [], columns=map_ or [], domain=domain, dry_run=dry_run)


def _stage_command(stage: str) -> Callable[..., None]:
    """The verb of one stage; all of them have the same options."""

    def command(
        recipe: cli.RecipeOption = "demo",
        set_: cli.SetOption = None,
        out: cli.OutOption = None,
        dry_run: cli.DryRunOption = False,
        json: cli.JsonOption = False,
    ) -> None:
        from promptcot import commands

        options = Options(recipe=recipe, overrides=set_, out=out, as_json=json)
        beside = stage in ("triples", "refine")
        (commands.run_beside if beside else commands.run_stage)(options, stage, dry_run=dry_run)

    return command


for _verb, _stage, _help, _example in (
    (
        "combinations",
        "combinations",
        "Draw the combinations of concepts, domain and level.",
        "--set synthesis.combinations.num_combinations=100",
    ),
    (
        "problems",
        "problems",
        "Write a rationale and a problem for each combination.",
        "--out runs/demo",
    ),
    (
        "distinct",
        "distinct",
        "Remove repeated problems and benchmark items, before anything is paid for them.",
        "--set synthesis.distinct.near_duplicate_jaccard=0.8",
    ),
    (
        "judge",
        "judged",
        "Rate the problems and keep the good ones.",
        "--set synthesis.judging.minimum_verdict=acceptable",
    ),
    (
        "solve",
        "solutions",
        "Sample solutions of the judged problems.",
        "--set synthesis.solutions.samples_per_problem=8",
    ),
    (
        "verify",
        "verified",
        "Confirm solutions by majority (maths) or by tests in a sandbox (code).",
        "--out runs/demo",
    ),
    (
        "triples",
        "triples",
        "Write rationales for seed problems: the training set of a problem generator.",
        "--set synthesis.triples.max_tokens=1024",
    ),
    (
        "refine",
        "refine",
        "Draw rationales of seed problems, score them and keep the best, round by round.",
        "--set synthesis.refinement.rounds=2",
    ),
):
    app.command(_verb, help=f"{_help}\n\nExample: python -m promptcot {_verb} {_example}")(
        _stage_command(_stage)
    )


@app.command()
def calibrate(
    labels: LabelsOption,
    recipe: cli.RecipeOption = "demo",
    set_: cli.SetOption = None,
    out: cli.OutOption = None,
    dry_run: cli.DryRunOption = False,
    json: cli.JsonOption = False,
) -> None:
    """Score the judges on problems that a person labelled, before money is spent.

    Example: python -m promptcot calibrate --labels labelled.jsonl --recipe demo
    """
    from promptcot import commands

    options = Options(recipe=recipe, overrides=set_, out=out, as_json=json)
    commands.run_calibration(options, labels, dry_run=dry_run)


@app.command()
def ledger(
    recipe: cli.RecipeOption = "demo",
    set_: cli.SetOption = None,
    out: cli.OutOption = None,
    json: cli.JsonOption = False,
) -> None:
    """Show what each stage has cost: requests, tokens, time and money, also per accepted row.

    Example: python -m promptcot ledger --out runs/demo
    """
    from promptcot import commands

    options = Options(recipe=recipe, overrides=set_, out=out, as_json=json)
    commands.show_ledger(options)


@app.command()
def report(
    recipe: cli.RecipeOption = "demo",
    set_: cli.SetOption = None,
    out: cli.OutOption = None,
    dry_run: cli.DryRunOption = False,
    json: cli.JsonOption = False,
) -> None:
    """Write the synthesis page: one HTML file that opens anywhere.

    Example: python -m promptcot report --out runs/demo
    """
    from promptcot import commands

    options = Options(recipe=recipe, overrides=set_, out=out, as_json=json)
    commands.write_report(options, dry_run=dry_run)


if __name__ == "__main__":
    cli.run_app(app, "python -m promptcot")
