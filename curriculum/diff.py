"""What two dataset versions differ in: what determined them, and what came out."""

from __future__ import annotations

from typing import Any

from pipeline import console
from pipeline.manifest import Manifest, Version


def compare_versions(a: Version, b: Version) -> dict[str, Any]:
    """Differences as a JSON-ready report; only ids are held in memory."""
    ids_a = {row["id"] for row in a.rows(["id"])}
    ids_b = {row["id"] for row in b.rows(["id"])}
    return {
        "a": {"version": a.name, "path": str(a.folder)},
        "b": {"version": b.name, "path": str(b.folder)},
        "same_code": a.manifest.code_version == b.manifest.code_version,
        "inputs": _changes(_inputs(a.manifest), _inputs(b.manifest)),
        "settings": _changes(_flatten(a.manifest.settings), _flatten(b.manifest.settings)),
        "rejected": _changes(_flatten(a.manifest.rejected), _flatten(b.manifest.rejected)),
        "counts": _changes(_counts(a.manifest), _counts(b.manifest)),
        "rows": {
            "in_both": len(ids_a & ids_b),
            "only_in_a": len(ids_a - ids_b),
            "only_in_b": len(ids_b - ids_a),
        },
    }


def show_comparison(comparison: dict[str, Any]) -> None:
    """Print a comparison as tables."""
    console.say(f"a = {comparison['a']['path']}\nb = {comparison['b']['path']}")
    if not comparison["same_code"]:
        console.say("the two were built by different code")
    for part in ("inputs", "settings", "counts", "rejected"):
        rows = [[name, _cell(old), _cell(new)] for name, (old, new) in comparison[part].items()]
        if rows:
            console.table(part, ["what", "a", "b"], rows)
    rows = comparison["rows"]
    console.say(
        f"rows in both: {rows['in_both']:,}; only in a: {rows['only_in_a']:,}; "
        f"only in b: {rows['only_in_b']:,}"
    )


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def _inputs(manifest: Manifest) -> dict[str, Any]:
    return {ref.name: ref.version for ref in manifest.inputs}


def _counts(manifest: Manifest) -> dict[str, Any]:
    counts = {"rows in": manifest.rows_in, "rows out": manifest.rows_out}
    counts |= {f"tokens, {name}": number for name, number in manifest.tokens.items()}
    return counts | {f"licence {name}": number for name, number in manifest.licences.items()}


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``a.b.0.c`` keys."""
    if isinstance(value, dict) and value:
        pairs = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and value:
        pairs = [(str(number), item) for number, item in enumerate(value)]
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in pairs:
        flat |= _flatten(item, f"{prefix}.{key}" if prefix else key)
    return flat


def _changes(a: dict[str, Any], b: dict[str, Any]) -> dict[str, list[Any]]:
    """Names whose values differ, with both values; ``None`` where one side has none."""
    names = sorted(a.keys() | b.keys())
    return {name: [a.get(name), b.get(name)] for name in names if a.get(name) != b.get(name)}
