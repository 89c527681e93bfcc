"""A short README for each intermediate version, with every figure taken from its manifest."""

from __future__ import annotations

from pipeline.manifest import Manifest

_TITLES = {
    "combinations": "Concept combinations",
    "problems": "Problems with rationales",
    "judged": "Problems that passed their judges",
    "solutions": "Sampled solutions",
    "verified": "Verified traces",
}


def render_card(manifest: Manifest) -> str:
    """Markdown that says what a synthesis version is and what it left out."""
    stage = str(manifest.extra["stage"])
    unit = str(manifest.extra["unit"])
    lines = [
        f"# {_TITLES[stage]}",
        "",
        f"Version `{manifest.version}` of the synthesis stage `{stage}`.",
        "",
        f"- {manifest.rows_in:,} {unit} in, {manifest.rows_out:,} out, "
        f"{manifest.rows_rejected:,} rejected",
        *(f"- input `{ref.name}`: `{ref.version}`" for ref in manifest.inputs),
        *(f"- {count:,} {kind} tokens" for kind, count in manifest.tokens.items()),
    ]
    reasons = [
        (name, count) for counts in manifest.rejected.values() for name, count in counts.items()
    ]
    if reasons:
        lines += ["", "| rejected because | rows |", "| --- | ---: |"]
        lines += [f"| {name} | {count:,} |" for name, count in sorted(reasons)]
    return "\n".join(lines) + "\n"
