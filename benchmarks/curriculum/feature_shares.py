"""Count how common words, numbers and formula pieces are: ``pipeline/data/feature_shares.json``.

    python benchmarks/curriculum/feature_shares.py --data ../shared/data

A feature's share is the larger one of its shares among maths problems and among programming tasks.
Run it twice after a change to :mod:`pipeline.word_forms` or :mod:`pipeline.problem_features`:
which letters are read as names of points depends on which words are known.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from decontamination import read_rows  # noqa: E402

import pipeline  # noqa: E402
from pipeline import console  # noqa: E402
from pipeline.problem_features import read  # noqa: E402

_LEAST_SHARE = 0.0015
_TASKS = ("code/", "longcot/taco")
_LEFT_OUT = ("openmathreasoning", "msc", "gsm8k")
"""Forum posts, a list of subjects, and a benchmark."""


def count_shares(data: Path) -> dict[str, float]:
    """Shares of all features that are not rare."""
    counts = {True: Counter[str](), False: Counter[str]()}
    sizes = Counter[bool]()
    for name, texts in read_rows(data):
        if any(part in name for part in _LEFT_OUT):
            continue
        is_task = name.startswith(_TASKS)
        sizes[is_task] += len(texts)
        for text in texts:
            counts[is_task].update(read(text).counts.keys())
    shares: dict[str, float] = {}
    for is_task, found in counts.items():
        for feature, count in found.items():
            share = round(count / sizes[is_task], 5)
            shares[feature] = max(share, shares.get(feature, 0.0))
    return {f: share for f, share in sorted(shares.items()) if share >= _LEAST_SHARE}


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    shares = count_shares(parser.parse_args().data)
    path = Path(next(iter(pipeline.__path__))) / "data" / "feature_shares.json"
    path.write_text(json.dumps(shares, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    console.say(f"{len(shares):,} features in {path}")


if __name__ == "__main__":
    main()
