"""What a person sees of a comparison: tables and sentences in the terminal, and a page."""

from __future__ import annotations

from typing import Any

MODES = {"reserved": "against whole lengths reserved", "paged": "against ideal paging"}
PAGED_NOTE = (
    "Reserved: every sequence of the Transformer has room for its whole length from the start. "
    "Paged: sequences of all ages side by side hold half their length on average, and pages are "
    "handed out without any loss or preemption. A serving engine lies between the two."
)


def show_result(result: dict[str, Any]) -> None:
    """Print tables, checks and what may not be forgotten."""
    from pipeline import console

    for title, columns, rows in make_tables(result):
        console.table(title, columns, rows)
    for line in make_sentences(result):
        console.say(line)
    for check in result["checks"]:
        word = "pass" if check["passed"] else "FAIL"
        console.say(f"{word}: {check['name']}: {check['detail']}")
    console.say(f"written: {result['folder']}")


def make_tables(result: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, columns and rows: the comparison, then what was measured of each model."""
    tables = []
    for budget in result["settings"]["budgets_gb"]:
        quoted = result["paper"].get(f"{budget:g}")
        title = f"tokens/s under {budget:g} GB on {result['device']}"
        if quoted:
            title += f" (the paper quotes {quoted:g}x at its longest generations)"
        chosen = [one for one in result["comparisons"] if one["budget_gb"] == budget]
        tables.append((title, _COMPARED, [_compare_line(result, one) for one in chosen]))
    tables.append(("measured", _MEASURED, [_measured_line(row) for row in result["rows"]]))
    return tables


_COMPARED = [
    "tokens",
    "Mamba-2: batch",
    "tokens/s",
    "Transformer: batch",
    "tokens/s",
    "ratio",
    "paged: batch",
    "tokens/s",
    "ratio",
]
_MEASURED = [
    "model",
    "GB",
    "tokens",
    "batch",
    "tokens/s",
    "ms a step",
    "first → last",
    "MiB each",
    "peak GB",
    "moved GB/s",
]


def _compare_line(result: dict[str, Any], one: dict[str, Any]) -> list[str]:
    batches = {
        row["mode"]: row["batch"]
        for row in result["rows"]
        if (row["budget_gb"], row["length"]) == (one["budget_gb"], one["length"])
        and (row["mode"] != "constant" or row["state_dtype"] == _first_dtype(result))
    }
    return [
        f"{one['length']:,}",
        f"{batches['constant']:,}",
        f"{one['mamba']:,.0f}",
        f"{batches['reserved']:,}",
        f"{one['reserved']:,.0f}",
        _ratio(one["ratio"]),
        f"{batches['paged']:,}",
        f"{one['paged']:,.0f}",
        _ratio(one["ratio_paged"]),
    ]


def _first_dtype(result: dict[str, Any]) -> str:
    first: str = result["settings"]["state_dtypes"][0]
    return first


def _ratio(value: float | None) -> str:
    return "does not fit" if value is None else f"{value:.2f}x"


def _measured_line(row: dict[str, Any]) -> list[str]:
    timed, is_one_place = row["step_ms"] is not None, row["mode"] == "paged"
    how = f"{row['state_dtype']} state" if row["mode"] == "constant" else row["mode"]
    return [
        f"{row['model']}, {how}",
        f"{row['budget_gb']:g}",
        f"{row['length']:,}",
        f"{row['batch']:,}" if timed else "none fits",
        f"{row['tokens_per_s']:,.0f}",
        f"{row['step_ms']:.4g}" if timed else "",
        f"{row['first_ms']:.4g} → {row['last_ms']:.4g}" if timed and not is_one_place else "",
        f"{row['sequence_mib']:,.4g}",
        f"{row['peak_gb']:.2f}" if timed else "",
        f"{row['moved_gb_per_s']:,.4g}" if timed else "",
    ]


def make_sentences(result: dict[str, Any]) -> list[str]:
    """What the tables do not say."""
    names = [f"{name}: {which} weights" for name, which in result["weights"].items()]
    lines = [
        f"Weights. {'; '.join(names)}. Random weights cost what trained ones cost; their texts "
        "mean nothing.",
        f"Memory: from {result['memory_break_even_tokens']:,.0f} tokens on a sequence of the "
        "Transformer holds more than one of the Mamba-2.",
    ]
    for budget, found in result["speed_break_even_tokens"].items():
        parts = [f"{MODES[mode]}: {_break_even(result, found[mode])}" for mode in found]
        lines.append(f"Speed under {budget} GB, Mamba-2 faster from … on: {'; '.join(parts)}.")
    for one in result["prefill"]:
        rate = one["tokens"] / one["ms"] * 1000
        lines.append(
            f"Reading a prompt of {one['tokens']:,} tokens alone: {one['model']} "
            f"({one['state_dtype']}) {one['ms']:.1f} ms ({rate:,.0f} tokens/s), not part of the "
            "tables."
        )
    routes = dict.fromkeys(row["route"] for row in result["rows"] if row["kind"] != "mamba2")
    lines.append(f"Attention, the fastest at each place: {'; '.join(filter(None, routes))}.")
    lines.append(PAGED_NOTE)
    lines.append(
        "Moved: weights, states (read and written) and keys and values (read) that a step cannot "
        "do without, by its time; what the device's memory can do is its limit."
    )
    if any(f"{b:g}" in result["paper"] for b in result["settings"]["budgets_gb"]):
        lines.append(
            "The paper's ratios are quoted, not measured here: vLLM, PromptCoT-Mamba-7B against "
            "S1.1-7B; its GPU, lengths and batches are not told."
        )
    return lines


def _break_even(result: dict[str, Any], tokens: float | None) -> str:
    if tokens is None:
        return "at no measured length"
    shortest = result["settings"]["lengths"][0]
    return f"{shortest:,} tokens or fewer" if tokens <= shortest else f"{tokens:,.0f} tokens"


def render_page(result: dict[str, Any]) -> str:
    """The same in Markdown, with the plot."""
    lines = ["# Throughput under a memory budget", ""]
    lines += [f"{result['device']}, torch {result['torch']}, engine {result['engine']}, recipe "
              f"{result['recipe']}, {result['utilisation']:.0%} of each budget.", ""]  # fmt: skip
    lines += ["![Tokens a second, sequences and memory by length](throughput.svg)", ""]
    for title, columns, rows in make_tables(result):
        lines += [f"## {title[0].upper()}{title[1:]}", ""]
        lines += [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines.append("")
    lines += ["## Checks", ""]
    lines += [
        f"- {'pass' if check['passed'] else '**FAIL**'}: {check['name']}: {check['detail']}"
        for check in result["checks"]
    ]
    lines += ["", "## Read this with it", "", *(f"- {line}" for line in make_sentences(result))]
    return "\n".join(lines) + "\n"
