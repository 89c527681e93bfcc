"""What the verbs of ``python -m promptcot`` do once their options are read."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.manifest import Version
    from pipeline.settings.recipe import Recipe
    from promptcot.run_context import SynthesisRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options that every verb has."""

    recipe: str
    overrides: Sequence[str] | None
    out: Path | None
    as_json: bool

    def open(self) -> tuple[Recipe, Path]:
        """Load the recipe and say which one is used, and where its results go.

        Raises:
            ConfigError: There is no such recipe, or it is invalid.
        """
        from pipeline import console
        from pipeline.settings.recipe import load_recipe

        if self.as_json:
            console.use_json_output()
        loaded = load_recipe(self.recipe, self.overrides or ())
        folder = loaded.out(self.out)
        console.say(f"recipe {loaded.name} ({loaded.path}), run folder {folder}")
        return loaded, folder

    def print_json(self, value: dict[str, Any]) -> None:
        """With ``--json``: the command's one object."""
        from pipeline import console

        if self.as_json:
            console.print_json(value)


def run_all(options: Options, *, dry_run: bool) -> None:
    """All stages, or with ``dry_run`` what they would cost."""
    recipe, out = options.open()
    if dry_run:
        _show_estimate(options, recipe, out)
        return
    from promptcot.synthesis import synthesize_all

    _finish(options, recipe, out, synthesize_all(recipe, out))


def run_stage(options: Options, stage: str, *, dry_run: bool) -> None:
    """One stage of the chain."""
    recipe, out = options.open()
    if dry_run:
        _show_estimate(options, recipe, out, stage)
        return
    from pipeline.manifest import resolve_version
    from promptcot.stage_names import BANK, EXTRACTED
    from promptcot.synthesis import run_one_stage

    versions = {stage: run_one_stage(recipe, out, stage)}
    if stage == BANK:
        # What the bank refused, it refused in the first of its two stages.
        versions = {EXTRACTED: resolve_version(out / "synthesis" / EXTRACTED), **versions}
    _finish(options, recipe, out, versions)


def run_beside(options: Options, stage: str, *, dry_run: bool) -> None:
    """``triples`` or ``refine``: work on the seeds, beside the chain."""
    recipe, out = options.open()
    if dry_run:
        _show_estimate(options, recipe, out, stage)
        return
    from pipeline.events import recording
    from pipeline.run_folder import prepare_run_folder
    from promptcot.run_context import SynthesisRun

    prepare_run_folder(recipe, out)
    with recording(out, recipe.settings.events, stage), SynthesisRun(recipe, out) as run:
        versions = _BESIDE[stage](run)
    _finish(options, recipe, out, versions)


def _run_triples(run: SynthesisRun) -> dict[str, Version]:
    from promptcot.triples import run_triples

    return {"triples": run_triples(run)}


def _run_refinement(run: SynthesisRun) -> dict[str, Version]:
    from promptcot.refine import run_refinement

    rounds = run_refinement(run)
    return {f"refined-{number}": version for number, version in enumerate(rounds, start=1)}


_BESIDE: dict[str, Callable[[SynthesisRun], dict[str, Version]]] = {
    "triples": _run_triples,
    "refine": _run_refinement,
}


def show_estimate(options: Options, *, pilot: int) -> None:
    """What the run will take: measured on ``pilot`` combinations, or upper bounds."""
    recipe, out = options.open()
    if pilot:
        from promptcot.pilot import run_pilot

        run_pilot(recipe, out, pilot)
    _show_estimate(options, recipe, out)


def show_capacity(options: Options, gpus: str, constants: Path | None, page: Path | None) -> None:
    """Hours and money of the whole experiment on each number of GPUs."""
    from promptcot import capacity, capacity_view

    recipe, _ = options.open()
    values = capacity.load_constants(constants)
    plans = capacity.plan_capacity(recipe, values, capacity.read_gpus(gpus))
    capacity_view.show_capacity(values, plans)
    if page is not None:
        capacity_view.write_page(page, recipe, values, plans)
    options.print_json(capacity.capacity_as_json(values, plans))


def _show_estimate(options: Options, recipe: Recipe, out: Path, *stages: str) -> None:
    from promptcot.estimate import estimate_run
    from promptcot.estimate_view import show_estimate

    found = estimate_run(recipe, out, stages)
    show_estimate(found)
    options.print_json(found.as_json())


def show_ledger(options: Options) -> None:
    """What each stage has cost so far."""
    from pipeline import console
    from promptcot.costs import collect_costs, costs_as_json, show_costs

    recipe, out = options.open()
    costs = collect_costs(recipe, out)
    show_costs(costs)
    console.say(f"from {out / 'answers'} and the versions under {out / 'synthesis'}")
    options.print_json(costs_as_json(costs))


def write_report(options: Options, *, dry_run: bool) -> None:
    """The synthesis page."""
    from pipeline import console
    from promptcot.report import report_path, write_synthesis_report

    recipe, out = options.open()
    path = report_path(out) if dry_run else write_synthesis_report(recipe, out)
    console.say(f"{'would write' if dry_run else 'written to'} {path}")
    options.print_json({"path": str(path)})


