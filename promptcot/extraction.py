"""Stage ``extracted``: from files of seed problems to seeds with their concepts as first written.

Input: all ``[[synthesis.seeds]]`` files, in their order. Benchmark items are refused first, then
problems that were seen before. A row that brings its concepts keeps them; for the others a teacher
is asked, first for JSON, then for lines. Output: :class:`pipeline.records.Seed` rows whose names
:mod:`promptcot.concepts` makes canonical over the whole set.

A seed's level is its file's, else the source's, else the teacher's choice among the levels that
combinations use, else ``unknown``.

Eight bytes a row are kept to find repeated problems, for the first pass over the files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.benchmark_index import load_benchmark_index
from pipeline.benchmarks import benchmark_inputs
from pipeline.contamination import BenchmarkIndex, find_in_row
from pipeline.errors import ConfigError
from pipeline.hashing import derive_seed, file_sha256
from pipeline.manifest import MANIFEST, InputRef, Version
from pipeline.questions import question_key
from pipeline.records import Domain, Rejected, Seed
from pipeline.settings.base import determining
from pipeline.settings.synthesis import Form
from pipeline.stages import Batch, BatchResult, BatchStream, Stage, run_stage
from promptcot.canonical import clean_name, identity
from promptcot.cards import render_card
from promptcot.concept_replies import ReplyContext, ReplyForm, parse_concepts, read_examples
from promptcot.distinct import decontamination_settings, describe_match
from promptcot.engines.protocol import Answer, Constraint, Request
from promptcot.forms import concepts_form
from promptcot.parsing import Defect
from promptcot.prompting import one_line, render_prompt
from promptcot.run_context import SynthesisRun, count_tokens, refuse_reply
from promptcot.seeds import STAGE, SeedProblem, describe_columns, read_seed_source

UNKNOWN_LEVEL = "unknown"
ITEMS = "benchmark_item/"
"""In the manifest's ``counts``: refused seeds of each benchmark, under this and its name."""
_DOMAIN_NAMES: dict[Domain, str] = {"math": "mathematics", "code": "programming", "other": "other"}


def run_extraction(run: SynthesisRun) -> Version:
    """Seeds with at least two concepts each, from all seed files.

    Raises:
        SourceError: A seed file or a benchmark is missing or malformed.
        ConfigError: Two seed sources of one name.
        TeacherError: The teacher cannot be used; finished work is kept.
        TooManyRejected: Too few seeds are fit for use.
    """
    stage = _describe_stage(run)
    if (stage.root / stage.version / MANIFEST).is_file():
        # Counting the rows of large files takes long, and nothing is left to do.
        return run_stage(stage, (), lambda batch: BatchResult(num_in=0, rows=()))
    for source in run.settings.seeds:
        describe_columns(run.recipe, source)
    rows = _SeedRows(run)
    batches = BatchStream(
        rows=rows.numbered,
        num_rows=len(rows),
        size=run.settings.batch_size,
        key=lambda numbered: row_id_of(numbered[1]),
    )
    index = load_benchmark_index(run.recipe)
    return run_stage(stage, batches, partial(_extract_batch, run, rows, index), card=render_card)


def _describe_stage(run: SynthesisRun) -> Stage:
    names = [source.name for source in run.settings.seeds]
    if len(set(names)) != len(names):
        raise ConfigError(
            f"seed sources must have different names, got {', '.join(names)}",
            hint="rename one of the [[synthesis.seeds]] entries",
        )
    settings = determining(run.settings.concepts)
    # Merging comes later; changing it must not ask the teacher anew.
    del settings["merge_similarity"]
    combinations = run.settings.combinations
    return run.stage(
        STAGE,
        record=Seed,
        settings={
            "concepts": settings,
            "seeds": [determining(source) for source in run.settings.seeds],
            "levels": {
                "math": list(combinations.math_levels),
                "code": list(combinations.code_levels),
            },
            **decontamination_settings(run),
        },
        inputs=[
            *(_seed_input(run, name) for name in names),
            *benchmark_inputs(run.recipe),
        ],
        teachers=[run.settings.concepts.teacher],
    )


def _seed_input(run: SynthesisRun, name: str) -> InputRef:
    source = next(entry for entry in run.settings.seeds if entry.name == name)
    path = run.recipe.file(source.path)
    # A missing file is explained by whoever reads it.
    return InputRef(name=f"seeds:{name}", version=file_sha256(path) if path.is_file() else "")


