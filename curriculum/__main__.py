"""Look into dataset versions, move them, check files: ``python -m curriculum diff|inspect|…``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import cli

if TYPE_CHECKING:
    from pipeline.settings.recipe import Recipe

app = cli.make_app(
    "curriculum",
    "Compare, describe, move, check dataset versions. Build one with python -m curriculum.build.",
)

VersionArgument = Annotated[
    str, typer.Argument(help="A version's folder, its name, or phase-1 / phase-2 for the newest.")
]


@app.command()
def diff(
    a: VersionArgument,
    b: VersionArgument,
    recipe: cli.RecipeOption = "demo",
    out: cli.OutOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Say what two versions differ in: inputs, settings, code, counts, rows.

    Example: python -m curriculum diff phase-1 runs/other/datasets/phase-1/0123456789abcdef
    """
    from curriculum.diff import compare_versions, show_comparison
    from curriculum.locate import find_version
    from pipeline import console

    if as_json:
        console.use_json_output()
    folder = _folder(recipe, out)
    comparison = compare_versions(find_version(a, folder), find_version(b, folder))
    show_comparison(comparison)
    if as_json:
        console.print_json(comparison)


@app.command()
def card(
    version: VersionArgument,
    recipe: cli.RecipeOption = "demo",
    out: cli.OutOption = None,
    dry_run: cli.DryRunOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Write a version's README.md and croissant.json again from its manifest.

    Example: python -m curriculum card phase-1 --out runs/demo
    """
    from curriculum.cards import write_documents
    from curriculum.locate import find_version
    from pipeline import console
    from pipeline.store import write_text

    if as_json:
        console.use_json_output()
    found = find_version(version, _folder(recipe, out))
    documents = write_documents(found.manifest)
    for name, text in documents.items():
        if not dry_run:
            write_text(found.folder / name, text)
        console.say(f"{'would write' if dry_run else 'wrote'} {found.folder / name}")
    if as_json:
        console.print_json({"path": str(found.folder), "files": sorted(documents)})


@app.command()
def inspect(
    version: VersionArgument,
    recipe: cli.RecipeOption = "demo",
    out: cli.OutOption = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="Sample rows to show.")] = 2,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with plots and rows to this file.")
    ] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Look at a version: mix, lengths, rejections, sample rows.

    Example: python -m curriculum inspect phase-1 --html phase-1.html
    """
    from curriculum.locate import find_version, inspect_version
    from pipeline import console

    if as_json:
        console.use_json_output()
    found = find_version(version, _folder(recipe, out))
    report = inspect_version(found, rows)
    if html is not None:
        from curriculum.inspect_page import write_inspection

        write_inspection(found, html)
        console.say(f"wrote {html}")
        report["html"] = str(html)
    if as_json:
        console.print_json(report)


@app.command()
def explain(
    row_id: Annotated[str, typer.Argument(help="A row's id, or its first 6 or more digits.")],
    recipe: cli.RecipeOption = "demo",
    out: cli.OutOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Tell a row's whole story in the newest versions: each stage, and why it is in or out.

    Example: python -m curriculum explain 61739da1
    """
    from curriculum.explain import explain_row, show_places
    from pipeline import console

    if as_json:
        console.use_json_output()
    report = explain_row(row_id, _folder(recipe, out))
    show_places(report)
    if as_json:
        console.print_json(report)


@app.command()
def gc(
    recipe: cli.RecipeOption = "demo",
    out: cli.OutOption = None,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Newest versions to keep.")] = 1,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Also what interrupted runs would go on with.")
    ] = False,
    dry_run: cli.DryRunOption = False,
    as_json: cli.JsonOption = False,
) -> None:
    """Delete versions and prepared sources that nothing refers to.

    Example: python -m curriculum gc --out runs/demo --dry-run
    """
    from curriculum.collecting import collect_garbage, show_collection
    from pipeline import console

    if as_json:
        console.use_json_output()
    folder = _folder(recipe, out)
    found = collect_garbage(folder, keep=keep, unfinished=unfinished, dry_run=dry_run)
    show_collection(found, dry_run=dry_run)
    if as_json:
        entries = [
            {"path": str(one.path), "what": one.kind, "bytes": one.num_bytes, "keeps": one.keeps}
            for one in found
        ]
        console.print_json({"dry_run": dry_run, "found": entries})


@app.command()
def push(
    version: VersionArgument,
    url: Annotated[str, typer.Argument(help="Folder of the version: a path or an fsspec URL.")],
    recipe: cli.RecipeOption = "demo",
    out: cli.OutOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Copy a version to a store or hub repo; go on where an interrupted push stopped.

    Example: python -m curriculum push phase-1 hf://datasets/OWNER/NAME
    """
    from curriculum.locate import find_version
    from curriculum.transfer import push_version, show_transfer
    from pipeline import console

    if as_json:
        console.use_json_output()
    done = push_version(find_version(version, _folder(recipe, out)), url)
    show_transfer(done, "pushed")
    if as_json:
        console.print_json(done.report())


@app.command()
def pull(
    url: Annotated[str, typer.Argument(help="Folder that a version was pushed to.")],
    recipe: cli.RecipeOption = "demo",
    out: cli.OutOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Copy a pushed version into a run folder, verified by its checksums.

    Example: python -m curriculum pull s3://bucket/phase-1 --out runs/demo
    """
    from curriculum.transfer import pull_version, show_transfer
    from pipeline import console

    if as_json:
        console.use_json_output()
    done = pull_version(url, _folder(recipe, out))
    show_transfer(done, "pulled")
    if as_json:
        console.print_json(done.report())


@app.command()
def ingest(
    source: Annotated[
        str,
        typer.Argument(help="open_code_reasoning, open_thoughts2, synthesized, or a recipe's name"),
    ],
    path: Annotated[Path, typer.Option("--path", help="Parquet or JSONL(.gz) file to check.")],
    recipe: cli.RecipeOption = "demo",
    overrides: cli.SetOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Check a file in a source's schema: what is accepted, what is rejected and why.

    Example: python -m curriculum ingest open_thoughts2 --path rows.parquet
    """
    from curriculum.checking import check_source_file, show_check
    from pipeline import console

    if as_json:
        console.use_json_output()
    report = check_source_file(_load(recipe, overrides), source, path)
    show_check(report)
    if as_json:
        console.print_json_rows(report, "rows")


@app.command()
def decontaminate(
    file: Annotated[Path, typer.Argument(help="Parquet or JSONL(.gz) with a text column.")],
    benchmark: Annotated[
        Path | None,
        typer.Option("--benchmark", help="Items to look for; by default the recipe's benchmarks."),
    ] = None,
    text_column: Annotated[
        str,
        typer.Option("--text-column", help="Column of the text; by default text, question, …"),
    ] = "",
    judge: Annotated[
        str,
        typer.Option("--judge", help="Also ask this teacher about each row's nearest items."),
    ] = "",
    recipe: cli.RecipeOption = "demo",
    overrides: cli.SetOption = None,
    out: cli.OutOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Check any rows against benchmarks: flagged ids with benchmark, item and span.

    Example: python -m curriculum decontaminate rows.jsonl --benchmark math500.jsonl
    """
    from curriculum.decontaminating import add_judgements, decontaminate_file, show_flagged
    from pipeline import console

    if as_json:
        console.use_json_output()
    _require_file(file, "FILE, the Parquet or JSONL file of rows to check")
    if benchmark is not None:
        _require_file(benchmark, "--benchmark, a file of items")
    loaded = _load(recipe, overrides)
    report = decontaminate_file(loaded, file, benchmark, text_column)
    if judge:
        from curriculum.semantic_items import ItemJudge

        asked = ItemJudge(loaded, judge, loaded.out(out))
        add_judgements(report, file, benchmark, asked, text_column)
    show_flagged(report)
    if as_json:
        console.print_json(report)


def _folder(recipe: str, out: Path | None) -> Path:
    from pipeline.settings.recipe import load_recipe

    return out if out is not None else load_recipe(recipe).out(None)


def _require_file(path: Path, argument: str) -> None:
    if not path.is_file():
        from pipeline.errors import SourceError

        raise SourceError(f"no file {path}", hint=f"check the path given as {argument}")


def _load(recipe: str, overrides: list[str] | None) -> Recipe:
    from pipeline import console
    from pipeline.settings.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    console.say(f"recipe {loaded.name} ({loaded.path.name})")
    return loaded


if __name__ == "__main__":
    cli.run_app(app, "python -m curriculum")
