"""What all teachers of one run folder share: the stored answers and the budget."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from pipeline.settings.recipe import Recipe
from pipeline.settings.synthesis import BudgetSettings
from promptcot.engines.answers import AnswerStore
from promptcot.engines.budget import Budget

FOLDER = "answers"
"""Where a run folder keeps its stored answers."""


class Account:
    """The open books of a run folder; use as a context manager.

    Args:
        recipe: Prices of its teachers, and its budget.
        out: Folder that the answers' folder lies in.
        is_limited: Whether the recipe's budget holds.

    Raises:
        StoreError: The stored answers cannot be used.
    """

    def __init__(self, recipe: Recipe, out: Path, *, is_limited: bool = True) -> None:
        self._folder = out / FOLDER
        self._limits = recipe.settings.synthesis.budget if is_limited else BudgetSettings()
        self._teachers = recipe.settings.teachers
        self._store: AnswerStore | None = None
        self.budget = Budget(self._limits, self._teachers)

    @property
    def store(self) -> AnswerStore:
        """The stored answers."""
        if self._store is None:
            raise RuntimeError("an account, or the teacher that owns it, is used in a with block")
        return self._store

    def __enter__(self) -> Account:
        self._store = AnswerStore(self._folder)
        # The sum over millions of answers is only needed where something limits it.
        if self.budget.is_limited:
            self.budget = Budget(self._limits, self._teachers, self._store.spent())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
