"""Recall, false flags and speed of the search for benchmark items, on real benchmarks.

    python benchmarks/curriculum/decontamination.py --data ../shared/data

The folder holds the evaluation files (``benchmarks/``) and real training problems (``seeds/``,
``code/``). Every item is planted in five disguises made by rule, and some in rewordings made by
hand (``tests/curriculum/data``). Clean rows are real ones that share a word 8-gram with an item;
what is flagged among them is printed to be read.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from contamination_plants import KINDS  # noqa: E402

from pipeline import console  # noqa: E402
from pipeline.benchmarks import load_benchmark  # noqa: E402
from pipeline.contamination import BenchmarkIndex, ItemText  # noqa: E402
from pipeline.settings import load_recipe  # noqa: E402
from pipeline.settings.benchmarks import BenchmarkSettings  # noqa: E402
from pipeline.settings.decontamination import DecontaminationSettings  # noqa: E402

_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
_LCB_END = ["Read the inputs from stdin", "You will use the following starter"]
BENCHMARKS: dict[str, dict[str, Any]] = {
    "math500": {"path": "math500_original.jsonl", "id_field": "unique_id"}
    | {"question_field": "problem"},
    "aime2024": {"path": "aime2024_qwq.jsonl", "id_field": "", "question_field": "prompt"},
    "aime2025": {"path": "aime2025_qwq.jsonl", "id_field": "", "question_field": "prompt"},
    "olympiadbench": {"path": "olympiadbench.jsonl.gz", "answer_field": ""},
    "livecodebench": {"path": "livecodebench_v5_qwq.jsonl", "id_field": "question_id"}
    | {"question_field": "prompt", "question_after": "Question: ", "question_until": _LCB_END}
    | {"domain": "code", "tests_field": ""},
    "humaneval": {"path": "HumanEval.jsonl.gz", "id_field": "task_id", "question_field": "prompt"}
    | {"domain": "code", "tests_field": ""},
    "humaneval_plus": {"path": "HumanEvalPlus.jsonl.gz", "id_field": "task_id"}
    | {"question_field": "prompt", "domain": "code", "tests_field": ""},
}
_SPEED_CHARS = (200, 2000)
ROWS = {
    "seeds/math_train_rllm.json.gz": "problem",
    "seeds/aime_train_rllm.json.gz": "problem",
    "seeds/omni_math_num_500.jsonl": "problem",
    "seeds/sws_qwen2.5-7b-examples.jsonl.gz": "problem",
    "seeds/dataflow_pipeline_math.json": "instruction",
    "seeds/openmathreasoning_aops_example-data.txt": "forum_post",
    "seeds/msc.json": "prompt",
    "code/leetcode_test_rllm.json": "problem",
    "code/codeforces_test_rllm.json.gz": "problem",
    "code/code_contests_test_rllm.json.gz": "problem",
    "longcot/taco_generation_example.json.gz": "prompt",
    "benchmarks/gsm8k_test.jsonl": "question",
}


def read_items(data: Path) -> list[ItemText]:
    """The items of the seven evaluation sets."""
    recipe = load_recipe("demo")
    items = []
    for name, fields in BENCHMARKS.items():
        path = str(data / "benchmarks" / fields["path"])
        settings = BenchmarkSettings.model_validate(
            {"name": name, "domain": "math", "strip_suffix": _INSTRUCTION} | fields | {"path": path}
        )
        items += [
            ItemText(item.benchmark, item.id, item.question, item.domain)
            for item in load_benchmark(recipe, settings)
        ]
    return items


def read_rows(data: Path) -> Iterator[tuple[str, list[str]]]:
    """File names and their problems."""
    for name, field in ROWS.items():
        raw = (data / name).read_bytes()
        text = (gzip.decompress(raw) if name.endswith(".gz") else raw).decode()
        rows = json.loads(text) if text.lstrip()[0] == "[" else map(json.loads, text.splitlines())
        yield name, [row[field] for row in rows if row.get(field)]


def measure_plants(index: BenchmarkIndex, items: list[ItemText], others: list[str]) -> None:
    """Print the recall of every disguise, by benchmark."""
    table = []
    for kind, disguise in KINDS.items():
        rng = random.Random(kind)
        found, missed = Counter[str](), list[str]()
        texts = [disguise(item.question, rng, others) for item in items]
        for item, matches in zip(items, index.find_in_texts(texts), strict=True):
            hits = {(m.benchmark, m.item_id) for m in matches if m.is_contamination}
            if (item.benchmark, item.item_id) in hits:
                found[item.benchmark] += 1
            else:
                missed.append(f"{item.benchmark}/{item.item_id}")
        shares = [f"{found[name]}/{index.items_per_benchmark()[name]}" for name in BENCHMARKS]
        table.append([kind, *shares, f"{found.total() / len(items):.2%}"])
        if missed:
            console.say(f"{kind}: missed {', '.join(missed[:12])}")
    console.table("planted items found", ["disguise", *BENCHMARKS, "all"], table)


def measure_rewordings(index: BenchmarkIndex) -> None:
    """Print the recall of rewordings made by hand."""
    for name in ("rewordings.jsonl", "rewordings_held_out.jsonl", "rewordings_blind.jsonl"):
        path = ROOT / "tests" / "curriculum" / "data" / name
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found = Counter[str]()
        for row in rows:
            item = f"{row['item'] + 1:05d}" if row["set"].startswith("aime") else str(row["item"])
            matches = index.find(row["text"])
            found[row["set"]] += any(
                m.is_contamination and (m.benchmark, m.item_id) == (row["set"], item)
                for m in matches
            )
        console.say(f"{name}: {found.total()} of {len(rows)} found ({dict(found)})")


def measure_rows(index: BenchmarkIndex, items: list[ItemText], data: Path) -> None:
    """Print what is found in real rows, and how fast."""
    known = {gram for item in items for gram in _word_grams(item.question)}
    table = []
    for name, texts in read_rows(data):
        start = time.process_time()
        found = index.find_in_texts(texts)
        seconds = time.process_time() - start
        hits = [(n, m[0]) for n, m in enumerate(found) if m and m[0].is_contamination]
        twins = [m[0] for m in found if m and not m[0].is_contamination]
        sharing = {n for n, text in enumerate(texts) if known.intersection(_word_grams(text))}
        for number, match in hits:
            console.say(
                f"{name} row {number}{' (shares an 8-gram)' if number in sharing else ''}: "
                f"{match.benchmark}/{match.item_id} {match.rule} {match.score:g}: "
                f"{match.span[:150]}"
            )
        per_benchmark = Counter(match.benchmark for _, match in hits)
        listed = ", ".join(f"{key} {value}" for key, value in per_benchmark.items())
        differs = dict(Counter(match.differs for match in twins))
        chars = sum(map(len, texts)) / len(texts)
        table.append([name, len(texts), len(sharing), len(hits), listed, len(twins), differs])
        table[-1] += [f"{chars:.0f}", f"{len(texts) / seconds:,.0f}"]
    _say_speed(index, [text for _, texts in read_rows(data) for text in texts])
    headings = ["file", "rows", "share an 8-gram", "flagged", "per benchmark", "twins", "differ in"]
    console.table("real rows", [*headings, "characters", "docs/CPU-s"], table)


def _say_speed(index: BenchmarkIndex, texts: list[str]) -> None:
    """Problems of 200 to 2,000 characters, as many of each length as there are."""
    low, high = _SPEED_CHARS
    chosen = [text for text in texts if low <= len(text) <= high]
    rng = random.Random(0)
    bins = [[t for t in chosen if step <= len(t) < step + 200] for step in range(low, high, 200)]
    even = [text for texts in bins for text in rng.choices(texts, k=500)]
    start = time.process_time()
    index.find_in_texts(even)
    seconds = time.process_time() - start
    console.say(
        f"{len(even):,} problems of {low} to {high} characters, lengths spread evenly "
        f"({sum(map(len, even)) / len(even):.0f} on average): {len(even) / seconds:,.0f} docs/CPU-s"
    )


def _word_grams(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return set(zip(*(words[offset:] for offset in range(8)), strict=False))


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    data = parser.parse_args().data
    items = read_items(data)
    start = time.process_time()
    index = BenchmarkIndex(items, DecontaminationSettings())
    index.find("Compiles, or reads what was compiled.")
    console.say(f"{len(index)} items indexed in {time.process_time() - start:.1f} CPU-s")
    others = dict(read_rows(data))["benchmarks/gsm8k_test.jsonl"]
    measure_plants(index, items, others)
    measure_rewordings(index)
    measure_rows(index, items, data)


if __name__ == "__main__":
    main()
