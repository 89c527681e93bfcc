"""A corpus of any size in the sources' schemas, with known duplicates, leaks and broken rows.

    .venv/bin/python benchmarks/curriculum/corpus.py --rows 200000 --out corpus

Writes OpenCodeReasoning (split_0, and split_1 whose questions are joined from a file like TACO's),
OpenThoughts2 and verified traces of our own, in files of 50,000 rows; ``recipe.toml``, which
builds phase 1 of them; benchmark items to keep out; and ``labels.parquet``, which says of every row
what it is and which row or item it repeats. With ``--benchmarks RECIPE``, the benchmarks of that
recipe are leaked instead of generated ones. The same bytes for the same arguments, whatever
``--workers`` is; memory does not grow with the rows. A problem has 200 to 2,000 characters, an
answer 2 to 40 kB.

In a hundred rows: 82 new; 5 repeat a problem with another trace and 2 in other spelling; 4.8 repeat
one with a likeness of 0.3 to 0.95; 0.7 with other numbers; 0.5 hold a benchmark item; 1 shares
eight words with one; 4 are broken. Of split_1, every problem has two rows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from corpus_rows import LABEL_SCHEMA, SCHEMAS, Item, Maker, count_questions

from pipeline.benchmarks import load_benchmark
from pipeline.settings.recipe import Recipe, load_recipe

ROWS_PER_FILE = 50_000
_BATCH = 500
_NUM_ITEMS = 3000
_FILES = ("open_code_reasoning_split_0", "open_code_reasoning_split_1", "open_thoughts2", "traces")


@dataclass(frozen=True)
class Corpus:
    """What determines a corpus, and where it goes."""

    out: Path
    num_rows: int
    seed: int
    items: tuple[Item, ...] = field(repr=False)

    @property
    def num_files(self) -> int:
        """Files of each source."""
        return -(-self.num_rows // ROWS_PER_FILE)


@cache
def make_maker(corpus: Corpus) -> Maker:
    """This process's maker of rows."""
    return Maker(corpus.seed, corpus.num_rows, corpus.items)


def write_file(task: tuple[Corpus, int]) -> None:
    """Rows of one range, to the files of all sources."""
    corpus, number = task
    maker = make_maker(corpus)
    start = number * ROWS_PER_FILE
    rows = range(start, min(start + ROWS_PER_FILE, corpus.num_rows))
    writers = {
        name: pq.ParquetWriter(corpus.out / f"{name}-{number:04d}.parquet", SCHEMAS[name], **_HOW)
        for name in _FILES
    }
    labels = corpus.out / f"labels-{number:04d}.parquet"
    writers["labels"] = pq.ParquetWriter(labels, LABEL_SCHEMA, **_HOW)
    held: dict[str, list[dict[str, Any]]] = {name: [] for name in writers}
    for row in rows:
        name, values, label = maker.make(row)
        for to, what in ((name, values), ("labels", label)):
            held[to].append(what)
            if len(held[to]) == _BATCH:
                _flush(writers[to], held[to])
    for name, writer in writers.items():
        _flush(writer, held[name])
        writer.close()


_HOW: dict[str, Any] = {"compression": "zstd", "compression_level": 1}


def _flush(writer: pq.ParquetWriter, rows: list[dict[str, Any]]) -> None:
    if rows:
        writer.write_table(pa.Table.from_pylist(rows, schema=writer.schema))
    rows.clear()


def write_questions(corpus: Corpus) -> None:
    """The problems that split_1 only points to."""
    maker, schema = make_maker(corpus), pa.schema([("question", pa.string())])
    with pq.ParquetWriter(corpus.out / "taco_questions.parquet", schema, **_HOW) as writer:
        texts = iter(maker.joined_question(n) for n in range(count_questions(corpus.num_rows)))
        while batch := list(islice(texts, _BATCH)):
            writer.write_table(pa.table({"question": batch}, schema=schema))


