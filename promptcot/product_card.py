"""The data card of the verified traces: the set that synthesis is for, ready for the Hub.

Everything it says comes from the version's own manifest and from those of the versions it was made
from, so that equal versions have equal cards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.manifest import MANIFEST, Manifest, load_version
from pipeline.relaxed_gates import relaxed_synthesis_gates
from pipeline.settings.recipe import RecipeSettings
from pipeline.stages import CardWriter
from promptcot.card_columns import COLUMNS
from promptcot.cards import figure_lines, show_number, title_of
from promptcot.limits import teacher_limits
from promptcot.run_context import SynthesisRun

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
_SHOWN_REASONS = 5
_VERDICTS = ("perfect", "acceptable", "bad")
_TOLD = {"agreement", "counts", "stage", "unit"}
"""Figures that have a place of their own in the card."""
_SAMPLING = ("form", "mode", "temperature", "top_p", "top_k", "min_p", "max_tokens")
"""Settings of a stage that say how its replies were sampled."""


def product_card(run: SynthesisRun) -> CardWriter:
    """What writes the card of a run's verified traces."""
    return partial(render_product_card, root=run.out / "synthesis", settings=run.recipe.settings)


def render_product_card(manifest: Manifest, *, root: Path, settings: RecipeSettings) -> str:
    """The card as Markdown.

    Args:
        manifest: Of the version of verified traces.
        root: Folder of the stages, where the versions before it lie.
        settings: The recipe, for the gates that it relaxes.
    """
    chain = [*_ancestors(manifest, root), manifest]
    parts = [
        _header(manifest, settings.synthesis.licence),
        f"# PromptCoT verified traces\n\nVersion `{manifest.version}`: {manifest.rows_out:,} "
        "long chain-of-thought solutions of synthesised problems, each with the concepts, level "
        "and rationale that its problem was made from, what the judges said of it, and how the "
        "solution was confirmed. The method is PromptCoT (arXiv 2503.02324) with the tests of "
        "PromptCoT 2.0 (arXiv 2509.19894) for code.",
        _loading(),
        _funnel(chain),
        _teachers(chain),
        _checks(chain),
        _limits(settings),
        _licence(chain, settings),
        _columns(),
        _inputs(chain),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _ancestors(manifest: Manifest, root: Path) -> list[Manifest]:
    """Manifests of the versions that a version was made from, earliest first."""
    found: list[Manifest] = []
    for ref in manifest.inputs:
        # Inputs of other kinds (a bank's file, a script) are not versions of ours.
        folder = root / ref.name.removeprefix("synthesis/") / ref.version
        if (folder / MANIFEST).is_file():
            parent = load_version(folder).manifest
            found += [m for m in [*_ancestors(parent, root), parent] if m not in found]
    return found


def _header(manifest: Manifest, licence: str) -> str:
    size = next((name for bound, name in _SIZES if manifest.rows_out < bound), "10M<n<100M")
    lines = [
        "---",
        "language:",
        "- en",
        f"license: {licence or 'other'}",
        *([] if licence else ["license_name: not-stated"]),
        "task_categories:",
        "- text-generation",
        "tags:",
        "- reasoning",
        "- chain-of-thought",
        "- synthetic",
        "- promptcot",
        "size_categories:",
        f"- {size}",
        "pretty_name: PromptCoT verified traces",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        "    path: data/*.parquet",
        "---",
    ]
    return "\n".join(lines)


def _loading() -> str:
    return (
        "## Read it\n\n```python\nfrom datasets import load_dataset\n\n"
        'rows = load_dataset("path/of/this/folder", split="train")\n'
        'rows[0]["solution"]["problem"]["statement"]\n```\n\n'
        "`rejected/*.parquet` holds every refused row with its reason, `manifest.json` all figures "
        "and settings. `python -m curriculum.build --phase 2` turns the rows into conversational "
        "prompt-completion rows for TRL."
    )


def make_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        cells = (show_number(cell).replace("|", "\\|") for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _funnel(chain: Sequence[Manifest]) -> str:
    rows = [
        [
            title_of(_stage(m)),
            m.rows_in,
            m.rows_out,
            m.rows_rejected,
            _reasons(m),
        ]
        for m in chain
    ]
    return (
        "## How it was made\n\nIn every stage rows in = rows out + rejected, and each refused row "
        "is kept with its reason.\n\n"
        + make_table(["stage", "in", "out", "rejected", "most frequent reasons"], rows)
    )


def _stage(manifest: Manifest) -> str:
    return str(manifest.extra["stage"])


def _reasons(manifest: Manifest) -> str:
    counts = [item for found in manifest.rejected.values() for item in found.items()]
    ordered = sorted(counts, key=lambda item: (-item[1], item[0]))
    more = ", …" if len(ordered) > _SHOWN_REASONS else ""
    return ", ".join(f"{name} {count:,}" for name, count in ordered[:_SHOWN_REASONS]) + more


def _teachers(chain: Sequence[Manifest]) -> str:
    rows = [
        [title_of(_stage(m)), name, teacher["engine"], _model(teacher), _sampling(m)]
        for m in chain
        for name, teacher in m.settings.get("teachers", {}).items()
    ]
    scripts = {
        f"`{r.name}` {r.version[:16]}" for m in chain for r in m.inputs if "script:" in r.name
    }
    text = "## Teachers and judges\n\n" + make_table(
        ["stage", "teacher", "engine", "model", "asked with"], rows
    )
    if scripts:
        text += "\n\nScripts that answered: " + ", ".join(sorted(scripts)) + "."
    return text + (
        "\n\nEach row names the model that wrote it, the hash of its prompt and its seed; "
        f"everything was drawn from the root seed {chain[-1].settings['seed']}."
    )


def _model(teacher: Mapping[str, Any]) -> str:
    """What answers: a script has no model, whatever the recipe says."""
    return "a script" if teacher["engine"] == "scripted" else f"`{teacher['model']}`"


def _sampling(manifest: Manifest) -> str:
    """How a stage's replies were sampled, from its own block of settings."""
    found: dict[str, Any] = {}
    for name, block in manifest.settings.items():
        if name != "teachers" and isinstance(block, dict):
            found |= {key: block[key] for key in _SAMPLING if key in block}
    return ", ".join(f"{key} {show_number(value)}" for key, value in found.items())


def _checks(chain: Sequence[Manifest]) -> str:
    """What judging and verification measured about themselves, then all other figures."""
    parts = ["## What was measured"]
    by_stage = {_stage(manifest): manifest for manifest in chain}
    if "judged" in by_stage:
        parts += list(_judging(by_stage["judged"]))
    parts += list(_verification(chain[-1]))
    for manifest in chain:
        figures = list(figure_lines({k: v for k, v in manifest.extra.items() if k not in _TOLD}))
        if figures:
            parts += [f"{title_of(_stage(manifest))}:", "\n".join(figures)]
    return "\n\n".join(parts)


def _judging(manifest: Manifest) -> Iterator[str]:
    """Verdicts of each judge over all problems, and how far judges agree."""
    found = manifest.extra.get("agreement", {})
    rows = [
        [
            judge["judge"],
            *(judge["verdicts"][v] for v in _VERDICTS),
            sum(judge["unreadable"].values()),
        ]
        for judge in found.get("judges", [])
    ]
    if rows:
        yield "Verdicts over all problems, kept and refused:"
        yield make_table(["judge", *_VERDICTS, "unreadable"], rows)
    pairs = [(" and ".join(pair["judges"]), pair) for pair in found.get("pairs", [])]
    pairs += [
        (f"{j['judge']}, own votes", j["own_votes"])
        for j in found.get("judges", [])
        if "own_votes" in j
    ]
    if pairs:
        yield "Agreement of the verdicts (κ is agreement beyond chance):"
        yield make_table(
            ["votes", "problems", "agree", "κ"],
            [
                [name, p["num_items"], _share(p["observed"]), _or_dash(p["kappa"])]
                for name, p in pairs
            ],
        )
    if rules := manifest.settings.get("judging"):
        yield "Rules of judging: " + _pairs(rules) + "."


def _verification(manifest: Manifest) -> Iterator[str]:
    """Traces by method, and how hard the problems are."""
    counts: Mapping[str, int] = manifest.extra.get("counts", {})
    methods = {k.removeprefix("method/"): n for k, n in counts.items() if k.startswith("method/")}
    tenths = {
        k.removeprefix("agreement/"): n for k, n in counts.items() if k.startswith("agreement/")
    }
    if methods:
        yield (
            "Traces by the way they were confirmed (`unverified`: by nothing): "
            + ", ".join(f"{name} {count:,}" for name, count in methods.items())
            + "."
        )
    if tenths:
        yield "Problems by the share of their samples that agree (low means hard):"
        yield make_table(
            ["agreement from", "problems"], [[f"{float(t):.0%}", n] for t, n in tenths.items()]
        )
    if rules := manifest.settings.get("verification"):
        yield "Rules of verification: " + _pairs(rules) + "."


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _pairs(block: Mapping[str, Any]) -> str:
    plain = {k: v for k, v in block.items() if isinstance(v, str | int | float)}
    return ", ".join(f"{key} {show_number(value)}" for key, value in plain.items())


def _limits(settings: RecipeSettings) -> str:
    lines = [*teacher_limits(settings), *relaxed_synthesis_gates(settings)]
    lines += [
        "A majority is not a proof: a mathematical answer is confirmed when enough of one "
        "teacher's samples agree, and one teacher can be wrong in the same way each time.",
        "A program is confirmed by generated tests, which can miss cases.",
        "Judges are language models; their agreement is above, and their reasons are in the rows.",
    ]
    return "## Known limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _licence(chain: Sequence[Manifest], settings: RecipeSettings) -> str:
    stated = settings.synthesis.licence
    seeds = next((m.licences for m in reversed(chain[:-1]) if m.licences), {})
    models = sorted({_model(t) for m in chain for t in m.settings.get("teachers", {}).values()})
    first = (
        f"The maker of this set states `{stated}`."
        if stated
        else "The recipe states no licence (`synthesis.licence`), so none is claimed here."
    )
    return (
        f"## Licence\n\n{first} What bears on it: "
        + (
            "seeds under " + ", ".join(f"{n} ({c:,})" for n, c in seeds.items()) + "; "
            if seeds
            else ""
        )
        + "the terms of the models that wrote the text: "
        + (", ".join(models) or "none")
        + "."
    )


def _columns() -> str:
    return "## Columns\n\n" + make_table(
        ["column", "meaning"], [[f"`{name}`", meaning] for name, meaning in COLUMNS.items()]
    )


def _inputs(chain: Sequence[Manifest]) -> str:
    rows = [[f"`{m.version}`", title_of(_stage(m)), _refs(m)] for m in chain]
    return (
        f"## Versions\n\nCode `{chain[-1].code_version}`. Equal code, settings and inputs give "
        "equal bytes.\n\n" + make_table(["version", "stage", "made from"], rows)
    )


def _refs(manifest: Manifest) -> str:
    return ", ".join(_ref_texts(manifest)) or "nothing"


def _ref_texts(manifest: Manifest) -> Iterator[str]:
    return (f"{ref.name} `{ref.version[:16]}`" for ref in manifest.inputs)