def row_id_of(row: SeedProblem | Rejected) -> str:
    """What names a seed row in lists of refused ones."""
    return row.row_id if isinstance(row, Rejected) else f"{row.source}/{row.source_id}"


class _SeedRows:
    """The rows of all seed files, and which of them repeat an earlier one."""

    def __init__(self, run: SynthesisRun) -> None:
        self._run = run
        keys = np.fromiter(map(_key_of, self._rows()), dtype=np.uint64)
        _, firsts, families = np.unique(keys, return_index=True, return_inverse=True)
        first_of = firsts[families]
        # Key 0 is a row that cannot be used: it repeats nothing.
        repeats = np.flatnonzero((first_of != np.arange(len(keys))) & (keys != 0))
        self._num_rows = len(keys)
        wanted = set(first_of[repeats].tolist())
        names = {
            number: row_id_of(row)
            for number, row in (self.numbered() if wanted else ())
            if number in wanted
        }
        self.repeated = {int(row): names[int(first_of[row])] for row in repeats}
        """Number of a row → the id of the first with the same problem."""

    def __len__(self) -> int:
        return self._num_rows

    def _rows(self) -> Iterator[SeedProblem | Rejected]:
        for source in self._run.settings.seeds:
            yield from read_seed_source(self._run.recipe, source)

    def numbered(self) -> Iterator[tuple[int, SeedProblem | Rejected]]:
        """All rows with their numbers over all files."""
        return enumerate(self._rows())


def _key_of(row: SeedProblem | Rejected) -> int:
    if isinstance(row, Rejected):
        return 0
    text = row.problem or json.dumps(row.concepts)
    return int(question_key(text)[:16], 16) or 1


@dataclass(slots=True)
class _Outcome:
    """What became of the rows of one batch, by their position in it."""

    seeds: dict[int, Seed]
    rejected: dict[int, Rejected]
    counts: Counter[str]


def _extract_batch(
    run: SynthesisRun, rows: _SeedRows, index: BenchmarkIndex, batch: Batch
) -> BatchResult:
    outcome = _Outcome({}, {}, Counter())
    asked: list[tuple[int, SeedProblem]] = []
    for position, (number, row) in enumerate(batch.rows):
        refused = row if isinstance(row, Rejected) else _refuse(run, index, row, outcome.counts)
        if refused is None and number in rows.repeated:
            refused = _rejected(row, "duplicate_seed", f"as {rows.repeated[number]}")
        if refused is not None:
            outcome.rejected[position] = refused
        elif row.concepts is None:
            asked.append((position, row))
        elif len({identity(clean_name(name)) for name in row.concepts} - {""}) < 2:
            detail = f"concepts: {', '.join(row.concepts)}"
            outcome.rejected[position] = _rejected(row, "too_few_concepts", detail)
        else:
            outcome.seeds[position] = _make_seed(row, row.concepts, row.level)
    answers = _ask_all(run, asked, outcome) if asked else []
    seeds = [outcome.seeds[position] for position in sorted(outcome.seeds)]
    return BatchResult(
        num_in=len(batch.rows),
        rows=seeds,
        rejected=[outcome.rejected[position] for position in sorted(outcome.rejected)],
        tokens=count_tokens(answers),
        licences=Counter(seed.licence for seed in seeds if seed.licence),
        counts=outcome.counts,
    )


def _refuse(
    run: SynthesisRun, index: BenchmarkIndex, row: SeedProblem, counts: Counter[str]
) -> Rejected | None:
    """The row as a benchmark item, if it is one in its problem or its solution's beginning."""
    if row.problem is None or not len(index):
        return None
    limit = run.recipe.settings.curriculum.decontamination.thinking_chars
    solution = (row.solution or "")[:limit]
    hit, twin = find_in_row(index, user_text=row.problem, question=row.problem, thinking=solution)
    if hit is not None:
        counts[f"{ITEMS}{hit.benchmark}"] += 1
        return _rejected(row, "benchmark_item", describe_match(hit))
    counts.update({"template_twins": 1} if twin is not None else {})
    return None


def _rejected(row: SeedProblem, reason: str, detail: str) -> Rejected:
    return Rejected(row_id=row_id_of(row), stage=STAGE, reason=reason, detail=detail)


