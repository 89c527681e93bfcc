"""Sources of any schema, described by a mapping; the relatives of our sources are such mappings.

A user's mapping stands in the recipe; those here are for datasets that are often added to the two
of phase 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from curriculum.candidates import Candidate, Origin, make_row_id, refuse
from curriculum.domains import infer_domain, read_domain
from curriculum.sources.parts import Columns, RawRow
from curriculum.sources.places import parse_place
from curriculum.sources.templates import strip_chat_template, strip_instructions
from curriculum.sources.turns import Exchange, read_turns
from curriculum.texts import Text, after_thinking, to_text, to_utf8
from pipeline.records import Domain, Rejected
from pipeline.settings.sources import ColumnMapping, SourceKind, SourceSettings
from pipeline.student import THINK_CLOSE, THINK_OPEN, assistant_turn

PRESETS: dict[SourceKind, ColumnMapping] = {
    # Conversations with the tags <|begin_of_thought|>…; its long system prompt is dropped.
    "open_thoughts": ColumnMapping(turns="conversations"),
    "open_thoughts_metadata": ColumnMapping(
        question="problem",
        thinking="deepseek_reasoning",
        answer="deepseek_solution",
        domain="domain",
        dataset="source",
        gold="ground_truth_solution",
        tests="test_cases",
    ),
    "mixture_of_thoughts": ColumnMapping(turns="messages", dataset="source"),
    # One JSONL file; the prompt is a rendered chat template.
    "promptcot_release": ColumnMapping(question="prompt", response="completion"),
}
TEACHERS: dict[SourceKind, str] = {
    "open_thoughts": "DeepSeek-R1",
    "open_thoughts_metadata": "DeepSeek-R1",
    "mixture_of_thoughts": "DeepSeek-R1",
}
_TRUE = frozenset({"true", "1", "1.0", "yes", "correct", "right", "pass", "passed"})
_TEMPLATE_MARKS = ("<｜User｜>", "<|im_start|>")


def mapping_of(settings: SourceSettings) -> ColumnMapping:
    """The mapping of a source: its own, or its kind's."""
    return settings.mapping or PRESETS[settings.kind]


def columns_of(mapping: ColumnMapping) -> Columns:
    """The columns that a mapping reads, of whatever type."""
    return dict.fromkeys(_columns_in(mapping), "any")


def required_of(mapping: ColumnMapping) -> list[str]:
    """Columns without which no row can be understood."""
    spelled = [
        mapping.turns or mapping.user or mapping.question,
        mapping.response or mapping.thinking,
        mapping.answer,
    ]
    # Of alternatives, any may be absent.
    return [parse_place(text).columns[0] for text in spelled if text and "|" not in text]


def _columns_in(mapping: ColumnMapping) -> Iterator[str]:
    for name in ColumnMapping.model_fields:
        value = getattr(mapping, name)
        if name == "keep":
            for place in value:
                yield from parse_place(place).columns
        elif isinstance(value, str) and value:
            yield from parse_place(value).columns


def parse_row(raw: RawRow, source: SourceSettings) -> Candidate | Rejected:
    """Understand one row by the source's mapping."""
    mapping, row = mapping_of(source), raw.values
    exchange = read_exchange(row, mapping)
    user, response = exchange.user, to_utf8(exchange.response)
    row_id = make_row_id(source.kind, user, response)
    for place, wanted in mapping.keep.items():
        if (found := parse_place(place).text(row)) != str(wanted):
            return refuse(row_id, "parse", "not_kept", f"{place} is {found!r}, not {wanted!r}")
    if exchange.problem:
        return refuse(row_id, "parse", exchange.problem, exchange.detail)
    if user is not None and any(mark in user for mark in _TEMPLATE_MARKS):
        user = strip_chat_template(user)
        if user is None:
            return refuse(row_id, "parse", "unknown_chat_template", "neither DeepSeek nor ChatML")
    question = _text(row, mapping.question) if mapping.turns or mapping.user else user
    question = user if question is None else question
    question = None if question is None else strip_instructions(question)
    domain = choose_domain(source, _text(row, mapping.domain), question, response)
    return Candidate(
        row_id=row_id,
        source=source.name,
        source_revision=raw.revision,
        source_id=_text(row, mapping.id) or "",
        question=question,
        user_text=user,
        response=response,
        licence=_text(row, mapping.licence) or source.licence,
        domain=domain,
        difficulty=_text(row, mapping.difficulty) or None,
        difficulty_rank=read_rank(_text(row, mapping.difficulty), mapping.difficulty_range),
        provenance=Origin(
            teacher=_text(row, mapping.teacher) or source.teacher or TEACHERS.get(source.kind),
            source_dataset=_text(row, mapping.dataset),
            source_split=_text(row, mapping.split),
            source_file=raw.file,
            source_position=raw.position,
        ),
        is_verified=(_text(row, mapping.verified) or "").strip().lower() in _TRUE,
        code_rule=(source.code_rule or "lenient") if domain == "code" else "none",
        gold=_text(row, mapping.gold),
        tests=_read_tests(parse_place(mapping.tests).find(row)) if mapping.tests else None,
    )


def read_exchange(row: dict[str, Any], mapping: ColumnMapping) -> Exchange:
    """The user's and the assistant's turn, the latter in a known dialect of think tags."""
    if mapping.turns:
        exchange = read_turns(parse_place(mapping.turns).find(row))
        response = to_text(exchange.response)
    else:
        exchange = Exchange(_text(row, mapping.user or mapping.question), None)
        response = _text(row, mapping.response)
    if mapping.thinking:
        thinking, answer = _text(row, mapping.thinking), _text(row, mapping.answer)
        if thinking is not None and answer is not None:
            response = assistant_turn(thinking, answer)
    if response is not None and mapping.think_tags is not None:
        opening, closing = mapping.think_tags
        response = response.replace(opening, THINK_OPEN).replace(closing, THINK_CLOSE)
    for tag in mapping.answer_tags or ():
        response = None if response is None else response.replace(tag, "")
    return exchange._replace(response=response)


def choose_domain(
    source: SourceSettings, label: str | None, question: str | None, response: Text | None
) -> Domain:
    """The domain of a row: the recipe's word, else the source's, else what the texts show."""
    if source.domain is not None:
        return source.domain
    mapped = source.mapping.domains.get(label or "") if source.mapping else None
    known = mapped or read_domain(label)
    if known is not None:
        return known
    return infer_domain(question or "", after_thinking(response))


def read_rank(label: str | None, span: tuple[float, float] | None) -> float | None:
    """A number within the source's range on our scale from 0 to 100; ``None`` for anything else."""
    if span is None or label is None:
        return None
    try:
        place = 100 * (float(label) - span[0]) / (span[1] - span[0])
    except ValueError:
        return None
    return min(100.0, max(0.0, place))


def _text(row: dict[str, Any], place: str) -> str | None:
    return parse_place(place).text(row) if place else None


def _read_tests(value: Any) -> str | None:
    """Tests in one form: ``[{"input", "output"}]`` as JSON; ``None`` where there are none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return None
    if isinstance(value, dict):
        inputs, outputs = value.get("inputs"), value.get("outputs")
        if not (isinstance(inputs, list) and isinstance(outputs, list)):
            return None
        value = [{"input": i, "output": o} for i, o in zip(inputs, outputs, strict=False)]
    if not isinstance(value, list):
        return None
    tests = [
        {"input": test["input"], "output": test["output"]}
        for test in value
        if isinstance(test, dict)
        and isinstance(test.get("input"), str)
        and isinstance(test.get("output"), str)
    ]
    return json.dumps(tests) if tests else None