def write_corpus(corpus: Corpus, workers: int) -> None:
    """All files but the recipe."""
    corpus.out.mkdir(parents=True)
    tasks = [(corpus, number) for number in range(corpus.num_files)]
    if workers == 1 or len(tasks) == 1:
        for task in tasks:
            write_file(task)
    else:
        with ProcessPoolExecutor(workers) as pool:
            list(pool.map(write_file, tasks))
    write_questions(corpus)
    parts = sorted(corpus.out.glob("labels-*.parquet"))
    with pq.ParquetWriter(corpus.out / "labels.parquet", LABEL_SCHEMA, **_HOW) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part))
            part.unlink()


def make_items(seed: int) -> tuple[Item, ...]:
    """Benchmark items in the manner of the corpus's problems."""
    maker = Maker(seed, 0, ())
    texts = (" ".join(maker.texts.problem("items", n, 120, 900)) for n in range(_NUM_ITEMS))
    return tuple(Item("generated", f"item-{n:04d}", text) for n, text in enumerate(texts))


def read_items(recipe: Recipe) -> tuple[Item, ...]:
    """The benchmark items of a recipe."""
    return tuple(
        Item(item.benchmark, item.id, item.question)
        for settings in recipe.settings.benchmarks
        for item in load_benchmark(recipe, settings)
    )


def write_recipe(corpus: Corpus, recipe: Recipe | None) -> None:
    """A recipe whose phase 1 is the corpus."""
    files = {n: [f"{n}-{i:04d}.parquet" for i in range(corpus.num_files)] for n in _FILES}
    split_0, split_1, talk, traces = (files[name] for name in _FILES)
    lines = [
        'name = "corpus"',
        f'description = "Generated: {corpus.num_rows} rows, seed {corpus.seed}."',
        "[curriculum]",
        "[curriculum.phases.1]",
        'sources = [{ source = "code" }, { source = "talk" }, { source = "own" }]',
        "max_tokens = 16384",
        *_table("curriculum.sources", name="code", kind="open_code_reasoning",
                paths=[*split_0, *split_1], licence="cc-by-4.0"),
        'questions = [{ dataset = "taco", split = "train", path = "taco_questions.parquet" }]',
        *_table("curriculum.sources", name="talk", kind="open_thoughts2", paths=talk,
                licence="apache-2.0"),
        *_table("curriculum.sources", name="own", kind="synthesized", paths=traces,
                licence="apache-2.0"),
    ]  # fmt: skip
    if recipe is None:
        rows = ({"id": item.id, "question": item.text} for item in corpus.items)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (corpus.out / "benchmark.jsonl").write_text(text, encoding="utf-8")
        lines += _table("benchmarks", name="generated", path="benchmark.jsonl", domain="math",
                        answer_field="")  # fmt: skip
    else:
        for settings in recipe.settings.benchmarks:
            values = settings.model_dump(exclude_defaults=True)
            source = recipe.file(settings.path)
            values["path"] = f"benchmarks/{settings.name}/{source.name}"
            copied = corpus.out / values["path"]
            copied.parent.mkdir(parents=True)
            shutil.copyfile(source, copied)
            lines += _table("benchmarks", **values)
    (corpus.out / "recipe.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(title: str, **values: Any) -> Iterator[str]:
    """An entry of a list of tables; texts, numbers and lists are written as in JSON."""
    yield f"[[{title}]]"
    for key, value in values.items():
        yield f"{key} = {json.dumps(value)}"


def main() -> int:
    """Write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--benchmarks", type=Path, help="a recipe whose benchmarks to leak")
    options = parser.parse_args()
    recipe = load_recipe(str(options.benchmarks)) if options.benchmarks else None
    items = read_items(recipe) if recipe else make_items(options.seed)
    corpus = Corpus(options.out, options.rows, options.seed, items)
    write_corpus(corpus, options.workers)
    write_recipe(corpus, recipe)
    size = sum(path.stat().st_size for path in options.out.glob("*.parquet"))
    sys.stdout.write(f"{options.rows:,} rows, {size >> 20:,} MiB in {options.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
