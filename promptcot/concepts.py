"""Stage ``concepts``: the concept bank, with one name per concept over all seeds.

Input: an ``extracted`` version (see :mod:`promptcot.extraction`), made first where it is missing.
Output: :class:`pipeline.records.Seed` rows with canonical names; beside them ``concepts.jsonl``
(:class:`pipeline.records.Concept`) and ``aliases.jsonl``, which says for each other spelling which
name stands for it, by which rule and how alike the two are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import partial
from threading import Lock
from typing import Any

from pipeline.manifest import Manifest, Version
from pipeline.records import Concept, Domain, Rejected, Seed
from pipeline.stages import Batch, BatchResult, run_stage
from pipeline.store import dump_json_line
from promptcot.canonical import Alias, canonicalize
from promptcot.cards import render_card
from promptcot.extraction import ITEMS, run_extraction
from promptcot.run_context import SynthesisRun, input_of
from promptcot.seeds import STAGE as EXTRACTED
from promptcot.stage_names import BANK

ALIASES, CONCEPTS = "aliases.jsonl", "concepts.jsonl"


def run_concepts(run: SynthesisRun) -> Version:
    """The bank made of ``[[synthesis.seeds]]``.

    Raises:
        SourceError: A seed file or a benchmark is missing or malformed.
        TeacherError: The teacher cannot be used; finished work is kept.
        TooManyRejected: Too few seeds are fit for the bank.
    """
    extracted = run_extraction(run)
    settings = run.settings.concepts
    stage = run.stage(
        BANK,
        record=Seed,
        settings={"merge_similarity": settings.merge_similarity},
        inputs=[input_of(extracted, EXTRACTED)],
    )
    batches = run.stream(extracted, Seed, key=lambda seed: f"{seed.source}/{seed.source_id}")
    merge = _Merge(extracted, settings.merge_similarity)
    return run_stage(
        stage,
        batches,
        partial(_rename_batch, merge),
        card=partial(_write_files, merge),
        extra=lambda _: _describe(merge, extracted),
    )


class _Merge:
    """Canonical names over all seeds, found when they are first needed."""

    def __init__(self, extracted: Version, similarity: float) -> None:
        self._extracted = extracted
        self._similarity = similarity
        self._lock = Lock()
        self._aliases: dict[str, Alias] | None = None

    @property
    def aliases(self) -> Mapping[str, Alias]:
        """Every spelling's canonical name."""
        with self._lock:
            if self._aliases is None:
                counts: Counter[str] = Counter()
                for row in self._extracted.rows(["concepts"]):
                    counts.update(row["concepts"])
                self._aliases = canonicalize(counts, self._similarity)
        return self._aliases

    def rename(self, concepts: list[str]) -> list[str]:
        """Canonical names in their order, each once."""
        aliases = self.aliases
        return list(dict.fromkeys(aliases[c].canonical for c in concepts if c in aliases))

    def frequencies(self) -> dict[Domain, Counter[str]]:
        """For each domain: how many seeds of the bank hold each concept."""
        found: defaultdict[Domain, Counter[str]] = defaultdict(Counter)
        for row in self._extracted.rows(["concepts", "domain"]):
            names = self.rename(row["concepts"])
            if len(names) >= 2:
                found[row["domain"]].update(names)
        return dict(sorted(found.items()))


def _rename_batch(merge: _Merge, batch: Batch) -> BatchResult:
    rows, rejected = [], []
    for seed in batch.rows:
        names = merge.rename(seed.concepts)
        if len(names) >= 2:
            rows.append(seed.model_copy(update={"concepts": names}))
        else:
            detail = f"{', '.join(seed.concepts)} are one concept: {', '.join(names)}"
            rejected.append(
                Rejected(
                    row_id=f"{seed.source}/{seed.source_id}",
                    stage=BANK,
                    reason="too_few_concepts",
                    detail=detail,
                )
            )
    licences = Counter(seed.licence for seed in rows if seed.licence)
    return BatchResult(num_in=len(batch.rows), rows=rows, rejected=rejected, licences=licences)


def _describe(merge: _Merge, extracted: Version) -> dict[str, Any]:
    """The bank in figures."""
    rules = Counter(alias.rule for alias in merge.aliases.values())
    counts = extracted.manifest.extra.get("counts", {})
    return {
        "spellings": len(merge.aliases),
        "concepts": len({alias.canonical for alias in merge.aliases.values()}),
        "merged": {rule: rules[rule] for rule in ("notation", "spelling", "similar")},
        "per_domain": {domain: len(found) for domain, found in merge.frequencies().items()},
        "benchmark_items": {
            name.removeprefix(ITEMS): number
            for name, number in counts.items()
            if name.startswith(ITEMS)
        },
    }


def _write_files(merge: _Merge, manifest: Manifest) -> dict[str, str]:
    """The card, the alias map and the concepts."""
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    aliases = []
    for name, alias in sorted(merge.aliases.items()):
        if alias.rule != "same":
            spellings[alias.canonical].append(name)
            aliases.append(
                dump_json_line(
                    {
                        "alias": alias.alias,
                        "canonical": alias.canonical,
                        "rule": alias.rule,
                        "similarity": alias.similarity,
                    }
                )
            )
    concepts = [
        Concept(name=name, domain=domain, frequency=number, aliases=spellings[name])
        for domain, found in merge.frequencies().items()
        for name, number in sorted(found.items())
    ]
    return {
        "README.md": render_card(manifest),
        ALIASES: "".join(f"{line}\n" for line in aliases),
        CONCEPTS: "".join(f"{dump_json_line(concept.model_dump())}\n" for concept in concepts),
    }
