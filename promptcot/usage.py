"""How a version's combinations use the concepts of the bank: figures for its manifest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.records import Domain
from promptcot.bank import Bank
from promptcot.portable import Int64s

_NUM_TOP = 20


def count_usage(shards: Iterable[Path], bank: Bank) -> Int64s:
    """How often each concept of the bank occurs in the combinations of its domain."""
    usage = np.zeros(len(bank.concepts), dtype=np.int64)
    names = pa.array(bank.concepts, type=pa.string())
    for path in shards:
        table = pq.read_table(path, columns=["concepts", "domain"])
        table = table.filter(pc.equal(table["domain"], bank.domain))
        found = pc.index_in(pc.list_flatten(table["concepts"]), value_set=names)
        usage += np.bincount(found.to_numpy(), minlength=len(usage))
    return usage


def describe_usage(usages: dict[Domain, tuple[Bank, Int64s]]) -> dict[str, Any]:
    """Entropy, coverage and histogram over all domains, and for each of them."""
    figures = _describe(np.concatenate([usage for _, usage in usages.values()]))
    figures["domains"] = {
        domain: {**_describe(usage), "top_concepts": _top(bank, usage)}
        for domain, (bank, usage) in usages.items()
    }
    return figures


def entropy_bits(usage: Int64s) -> float:
    """Entropy of a concept drawn from all that were used."""
    used = usage[usage > 0]
    shares = used / used.sum()
    return round(float(-(shares * np.log2(shares)).sum()) + 0.0, 4)


def _describe(usage: Int64s) -> dict[str, Any]:
    num_used = int(np.count_nonzero(usage))
    return {
        "concepts": len(usage),
        "concepts_used": num_used,
        "concepts_never_used": len(usage) - num_used,
        "coverage": round(num_used / len(usage), 6),
        "entropy_bits": entropy_bits(usage),
        "max_entropy_bits": round(float(np.log2(len(usage))), 4),
        "usage_histogram": _histogram(usage),
    }


def _histogram(usage: Int64s) -> list[dict[str, int]]:
    """How many concepts were used 0, 1, 2–3, 4–7, … times; ``to`` is inclusive."""
    bars = [{"from": 0, "to": 0, "concepts": int(np.count_nonzero(usage == 0))}]
    low = 1
    while low <= usage.max(initial=0):
        inside = (usage >= low) & (usage < 2 * low)
        bars.append({"from": low, "to": 2 * low - 1, "concepts": int(np.count_nonzero(inside))})
        low *= 2
    return bars


def _top(bank: Bank, usage: Int64s) -> list[dict[str, Any]]:
    order = np.lexsort((np.arange(len(usage)), -usage))[:_NUM_TOP]
    return [{"concept": bank.concepts[i], "used": int(usage[i])} for i in order if usage[i]]
