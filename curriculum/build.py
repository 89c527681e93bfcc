"""Build one phase of the curriculum: ``python -m curriculum.build --phase 1``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import cli

if TYPE_CHECKING:
    from pipeline.manifest import Version
    from pipeline.settings.recipe import Recipe

app = cli.make_app(
    "build",
    "Build one phase of the curriculum.\n\n"
    "Example: python -m curriculum.build --phase 1 --recipe demo",
)


def build_phase(recipe: Recipe, phase: str, out: Path, variant: str | None = None) -> Version:
    """Build one phase's dataset version, or return it when it exists.

    Args:
        recipe: The experiment.
        phase: ``1`` or ``2``.
        out: Run folder; the version goes to ``datasets/phase-<phase>/<version>``.
        variant: An ablation of the phase; its versions go to ``datasets/phase-<phase>-<variant>``.

    Raises:
        ConfigError: The recipe has no such phase, or a share rounds to no rows.
        SourceError: An input is missing or malformed.
        LicenceRefused: A row's licence is not among the phase's.
        TooManyRejected: Too few rows were accepted.
        StoreError: The disk is full, or another process builds this version.
    """
    from curriculum.phases import build_version

    return build_version(recipe, phase, out, variant)


@app.command()
def build(
    phase: Annotated[str, typer.Option("--phase", help="1 or 2.")],
    variant: Annotated[
        str | None, typer.Option("--variant", help="An ablation that the recipe describes.")
    ] = None,
    recipe: cli.RecipeOption = "demo",
    overrides: cli.SetOption = None,
    out: cli.OutOption = None,
    dry_run: cli.DryRunOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Build one phase version; print its path, counts and rejections.

    Example: python -m curriculum.build --phase 2 --out runs/demo
    """
    from pipeline import console
    from pipeline.settings.recipe import load_recipe

    if as_json:
        console.use_json_output()
    loaded = load_recipe(recipe, overrides or ())
    folder = loaded.out(out)
    console.say(f"recipe {loaded.name} ({loaded.path.name}), output {folder}")
    if dry_run:
        report = _describe_plan(loaded, phase, folder, variant)
    else:
        report = _describe_version(build_phase(loaded, phase, folder, variant))
    if as_json:
        console.print_json(report)


def _describe_plan(recipe: Recipe, phase: str, out: Path, variant: str | None) -> dict[str, Any]:
    """Show what a build would read and how its version is called; write nothing."""
    from curriculum.planning import awaits_synthesis, make_plan
    from pipeline import console

    if awaits_synthesis(recipe, phase, out, variant):
        console.say(
            f"phase {phase} would run synthesis first: there are no verified traces under {out} "
            "yet, and its version is named by theirs"
        )
        return {"phase": phase, "version": None, "exists": False, "runs_synthesis": True}
    plan = make_plan(recipe, phase, out, variant=variant, may_synthesize=False)
    console.table(
        f"phase {phase} would read",
        ["input", "version"],
        [[ref.name, ref.version] for ref in plan.stage.inputs],
    )
    folder = plan.stage.root / plan.stage.version
    state = "exists" if folder.is_dir() else "would be built"
    console.say(f"version {plan.stage.version} {state}: {folder}")
    return {
        "phase": phase,
        "version": plan.stage.version,
        "path": str(folder),
        "exists": folder.is_dir(),
        "inputs": [ref.model_dump() for ref in plan.stage.inputs],
    }


def _describe_version(version: Version) -> dict[str, Any]:
    """Show a built version's counts."""
    from curriculum.showing import show_rejections, show_sources
    from pipeline import console

    manifest = version.manifest
    show_sources(manifest)
    show_rejections(manifest)
    console.say(
        f"{manifest.rows_in:,} rows in = {manifest.rows_out:,} out + "
        f"{manifest.rows_rejected:,} rejected; {manifest.tokens.get('total', 0):,} tokens"
    )
    console.say(f"{'found' if version.reused else 'built'} {version.folder}")
    return {
        "path": str(version.folder),
        "version": version.name,
        "reused": version.reused,
        "rows_in": manifest.rows_in,
        "rows_out": manifest.rows_out,
        "rejected": manifest.rejected,
        "tokens": manifest.tokens,
        "licences": manifest.licences,
        "sources": manifest.extra["sources"],
    }


if __name__ == "__main__":
    cli.run_app(app, "python -m curriculum.build")
