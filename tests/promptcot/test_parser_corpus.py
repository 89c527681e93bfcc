"""The adversarial corpus: every defect is caught under its name, and no good reply is lost.

``data/parser_corpus.jsonl`` holds replies written for this test: about half are good ones that look
suspicious (formulas, stories that mention proofs and figures, foreign names, repeated rows).
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.records import Domain, Problem
from pipeline.settings.synthesis import Form, ProblemSettings
from promptcot.engines.protocol import Answer
from promptcot.parsing import Defect, parse_problem, parse_test
from promptcot.solutions import read_reply
from promptcot.statement_checks import CHECKS, StatementContext, check_problem

CORPUS = Path(__file__).with_name("data") / "parser_corpus.jsonl"
ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()
]
DOMAINS: tuple[Domain, ...] = ("math", "code")
FORMS: tuple[Form, ...] = ("free", "constrained")
SHOWN = "A farmer has 30 hens and 12 cows on his large farm. How many legs are there?"


def judge_problem(row: dict[str, Any]) -> str:
    parsed = parse_problem(row["text"], row["finish_reason"], row["form"])
    if isinstance(parsed, Defect):
        return parsed.reason
    context = StatementContext(domain=row["domain"], settings=ProblemSettings(), examples=[SHOWN])
    defect = check_problem(parsed, context)
    return defect.reason if defect else "ok"


def judge_solution(row: dict[str, Any]) -> str:
    problem = Problem(
        id="p", combination_id="c", concepts=["a", "b"], level="AIME", domain=row["domain"],
        rationale="r", statement="s", teacher="t", prompt_hash="h", seed=1,
    )  # fmt: skip
    answer = Answer(row["text"], row["finish_reason"], 1, 1)
    found = read_reply(problem, answer, row["form"], min_thinking_chars=10)
    return found.reason if isinstance(found, Defect) else "ok"


def judge_test(row: dict[str, Any]) -> str:
    found = parse_test(row["text"], row["finish_reason"], row["form"])
    return found.reason if isinstance(found, Defect) else "ok"


JUDGES = {"problem": judge_problem, "solution": judge_solution, "test": judge_test}


@pytest.mark.parametrize("kind", JUDGES)
def test_all_defects_are_named_and_no_good_reply_is_lost(kind: str) -> None:
    wrong = [
        (found, row["expect"], row["text"][-160:])
        for row in ROWS
        if row["kind"] == kind and (found := JUDGES[kind](row)) != row["expect"]
    ]
    assert wrong == []


def test_the_corpus_is_large_and_even() -> None:
    sizes = Counter((row["kind"], row["expect"] == "ok") for row in ROWS)
    assert sizes["problem", True] + sizes["problem", False] >= 150
    assert sizes["solution", True] + sizes["solution", False] >= 60
    assert min(sizes[kind, good] for kind in JUDGES for good in (True, False)) >= 9
    named = {row["expect"] for row in ROWS if row["kind"] == "problem"}
    assert len(named) >= 20


@pytest.mark.parametrize("piece", [" ", "\n", "(a) ", "*", "$", "\\[", "a|", "the ", "?\n", "# "])
def test_no_text_keeps_the_checks_busy(piece: str) -> None:
    """Patterns that try again at every place took seconds on a reply of blanks."""
    text = f"Find x {piece * (20_000 // len(piece))} y."
    settings = ProblemSettings(max_statement_chars=100_000)
    start = time.process_time()
    for domain in DOMAINS:
        context = StatementContext(domain=domain, settings=settings, examples=[SHOWN])
        for _, check in CHECKS:
            check(text, context)
    for form in FORMS:
        parse_problem(text, "stop", form)
    assert time.process_time() - start < 2
