"""The data card and the Croissant description of a phase version, from its manifest.

Figures come from the manifest, facts about sources from the hand-written ``data_cards/``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curriculum.planning import DATA_CARDS
from curriculum.sources.catalog import CARDS
from pipeline.manifest import Manifest
from pipeline.records import TrainingRow, arrow_schema

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
        f"# PromptCoT-Mamba curriculum, phase {extra['phase']}\n\n"
        f"Version `{manifest.version}`: {manifest.rows_out:,} conversational prompt-completion "
        f"rows with long reasoning, {manifest.tokens.get('total', 0):,} tokens of the student's "
        f"tokenizer, at most {extra['max_tokens']:,} a row. Read it with "
        "`datasets.load_dataset(<folder>)` or `polars.scan_parquet`.",
        _funnel(manifest),
        _composition(manifest),
        _lengths(manifest),
        _decontamination(manifest),
        _provenance(manifest),
        *_source_cards(manifest),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _header(manifest: Manifest) -> str:
    licences = sorted(manifest.licences)
    licence = licences[0] if len(licences) == 1 and licences[0] in HUB_LICENCES else "other"
    size = next((name for bound, name in _SIZES if manifest.rows_out < bound), "1M<n<10M")
    lines = [
        "---",
        "language:",
        "- en",
        f"license: {licence}",
        "task_categories:",
        "- text-generation",
        "tags:",
        "- reasoning",
        "- chain-of-thought",
        "size_categories:",
        f"- {size}",
        f"pretty_name: PromptCoT-Mamba curriculum phase {manifest.extra['phase']}",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        "    path: data/*.parquet",
        "---",
    ]
    if licence == "other":
        lines.insert(4, f"license_name: {'-and-'.join(licences) or 'unknown'}")
    return "\n".join(lines)


def make_table(columns: list[str], rows: list[list[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        cells = (f"{c:,}" if isinstance(c, int) else str(c) for c in row)
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
        "`rejected/*.parquet` holds each with its reason.\n\n"
        + make_table(["stage", "reason", "rows"], rows)
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


def make_croissant(manifest: Manifest) -> dict[str, Any]:
    """Croissant 1.0 JSON-LD: the shards with their hashes, and the flat columns."""
    shards = [
        {
            "@type": "cr:FileObject",
            "@id": shard.path,
            "name": Path(shard.path).name,
            "contentUrl": shard.path,
            "contentSize": f"{shard.bytes} B",
            "encodingFormat": "application/vnd.apache.parquet",
            "sha256": shard.sha256,
        }
        for shard in manifest.shards
    ]
    files = {
        "@type": "cr:FileSet",
        "@id": "shards",
        "encodingFormat": "application/vnd.apache.parquet",
        "includes": "data/*.parquet",
    }
    name = f"promptcot-mamba-phase-{manifest.extra['phase']}"
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": f"{manifest.rows_out} reasoning rows of curriculum phase "
        f"{manifest.extra['phase']}, version {manifest.version}.",
        "version": f"1.0.0+{manifest.version}",
        "license": sorted(manifest.licences),
        "url": "https://arxiv.org/abs/2505.22425",
        "distribution": [*shards, files],
        "recordSet": [
            {"@type": "cr:RecordSet", "@id": "rows", "name": "rows", "field": _croissant_fields()}
        ],
    }


def _croissant_fields() -> list[dict[str, Any]]:
    types = {"string": "sc:Text", "int64": "sc:Integer"}
    return [
        {
            "@type": "cr:Field",
            "@id": f"rows/{column.name}",
            "name": column.name,
            "dataType": types[str(column.type)],
            "source": {"fileSet": {"@id": "shards"}, "extract": {"column": column.name}},
        }
        for column in arrow_schema(TrainingRow)
        if str(column.type) in types
    ]


_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
