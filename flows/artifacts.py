"""What a run's page shows besides its log: settings, counts, rows, cards, curves, scores, links."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.samples import sample_rows
from flows.steps import Outcome, Step
from flows.summary import top_reasons
from pipeline.manifest import Version, load_version
from pipeline.relaxed_gates import relaxed_gates
from pipeline.settings.recipe import Recipe

_MARGIN_PT = 6
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def publish_config(recipe: Recipe, out: Path) -> None:
    """The settings in force: a run's own page shows only the parameters that were given."""
    create_markdown_artifact(
        key="resolved-config",
        markdown=describe_config(recipe, out),
        description=f"Recipe {recipe.name} with its overrides",
    )


def publish_outcome(step: Step, outcome: Outcome) -> None:
    """The rows and the card of a version that people read; nothing for the stages between."""
    is_data = step.key == "verified" or step.key.startswith("data-")
    if not is_data and not step.key.startswith("evaluation"):
        return
    version = load_version(outcome.path)
    publish_sample(version, step.title)
    if is_data:
        card = (version.folder / "README.md").read_text(encoding="utf-8")
        create_markdown_artifact(
            key="data-card",
            markdown=describe_card(version, card),
            description=f"{step.title.capitalize()} {version.name}",
        )
        if section := find_section(card, "Decontamination"):
            create_markdown_artifact(
                key="decontamination",
                markdown=section,
                description=f"Benchmark items in the {step.title}",
            )


def publish_sample(version: Version, title: str) -> None:
    """The first rows of a version."""
    rows = sample_rows(version)
    if rows:
        create_table_artifact(
            key="sample",
            table=rows,
            description=f"{len(rows)} of {version.manifest.rows_out:,} rows, {title}",
        )


def publish_counts(summary: dict[str, Any], stages: Collection[str]) -> None:
    """The funnel of the stages that this run was about, and the scores if it evaluated.

    Args:
        summary: Of the run folder (``flows.summary.summarize``).
        stages: Keys of the stages to show.
    """
    rows = [stage for stage in summary["stages"] if stage["key"] in stages]
    if rows:
        create_table_artifact(
            key="funnel",
            table=[describe_funnel_row(stage) for stage in rows],
            description="In = out + rejected in every stage",
        )
    scores = [score for score in summary["scores"] if f"evaluation-{score['checkpoint']}" in stages]
    if scores:
        create_table_artifact(
            key="scores",
            table=[describe_score(score) for score in scores],
            description="Correct answers, with interval",
        )


def publish_losses(recipe: Recipe, out: Path, phases: Collection[str]) -> None:
    """The loss curves of the phases that this run was about.

    Raises:
        StoreError: A training's record is corrupt.
    """
    from evaluation.plots import Curve, plot_losses
    from evaluation.report_data import collect_run

    found = {
        phase: facts
        for phase, facts in collect_run(recipe, out).training.items()
        if phase in phases and facts.steps
    }
    if not found:
        return
    curves = [
        Curve(phase, [s.step for s in facts.steps], [s.loss for s in facts.steps])
        for phase, facts in found.items()
    ]
    rows = [
        f"| {phase} | {facts.record.num_steps:,} | {facts.record.first_loss:.3f} | "
        f"{facts.record.last_loss:.3f} | `{out / 'checkpoints' / f'phase-{phase}'}` |"
        for phase, facts in found.items()
    ]
    table = ["| phase | steps | first loss | last loss | checkpoint |", "| --- |" + " --- |" * 4]
    ends = "; ".join(
        f"phase {phase}: {facts.record.first_loss:.2f} → {facts.record.last_loss:.2f}"
        for phase, facts in found.items()
    )
    picture = f"![Training loss]({as_data_uri(plot_losses(curves))})"
    create_markdown_artifact(
        key="loss-curve",
        markdown="\n\n".join([picture, "\n".join([*table, *rows])]),
        description=f"Training loss, {ends}",
    )


def publish_report(line: str, page: str) -> None:
    """What the run came to, where it lies, and what is next (``flows.run_report``)."""
    create_markdown_artifact(key="report", markdown=page, description=line)


def publish_rounds(version: Version, title: str, rounds: Path) -> None:
    """The objective of every round of refinement, and what the last one kept.

    Args:
        version: Of the last round.
        title: Of its step.
        rounds: ``rounds.json``; its plot lies beside it.
    """
    publish_sample(version, title)
    entries = json.loads(rounds.read_text(encoding="utf-8"))["rounds"]
    if table := [describe_round(entry) for entry in entries if entry["objective"]]:
        create_table_artifact(
            key="objective",
            table=table,
            description=f"log p(x|z,c) + log p(z|c), mean over problems; plotted in "
            f"{rounds.with_name('objective.svg')}",
        )


