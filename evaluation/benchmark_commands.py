"""``python -m evaluation benchmarks``: where a recipe's benchmarks are, and whether they fit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer

from pipeline import cli

if TYPE_CHECKING:
    from pipeline.benchmark_items import BenchmarkItem
    from pipeline.benchmark_sources import Located
    from pipeline.errors import PipelineError
    from pipeline.settings.benchmarks import BenchmarkSettings
    from pipeline.settings.recipe import Recipe

app = typer.Typer()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of one benchmark."""

    name: str
    domain: str
    grader: str
    samples_per_item: int
    licence: str
    source: str
    """Where the recipe says it is."""
    found_at: str = ""
    files: tuple[str, ...] = ()
    num_items: int = 0
    content_sha256: str = ""
    """Of the items that were found."""
    hash: str = ""
    """``ok``: the items are the recorded ones; ``files ok``: the files are, and the items have no
    recorded hash; ``not recorded``: nothing was compared."""
    problem: str = ""
    hint: str = ""
    questions_at: str = ""
    """Where its questions are, if they are all there is."""


@app.command()
def benchmarks(
    recipe: cli.RecipeOption = "demo",
    overrides: cli.SetOption = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Fetch and check the recipe's benchmarks; print source, items, hash, licence, k and grader.

    Example: python -m evaluation benchmarks --recipe paper
    """
    from pipeline import console
    from pipeline.settings.recipe import load_recipe

    if as_json:
        console.use_json_output()
    loaded = load_recipe(recipe, overrides or ())
    findings, first_error = [], None
    for settings in loaded.settings.benchmarks:
        finding, error = examine(loaded, settings)
        findings.append(finding)
        first_error = first_error or error
    show_findings(loaded.name, findings)
    if as_json:
        console.print_json(
            {"recipe": loaded.name, "benchmarks": [asdict(finding) for finding in findings]}
        )
    if first_error is not None:
        raise first_error


def examine(recipe: Recipe, settings: BenchmarkSettings) -> tuple[Finding, PipelineError | None]:
    """Find, read and check one benchmark; what stops a run is returned, not raised."""
    from pipeline.benchmark_hashes import hash_content
    from pipeline.benchmark_sources import locate
    from pipeline.benchmarks import load_benchmark
    from pipeline.errors import PipelineError

    values: dict[str, Any] = {
        "name": settings.name,
        "domain": settings.domain,
        "grader": settings.scored_by,
        "samples_per_item": settings.samples_per_item
        or recipe.settings.evaluation.samples_per_item,
        "licence": settings.licence,
        "source": describe_source(settings),
    }
    try:
        located = locate(recipe, settings, questions_only=not settings.is_scored)
        values |= {"found_at": located.place, "files": tuple(map(str, located.files))}
        items: list[BenchmarkItem] = load_benchmark(recipe, settings)
        values |= {"num_items": len(items), "content_sha256": hash_content(items)}
    except PipelineError as exc:
        values["questions_at"] = _find_questions(recipe, settings)
        return Finding(**values, problem=str(exc), hint=exc.hint), exc
    return Finding(**values, hash=_describe_check(settings, located)), None


def _describe_check(settings: BenchmarkSettings, located: Located) -> str:
    """What a benchmark that was read without an error has been held to."""
    if settings.content_sha256:
        return "ok"
    is_known = settings.sha256 is not None and located.origin in ("path", "url")
    named = [file.name in settings.files_sha256 for file in located.files]
    return "files ok" if is_known or all(named) else "not recorded"


def _find_questions(recipe: Recipe, settings: BenchmarkSettings) -> str:
    """Where a benchmark's statements are, or nothing."""
    from pipeline.benchmark_sources import locate
    from pipeline.benchmarks import load_questions
    from pipeline.errors import PipelineError

    try:
        load_questions(recipe, settings)
        return locate(recipe, settings, questions_only=True).place
    except PipelineError:
        # The command fails with what is wrong with the benchmark itself.
        return ""


def describe_source(settings: BenchmarkSettings) -> str:
    """Where the recipe says that a benchmark is."""
    if settings.path:
        return settings.path
    if settings.hub_id:
        return f"{settings.hub_id}@{settings.revision[:12]}"
    return settings.url or "no place named"


def show_findings(recipe_name: str, findings: list[Finding]) -> None:
    """One row per benchmark; what was not found is said below."""
    from pipeline import console

    columns = ["benchmark", "found at", "items", "hash", "licence", "k", "grader"]
    rows = [
        [
            entry.name,
            entry.found_at or "not found",
            entry.num_items or "–",
            entry.hash or "–",
            entry.licence or "not stated",
            entry.samples_per_item,
            entry.grader,
        ]
        for entry in findings
    ]
    console.table(f"benchmarks of recipe {recipe_name}", columns, rows)
    for entry in findings:
        if entry.problem:
            console.warn(f"{entry.problem}; {entry.hint}")
            if entry.questions_at:
                console.say(
                    f"{entry.name}: its questions are in {entry.questions_at}; that keeps it out "
                    "of training data and scores nothing"
                )
        elif entry.hash != "ok":
            console.say(
                f"{entry.name}: to hold it to these items, set content_sha256 = "
                f'"{entry.content_sha256}"'
            )
