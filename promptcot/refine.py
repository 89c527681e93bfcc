"""Refinement of rationales (PromptCoT 2.0): draw several, score, keep the best, round by round.

The E-step of a round draws rationales z for each (concepts c, problem x) from the teacher and keeps
the one with the largest ``log p(x | z, c) + log p(z | c)`` under the scoring model p. From round 2
on the best rationales of the round before, of other seeds, are its few-shot examples: fitting the
posterior q in context. The M-step, where it is switched on, fine-tunes p on what was kept, and the
next round scores with it. What a round kept competes again in the next one, so under a fixed p the
objective never falls.

Output: stages ``refined-1``, ``refined-2``, … (rows: ``Triple``) and, in
``<out>/synthesis/refinement``, the objective per round as ``rounds.json`` and ``objective.svg``.
Command: ``python -m promptcot refine``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.hashing import content_hash, derive_random, derive_seed
from pipeline.manifest import InputRef, Version
from pipeline.records import Domain, Rejected, Seed, Triple
from pipeline.settings.base import determining
from pipeline.stages import Batch, BatchResult, BatchStream, run_stage, staged_shards
from promptcot.bank import BankSource, open_bank
from promptcot.cards import render_card
from promptcot.engines.protocol import Answer, Request
from promptcot.few_shot import ExampleIndex
from promptcot.former_round import FormerRound
from promptcot.parsing import Defect
from promptcot.rationales import (
    Sampling,
    ask_rationale,
    make_triple,
    problem_key,
    read_rationale,
    refuse_seed,
    seed_id,
)
from promptcot.refine_objective import Objective, measure, write_rounds
from promptcot.run_context import SynthesisRun, count_tokens, input_of
from promptcot.scoring import Score, ScoreBook, open_scorer
from promptcot.triple_text import join_triple
from promptcot.triples import make_indexes

STAGE = "refined"
Places = dict[Domain, Sequence[int]]


def run_refinement(run: SynthesisRun, until: int | None = None) -> list[Version]:
    """Run all rounds that are missing; return each round's version.

    Args:
        run: The run.
        until: Stop after this round; after the recipe's last one by default.

    Raises:
        SourceError: The bank is missing or malformed.
        TeacherError: The teacher or the scoring model cannot be used; finished work is kept.
        TooManyRejected: A round kept too few rationales.
    """
    settings = run.settings.refinement
    bank = open_bank(run)
    places = _choose_places(run, bank)
    versions: list[Version] = []
    after_fit: list[float | None] = []
    with ExitStack() as opened:
        # One book for all rounds, so that a fixed p is loaded once.
        book = opened.enter_context(ScoreBook(open_scorer(settings.scorer, run.recipe), run.out))
        fitted: Path | None = None
        for number in range(1, (until or settings.rounds) + 1):
            former = FormerRound(versions[-1]) if versions else None
            versions.append(_run_round(Round(run, number, bank, places, book, former)))
            if settings.fit.enabled:
                from promptcot.refine_fit import fit_generator, score_version

                opened.close()
                fitted = fit_generator(run, versions[-1], number, start=fitted)
                after_fit.append(score_version(run, versions[-1], fitted))
                scorer = open_scorer(settings.scorer, run.recipe, folder=fitted)
                book = opened.enter_context(ScoreBook(scorer, run.out))
            else:
                after_fit.append(None)
            write_rounds(run, versions, after_fit)
    return versions


def _choose_places(run: SynthesisRun, bank: BankSource) -> Places:
    """Positions of the seeds that take part, by domain: all with a problem, or a seeded draw."""
    usable = [
        (domain, place)
        for domain in run.settings.domains
        for place, seed in enumerate(bank.seeds(domain))
        if seed.problem
    ]
    if 0 < (wanted := run.settings.refinement.max_problems) < len(usable):
        draw = derive_random(run.root_seed, STAGE, "problems")
        usable = [usable[i] for i in sorted(draw.sample(range(len(usable)), wanted))]
    places: dict[Domain, list[int]] = {domain: [] for domain in run.settings.domains}
    for domain, place in usable:
        places[domain].append(place)
    return dict(places)


@dataclass(frozen=True, slots=True)
class Round:
    """What one round works on and with."""

    run: SynthesisRun
    number: int
    bank: BankSource
    places: Places
    book: ScoreBook
    former: FormerRound | None

    @property
    def name(self) -> str:
        """The round's stage."""
        return f"{STAGE}-{self.number}"

    def seeds(self) -> Iterator[Seed]:
        """The seeds that take part, read anew."""
        for domain, places in self.places.items():
            seeds = self.bank.seeds(domain)
            yield from (seeds[place] for place in places)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A rationale that competes, and where it came from."""

    rationale: str
    teacher: str
    prompt_hash: str
    seed: int
    is_new: bool


def _run_round(this: Round) -> Version:
    run, settings = this.run, this.run.settings.refinement
    described = determining(settings)
    # Another round must not rename the ones before it; p is named by its weights instead.
    del described["rounds"], described["fit"]
    inputs = [this.bank.input]
    if this.former is not None:
        inputs.append(input_of(this.former.version, f"{STAGE}-{this.number - 1}"))
    scorer = content_hash(this.book.scorer.identity)
    stage = run.stage(
        this.name,
        record=Triple,
        settings={"refinement": described, "domains": list(run.settings.domains)},
        inputs=[*inputs, InputRef(name="scorer", version=scorer)],
        teachers=[settings.teacher],
    )
    batches = BatchStream(
        rows=this.seeds,
        num_rows=sum(map(len, this.places.values())),
        size=run.settings.batch_size,
        key=seed_id,
    )
    indexes = this.former.indexes() if this.former else make_indexes(run, this.bank)
    return run_stage(
        stage,
        batches,
        partial(_make_batch, this, indexes),
        card=render_card,
        extra=lambda counts: _figures(measure(staged_shards(stage), run.root_seed)),
    )


def _figures(objective: Objective | None) -> dict[str, Any]:
    return {"objective": objective.as_extra()} if objective else {}


def _make_batch(this: Round, indexes: dict[Domain, ExampleIndex], batch: Batch) -> BatchResult:
    settings = this.run.settings.refinement
    limits = this.run.settings.problems if settings.check_problems else None
    rejected = {
        place: refused
        for place, seed in enumerate(batch.rows)
        if (refused := refuse_seed(seed, this.name, settings=limits)) is not None
    }
    seeds = {place: seed for place, seed in enumerate(batch.rows) if place not in rejected}
    answers, candidates, defects = _draw(this, indexes, seeds)
    rows: dict[int, Triple] = {}
    for place, best in _score(this, seeds, candidates).items():
        if isinstance(best, Triple):
            rows[place] = best
        else:
            defects[place][best] += len(candidates[place])
    for place, seed in seeds.items():
        if place not in rows:
            reason = min(defects[place], key=lambda r: (-defects[place][r], r), default="empty")
            detail = ", ".join(f"{n} {r}" for r, n in sorted(defects[place].items()))
            rejected[place] = Rejected(
                row_id=seed_id(seed), stage=this.name, reason=reason, detail=f"all drawn: {detail}"
            )
    num_fresh = sum(candidate.is_new for found in candidates.values() for candidate in found)
    return BatchResult(
        num_in=len(batch.rows),
        rows=[rows[place] for place in sorted(rows)],
        rejected=[rejected[place] for place in sorted(rejected)],
        tokens=count_tokens(answers),
        licences=Counter(row.licence for row in rows.values() if row.licence),
        counts={"drawn": len(answers), "well_formed": num_fresh},
    )


def _draw(
    this: Round, indexes: dict[Domain, ExampleIndex], seeds: dict[int, Seed]
) -> tuple[list[Answer], dict[int, list[_Candidate]], dict[int, Counter[str]]]:
    """All rationales of a batch: what the teacher draws, and what the former round kept."""
    run, settings = this.run, this.run.settings.refinement
    teacher = run.teacher(settings.teacher)
    sampling = Sampling(
        form=run.resolve_form(settings.form, settings.teacher),
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=settings.max_tokens,
    )
    owners: list[int] = []
    requests: list[Request] = []
    for place, seed in seeds.items():
        key = seed_id(seed)
        examples = indexes[seed.domain].nearest(
            seed.concepts,
            settings.num_examples,
            seed=derive_seed(run.root_seed, this.name, "examples", key),
            exclude=seed.problem or "",
        )
        for draw in range(settings.rationales_per_problem):
            draw_seed = derive_seed(run.root_seed, this.name, key, str(draw))
            requests.append(ask_rationale(seed, examples, sampling, draw_seed=draw_seed))
            owners.append(place)
    answers = teacher.answer_all(requests, this.name) if requests else []
    candidates: dict[int, list[_Candidate]] = {place: [] for place in seeds}
    defects: dict[int, Counter[str]] = {place: Counter() for place in seeds}
    for place, request, answer in zip(owners, requests, answers, strict=True):
        found = read_rationale(seeds[place], answer, sampling.form)
        if isinstance(found, Defect):
            defects[place][found.reason] += 1
        else:
            model = teacher.capabilities.model
            made = _Candidate(found, model, request.prompt_hash, request.seed, is_new=True)
            candidates[place].append(made)
    if this.former is not None:
        for place, seed in seeds.items():
            if (kept := this.former.find(problem_key(seed))) is not None:
                made = _Candidate(
                    kept.rationale, kept.teacher, kept.prompt_hash, kept.seed, is_new=False
                )
                candidates[place].append(made)
    return answers, candidates, defects


def _score(
    this: Round, seeds: dict[int, Seed], candidates: dict[int, list[_Candidate]]
) -> dict[int, Triple | str]:
    """The best candidate of each seed as a triple, or why none can be scored."""
    flat = [(place, candidate) for place, found in candidates.items() for candidate in found]
    texts = [
        join_triple(
            seeds[place].concepts,
            seeds[place].level,
            seeds[place].domain,
            rationale=candidate.rationale,
            problem=seeds[place].problem or "",
        )
        for place, candidate in flat
    ]
    scored: dict[int, list[tuple[_Candidate, Score]]] = {}
    for (place, candidate), score in zip(flat, this.book.score_all(texts), strict=True):
        if score is not None:
            scored.setdefault(place, []).append((candidate, score))
    results: dict[int, Triple | str] = {}
    for place, found in candidates.items():
        if place in scored:
            results[place] = _keep_best(this, seeds[place], scored[place])
        elif found:
            results[place] = "too_long_to_score"
    return results


def _keep_best(this: Round, seed: Seed, scored: list[tuple[_Candidate, Score]]) -> Triple:
    kind = this.run.settings.refinement.normalisation
    values = [score.objective(kind) for _, score in scored]
    # Among equals the first drawn: no order of the store or of threads can decide.
    at = max(range(len(values)), key=lambda i: (values[i], -i))
    best = scored[at][0]
    fresh = [v for v, (made, _) in zip(values, scored, strict=True) if made.is_new]
    drawn = fresh or values
    triple = make_triple(seed, best.rationale, teacher=best.teacher)
    return triple.model_copy(
        update={
            "prompt_hash": best.prompt_hash,
            "seed": best.seed,
            "score": values[at],
            "mean_score": sum(drawn) / len(drawn),
            "num_candidates": len(drawn),
        }
    )
