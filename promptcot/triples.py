"""Stage ``triples``: the set that a problem generator is fine-tuned on.

Every seed problem gets a rationale: its own, or one that the teacher works out backwards. On
request, accepted problems of the judged stage join in (PromptCoT 1.0's optional loop). The rows
load as they are: ``datasets.load_dataset("parquet", …)``, then TRL's ``SFTTrainer`` with its
``prompt``/``completion`` strings and loss on the completion. Command: ``python -m promptcot
triples``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial

from pipeline.errors import SourceError
from pipeline.hashing import derive_seed
from pipeline.manifest import LATEST, Version, resolve_version
from pipeline.records import Domain, JudgedProblem, Rejected, Seed, Triple
from pipeline.settings.base import determining
from pipeline.stages import Batch, BatchResult, BatchStream, run_stage
from promptcot.bank import BankSource, open_bank
from promptcot.cards import render_card
from promptcot.engines.protocol import Answer
from promptcot.few_shot import ExampleIndex
from promptcot.parsing import Defect
from promptcot.rationales import (
    Sampling,
    ask_rationale,
    make_triple,
    read_rationale,
    refuse_seed,
    seed_id,
)
from promptcot.run_context import SynthesisRun, count_tokens, input_of
from promptcot.triple_text import triple_completion, triple_prompt

STAGE = "triples"
FROM_SEED = "seed"
"""``Triple.teacher`` of a rationale that came with its seed."""

Item = Seed | JudgedProblem
Indexes = Mapping[Domain, ExampleIndex]


def run_triples(run: SynthesisRun) -> Version:
    """Make a triple of every seed with a problem, and of accepted problems where wanted.

    Raises:
        SourceError: No bank, or no judged problems although they are to be included.
        TeacherError: The teacher cannot be used.
        TooManyRejected: Too few rationales were acceptable.
    """
    settings = run.settings.triples
    bank = open_bank(run)
    judged = _judged(run) if settings.include_accepted else None
    inputs = [bank.input] + ([input_of(judged, "judged")] if judged else [])
    problem_settings = determining(run.settings.problems) if settings.check_problems else {}
    stage = run.stage(
        STAGE,
        record=Triple,
        settings={
            "triples": determining(settings),
            "lengths": [v for k, v in sorted(problem_settings.items()) if k.endswith("_chars")],
            "domains": list(run.settings.domains),
        },
        inputs=inputs,
        teachers=[settings.teacher],
    )
    batches = BatchStream(
        rows=partial(_rows, run, bank, judged),
        num_rows=sum(len(bank.seeds(d)) for d in run.settings.domains)
        + (judged.manifest.rows_out if judged else 0),
        size=run.settings.batch_size,
        key=_key,
    )
    indexes = make_indexes(run, bank)
    return run_stage(stage, batches, partial(_make_batch, run, indexes), card=render_card)


def make_indexes(run: SynthesisRun, bank: BankSource) -> dict[Domain, ExampleIndex]:
    """Seeds that show how a rationale is written: those that have one."""
    return {
        domain: ExampleIndex([s for s in bank.seeds(domain) if s.problem and s.rationale])
        for domain in run.settings.domains
    }


def triples_from_judged(run: SynthesisRun) -> Iterator[Triple]:
    """Accepted problems as triples: rejection-sampling fine-tuning data of the generator.

    Raises:
        SourceError: The stage ``judged`` has not been run.
    """
    for row in _judged(run).rows():
        yield _triple_of(JudgedProblem.model_validate(row))


def _judged(run: SynthesisRun) -> Version:
    root = run.folder("judged")
    if not (root / LATEST).is_file():
        raise SourceError(
            f"triples are to include accepted problems, and there are no judged ones in {root}",
            hint="run `python -m promptcot judge` first, or set "
            "synthesis.triples.include_accepted=false",
        )
    return resolve_version(root)


def _rows(run: SynthesisRun, bank: BankSource, judged: Version | None) -> Iterator[Item]:
    for domain in run.settings.domains:
        yield from bank.seeds(domain)
    if judged is not None:
        yield from (JudgedProblem.model_validate(row) for row in judged.rows())


def _key(item: Item) -> str:
    return item.problem.id if isinstance(item, JudgedProblem) else seed_id(item)


def _make_batch(run: SynthesisRun, indexes: Indexes, batch: Batch) -> BatchResult:
    settings = run.settings.triples
    limits = run.settings.problems if settings.check_problems else None
    made: dict[int, Triple] = {}
    refused: dict[int, Rejected] = {}
    wanted: dict[int, Seed] = {}
    for place, item in enumerate(batch.rows):
        if isinstance(item, JudgedProblem):
            made[place] = _triple_of(item)
        elif (rejected := refuse_seed(item, STAGE, settings=limits)) is not None:
            refused[place] = rejected
        elif item.rationale:
            made[place] = make_triple(item, item.rationale, teacher=FROM_SEED)
        else:
            wanted[place] = item
    answers = _ask_all(run, indexes, wanted, made=made, refused=refused) if wanted else []
    return BatchResult(
        num_in=len(batch.rows),
        rows=[made[place] for place in sorted(made)],
        rejected=[refused[place] for place in sorted(refused)],
        tokens=count_tokens(answers),
        licences=Counter(t.licence for t in made.values() if t.licence),
    )


def _ask_all(
    run: SynthesisRun,
    indexes: Indexes,
    wanted: dict[int, Seed],
    *,
    made: dict[int, Triple],
    refused: dict[int, Rejected],
) -> list[Answer]:
    """Ask for the missing rationales; ask again where one was refused, as often as set."""
    settings = run.settings.triples
    teacher = run.teacher(settings.teacher)
    sampling = Sampling(
        form=run.resolve_form(settings.form, settings.teacher),
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=settings.max_tokens,
    )
    answers: list[Answer] = []
    for attempt in range(settings.attempts):
        pending = {place: seed for place, seed in wanted.items() if place not in made}
        if not pending:
            break
        requests = []
        for seed in pending.values():
            draw_seed = derive_seed(run.root_seed, STAGE, seed_id(seed), str(attempt))
            examples = indexes[seed.domain].nearest(
                seed.concepts, settings.num_examples, seed=draw_seed, exclude=seed.problem or ""
            )
            requests.append(ask_rationale(seed, examples, sampling, draw_seed=draw_seed))
        replies = teacher.answer_all(requests, STAGE)
        answers += replies
        for (place, seed), request, reply in zip(pending.items(), requests, replies, strict=True):
            found = read_rationale(seed, reply, sampling.form)
            if isinstance(found, Defect):
                refused[place] = Rejected(
                    row_id=seed_id(seed), stage=STAGE, reason=found.reason, detail=found.detail
                )
            else:
                refused.pop(place, None)
                model = teacher.capabilities.model
                made[place] = make_triple(seed, found, teacher=model, request=request)
    return answers


def _triple_of(judged: JudgedProblem) -> Triple:
    problem = judged.problem
    return Triple(
        prompt=triple_prompt(problem.concepts, problem.level, problem.domain),
        completion=triple_completion(problem.rationale, problem.statement),
        concepts=problem.concepts,
        level=problem.level,
        domain=problem.domain,
        rationale=problem.rationale,
        problem=problem.statement,
        source="synthesis",
        source_id=problem.id,
        teacher=problem.teacher,
        prompt_hash=problem.prompt_hash,
        seed=problem.seed,
    )
