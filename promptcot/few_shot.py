"""Few-shot examples: the seeds that share most concepts with what is asked for.

An inverted index from concepts to seeds answers in well under a millisecond at tens of thousands of
seeds, and holds four bytes per concept of a seed; the seeds themselves stay where they are.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.hashing import derive_random
from pipeline.records import Seed

Positions = NDArray[np.int32]


class ExampleIndex:
    """Seeds with a problem, findable by shared concepts.

    A seed with a rationale shows the whole form, so it comes first, as long as it shares a concept;
    then the number of shared concepts decides; equals come in a seeded order.
    """

    def __init__(self, seeds: Sequence[Seed]) -> None:
        self._seeds = seeds
        postings: defaultdict[str, array[int]] = defaultdict(lambda: array("i"))
        whole, problem_only = array("i"), array("i")
        for position, seed in enumerate(seeds):
            if not seed.problem:
                continue
            (whole if seed.rationale else problem_only).append(position)
            for concept in dict.fromkeys(seed.concepts):
                postings[concept].append(position)
        self._postings = {concept: _freeze(found) for concept, found in postings.items()}
        self._whole, self._problem_only = _freeze(whole), _freeze(problem_only)
        self._has_rationale = np.zeros(len(seeds), dtype=np.bool_)
        self._has_rationale[self._whole] = True

    def __len__(self) -> int:
        """How many seeds can be shown."""
        return len(self._whole) + len(self._problem_only)

    def nearest(
        self, concepts: Sequence[str], count: int, *, seed: int, exclude: str = ""
    ) -> tuple[Seed, ...]:
        """The best examples for a list of concepts, at most ``count``.

        Where fewer seeds share a concept, others fill up, so that the form is always shown.

        Args:
            concepts: What is asked for.
            count: How many examples.
            seed: Decides among equals; another one gives another choice.
            exclude: A problem that must not be shown, because it is the one asked about.
        """
        if count < 1:
            return ()
        chosen: list[Seed] = []
        taken: set[int] = set()
        for positions in (self._ranked(concepts, seed, count + 1), self._others(seed, count)):
            for position in positions:
                if len(chosen) == count:
                    return tuple(chosen)
                example = self._seeds[position]
                if position not in taken and example.problem != exclude:
                    taken.add(position)
                    chosen.append(example)
        return tuple(chosen)

    def _ranked(self, concepts: Sequence[str], seed: int, count: int) -> list[int]:
        """Positions that share a concept, best first; a few more than wanted in case of twins."""
        lists = [self._postings[c] for c in dict.fromkeys(concepts) if c in self._postings]
        if not lists:
            return []
        shared = np.bincount(np.concatenate(lists), minlength=len(self._has_rationale))
        grade = shared + (len(lists) + 1) * (self._has_rationale & (shared > 0))
        # Only grades that can be among the best are put in order: whole lists are long.
        wanted = count + _TWINS
        sizes = np.cumsum(np.bincount(grade)[::-1])
        lowest = max(1, len(sizes) - 1 - int(np.searchsorted(sizes, wanted)))
        positions = np.flatnonzero(grade >= lowest).astype(np.int32)
        order = np.lexsort((positions, _mix(positions, seed), -grade[positions]))
        return [int(positions[place]) for place in order[:wanted]]

    def _others(self, seed: int, count: int) -> list[int]:
        """Seeds drawn without regard to concepts, those with a rationale first."""
        draw = derive_random(seed, "examples")
        found: list[int] = []
        for pool in (self._whole, self._problem_only):
            # More than wanted: some may be shown already, or be the one that is asked about.
            size = min(len(pool), 2 * count + _TWINS)
            found += [int(pool[place]) for place in draw.sample(range(len(pool)), size)]
        return found


_TWINS = 4
"""Copies of an excluded problem that a seed file may hold before examples run short."""


def _freeze(numbers: array[int]) -> Positions:
    return np.frombuffer(numbers, dtype=np.int32) if numbers else np.empty(0, np.int32)


def _mix(positions: Positions, seed: int) -> NDArray[np.uint64]:
    """A seeded order of positions (splitmix64), the same on every machine."""
    with np.errstate(over="ignore"):
        z = positions.astype(np.uint64) + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))
