"""Benchmark items that share hardly a word with a text: nearest by embedding, then asked about.

The rules of :mod:`pipeline.contamination` read words, numbers and formulas. Who fears more asks a
model about each text's nearest items: a call a pair, so that it is off by default. In a build it is
``curriculum.decontamination.semantic`` (:mod:`curriculum.reworded`), for any file ``python -m
curriculum decontaminate FILE --judge TEACHER``; both use that setting's encoder. Answers are stored
in the run folder, and nothing is asked twice.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.contamination import ItemText
from pipeline.errors import ConfigError
from pipeline.hashing import derive_seed
from pipeline.records import Message
from pipeline.settings.recipe import Recipe
from pipeline.settings.teacher import TeacherSettings
from promptcot.encoders import embed_concepts
from promptcot.engines.protocol import Answer, Request
from promptcot.engines.teacher import Teacher, open_teacher
from promptcot.near_concepts import Vectors
from promptcot.portable import SCALE

PROMPT = """\
Below are two problems. Are they the same problem, so that whoever has seen a solution of one knows
the answer of the other? Other names, another story or another order do not matter; other numbers or
another question do.

Problem 1:
{item}

Problem 2:
{text}

Think briefly, then end with one line, either "Same problem: yes" or "Same problem: no"."""
_VERDICT = re.compile(r"^\W*same problem:?\W*(yes|no)\W*$", re.IGNORECASE | re.MULTILINE)
_BLOCK = 1024
_MAX_TOKENS = 1024
_MAX_CHARS = 6000
"""Of each text in a question."""

Verdict = Literal["yes", "no", "unclear"]


@dataclass(frozen=True, slots=True)
class SemanticMatch:
    """A text and an item that a judge was asked about."""

    text_id: str
    benchmark: str
    item_id: str
    cosine: float
    verdict: Verdict

    @property
    def is_contamination(self) -> bool:
        """Whether the text counts as the item; a reply that cannot be read does."""
        return self.verdict != "no"


@dataclass(frozen=True, slots=True)
class _Pair:
    text: int
    item: int
    cosine: float


@dataclass(frozen=True, slots=True)
class ItemJudge:
    """Who is asked, and about how many items."""

    recipe: Recipe
    """Its teachers and its encoder."""
    teacher: str
    """Name of the teacher that judges."""
    out: Path
    """The run folder, which keeps vectors and answers."""
    nearest: int = 3
    """Items that each text is compared with at most."""
    min_cosine: float = -1
    """Likeness below which an item is not asked about."""


class Asking:
    """A teacher that is asked about some texts after others, from any threads.

    What it says of a text depends on the texts it is called with only where the engine answers in
    groups; the same calls give the same answers.
    """

    def __init__(self, engine: Teacher, items: Sequence[ItemText], judge: ItemJudge) -> None:
        self._engine, self._items, self._judge = engine, items, judge
        self._columns = _embed([item.question for item in items], judge).astype(np.float64).T
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[tuple[str, str]]) -> list[SemanticMatch]:
        """What the teacher says of the nearest items of texts, given with their ids."""
        items = self._items
        # One model in memory, whatever the number of threads.
        with self._lock:
            pairs = list(_nearest_pairs([text for _, text in texts], self._columns, self._judge))
        requests = [_ask(items[pair.item], texts[pair.text][1]) for pair in pairs]
        answers = self._engine.answer_all(requests, "decontaminate") if requests else []
        return [
            SemanticMatch(
                text_id=texts[pair.text][0],
                benchmark=items[pair.item].benchmark,
                item_id=items[pair.item].item_id,
                cosine=round(pair.cosine, 3),
                verdict=read_verdict(answer),
            )
            for pair, answer in zip(pairs, answers, strict=True)
        ]

    def cancel(self) -> None:
        """End what waits for the teacher."""
        self._engine.cancel()


@contextmanager
def open_item_judge(items: Sequence[ItemText], judge: ItemJudge) -> Iterator[Asking]:
    """Open the teacher and embed the items, once for all texts.

    Raises:
        ConfigError: The recipe has no such teacher, or the encoder cannot be used.
        TeacherError: The teacher or the encoder failed.
    """
    settings = teacher_of(judge.recipe, judge.teacher)
    with open_teacher(settings, recipe=judge.recipe, out=judge.out, name=judge.teacher) as engine:
        yield Asking(engine, items, judge)


def teacher_of(recipe: Recipe, name: str) -> TeacherSettings:
    """The settings of a teacher.

    Raises:
        ConfigError: The recipe has none of that name.
    """
    if name not in recipe.settings.teachers:
        known = ", ".join(sorted(recipe.settings.teachers)) or "none"
        raise ConfigError(
            f"recipe {recipe.name} has no teacher {name!r}", hint=f"its teachers are: {known}"
        )
    return recipe.settings.teachers[name]


def judge_nearest_items(
    texts: Sequence[tuple[str, str]], items: Sequence[ItemText], judge: ItemJudge
) -> list[SemanticMatch]:
    """What a teacher says of each text's nearest items.

    Args:
        texts: Ids and texts.
        items: The benchmarks.
        judge: Who is asked.

    Raises:
        ConfigError: The recipe has no such teacher, or the encoder cannot be used.
        TeacherError: The teacher or the encoder failed.
    """
    with open_item_judge(items, judge) as ask:
        return ask(texts)


def read_verdict(answer: Answer) -> Verdict:
    """The last verdict line; ``unclear`` without one, or when lines disagree."""
    found = {match[1].lower() for match in _VERDICT.finditer(answer.text)}
    if answer.finish_reason != "stop" or len(found) != 1:
        return "unclear"
    return "yes" if found == {"yes"} else "no"


def _embed(texts: Sequence[str], judge: ItemJudge) -> Vectors:
    encoder = judge.recipe.settings.curriculum.decontamination.semantic.encoder
    if not texts:
        return np.zeros((0, 1), np.int16)
    return embed_concepts(encoder, texts, cache=judge.out / "embeddings")


def _nearest_pairs(
    texts: Sequence[str], columns: npt.NDArray[np.float64], judge: ItemJudge
) -> Iterator[_Pair]:
    """Each text with its nearest items, whose vectors are the columns."""
    if not texts or not columns.shape[1]:
        return
    vectors = _embed(texts, judge)
    for start in range(0, len(texts), _BLOCK):
        # Rounded integer vectors: sums of products are exact, hence the order is the same anywhere.
        cosines = vectors[start : start + _BLOCK].astype(np.float64) @ columns
        order = np.argsort(-cosines, axis=1, kind="stable")[:, : judge.nearest]
        for row, chosen in enumerate(order.tolist()):
            for item in chosen:
                if cosines[row, item] < judge.min_cosine * SCALE**2:
                    break
                yield _Pair(start + row, item, float(cosines[row, item]) / SCALE**2)


def _ask(item: ItemText, text: str) -> Request:
    content = PROMPT.format(item=item.question[:_MAX_CHARS], text=text[:_MAX_CHARS])
    return Request(
        messages=(Message(role="user", content=content),),
        temperature=0.0,
        top_p=1.0,
        max_tokens=_MAX_TOKENS,
        seed=derive_seed(0, "decontaminate", item.benchmark, item.item_id),
    )