def describe_round(entry: dict[str, Any]) -> dict[str, Any]:
    """One line of the objective."""
    found = entry["objective"]
    row = {
        "round": entry["round"],
        "problems": f"{found['problems']:,}",
        "rationales": f"{found['candidates']:,}",
        "kept": _with_interval(found, "chosen"),
        "random choice": _with_interval(found, "drawn"),
        "gain": _with_interval(found, "gain"),
    }
    fitted = entry["after_fit"]
    return row | ({"kept, after the fit": f"{fitted:.2f}"} if fitted is not None else {})


def _with_interval(found: dict[str, Any], name: str) -> str:
    low, high = found[f"{name}_interval"]
    return f"{found[name]:.2f} ({low:.2f} to {high:.2f})"


def describe_funnel_row(stage: dict[str, Any]) -> dict[str, Any]:
    """One line of the funnel."""
    return {
        "stage": stage["stage"],
        "unit": stage["unit"],
        "in": f"{stage['in']:,}",
        "out": f"{stage['out']:,}",
        "rejected": f"{stage['rejected']:,}",
        # One only: cells of Prefect's tables do not wrap.
        "top reason": top_reasons(stage, limit=1, say_more=False) or "none",
    }


def describe_score(score: dict[str, Any]) -> dict[str, Any]:
    """One line of the scores."""
    low, high = score["interval"]
    return {
        "benchmark": score["benchmark"],
        "checkpoint": score["checkpoint"],
        f"avg@{score['samples_per_item']}": f"{score['avg_at_k']:.1%}",
        "interval": f"{low:.1%} to {high:.1%}",
        "items": score["num_items"],
        "cut off": f"{score['truncated_rate']:.1%}",
    }


def describe_config(recipe: Recipe, out: Path) -> str:
    """The resolved settings as a page, relaxed gates first."""
    values = recipe.settings.model_dump(mode="json")
    parts = [f"# Recipe {recipe.name}", recipe.settings.description, f"Output folder: `{out}`"]
    if gates := relaxed_gates(recipe.settings):
        parts += ["## Gates that this recipe relaxes", "\n".join(f"- {gate}" for gate in gates)]
    parts.append("## All settings")
    sections = {key: value for key, value in values.items() if _is_section(value)}
    general = {key: value for key, value in values.items() if key not in sections}
    for title, pairs in {
        "general": _flatten(general),
        **{key: _flatten(value, key) for key, value in sections.items()},
    }.items():
        lines = [f"| `{key}` | `{_show(value)}` |" for key, value in pairs]
        parts += [f"### {title}", "\n".join(["| setting | value |", "| --- | --- |", *lines])]
    return "\n\n".join(part for part in parts if part)


def describe_card(version: Version, text: str) -> str:
    """A version's README without the Hub's front matter, which a page would show as prose."""
    return f"Files: `{version.folder}`\n\n{_FRONT_MATTER.sub('', text)}"


def find_section(text: str, title: str) -> str:
    """A section of a Markdown text, with its heading; empty if there is none."""
    found = re.search(rf"^## {title}$.*?(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return found.group().strip() if found else ""


def as_data_uri(svg: str) -> str:
    """An ``<svg>`` element of ``pipeline.plot_style`` as the address of a picture on white.

    Twice its size, which is about the width of an artifact's page, and with a margin.
    """
    found = re.search(r'viewBox="([^"]+)"', svg)
    left, top, width, height = map(float, found.group(1).split())  # type: ignore[union-attr]
    left, top = left - _MARGIN_PT, top - _MARGIN_PT
    width, height = width + 2 * _MARGIN_PT, height + 2 * _MARGIN_PT
    size = f'xmlns="http://www.w3.org/2000/svg" width="{2 * width:g}" height="{2 * height:g}" '
    head = f'{size}viewBox="{left:g} {top:g} {width:g} {height:g}"'
    paper = f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" fill="white"/>'
    whole = svg.replace(found.group(), head, 1).replace(">", f">{paper}", 1)  # type: ignore[union-attr]
    return "data:image/svg+xml;base64," + base64.b64encode(whole.encode()).decode()


def _is_section(value: Any) -> bool:
    return isinstance(value, dict | list)


def _flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as dotted keys, as ``--set`` takes them."""
    if isinstance(value, dict) and value:
        items = value.items()
    elif isinstance(value, list) and any(_is_section(item) for item in value):
        items = dict(enumerate(value)).items()
    else:
        return [(prefix, value)]
    return [
        pair
        for key, item in items
        for pair in _flatten(item, f"{prefix}.{key}" if prefix else str(key))
    ]


def _show(value: Any) -> str:
    """A value in a table cell: a bar would end the cell."""
    return str(value).replace("|", "\\|").replace("\n", " ") or "(empty)"