def run_calibration(options: Options, labels: Path, *, dry_run: bool) -> None:
    """Score the recipe's judges on problems that a person labelled."""
    from pipeline import console

    recipe, out = options.open()
    if not labels.is_file():
        raise ConfigError(f"no such file: {labels}", hint="pass --labels with a JSONL file")
    if dry_run:
        judges = recipe.settings.synthesis.judging.judges
        votes = sum(judge.votes for judge in judges)
        console.say(f"would ask {len(judges)} judges for {votes} votes on each row of {labels}")
        options.print_json({"judges": len(judges), "votes_per_problem": votes})
        return
    from pipeline.events import recording
    from pipeline.run_folder import prepare_run_folder
    from promptcot.calibration import STAGE, calibrate
    from promptcot.run_context import SynthesisRun

    prepare_run_folder(recipe, out)
    with recording(out, recipe.settings.events, STAGE), SynthesisRun(recipe, out) as run:
        found = calibrate(run, labels)
    found.show()
    console.say(f"written to {out / STAGE}")
    options.print_json(found.as_json())


def seed_override(
    recipe: Recipe, files: Sequence[Path], *, columns: Sequence[str], domain: str | None = None
) -> str:
    """The ``--set`` text that adds seed files to a recipe.

    Args:
        recipe: The recipe as it is.
        files: JSON, JSONL or Parquet files of problems.
        columns: ``field=column`` for files whose columns have other than the usual names.
        domain: Of all rows, where no column tells.

    Raises:
        ConfigError: A file is missing, or a mapping is not ``field=column``.
    """
    mapping: dict[str, str] = {}
    for text in columns:
        field, separator, column = text.partition("=")
        if not (separator and field and column):
            raise ConfigError(
                f"--map {text!r} is not field=column", hint="write e.g. --map problem=question"
            )
        mapping[field.strip()] = column.strip()
    entries: list[dict[str, Any]] = [
        source.model_dump(mode="json", exclude_none=True)
        for source in recipe.settings.synthesis.seeds
    ]
    taken = {str(entry["name"]) for entry in entries}
    for path in files:
        if not path.is_file():
            raise ConfigError(f"no such file: {path}", hint="check the path given to --seeds")
        name = _new_name(path, taken)
        taken.add(name)
        # Written with our own folder in front: a recipe's paths count from the recipe.
        entry: dict[str, Any] = {"name": name, "path": str(path.resolve()), "columns": mapping}
        entries.append(entry | ({"domain": domain} if domain else {}))
    return f"synthesis.seeds={_as_toml(entries)}"


def _new_name(path: Path, taken: set[str]) -> str:
    stem = path.name.split(".")[0]
    number = 2
    name = stem
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    return name


def _as_toml(value: Any) -> str:
    """JSON-ready values as inline TOML: strings and numbers are written alike in both."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{key} = {_as_toml(item)}" for key, item in value.items())
        return "{" + pairs + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_as_toml(item) for item in value) + "]"
    return jsonlib.dumps(value, ensure_ascii=False)


def run_concepts(
    options: Options,
    files: Sequence[Path],
    *,
    columns: Sequence[str],
    domain: str | None,
    dry_run: bool,
) -> None:
    """The bank from seed problems; files given here are added to the recipe's."""
    from pipeline import console
    from promptcot.stage_names import BANK

    if columns and not files:
        raise ConfigError("--map tells the columns of --seeds files, and none is given", hint=_GIVE)
    if files:
        from pipeline.settings.recipe import load_recipe

        before = load_recipe(options.recipe, options.overrides or ())
        extra = seed_override(before, files, columns=columns, domain=domain)
        options = Options(
            recipe=options.recipe,
            overrides=[*(options.overrides or ()), extra],
            out=options.out,
            as_json=options.as_json,
        )
    run_stage(options, BANK, dry_run=dry_run)
    if files and not dry_run:
        console.say(
            "later stages find this bank when the recipe has [[synthesis.seeds]] entries for the "
            f"same files, or with --set '{extra}'"
        )


_GIVE = "give --seeds FILE as well, or write the columns into [[synthesis.seeds]]"


def _finish(options: Options, recipe: Recipe, out: Path, versions: dict[str, Version]) -> None:
    """Show the tables, the last version's folder, and with ``--json`` all of it as one object."""
    from pipeline import console
    from promptcot.costs import collect_costs, show_costs
    from promptcot.synthesis import show_summary

    show_summary(versions)
    costs = [cost for cost in collect_costs(recipe, out) if cost.stage in versions]
    if any(cost.requests for cost in costs):
        show_costs(costs)
    last = list(versions.values())[-1]
    console.say(f"written to {last.folder}")
    by_stage = {cost.stage: cost.as_json() for cost in costs}
    options.print_json(
        {
            stage: {
                "version": version.name,
                "path": str(version.folder),
                "rows_in": version.manifest.rows_in,
                "rows_out": version.manifest.rows_out,
                "rejected": version.manifest.rejected,
                "reused": version.reused,
                "cost": by_stage.get(stage),
            }
            for stage, version in versions.items()
        }
    )
