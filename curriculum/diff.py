"""What two dataset versions differ in: what determined them, and what came out."""

from __future__ import annotations

from typing import Any

from curriculum.row_diff import PARTS, compare_rows
from pipeline import console
from pipeline.manifest import Manifest, Version


def compare_versions(a: Version, b: Version) -> dict[str, Any]:
    """Differences as a JSON-ready report: what determined the versions, mix, lengths, rows."""
    return {
        "a": {"version": a.name, "path": str(a.folder)},
        "b": {"version": b.name, "path": str(b.folder)},
        "same_code": a.manifest.code_version == b.manifest.code_version,
        "inputs": _changes(_inputs(a.manifest), _inputs(b.manifest)),
        "settings": _changes(_flatten(a.manifest.settings), _flatten(b.manifest.settings)),
        "rejected": _changes(_flatten(a.manifest.rejected), _flatten(b.manifest.rejected)),
        "counts": _changes(_counts(a.manifest), _counts(b.manifest)),
        "mix": {
            name: _changes(_shares(a.manifest, name), _shares(b.manifest, name))
            for name in ("sources", "domains")
        },
        "lengths": _changes(_lengths(a.manifest), _lengths(b.manifest)),
        **compare_rows(a, b),
    }


def show_comparison(comparison: dict[str, Any]) -> None:
    """Print a comparison as tables."""
    console.say(f"a = {comparison['a']['path']}\nb = {comparison['b']['path']}")
    if not comparison["same_code"]:
        console.say("the two were built by different code")
    parts = {name: comparison[name] for name in ("inputs", "settings", "counts", "rejected")}
    parts["sources, by tokens"] = comparison["mix"]["sources"]
    parts["domains, by rows"] = comparison["mix"]["domains"]
    parts["tokens of a row"] = comparison["lengths"]
    for title, part in parts.items():
        rows = [[name, _cell(old), _cell(new)] for name, (old, new) in part.items()]
        if rows:
            console.table(title, ["what", "a", "b"], rows)
    _show_rows(comparison)


def _show_rows(comparison: dict[str, Any]) -> None:
    for name, other in (("removed", "b"), ("added", "a")):
        part = comparison[name]
        rows = [
            [r["source"], f"{r['stage']}: {r['reason']}".removeprefix(": "), r["rows"]]
            for r in part["by_reason"]
        ]
        if rows:
            title = f"{name} rows, and why {other} has not got them"
            console.table(title, ["source", "reason", "rows"], rows)
            console.say(f"for example {', '.join(part['examples'])}")
    changed, rows = comparison["changed"], comparison["rows"]
    if changed["rows"]:
        parts = ", ".join(f"{changed[part]:,} in {part}" for part in PARTS if changed[part])
        console.say(
            f"changed rows: {changed['rows']:,} ({parts}), for example "
            f"{', '.join(changed['examples'])}"
        )
    console.say(
        f"rows in both: {rows['in_both']:,}{'' if comparison['same_order'] else ', reordered'}; "
        f"only in a: {rows['only_in_a']:,}; only in b: {rows['only_in_b']:,}"
    )


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def _inputs(manifest: Manifest) -> dict[str, Any]:
    return {ref.name: ref.version for ref in manifest.inputs}


def _counts(manifest: Manifest) -> dict[str, Any]:
    counts = {"rows in": manifest.rows_in, "rows out": manifest.rows_out}
    counts |= {f"tokens, {name}": number for name, number in manifest.tokens.items()}
    return counts | {f"licence {name}": number for name, number in manifest.licences.items()}


def _shares(manifest: Manifest, name: str) -> dict[str, str]:
    """Each source's part of the tokens, or each domain's part of the rows."""
    entries = manifest.extra.get(name, {})
    amounts = {key: e["tokens"] if isinstance(e, dict) else e for key, e in entries.items()}
    total = sum(amounts.values()) or 1
    return {key: f"{amount / total:.1%}" for key, amount in amounts.items()}


def _lengths(manifest: Manifest) -> dict[str, Any]:
    lengths = dict(manifest.extra.get("token_quantiles", {}))
    if manifest.rows_out:
        lengths["mean"] = round(manifest.tokens.get("total", 0) / manifest.rows_out, 1)
    return lengths


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
