"""Rate, memory and coverage of the concept samplers on a large bank, beside the original's way.

    .venv/bin/python benchmarks/concept_sampling.py
    .venv/bin/python benchmarks/concept_sampling.py --seeds FILE.jsonl --combinations 20000

Without ``--seeds`` the bank is synthetic: 100,000 concepts named by words that they share, in 500
topics, with Zipf-Mandelbrot frequencies, from 400,000 seeds of five. Ends with one JSON line, and
with exit code 1 if the sampler needs more than 2 GiB or is less than 20 times the peer's rate.

The peer is the original's algorithm written down from its description, in its fast version: for
every draw, one search over the index of all embeddings (a float32 matrix-vector product, by BLAS),
co-occurrence counts added from a sparse row per chosen concept, a softmax over all concepts and one
draw from it; ids are kept with their similarities and the maximum is subtracted, which the original
does not do and which costs next to nothing. The published one also sorts all results; both are
timed and the faster is the peer. It runs on a subsample. Rates are compared per draw of a whole
combination, repeated sets included, since the peer does not look for them, and per second of
processor time as well as of the clock, because a busy machine bends the latter.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import sys
import time
from ast import literal_eval
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from pipeline.records import Seed
from pipeline.settings.concepts import CombinationSettings
from promptcot.balanced import BalancedSampler
from promptcot.bank import Bank, build_bank
from promptcot.encoders import embed_concepts
from promptcot.near_concepts import NearConcepts, Vectors
from promptcot.sampling import CombinationSampler, DistinctDraws, Sampler

WORD_LIST = """
triangle circle polynomial integral sequence prime divisor graph matrix vector angle ratio function
inequality limit series probability counting permutation combination parity modulus congruence
lattice polygon sphere cylinder tangent chord median bisector symmetry rotation reflection induction
invariant recursion bijection derivative logarithm exponent root factor remainder digit base floor
ceiling absolute complex real rational integer quadratic cubic linear exponential trigonometric
geometric arithmetic harmonic convex concave bounded finite
"""
WORDS = WORD_LIST.split()


class SyntheticSeeds(Sequence[Seed]):
    """Seeds made when they are asked for, from a table of concept numbers."""

    def __init__(self, names: list[str], rows: npt.NDArray[np.int64]) -> None:
        self._names, self._rows = names, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Seed]:
        return (self._make(row) for row in self._rows)

    @overload
    def __getitem__(self, index: int) -> Seed: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Seed]: ...
    def __getitem__(self, index: int | slice) -> Seed | Sequence[Seed]:
        if isinstance(index, slice):
            return SyntheticSeeds(self._names, self._rows[index])
        return self._make(self._rows[index])

    def _make(self, row: npt.NDArray[np.int64]) -> Seed:
        concepts = list(dict.fromkeys(self._names[number] for number in row))
        return Seed.model_construct(concepts=concepts, domain="math", level="AIME")


def synthetic_seeds(num_concepts: int, num_seeds: int, *, flatten: float) -> SyntheticSeeds:
    """Seeds of five: four concepts of one topic and one of any, by frequency."""
    rng = np.random.default_rng(1)
    num_topics = max(1, num_concepts // 200)
    topic = rng.integers(num_topics, size=num_concepts)
    names = []
    for number in range(num_concepts):
        own = np.random.default_rng(topic[number]).choice(WORDS, 2, replace=False)
        words = [*own, *rng.choice(WORDS, int(rng.integers(1, 4)))]
        names.append(f"{' '.join(words)} {number:x}")
    weights = 1 / (np.arange(num_concepts) + 1 + flatten)
    rng.shuffle(weights)
    order = np.argsort(topic, kind="stable")
    sums = np.cumsum(weights[order])
    edges = np.searchsorted(topic[order], np.arange(num_topics + 1))
    low = np.concatenate([[0.0], sums])[edges]
    chosen = np.searchsorted(low, rng.random(num_seeds) * sums[-1], side="right") - 1
    start, width = low[chosen], (low[chosen + 1] - low[chosen])
    inside = start[:, None] + rng.random((num_seeds, 4)) * width[:, None]
    anywhere = rng.random((num_seeds, 1)) * sums[-1]
    picked = np.searchsorted(sums, np.hstack([inside, anywhere]), side="right")
    return SyntheticSeeds(names, order[np.minimum(picked, num_concepts - 1)])


def read_seeds(path: Path) -> list[Seed]:
    """Concept lists of a JSONL file (``.gz`` too), as lists or as the text of one."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    listed = [json.loads(line)["concepts"] for line in text.splitlines()]
    lists = [literal_eval(item) if isinstance(item, str) else item for item in listed]
    return [
        Seed(concepts=list(dict.fromkeys(names)), domain="math", level="AIME")
        for names in lists
        if len(set(names)) > 1
    ]


