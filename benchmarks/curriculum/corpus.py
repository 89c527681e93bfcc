"""A corpus of any size in the sources' schemas, with known duplicates, leaks and broken rows.

    .venv/bin/python benchmarks/curriculum/corpus.py --rows 200000 --out corpus

Writes OpenCodeReasoning (split_0, and split_1 whose questions are joined from a file like TACO's),
OpenThoughts2 and verified traces of our own, in files of 50,000 rows; ``recipe.toml``, which
builds phase 1 of them; benchmark items to keep out; and ``labels.parquet``, which says of every row
what it is and which row or item it repeats. With ``--benchmarks RECIPE``, the benchmarks of that
recipe are leaked instead of generated ones. The same bytes for the same arguments, whatever
``--workers`` is; memory does not grow with the rows. Killed, it goes on with the same command. A
problem has 200 to 2,000 characters, a row 3 to 60 kB, 17 on average.

In a hundred rows: 82 new; 5 repeat a problem with another trace and 2 in other spelling; 4.8 repeat
one with a likeness of 0.3 to 0.95; 0.7 with other numbers; 0.5 hold a benchmark item; 1 shares
eight words with one; 4 are broken. Of split_1, every problem has two rows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from corpus_rows import LABEL_SCHEMA, SCHEMAS, Item, Maker, count_questions

from pipeline.benchmarks import load_questions
from pipeline.settings.recipe import Recipe, load_recipe

ROWS_PER_FILE = 50_000
DESCRIPTION = "corpus.json"
"""File that says what a folder's corpus is; written first."""
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
    rows_per_file: int = ROWS_PER_FILE

    @property
    def num_files(self) -> int:
        """Files of each source."""
        return -(-self.num_rows // self.rows_per_file)

    def describe(self) -> dict[str, Any]:
        """What the bytes follow from, the code that makes them included."""
        code = hashlib.sha256()
        for path in sorted(Path(__file__).parent.glob("corpus*.py")):
            code.update(path.read_bytes())
        items = json.dumps([[item.benchmark, item.id, item.text] for item in self.items])
        return {
            "rows": self.num_rows,
            "seed": self.seed,
            "rows_per_file": self.rows_per_file,
            "items": hashlib.sha256(items.encode()).hexdigest(),
            "code": code.hexdigest(),
        }


@cache
def make_maker(corpus: Corpus) -> Maker:
    """This process's maker of rows."""
    return Maker(corpus.seed, corpus.num_rows, corpus.items)


def write_file(task: tuple[Corpus, int]) -> None:
    """Rows of one range, to the files of all sources; nothing when they are there."""
    corpus, number = task
    paths = {name: corpus.out / f"{name}-{number:04d}.parquet" for name in (*_FILES, "labels")}
    if paths["labels"].is_file():
        return
    maker = make_maker(corpus)
    start = number * corpus.rows_per_file
    writers = {name: pq.ParquetWriter(_unfinished(path), SCHEMAS.get(name, LABEL_SCHEMA), **_HOW)
               for name, path in paths.items()}  # fmt: skip
    held: dict[str, list[dict[str, Any]]] = {name: [] for name in writers}
    for row in range(start, min(start + corpus.rows_per_file, corpus.num_rows)):
        name, values, label = maker.make(row)
        for to, what in ((name, values), ("labels", label)):
            held[to].append(what)
            if len(held[to]) == _BATCH:
                _flush(writers[to], held[to])
    for name, writer in writers.items():
        _flush(writer, held[name])
        writer.close()
    # The labels last: a range is finished when they have their name.
    for path in paths.values():
        _unfinished(path).replace(path)


def _unfinished(path: Path) -> Path:
    return path.with_suffix(".unfinished")


_HOW: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "use_dictionary": False}


def _flush(writer: pq.ParquetWriter, rows: list[dict[str, Any]]) -> None:
    if rows:
        writer.write_table(pa.Table.from_pylist(rows, schema=writer.schema))
    rows.clear()


def write_questions(corpus: Corpus) -> None:
    """The problems that split_1 only points to."""
    path = corpus.out / "taco_questions.parquet"
    maker, schema = make_maker(corpus), pa.schema([("question", pa.string())])
    with pq.ParquetWriter(_unfinished(path), schema, **_HOW) as writer:
        texts = iter(maker.joined_question(n) for n in range(count_questions(corpus.num_rows)))
        while batch := list(islice(texts, _BATCH)):
            writer.write_table(pa.table({"question": batch}, schema=schema))
    _unfinished(path).replace(path)


def write_corpus(corpus: Corpus, workers: int) -> None:
    """All files but the recipe; what is finished stays as it is.

    Raises:
        SystemExit: The folder holds something else.
    """
    claim(corpus)
    labels = corpus.out / "labels.parquet"
    if labels.is_file():
        return
    tasks = [(corpus, number) for number in range(corpus.num_files)]
    if workers == 1 or len(tasks) == 1:
        for task in tasks:
            write_file(task)
    else:
        # Spawned: forking a process that has Arrow's threads can deadlock.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            list(pool.map(write_file, tasks))
    write_questions(corpus)
    parts = sorted(corpus.out.glob("labels-*.parquet"))
    with pq.ParquetWriter(_unfinished(labels), LABEL_SCHEMA, **_HOW) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part))
    _unfinished(labels).replace(labels)
    for part in parts:
        part.unlink()


def claim(corpus: Corpus) -> None:
    """Make the folder this corpus's, or find that it is.

    Raises:
        SystemExit: The folder holds something else.
    """
    description = corpus.out / DESCRIPTION
    if description.is_file():
        if json.loads(description.read_text()) != corpus.describe():
            sys.exit(f"{corpus.out} holds a corpus of other arguments or code: delete it first")
    elif corpus.out.exists() and any(corpus.out.iterdir()):
        sys.exit(f"{corpus.out} is not empty and holds no corpus: take another folder")
    corpus.out.mkdir(parents=True, exist_ok=True)
    _unfinished(description).write_text(json.dumps(corpus.describe()) + "\n")
    _unfinished(description).replace(description)


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
        for item in load_questions(recipe, settings)
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
            path = f"benchmarks/{settings.name}.jsonl"
            rows = ({"id": i.id, "question": i.question} for i in load_questions(recipe, settings))
            (corpus.out / path).parent.mkdir(parents=True, exist_ok=True)
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (corpus.out / path).write_text(text, encoding="utf-8")
            lines += _table("benchmarks", name=settings.name, path=path, domain=settings.domain,
                            grader="none")  # fmt: skip
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
    parser.add_argument("--out", type=Path, required=True, help="a new folder, or one to finish")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows-per-file", type=int, default=ROWS_PER_FILE)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--benchmarks", type=Path, help="a recipe whose benchmarks to leak")
    options = parser.parse_args()
    recipe = load_recipe(str(options.benchmarks)) if options.benchmarks else None
    items = read_items(recipe) if recipe else make_items(options.seed)
    corpus = Corpus(options.out, options.rows, options.seed, items, options.rows_per_file)
    write_corpus(corpus, options.workers)
    write_recipe(corpus, recipe)
    size = sum(path.stat().st_size for path in options.out.glob("*.parquet"))
    sys.stdout.write(f"{options.rows:,} rows, {size >> 20:,} MiB in {options.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
