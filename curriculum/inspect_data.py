"""What the inspection page shows of a version: flat columns, and a few rows of each kind.

Memory: 12 bytes a row, besides the rows that are shown.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.hashing import derive_random
from pipeline.manifest import Version
from pipeline.store import read_rows

MAX_CHARS = 4000
"""Characters shown of one text; what is left out is counted."""
ROWS_PER_SOURCE = 3
ROWS_PER_REASON = 3
MAX_DUPLICATES = 12
MAX_MATCHES = 20
_COLUMNS = ("source", "domain", "difficulty", "num_prompt_tokens", "num_completion_tokens")


@dataclass(frozen=True, slots=True)
class Columns:
    """A version's rows in their order, without texts."""

    source: npt.NDArray[np.uint16]
    sources: tuple[str, ...]
    prompt_tokens: npt.NDArray[np.int32]
    completion_tokens: npt.NDArray[np.int32]
    difficulties: dict[str, int]
    """Rows per label, the most frequent first; ``none`` where the source says nothing."""

    @property
    def tokens(self) -> npt.NDArray[np.int32]:
        """Prompt plus completion."""
        total: npt.NDArray[np.int32] = self.prompt_tokens + self.completion_tokens
        return total


def read_columns(version: Version) -> Columns:
    """One pass over the short columns of all shards."""
    import pyarrow.parquet as pq

    names: dict[str, int] = {}
    labels: dict[str, int] = defaultdict(int)
    sources, prompts, completions = [], [], []
    for path in version.shard_paths():
        table = pq.read_table(path, columns=list(_COLUMNS))
        encoded = table["source"].combine_chunks().dictionary_encode()
        codes = [names.setdefault(n, len(names)) for n in encoded.dictionary.to_pylist()]
        sources.append(np.array(codes, np.uint16)[encoded.indices.to_numpy()])
        prompts.append(table["num_prompt_tokens"].to_numpy().astype(np.int32))
        completions.append(table["num_completion_tokens"].to_numpy().astype(np.int32))
        for entry in table["difficulty"].value_counts().to_pylist():
            labels[entry["values"] or "none"] += entry["counts"]
    none = np.zeros(0, np.int32)
    return Columns(
        source=np.concatenate(sources) if sources else none.astype(np.uint16),
        sources=tuple(names),
        prompt_tokens=np.concatenate(prompts) if prompts else none,
        completion_tokens=np.concatenate(completions) if completions else none,
        difficulties=dict(sorted(labels.items(), key=lambda pair: (-pair[1], pair[0]))),
    )


def choose_rows(version: Version, columns: Columns) -> list[dict[str, Any]]:
    """A few rows of each source, drawn by the version's name: nobody picked them."""
    wanted = []
    for code, name in enumerate(columns.sources):
        places = np.flatnonzero(columns.source == code)
        random = derive_random(0, "inspect", version.name, name)
        drawn = random.sample(range(len(places)), min(ROWS_PER_SOURCE, len(places)))
        wanted += sorted(places[drawn].tolist())
    found = _fetch(version, sorted(wanted))
    return [_describe_row(place, found[place]) for place in wanted]


def _fetch(version: Version, places: list[int]) -> dict[int, dict[str, Any]]:
    """Rows by place, reading only the row groups that hold them."""
    import pyarrow.parquet as pq

    found: dict[int, dict[str, Any]] = {}
    start = 0
    for shard, path in zip(version.manifest.shards, version.shard_paths(), strict=True):
        if any(start <= place < start + shard.rows for place in places):
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    end = start + file.metadata.row_group(group).num_rows
                    mine = [place for place in places if start <= place < end]
                    if mine:
                        table = file.read_row_group(group).take([p - start for p in mine])
                        found |= zip(mine, table.to_pylist(), strict=True)
                    start = end
        else:
            start += shard.rows
    return found


def _describe_row(place: int, row: dict[str, Any]) -> dict[str, Any]:
    thinking, _, answer = row["completion"][0]["content"].partition("</think>")
    return {
        **row,
        "place": place,
        "prompt": shorten(row["prompt"][-1]["content"]),
        "thinking": shorten(thinking.removeprefix("<think>").strip()),
        "answer": shorten(answer.strip()),
        "provenance": {k: v for k, v in (row["provenance"] or {}).items() if v not in (None, [])},
    }


def shorten(text: str) -> str:
    """A text, or its beginning and how much is left out."""
    if len(text) <= MAX_CHARS:
        return text
    return f"{text[:MAX_CHARS]}\n… ({len(text) - MAX_CHARS:,} more characters)"


def choose_rejected(version: Version) -> list[dict[str, Any]]:
    """Reasons by stage with their counts, each with the first rows that it refused."""
    rejected = version.manifest.rejected
    examples: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    open_reasons = {(stage, reason) for stage, reasons in rejected.items() for reason in reasons}
    for path in sorted((version.folder / "rejected").glob("*.parquet")):
        if not open_reasons:
            break
        for row in read_rows(path, ["row_id", "stage", "reason", "detail"]):
            key = (row["stage"], row["reason"])
            if key in open_reasons:
                examples[key].append(row)
                if len(examples[key]) >= ROWS_PER_REASON:
                    open_reasons.discard(key)
    largest = max((n for reasons in rejected.values() for n in reasons.values()), default=1)
    return [
        {
            "stage": stage,
            "rows": sum(reasons.values()),
            "reasons": [
                {
                    "text": reason.replace("_", " "),
                    "rows": count,
                    "share": count / largest,
                    "examples": examples[stage, reason],
                }
                for reason, count in sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
            ],
        }
        for stage, reasons in rejected.items()
    ]


def choose_duplicates(version: Version) -> list[dict[str, Any]]:
    """The least alike of the near duplicates: where the threshold can be judged."""
    found: list[dict[str, Any]] = []
    for path in sorted((version.folder / "duplicates").glob("*.parquet")):
        near = [row for row in read_rows(path) if row["jaccard"] is not None and row["jaccard"] < 1]
        found = sorted([*found, *near], key=lambda r: (r["jaccard"], r["removed_id"]))
        found = found[:MAX_DUPLICATES]
    return found