def _make_seed(
    row: SeedProblem,
    concepts: Sequence[str],
    level: str | None,
    *,
    teacher: str | None = None,
    prompt_hash: str | None = None,
) -> Seed:
    return Seed(
        concepts=list(concepts),
        domain=row.domain,
        level=level or UNKNOWN_LEVEL,
        problem=row.problem,
        rationale=row.rationale,
        answer=row.answer,
        source=row.source,
        source_id=row.source_id,
        licence=row.licence,
        teacher=teacher,
        prompt_hash=prompt_hash,
    )


def _ask_all(
    run: SynthesisRun, asked: list[tuple[int, SeedProblem]], outcome: _Outcome
) -> list[Answer]:
    """Ask for every row; ask again, up to the number of attempts, where a reply was refused."""
    settings = run.settings.concepts
    teacher = run.teacher(settings.teacher)
    form = run.resolve_form(settings.form, settings.teacher)
    answers: list[Answer] = []
    for attempt in range(settings.attempts):
        requests = [_request(run, row, form, attempt) for _, row in asked]
        replies = teacher.answer_all(requests, STAGE)
        answers += replies
        refused = []
        for (position, row), request, reply in zip(asked, requests, replies, strict=True):
            reply_form: ReplyForm = "json" if form == "free" and attempt == 0 else "lines"
            context = ReplyContext(
                row.problem or "",
                _offered_levels(run, row),
                settings,
                shown=read_examples(request.messages[0].content),
            )
            found = parse_concepts(reply.text, reply.finish_reason, reply_form, context)
            if isinstance(found, Defect):
                refused.append((position, row))
                outcome.rejected[position] = refuse_reply(row_id_of(row), STAGE, found, reply)
            else:
                outcome.rejected.pop(position, None)
                outcome.seeds[position] = _make_seed(
                    row,
                    found.concepts,
                    row.level or found.level,
                    teacher=teacher.capabilities.model,
                    prompt_hash=request.prompt_hash,
                )
        asked = refused
        if not asked:
            break
    return answers


def _offered_levels(run: SynthesisRun, row: SeedProblem) -> Sequence[str]:
    """Levels that the teacher may choose from, for a row that has none."""
    if row.level is not None or row.domain == "other":
        return ()
    combinations = run.settings.combinations
    return combinations.math_levels if row.domain == "math" else combinations.code_levels


def _request(run: SynthesisRun, row: SeedProblem, form: Form, attempt: int) -> Request:
    settings = run.settings.concepts
    levels = _offered_levels(run, row)
    constraint: Constraint | None = None
    problem = row.problem or ""
    count = str(settings.per_seed)
    if form == "constrained":
        constraint = concepts_form(settings.per_seed)
        messages = render_prompt("concepts_constrained", count=count, problem=one_line(problem))
    else:
        rule = f"\nThe level is one of: {', '.join(levels)}.\n" if levels else ""
        values = {"domain": _DOMAIN_NAMES[row.domain], "count": count, "problem": problem}
        if attempt == 0:
            # Nothing that could be a name: a small model fills a schema with what it is shown.
            places = ", ".join(['"…"'] * settings.per_seed)
            level_key = ', "level": "…"' if levels else ""
            messages = render_prompt(
                "concepts_json", places=places, level_key=level_key, level_rule=rule, **values
            )
            if "json_schema" in run.teacher(settings.teacher).capabilities.constraints:
                constraint = Constraint(kind="json_schema", value=_schema(run, levels))
        else:
            line = ' Then write one line "Level: …".' if levels else ""
            messages = render_prompt("concepts_lines", level_line=line, level_rule=rule, **values)
    return Request(
        messages=messages,
        temperature=settings.temperature,
        top_p=1.0,
        max_tokens=settings.max_tokens,
        seed=derive_seed(run.root_seed, STAGE, row_id_of(row), str(attempt)),
        constraint=constraint,
    )


def _schema(run: SynthesisRun, levels: Sequence[str]) -> str:
    settings = run.settings.concepts
    concepts = {
        "type": "array",
        "items": {"type": "string"},
        "minItems": settings.per_seed,
        "maxItems": settings.per_seed,
    }
    properties: dict[str, object] = {"concepts": concepts}
    if levels:
        properties["level"] = {"type": "string", "enum": list(levels)}
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return json.dumps(schema)
