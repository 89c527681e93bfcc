"""Names of benchmark items by content: the same items have one, whatever file they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from pipeline.benchmark_items import BenchmarkItem, MathGold, ProgramTests
from pipeline.hashing import canonical_json
from pipeline.livecodebench import StoredCases


def hash_content(items: Iterable[BenchmarkItem]) -> str:
    """SHA-256 over questions, gold answers and tests, in no order.

    Ids, labels, prompts, time limits and ``within_contract`` do not count: publishers and settings
    choose them. Stored tests are unpacked, one item's at a time.

    Raises:
        SourceError: Stored tests cannot be read.
    """
    digests = sorted(_digest(_content(item)) for item in items)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def hash_ids(items: Iterable[BenchmarkItem]) -> str:
    """SHA-256 over the sorted ids, one a line."""
    return hashlib.sha256("\n".join(sorted(item.id for item in items)).encode()).hexdigest()


def hash_questions(items: Sequence[BenchmarkItem]) -> str:
    """SHA-256 over ids and questions in file order: what decontamination depends on."""
    return _digest([[item.id, item.question] for item in items])


def hash_scored(items: Sequence[BenchmarkItem]) -> str:
    """SHA-256 over all of the items in file order: what an evaluation depends on."""
    return _digest([_all_of(item) for item in items])


def _content(item: BenchmarkItem) -> list[Any]:
    gold = _stated(item.gold) if item.gold is not None else {}
    if item.tests is None:
        return [item.question, gold, {}, []]
    tests = replace(item.tests, time_limit_s=None, within_contract=False, cases=())
    return [item.question, gold, _stated(tests), [dict(case) for case in item.tests.cases]]


def _stated(values: MathGold | ProgramTests) -> dict[str, Any]:
    """The fields that say something: one that most items leave empty changes no other's hash."""
    return {name: value for name, value in asdict(values).items() if value}


def _all_of(item: BenchmarkItem) -> list[Any]:
    gold = asdict(item.gold) if item.gold is not None else None
    tests = _described_tests(item.tests) if item.tests is not None else None
    return [item.id, item.question, item.prompt, dict(item.labels), gold, tests]


def _described_tests(tests: ProgramTests) -> dict[str, Any]:
    if isinstance(tests.cases, StoredCases):
        cases: Any = tests.cases.digest
    else:
        cases = [dict(case) for case in tests.cases]
    return {**asdict(replace(tests, cases=())), "cases": cases}


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()
