"""``log p(z | c)`` and ``log p(x | z, c)`` of triples under a scoring model, computed once each.

A triple is scored as the one text that a generator is trained on: prompt, rationale, problem. A
token counts to the part in which it starts. The end-of-text token is left out, because a server
scores texts, not tokens.

Scores are kept in ``<out>/scores.sqlite`` under the model's identity and the text's hash. Texts are
scored in groups whose members depend on the call alone, and a group is stored whole, so that a run
that was killed ends with the same numbers as one that was not.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

from pipeline import console
from pipeline.errors import StoreError
from pipeline.hashing import content_hash
from pipeline.settings.recipe import Recipe
from pipeline.settings.refinement import ScorerSettings
from promptcot.engines.prompt_logprobs import TokenLogprob, sum_logprobs
from promptcot.triple_text import TripleText

Normalisation = Literal["sum", "per_token"]

FILE_NAME = "scores.sqlite"
_FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS scores (
    key TEXT PRIMARY KEY,
    rationale REAL NOT NULL,
    problem REAL NOT NULL,
    num_rationale_tokens INTEGER NOT NULL,
    num_problem_tokens INTEGER NOT NULL
) WITHOUT ROWID;
"""
_KEYS_PER_QUERY = 500


@dataclass(frozen=True, slots=True)
class Score:
    """A triple's two terms, in nats, and over how many tokens each is a sum."""

    rationale: float
    """``log p(z | c)``."""
    problem: float
    """``log p(x | z, c)``."""
    num_rationale_tokens: int
    num_problem_tokens: int

    def objective(self, normalisation: Normalisation) -> float:
        """``log p(x | z, c) + log p(z | c)``, or the same with each term's mean per token."""
        if normalisation == "sum":
            return self.rationale + self.problem
        return self.rationale / max(1, self.num_rationale_tokens) + self.problem / max(
            1, self.num_problem_tokens
        )


class Scorer(Protocol):
    """A model that gives the log-probabilities of a text's tokens."""

    @property
    def identity(self) -> str:
        """What its numbers depend on: engine, weights, precision. Known without loading."""

    def group(self, texts: Sequence[str]) -> list[list[int]]:
        """Positions of texts that are scored together; must depend on the texts alone."""

    def score(self, texts: Sequence[str]) -> list[list[TokenLogprob] | None]:
        """Tokens of one group; None for a text beyond the model's context."""

    def close(self) -> None:
        """Free the model."""


def open_scorer(settings: ScorerSettings, recipe: Recipe, *, folder: Path | None = None) -> Scorer:
    """The recipe's scoring model, or the fine-tuned one in ``folder``.

    Nothing is loaded before a score is missing.

    Raises:
        ConfigError: The model's name does not fit the engine.
        TeacherError: The weights are missing.
    """
    if settings.engine == "transformers" or folder is not None:
        from promptcot.scoring_transformers import TransformersScorer

        return TransformersScorer(settings, recipe, folder=folder)
    from promptcot.scoring_engines import HttpScorer, VllmScorer

    return HttpScorer(settings) if settings.engine == "http" else VllmScorer(settings, recipe)


class ScoreBook:
    """A scoring model with its stored scores; a context manager, callable from several threads."""

    def __init__(self, scorer: Scorer, out: Path) -> None:
        self.scorer = scorer
        self._path = out / FILE_NAME
        self._lock = threading.Lock()
        self._base: sqlite3.Connection | None = None

    def __enter__(self) -> ScoreBook:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._explain():
            self._base = sqlite3.connect(self._path, check_same_thread=False)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.executescript(_SCHEMA)
            self._base.execute(f"PRAGMA user_version={_FORMAT}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.scorer.close()
        if self._base is not None:
            self._base.close()
            self._base = None

    def score_all(self, triples: Sequence[TripleText]) -> list[Score | None]:
        """Scores in order; None where a text is longer than the model can read."""
        texts = [triple.text for triple in triples]
        keys = [self._key(triple) for triple in triples]
        with self._lock:
            known = self._read(keys)
            groups = [g for g in self.scorer.group(texts) if any(keys[i] not in known for i in g)]
            with console.progress("scores", total=len(texts), unit="texts") as advance:
                advance(len(texts) - sum(map(len, groups)))
                for group in groups:
                    self._score_group(group, triples, keys)
                    advance(len(group))
            known = self._read(keys)
        return [known.get(key) for key in keys]

    def _score_group(
        self, group: Sequence[int], triples: Sequence[TripleText], keys: Sequence[str]
    ) -> None:
        found = self.scorer.score([triples[place].text for place in group])
        rows = []
        for place, tokens in zip(group, found, strict=True):
            if tokens is None:
                continue
            triple = triples[place]
            rationale, num_rationale = sum_logprobs(tokens, triple.rationale_at, triple.problem_at)
            problem, num_problem = sum_logprobs(tokens, triple.problem_at)
            row = (round(rationale, 6), round(problem, 6), num_rationale, num_problem)
            rows.append((keys[place], *row))
        base = self._opened()
        with self._explain(), base:
            # A text that was scored before, in other company, keeps its number.
            base.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?, ?, ?, ?)", rows)

    def _key(self, triple: TripleText) -> str:
        content = [self.scorer.identity, triple.text, triple.rationale_at, triple.problem_at]
        return content_hash(content, length=32)

    def _read(self, keys: Sequence[str]) -> dict[str, Score]:
        found: dict[str, Score] = {}
        base = self._opened()
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            piece = list(dict.fromkeys(keys[start : start + _KEYS_PER_QUERY]))
            places = ",".join("?" * len(piece))
            with self._explain():
                rows = base.execute(f"SELECT * FROM scores WHERE key IN ({places})", piece)
                found |= {key: Score(*values) for key, *values in rows}
        return found

    def _opened(self) -> sqlite3.Connection:
        if self._base is None:
            raise RuntimeError("a score book is used inside its with block")
        return self._base

    @contextmanager
    def _explain(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise StoreError(
                f"stored scores {self._path}: {exc}",
                hint="free disk space if it is full; the file may be deleted, scores are then "
                "computed again",
            ) from exc
