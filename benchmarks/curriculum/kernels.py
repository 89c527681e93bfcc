"""Rates of the compiled kernels beside their references: near-duplicates, words and tokens.

    .venv/bin/python benchmarks/curriculum/kernels.py
    .venv/bin/python benchmarks/curriculum/kernels.py --documents 1000000 --only duplicates

Near-duplicates: problems of 30 to 350 words from a Zipf vocabulary; among them pairs planted at
known likenesses of word 3-grams, far apart. The rate is that of all work: hash, sketch, find
candidates, verify. Pairs within 0.02 of the planted likeness count, as [removed, pairs]: those that
are alike by the threshold should be found, of the others none; and of all rows removed, planted or
not, the row named beside each must be alike.

Tokens: completions as reasoning models write them, one batch of 1,000 rows after another, so that
the first batch is cold. The peers sentencepiece and, if it is installed, kitoken count the same
batches in the same run; all counts must be equal. All rates are per second of processor time of
one thread. Ends with one JSON line; exit code 1 when a bar of docs/results.md is missed.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import islice
from typing import Any

import numpy as np

from pipeline.matching import tokenize
from pipeline.near_duplicates import GramSets, NearRows, Sketches, find_near_rows, sketch_texts
from pipeline.student import processor, tokenizer_path
from pipeline.token_counts import TokenCounter
from pipeline.word_hashes import hash_words, offsets_of

LIKENESSES = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
PAIRS_PER_LIKENESS = 2000
NGRAM = 3
BATCH_ROWS = 1000
STATEMENTS = (
    "Wait, let me check that again. If $x = {a}$ then $\\frac{{{b}}}{{x + {c}}} = {d}$, so ",
    "So the number of ways is $\\binom{{{a}}}{{{b}}} = {c}$ and we need to subtract {d}.\n",
    "def solve(n):\n    total = {a}\n    for i in range({b}, n + 1):\n        total += i * {c}\n",
    "Therefore, by the triangle inequality, $AB + BC \\geq {a}$, which gives $k \\leq {b}$.\n\n",
    "Hmm, but that can't be right because {a} is odd while {b} is even… Alternatively, ",
)


def vocabulary(size: int = 40_000) -> tuple[list[str], list[float]]:
    """Words and their cumulated weights, Zipf-Mandelbrot."""
    rng = random.Random(1)
    letters = "etaoinshrdlucmfwygpb"
    words = list(
        dict.fromkeys("".join(rng.choices(letters, k=rng.randrange(2, 10))) for _ in range(size))
    )
    return words, np.cumsum(1 / (np.arange(len(words)) + 8.0)).tolist()


def likeness(one: str, other: str) -> float:
    """True Jaccard of word 3-grams, by the reference."""
    sets = []
    for text in (one, other):
        words = tokenize(text)
        sets.append({tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


class Problems:
    """Problems made when they are asked for, the same ones every time; some repeat another."""

    def __init__(self, num: int) -> None:
        self.num = num
        self._words, self._weights = vocabulary()
        rng = random.Random(7)
        firsts = rng.sample(range(num // 2), min(PAIRS_PER_LIKENESS, num // 20) * len(LIKENESSES))
        self.plants = {
            num // 2 + number: (first, LIKENESSES[number % len(LIKENESSES)])
            for number, first in enumerate(firsts)
        }

    def __getitem__(self, row: int) -> str:
        rng = random.Random(row)
        if row in self.plants:
            first, target = self.plants[row]
            return self._plant(self[first], target, rng)
        words = rng.choices(self._words, cum_weights=self._weights, k=rng.randrange(30, 350))
        for place in range(7, len(words), 11):
            words[place] = str(rng.randrange(1000))
        return " ".join(words)

    def batches(self) -> Iterator[list[str]]:
        """All of them."""
        for start in range(0, self.num, BATCH_ROWS):
            yield [self[row] for row in range(start, min(start + BATCH_ROWS, self.num))]

    def _plant(self, text: str, target: float, rng: random.Random) -> str:
        """A copy with one run of words replaced, so that the likeness is near the target."""
        words = text.split()
        run = round((len(words) - NGRAM + 1) * (1 - target) / (1 + target)) - NGRAM + 1
        if target == 1 or run <= 0:
            return text.upper()
        start = rng.randrange(len(words) - run + 1)
        words[start : start + run] = [word + "ch" for word in rng.choices(self._words, k=run)]
        return " ".join(words)


def measure_duplicates(num: int, threshold: float, memory: int) -> dict[str, Any]:
    """Rate and quality of the whole search."""
    problems = Problems(num)
    batches, sketching = [], 0.0
    for texts in problems.batches():
        started = time.process_time()
        batches.append(sketch_texts(texts))
        sketching += time.process_time() - started
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    found = search(batches, threshold, memory)
    seconds = sketching + time.process_time() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    stored = sum(b.bands.nbytes + b.grams.values.nbytes for b in batches)
    return {
        "documents": num,
        "threshold": threshold,
        "docs_per_cpu_second": round(num / seconds),
        "sketches_per_cpu_second": round(num / sketching),
        "grown_in_search_mib": grown >> 10,
        "stored_bytes_per_row": round(stored / num),
        **judge(problems, found, threshold),
    }


def search(batches: list[Sketches], threshold: float, memory: int) -> NearRows:
    """Search sketches that lie in batches, as they lie in the parts of a prepared source."""
    starts = offsets_of([len(batch.bands) for batch in batches])

    def read_bands(first: int, last: int) -> Any:
        return np.concatenate([batch.bands[:, first:last] for batch in batches])

    def read_grams(rows: Any) -> GramSets:
        pieces, sizes = [np.zeros(0, np.uint32)], []
        for row, part in zip(rows, np.searchsorted(starts, rows, side="right") - 1, strict=True):
            grams = batches[part].grams
            low, high = grams.offsets[row - starts[part] : row - starts[part] + 2]
            pieces.append(grams.values[low:high])
            sizes.append(high - low)
        return GramSets(np.concatenate(pieces), offsets_of(sizes))

    order = np.arange(int(starts[-1]))
    return find_near_rows(order, read_bands, read_grams, threshold=threshold, memory=memory)


def judge(problems: Problems, found: NearRows, threshold: float) -> dict[str, Any]:
    """How many of the alike are found and of the others removed, by planted likeness."""
    kept_of = dict(zip(found.removed.tolist(), found.kept.tolist(), strict=True))
    counts = {target: {True: [0, 0], False: [0, 0]} for target in LIKENESSES}
    for second, (first, target) in problems.plants.items():
        true = likeness(problems[first], problems[second])
        if abs(true - target) <= 0.02:
            count = counts[target][true >= threshold]
            count[0] += kept_of.get(second) == first
            count[1] += 1
    wrong = sum(likeness(problems[a], problems[b]) < threshold for a, b in kept_of.items())
    return {
        "removed": len(kept_of),
        "alike_found": {f"{t:.1f}": counts[t][True] for t in LIKENESSES if counts[t][True][1]},
        "others_removed": {f"{t:.1f}": counts[t][False] for t in LIKENESSES if counts[t][False][1]},
        "wrongly_removed": wrong,
    }


def make_completions(num: int, rng: random.Random) -> list[str]:
    """Reasoning of 2 to 40 kB: prose, formulas and programs; some rows are not ASCII."""
    words, weights = vocabulary()
    texts = []
    for row in range(num):
        size = int(2000 * 20 ** rng.random())
        pieces: list[str] = []
        length = 0
        while length < size:
            numbers = {name: rng.randrange(10 ** rng.randrange(1, 5)) for name in "abcd"}
            prose = " ".join(rng.choices(words, cum_weights=weights, k=rng.randrange(5, 30)))
            pieces += [rng.choice(STATEMENTS).format(**numbers), prose, ". "]
            length += len(pieces[-3]) + len(prose) + 2
        text = "".join(pieces)
        texts.append(text if row % 3 == 0 else text.replace("…", "..."))
    return texts


def measure_tokens(num: int) -> dict[str, Any]:
    """Rates of counting; all counters must agree."""
    texts = make_completions(num, random.Random(3))
    counter = TokenCounter()
    counter.count(["compile"])
    reference = processor()
    counters: dict[str, Callable[[list[str]], list[int]]] = {
        "kernel": lambda batch: counter.count(batch).tolist(),
        "sentencepiece": lambda batch: [len(ids) for ids in reference.encode(batch, num_threads=1)],
    }
    if find_spec("kitoken") is not None:
        import kitoken

        peer = kitoken.Kitoken.from_file(str(tokenizer_path()))
        counters["kitoken"] = lambda batch: [len(peer.encode(text, False)) for text in batch]
    rates: dict[str, list[float]] = {name: [] for name in counters}
    for batch in batched(texts):
        expected: list[int] = []
        for name, count in counters.items():
            started = time.process_time()
            numbers = count(batch)
            rates[name].append(sum(numbers) / (time.process_time() - started) / 1e6)
            expected = expected or numbers
            if numbers != expected:
                raise SystemExit(f"{name} counts other numbers")
    result: dict[str, Any] = {"rows": num, "bytes": sum(len(text.encode()) for text in texts)}
    for name, of_batches in rates.items():
        result[f"{name}_first_batch_mtok_per_cpu_second"] = round(of_batches[0], 2)
        result[f"{name}_mtok_per_cpu_second"] = round(float(np.median(of_batches)), 2)
    return result


def batched(texts: list[str]) -> Iterator[list[str]]:
    """Batches of rows."""
    rows = iter(texts)
    while batch := list(islice(rows, BATCH_ROWS)):
        yield batch


def measure_words(num: int) -> dict[str, Any]:
    """Rate of hashing words, beside splitting them by the patterns."""
    problems = Problems(num)
    formula = " $\\frac{1}{2} \\leq x^{\\circ}$ "
    formulas = [problems[row].replace(" ", formula, 5) for row in range(num)]
    hash_words(["compile"])
    seconds = []
    for work in (hash_words, lambda batch: [tokenize(text) for text in batch]):
        started = time.process_time()
        work(formulas)
        seconds.append(time.process_time() - started)
    return {
        "texts": num,
        "kernel_docs_per_cpu_second": round(num / seconds[0]),
        "patterns_docs_per_cpu_second": round(num / seconds[1]),
    }


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--rows", type=int, default=4000, help="completions whose tokens count")
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--memory-mb", type=int, default=256)
    parser.add_argument("--only", choices=["words", "tokens", "duplicates"])
    options = parser.parse_args()
    sketch_texts(["compile"])
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "words": lambda: measure_words(10_000),
        "tokens": lambda: measure_tokens(options.rows),
        "duplicates": lambda: measure_duplicates(
            options.documents, options.threshold, options.memory_mb << 20
        ),
    }
    result = {name: run() for name, run in parts.items() if options.only in (None, name)}
    for name, numbers in result.items():
        for key, value in numbers.items():
            sys.stdout.write(f"{name + ' ' + key:50} {value}\n")
    sys.stdout.write(json.dumps(result) + "\n")
    return 0 if meets_bars(result) else 1


def meets_bars(result: dict[str, Any]) -> bool:
    """Whether what was measured is what is promised."""
    bars = []
    if "tokens" in result:
        bars.append(result["tokens"]["kernel_first_batch_mtok_per_cpu_second"] >= 3)
    if "duplicates" in result:
        numbers = result["duplicates"]
        bars += [hits >= 0.99 * pairs for hits, pairs in numbers["alike_found"].values()]
        bars += [not hits for hits, _ in numbers["others_removed"].values()]
        bars += [numbers["docs_per_cpu_second"] >= 15_000, numbers["wrongly_removed"] == 0]
    return all(bars)


if __name__ == "__main__":
    sys.exit(main())