class Peer:
    """The original's sampler, fast version."""

    def __init__(self, bank: Bank, settings: CombinationSettings, vectors: Vectors) -> None:
        self._bank, self._settings = bank, settings
        self._index = vectors.astype(np.float32) / np.float32(4000)
        self._rng = np.random.default_rng(8000)
        self._shares = bank.frequency / bank.frequency.sum()

    def draw(self, *, sorts: bool) -> list[int]:
        """One combination; with the published search all results are sorted, too."""
        num = len(self._shares)
        chosen = [int(self._rng.choice(num, p=self._shares))]
        while len(chosen) < self._settings.size:
            scores = self._index @ self._index[chosen].sum(axis=0)
            if sorts:
                ids = np.argsort(-scores)
                unsorted = np.empty_like(scores)
                unsorted[ids] = scores[ids]
                scores = unsorted
            scores = scores.astype(np.float64)
            for concept in chosen:
                others, counts = self._bank.neighbours(concept)
                scores[others] += counts
            scores[chosen] = -np.inf
            weights = np.exp((scores - scores.max()) / self._settings.temperature)
            chosen.append(int(self._rng.choice(num, p=weights / weights.sum())))
        return chosen


def peak_gib() -> float:
    """Most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(sampler: Sampler, count: int) -> dict[str, Any]:
    """Draw that many distinct combinations; rate, memory and how concepts were used."""
    bank, draws = sampler.bank, DistinctDraws(sampler)
    usage = np.zeros(len(bank.concepts), dtype=np.int64)
    started, started_cpu, done = time.perf_counter(), time.process_time(), 0
    while done < count:
        taken = draws.take(min(8192, count - done))
        usage += np.bincount(taken.concepts.ravel(), minlength=len(usage))
        done += len(taken.concepts)
        if done % 16384 == 0:
            passed = time.perf_counter() - started
            sys.stderr.write(f"{done} combinations, {passed:.0f} s, {peak_gib():.2f} GiB\n")
    seconds, cpu = time.perf_counter() - started, time.process_time() - started_cpu
    shares = usage[usage > 0] / usage.sum()
    return {
        "combinations": count,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "per_second": round(count / seconds, 1),
        "draws_per_combination": round(draws.num_drawn / count, 3),
        "draws_per_second": round(draws.num_drawn / seconds, 1),
        "draws_per_cpu_second": round(draws.num_drawn / cpu, 1),
        "entropy_bits": round(float(-(shares * np.log2(shares)).sum()), 3),
        "max_entropy_bits": round(float(np.log2(len(usage))), 3),
        "coverage": round(float((usage > 0).mean()), 4),
        "peak_gib": round(peak_gib(), 3),
    }


def measure_peer(peer: Peer, count: int) -> dict[str, Any]:
    """Draws per second with and without the published version's sort, and per processor second."""
    rates = {}
    for name, sorts in (("peer", False), ("peer_with_sort", True)):
        peer.draw(sorts=sorts)
        started, started_cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            peer.draw(sorts=sorts)
        rates[f"{name}_per_second"] = round(count / (time.perf_counter() - started), 3)
        rates[f"{name}_per_cpu_second"] = round(count / (time.process_time() - started_cpu), 3)
    return rates


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=Path, help="JSONL with a column `concepts`")
    parser.add_argument("--concepts", type=int, default=100_000)
    parser.add_argument("--combinations", type=int, default=1_000_000)
    parser.add_argument("--balanced", type=int, default=100_000, help="combinations of `balanced`")
    parser.add_argument("--peer", type=int, default=20, help="combinations the peer draws")
    parser.add_argument("--flatten", type=float, default=100, help="frequency ∝ 1 / (rank + this)")
    options = parser.parse_args()
    started = time.perf_counter()
    seeds: Sequence[Seed] = (
        read_seeds(options.seeds)
        if options.seeds
        else synthetic_seeds(options.concepts, 4 * options.concepts, flatten=options.flatten)
    )
    bank = build_bank(seeds, "math")
    settings = CombinationSettings(num_combinations=options.combinations)
    vectors = embed_concepts(settings.encoder, bank.concepts)
    result: dict[str, Any] = {
        "concepts": len(bank.concepts),
        "pairs": len(bank.indices) // 2,
        "most_frequent": int(bank.frequency.max()),
        "bank_and_embedding_seconds": round(time.perf_counter() - started, 1),
    }
    near = NearConcepts(vectors)
    original = CombinationSampler(bank, settings, near=near, root_seed=1)
    result["original"] = measure(original, options.combinations)
    sys.stderr.write(f"{json.dumps(result)}\n")
    result |= measure_peer(Peer(bank, settings, vectors), options.peer)
    for clock in ("second", "cpu_second"):
        peer = max(result[f"peer_per_{clock}"], result[f"peer_with_sort_per_{clock}"])
        ratio = result["original"][f"draws_per_{clock}"] / peer
        result[f"ratio_per_{clock}"] = round(ratio, 1)
    del original
    if options.balanced:
        balanced = BalancedSampler(bank, settings, near=near, root_seed=1)
        result["balanced"] = measure(balanced, options.balanced)
    for name, value in result.items():
        sys.stdout.write(f"{name:28} {value}\n")
    sys.stdout.write(json.dumps(result) + "\n")
    is_small = result["original"]["peak_gib"] <= 2
    return 0 if is_small and result["ratio_per_cpu_second"] >= 20 else 1


if __name__ == "__main__":
    sys.exit(main())
