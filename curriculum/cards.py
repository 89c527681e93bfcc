"""The data card of a phase version, from its manifest.

Figures come from the manifest, facts about sources from the hand-written ``data_cards/``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from curriculum.croissant import PAPER, make_croissant
from curriculum.planning import DATA_CARDS
from curriculum.sources.catalog import CARDS
from pipeline.manifest import Manifest

HUB_LICENCES = frozenset({"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0"})
"""Licences with an SPDX-like name on the hub that our sources use."""
_SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_documents(manifest: Manifest) -> Mapping[str, str]:
    """``README.md`` and ``croissant.json`` of a version."""
    return {
        "README.md": render_card(manifest),
        "croissant.json": json.dumps(make_croissant(manifest), indent=2, ensure_ascii=False) + "\n",
    }


def render_card(manifest: Manifest) -> str:
    """A Hub data card: YAML header with the data files, then figures and source facts."""
    extra = manifest.extra
    parts = [
        _header(manifest),
        f"# {_title(manifest)}\n\n"
        f"Version `{manifest.version}`: {manifest.rows_out:,} conversational prompt-completion "
        f"rows with long reasoning, {manifest.tokens.get('total', 0):,} tokens of the student's "
        f"tokenizer, at most {extra['max_tokens']:,} a row. Read it with "
        "`datasets.load_dataset(<folder>)`, `polars.scan_parquet`, DuckDB or pyarrow. Made for the "
        f"student of [PromptCoT-Mamba]({PAPER}).{_repeated(manifest)}",
        _funnel(manifest),
        _composition(manifest),
        _lengths(manifest),
        _decontamination(manifest),
        _provenance(manifest),
        *_source_cards(manifest),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _title(manifest: Manifest) -> str:
    variant = manifest.extra.get("variant")
    tail = f", variant {variant}" if variant else ""
    return f"PromptCoT-Mamba curriculum, phase {manifest.extra['phase']}{tail}"


def _repeated(manifest: Manifest) -> str:
    """What the reader must know about rows that are here twice, or in another phase too."""
    copies = sum(entry.get("copies", 0) for entry in manifest.extra["sources"].values())
    replayed = manifest.extra.get("replayed_rows", 0)
    text = ""
    if copies:
        text += f" {copies:,} rows are copies, by a share or weight; their ids end in `-2`, `-3` …"
    if replayed:
        text += f" {replayed:,} rows are replayed from another phase."
    return text


def _header(manifest: Manifest) -> str:
    licences = sorted(manifest.licences)
    known = bool(licences) and set(licences) <= HUB_LICENCES
    size = next((name for bound, name in _SIZES if manifest.rows_out < bound), "1M<n<10M")
    lines = ["---", "language:", "- en"]
    if known and len(licences) == 1:
        lines.append(f"license: {licences[0]}")
    elif known:
        lines += ["license:", *(f"- {name}" for name in licences)]
    else:
        # JSON strings are YAML strings: whatever a licence is called stays one value.
        name = json.dumps("-and-".join(licences) or "unknown")
        lines += ["license: other", f"license_name: {name}", "license_link: README.md"]
    lines += [
        "task_categories:",
        "- text-generation",
        "tags:",
        "- reasoning",
        "- chain-of-thought",
        "size_categories:",
        f"- {size}",
        f"pretty_name: {json.dumps(_title(manifest))}",
        "configs:",
        *_config("default", "data", is_default=True),
    ]
    if manifest.rejected:
        lines += _config("rejected", "rejected")
    if manifest.rejected.get("dedupe"):
        lines += _config("duplicates", "duplicates")
    return "\n".join([*lines, "---"])


def _config(name: str, folder: str, *, is_default: bool = False) -> list[str]:
    lines = [f"- config_name: {name}"]
    if is_default:
        lines.append("  default: true")
    split = "train" if is_default else name
    return [*lines, "  data_files:", f"  - split: {split}", f"    path: {folder}/*.parquet"]


def make_table(columns: list[str], rows: list[list[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        # A bar or a line end inside a cell would end it.
        cells = (
            f"{c:,}" if isinstance(c, int) else " ".join(str(c).split()).replace("|", "\\|")
            for c in row
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _funnel(manifest: Manifest) -> str:
    rows: list[list[object]] = [
        [stage, reason, count]
        for stage, reasons in manifest.rejected.items()
        for reason, count in reasons.items()
    ]
    return (
        f"## Rows\n\n{manifest.rows_in:,} in = {manifest.rows_out:,} out + "
        f"{manifest.rows_rejected:,} rejected; "
        "`rejected/*.parquet` holds each with its reason, `duplicates/*.parquet` each duplicate "
        "with the row that was kept.\n\n" + make_table(["stage", "reason", "rows"], rows)
    )


def _composition(manifest: Manifest) -> str:
    sources: list[list[object]] = [
        [name, entry["rows_in"], entry["rows_out"], entry["rejected"], entry["tokens"]]
        for name, entry in manifest.extra["sources"].items()
    ]
    licences: list[list[object]] = [[name, count] for name, count in manifest.licences.items()]
    domains: list[list[object]] = [[n, c] for n, c in manifest.extra["domains"].items()]
    return "## Composition\n\n" + "\n\n".join(
        [
            make_table(["source", "rows in", "rows out", "rejected", "tokens"], sources),
            make_table(["licence", "rows"], licences),
            make_table(["domain", "rows"], domains),
        ]
    )


def _lengths(manifest: Manifest) -> str:
    rows: list[list[object]] = []
    for entry in manifest.extra["token_histogram"]:
        if entry["rows"]:
            bound = "more" if entry["up_to"] is None else f"up to {entry['up_to']:,}"
            rows.append([bound, entry["rows"]])
    return "## Lengths (tokens, prompt and completion)\n\n" + make_table(["tokens", "rows"], rows)


def _decontamination(manifest: Manifest) -> str:
    report = manifest.extra["decontamination"]
    if not report["enabled"]:
        return "## Decontamination\n\nOff: rows were not compared with any benchmark."
    if not report["benchmarks"]:
        return "## Decontamination\n\nThe recipe lists no benchmarks; nothing was compared."
    rows: list[list[object]] = [
        [name, entry["items"], entry["rows_flagged"], entry["template_twins"]]
        for name, entry in report["benchmarks"].items()
    ]
    return (
        "## Decontamination\n\nRows that hold a benchmark item (user turn, question or the "
        "beginning of the reasoning) are rejected. Template twins, the same wording with other "
        "numbers, are counted and kept.\n\n"
        + make_table(["benchmark", "items", "rows rejected", "template twins"], rows)
    )


def _provenance(manifest: Manifest) -> str:
    rows: list[list[object]] = [[ref.name, f"`{ref.version}`"] for ref in manifest.inputs]
    return (
        f"## Inputs\n\nCode `{manifest.code_version}`; all settings are in `manifest.json`.\n\n"
        + make_table(["input", "version"], rows)
    )


def _source_cards(manifest: Manifest) -> list[str]:
    kinds = dict.fromkeys(entry["kind"] for entry in manifest.extra["sources"].values())
    names = dict.fromkeys(CARDS[kind] for kind in kinds)
    return [(DATA_CARDS / f"{name}.md").read_text(encoding="utf-8") for name in names]
