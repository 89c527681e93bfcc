"""Rows of a generated corpus: what each is, its texts in its source's schema, its label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from corpus_breaks import break_response
from corpus_texts import (
    CONTAMINATIONS,
    Random,
    contaminate,
    make_texts,
    plant_alike,
    recase,
    renumber,
)

from curriculum.candidates import make_row_id
from pipeline.records import VerifiedTrace, arrow_schema
from pipeline.student import assistant_turn

SAME_JACCARD = 0.8
"""Likeness from which two problems are one."""
LIKENESSES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
_JOINED_ROWS_PER_QUESTION = 2
_ROUND = 20
"""Rows in which every source has its share: 8, 1, 9 and 2."""
_SOURCES = (
    ["open_code_reasoning_split_0"] * 8
    + ["open_code_reasoning_split_1"]
    + ["open_thoughts2"] * 9
    + ["traces"] * 2
)
_SPLIT_0, _SPLIT_1, _TALK, _OWN = dict.fromkeys(_SOURCES)
_LICENCES = ("cc-by-4.0", "apache-2.0", "mit")
_NAMED_SOURCES = ("evolcodegolf", "automath", "tiger_math", "dolphin", "nvidia_math")

# Shares of 1,000 rows.
_SHARES = (
    (50, "exact"),
    (20, "recased"),
    *((8, f"alike-{target}") for target in LIKENESSES),
    (7, "renumbered"),
    *((1, kind) for kind in CONTAMINATIONS),
    (10, "shares_words"),
    (40, "broken"),
)

_TEXT = pa.string()
_OCR = ("id", "input", "output", "source", "license", "dataset", "split", "difficulty", "solution")
SCHEMAS = {
    _SPLIT_0: pa.schema([(name, _TEXT) for name in _OCR]),
    _SPLIT_1: pa.schema([(name, _TEXT) for name in (*_OCR, "index")]),
    _TALK: pa.schema(
        [
            ("conversations", pa.list_(pa.struct([("from", _TEXT), ("value", _TEXT)]))),
            ("question", _TEXT),
            ("source", _TEXT),
            ("id", pa.int64()),
        ]
    ),
    _OWN: arrow_schema(VerifiedTrace),
}
LABEL_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("row_id", pa.string()),
        ("kind", pa.string()),
        ("of_row", pa.int64()),
        ("jaccard", pa.float64()),
        ("item", pa.string()),
        ("expected", pa.string()),
    ]
)
"""``of_row`` is the row that is repeated, ``jaccard`` their true likeness (null where numbers
differ), ``expected`` the reason by which a broken row falls."""


@dataclass(frozen=True, slots=True)
class Item:
    """A benchmark item to leak."""

    benchmark: str
    id: str
    text: str


@dataclass(slots=True)
class Plan:
    """What a row is."""

    kind: str
    question: str = ""
    of_row: int | None = None
    jaccard: float | None = None
    item: str | None = None
    expected: str | None = None
    is_math: bool = False

    def final_answer(self, row: int) -> str:
        """That of the problem: one problem in other words has one answer."""
        is_same = self.of_row is not None and (self.jaccard or 0) >= SAME_JACCARD
        return str((self.of_row if is_same and self.of_row is not None else row) % 9973)


def count_questions(num_rows: int) -> int:
    """Problems in the file that split_1 points to."""
    return max(num_rows // _ROUND // _JOINED_ROWS_PER_QUESTION, 1)


class Maker:
    """Makes the rows of one corpus, each by its number."""

    def __init__(self, seed: int, num_rows: int, items: tuple[Item, ...]) -> None:
        self.texts = make_texts(seed)
        self._num_questions = count_questions(num_rows)
        self._items = items
        self._long_items = [item for item in items if len(item.text.split()) >= 20]

    def make(self, row: int) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """The source of a row, its values there, and its label."""
        name = _SOURCES[row % _ROUND]
        plan = self._plan(row, name)
        rng = self.texts.random("trace", row)
        size = int(2000 * 20 ** rng.random())
        thinking, answer = self.texts.trace(rng, size), self._answer(row, name, plan, rng)
        if name == _OWN:
            values, row_id = self._own_row(row, plan, thinking, answer)
        else:
            response = f"<think>\n{thinking}\n</think>\n\n{answer}"
            if plan.kind == "broken":
                response, plan.expected = break_response(response, name, rng)
            values, row_id = self._foreign_row(row, name, plan, response)
        label = {field: getattr(plan, field, None) for field in LABEL_SCHEMA.names}
        return name, values, label | {"row": row, "row_id": row_id}

    def joined_question(self, number: int) -> str:
        """A problem of the file that split_1 points to."""
        return " ".join(self.texts.problem("joined", number))

    def _kind(self, row: int) -> str:
        if row < _ROUND:
            return "new"
        draw = self.texts.draw("kind", row, 1000)
        for share, kind in _SHARES:
            draw -= share
            if draw < 0:
                return kind
        return "new"

    def _plan(self, row: int, name: str) -> Plan:
        kind = self._kind(row)
        is_math = name in (_TALK, _OWN) and row % 2 == 0
        if name == _SPLIT_1:
            kind = kind if kind == "broken" else "joined"
        if kind == "broken" and name == _OWN:
            kind = "new"
        plan = Plan(kind, is_math=is_math)
        number = row // _ROUND
        if kind == "joined" and number >= self._num_questions:
            plan.of_row = number % self._num_questions * _ROUND + _SOURCES.index(_SPLIT_1)
            plan.jaccard = 1.0
        if kind in ("new", "broken"):
            plan.question = " ".join(self.texts.problem("problem", row))
        elif kind != "joined":
            self._plant(row, plan, self.texts.random("plan", row))
        return plan

    def _plant(self, row: int, plan: Plan, rng: Random) -> None:
        """A row's problem that has to do with an item or with another row."""
        kind = plan.kind
        if kind in CONTAMINATIONS:
            items = self._long_items if kind in ("edited", "embedded") else self._items
            item = items[int(rng.integers(0, len(items)))]
            plan.item = f"{item.benchmark}/{item.id}"
            plan.question = contaminate(item.text, kind, self.texts, rng)
        elif kind == "shares_words":
            words = self.texts.problem("problem", row)
            item = self._long_items[int(rng.integers(0, len(self._long_items)))]
            plan.item = f"{item.benchmark}/{item.id}"
            run = item.text.split()
            start = int(rng.integers(0, len(run) - 8))
            words[20:20] = run[start : start + 8]
            plan.question = " ".join(words)
        else:
            self._repeat(row, plan, rng)

    def _repeat(self, row: int, plan: Plan, rng: Random) -> None:
        """Take another row's problem."""
        other = int(rng.integers(0, row))
        while _SOURCES[other % _ROUND] == _SPLIT_1 or self._kind(other) != "new":
            other -= 1
        words = self.texts.problem("problem", other)
        plan.of_row, plan.jaccard = other, 1.0
        if plan.kind == "exact":
            plan.question = " ".join(words)
        elif plan.kind == "recased":
            plan.question = recase(words, rng)
        elif plan.kind == "renumbered":
            plan.question, plan.jaccard = " ".join(renumber(words)), None
        else:
            target = float(plan.kind.removeprefix("alike-"))
            plan.question, plan.jaccard = plant_alike(words, target, self.texts, row)

    def _answer(self, row: int, name: str, plan: Plan, rng: Random) -> str:
        (prose,) = self.texts.runs(rng, 1, 60)
        if plan.is_math:
            return f"{prose}.\n\nThe answer is $\\boxed{{{plan.final_answer(row)}}}$."
        return f"{prose}.\n\n```python\n{self.texts.program(rng)}\n```"

    def _foreign_row(
        self, row: int, name: str, plan: Plan, response: str
    ) -> tuple[dict[str, Any], str]:
        if name == _TALK:
            question = plan.question if plan.expected != "no_question" else ""
            lead = "Return your final response within \\boxed{}. " if plan.is_math else ""
            user = f"{lead}{question}\n" if question else ""
            turns = [{"from": "user", "value": user}, {"from": "assistant", "value": response}]
            source = _NAMED_SOURCES[1 if plan.is_math else 0] if row % 6 == 0 else None
            values: dict[str, Any] = {"conversations": turns, "question": question}
            values |= {"source": source, "id": row}
            return values, make_row_id("default", question, user, response)
        number = row // _ROUND % self._num_questions
        key = f"{row if name == _SPLIT_0 else number:032x}"
        values = {
            "id": key,
            "input": plan.question if name == _SPLIT_0 else "-",
            "output": response,
            "source": "codeforces" if name == _SPLIT_0 else "codechef",
            "license": _LICENCES[row % 3],
            "dataset": "code_contests" if name == _SPLIT_0 else "taco",
            "split": "train",
            "difficulty": ("EASY", "MEDIUM", "HARD", "7", "2100")[row % 5],
            "solution": response.rpartition("```python\n")[2].removesuffix("\n```"),
        }
        if name == _SPLIT_0:
            return values, make_row_id("split_0", key, plan.question, None, response)
        if plan.expected == "question_not_joined":
            number = self._num_questions + row
        index = str(number)
        return values | {"index": index}, make_row_id("split_1", key, "-", index, response)

    def _own_row(
        self, row: int, plan: Plan, thinking: str, answer: str
    ) -> tuple[dict[str, Any], str]:
        key, domain = f"{row:032x}", "math" if plan.is_math else "code"
        asked = {"teacher": "generated", "prompt_hash": "0" * 16, "seed": row}
        problem = {
            "id": key, "combination_id": key, "concepts": ["words", "numbers"], "level": "AIME",
            "domain": domain, "rationale": "A rationale.", "statement": plan.question, **asked,
        }  # fmt: skip
        solution = {
            "id": key, "problem": problem, "judgements": [], "thinking": thinking, "answer": answer,
            "finish_reason": "stop", "temperature": 0.6, "top_p": 0.95, "num_prompt_tokens": 100,
            "num_completion_tokens": 1000, **asked,
        }  # fmt: skip
        values = {"solution": solution, "final_answer": plan.final_answer(row), "agreement": 0.75}
        values |= {"num_samples": 4, "method": "majority" if plan.is_math else "tests", "tests": []}
        response = assistant_turn(thinking, answer)
        return values, make_row_id("synthesized", plan.question, response)
