"""The concept bank: which concepts exist, how often, and which ones occur together.

Input is a JSONL file of seeds, one problem's concepts a line (see :class:`pipeline.records.Seed`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from pydantic import ValidationError

from pipeline.errors import SourceError
from pipeline.records import Domain, Seed


@dataclass(frozen=True, slots=True)
class Bank:
    """One domain's concepts, in alphabetical order so that draws do not depend on hashing."""

    domain: Domain
    seeds: tuple[Seed, ...]
    concepts: tuple[str, ...]
    frequency: tuple[int, ...]
    """Seeds that hold each concept."""
    co_occurrence: tuple[Mapping[int, int], ...]
    """For each concept: the other concept's index → number of seeds that hold both."""


def load_bank(path: Path) -> tuple[Seed, ...]:
    """Read and check a seed file.

    Raises:
        SourceError: The file is missing, empty, or a line is not a seed.
    """
    if not path.is_file():
        raise SourceError(
            f"concept bank not found: {path}", hint="set synthesis.bank to a JSONL file of seeds"
        )
    seeds = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            seeds.append(_parse_seed(path, number, line))
    if not seeds:
        raise SourceError(f"{path}: no seeds in it", hint="write one seed (a JSON object) a line")
    return tuple(seeds)


def _parse_seed(path: Path, number: int, line: str) -> Seed:
    try:
        seed = Seed.model_validate(json.loads(line))
    except (json.JSONDecodeError, ValidationError) as exc:
        raise SourceError(
            f"{path}, line {number}: not a seed ({str(exc).splitlines()[0]})",
            hint='each line is {"concepts": [two or more names], "domain": "math" or "code", '
            '"level": …, "problem": …, "rationale": …}',
        ) from exc
    if len(set(seed.concepts)) != len(seed.concepts):
        raise SourceError(
            f"{path}, line {number}: a concept is named twice: {', '.join(seed.concepts)}",
            hint="name each concept once",
        )
    return seed


def build_bank(seeds: Sequence[Seed], domain: Domain) -> Bank:
    """Count frequencies and co-occurrences of one domain's concepts.

    Raises:
        SourceError: No seed of this domain.
    """
    chosen = tuple(seed for seed in seeds if seed.domain == domain)
    if not chosen:
        raise SourceError(
            f"the concept bank has no seeds of the domain {domain!r}",
            hint="add some, or set synthesis.combinations.math_share so that it is not needed",
        )
    counts = Counter(concept for seed in chosen for concept in seed.concepts)
    concepts = tuple(sorted(counts))
    position = {concept: index for index, concept in enumerate(concepts)}
    together: list[Counter[int]] = [Counter() for _ in concepts]
    for seed in chosen:
        for a, b in combinations([position[c] for c in seed.concepts], 2):
            together[a][b] += 1
            together[b][a] += 1
    return Bank(
        domain=domain,
        seeds=chosen,
        concepts=concepts,
        frequency=tuple(counts[concept] for concept in concepts),
        co_occurrence=tuple(dict(sorted(counter.items())) for counter in together),
    )


def nearest_seeds(
    bank: Bank, wanted: Sequence[str], count: int, *, tie_break: Sequence[int]
) -> list[Seed]:
    """The seeds with a problem and rationale that share most concepts with ``wanted``.

    Args:
        bank: Where to look.
        wanted: Concepts of a combination.
        count: How many seeds at most.
        tie_break: One number per seed of the bank; among equals the smaller comes first.
    """
    names = set(wanted)
    usable = [i for i, seed in enumerate(bank.seeds) if seed.problem and seed.rationale]
    usable.sort(key=lambda i: (-len(names & set(bank.seeds[i].concepts)), tie_break[i], i))
    return [bank.seeds[i] for i in usable[:count]]
