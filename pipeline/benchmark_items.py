"""Benchmark items, and what their answers are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pipeline.records import Domain

AnswerKind = Literal["any", "integer", "expression", "numeric", "interval", "tuple", "equation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MathGold:
    """The right answer of a mathematics item."""

    text: str
    """As the file has it: LaTeX or a number. Of several answers, all of them joined by ", "."""
    parts: tuple[str, ...] = ()
    """The answers of an item that asks for several, in no order; empty: there is one answer."""
    kind: AnswerKind = "any"
    """OlympiadBench's ``answer_type``; ``integer`` for AIME, whose answers are 0 to 999."""
    unit: str = ""
    """Unit of the answer, as the file has it; the answer itself is without it."""
    tolerance: float | None = None
    """Absolute error that the item allows (OlympiadBench's ``error``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramTests:
    """The official tests of a programming item."""

    kind: Literal["stdin", "functional", "check", "reference"]
    """``stdin``: whole programs; ``functional``: a function by argument and result; ``check``:
    HumanEval's own ``check(candidate)``; ``reference``: HumanEval+'s inputs, whose results the
    canonical solution gives."""
    cases: Sequence[Mapping[str, str]] = ()
    """``input`` and ``output`` of each test. stdin: texts. functional: one JSON value per line of
    input, an argument each; a JSON value as output. May be read from the benchmark's file at each
    use (LiveCodeBench's are larger than memory): iterate once and keep no copy."""
    entry_point: str = ""
    """functional: method of class ``Solution``, or function; check and reference: function."""
    prompt: str = ""
    """check and reference: imports, signature and docstring that an answer completes or
    restates."""
    check: str = ""
    """check: source that defines ``check(candidate)``."""
    reference: str = ""
    """reference: source of the canonical solution, prompt included."""
    inputs: str = ""
    """reference: JSON list of argument lists."""
    contract: str = ""
    """reference: assertions on the arguments."""
    within_contract: bool = False
    """reference: inputs that break the contract do not count."""
    atol: float = 0.0
    """reference: absolute tolerance of floating-point results."""
    time_limit_s: float | None = None
    """As published, per test; none: the setting's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkItem:
    """One problem of one benchmark."""

    id: str
    """Unique within its benchmark."""
    benchmark: str
    domain: Domain
    question: str
    """The statement alone, without instructions or chat wrapping."""
    prompt: str = ""
    """The task as it is put to a model, where that is more than the question: with a starting
    line, starter code, or where to read input. The chat format adds its own instruction."""
    gold: MathGold | None = None
    """Maths: none where the benchmark is not scored."""
    tests: ProgramTests | None = None
    """Code: none where the benchmark is not scored."""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What results are broken down by, e.g. subject, level, year, contest_date, difficulty."""

    @property
    def task(self) -> str:
        """What the user's turn is made of."""
        return self.prompt or self.question
