"""The texts by which a benchmark item may be known.

A programming task is more than its statement: signature, samples, limits. Training rows carry the
statement in other clothes, so it is looked for by itself as well. Of a function to complete, the
statement is the docstring without its doctests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.records import Domain

_FUNCTION = re.compile(r"\s*(?:def|from|import|class|@)\b")
_DOCSTRING = re.compile(r"(\"\"\"|''')(.*?)(?:\1|\Z)", re.DOTALL)
_SAMPLES = re.compile(
    r"^[ \t]*(?:>>>.*|assert\b.*|(?:for )?examples?\b[^.\n]*:?|note:.*|constraints:?|"
    r"-*[ \t]*(?:sample )?(?:input|output)[ \t]*\d*[ \t]*-*:?|"
    r"[a-z_]\w*\(.*\) *(?:==|=>|➞|->|=|#).*)[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
"""The line that ends a statement."""
_TASK = re.compile(
    r"^\s*def \w+\(|^[ \t]*(?:sample )?(?:input|output|constraints)[ \t]*\d*:?[ \t]*$"
    r"|\bstandard input\b|\bstdin\b",
    re.IGNORECASE | re.MULTILINE,
)
_EXPLANATION = re.compile(
    r"\((?=[A-Z][^()]{40,}\.\))[^()]*\)|(?<=[.?!] )For (?:example|instance)\b[^?]*?\.(?=\s|$)"
)
_LEAST_PROBLEM_WORDS, _QUESTION_CHARS = 12, 20
_LEAST_WORDS = 5
"""A shorter statement says nothing."""


@dataclass(frozen=True, slots=True)
class ItemText:
    """A benchmark item as decontamination sees it."""

    benchmark: str
    item_id: str
    question: str
    domain: Domain | None = None
    """Unknown: told from the text."""

    @property
    def is_code(self) -> bool:
        """Whether this is a programming task."""
        if self.domain is None:
            return _TASK.search(self.question) is not None
        return self.domain == "code"

    def texts(self) -> list[str]:
        """The whole item, and a programming task's statement where it is less."""
        cut = cut_statement(self.question) if self.is_code else cut_explanations(self.question)
        return [self.question] if cut == self.question.strip() else [self.question, cut]


def cut_explanations(problem: str) -> str:
    """A problem without sentences in parentheses and examples, which explain what is known."""
    problem = problem.strip()
    # The question must stay, unless it stands before a last remark in parentheses.
    problem_end = "" if problem.endswith(")") else problem[-_QUESTION_CHARS:]
    cut = _EXPLANATION.sub(" ", problem).strip()
    is_enough = len(cut.split()) >= _LEAST_PROBLEM_WORDS and cut.endswith(problem_end)
    return cut if is_enough else problem


def cut_statement(task: str) -> str:
    """What a programming task asks for, without signature, samples and limits."""
    text = task
    if _FUNCTION.match(task):
        docstrings = _DOCSTRING.findall(task)
        text = docstrings[-1][1] if docstrings else task
    end = _SAMPLES.search(text)
    cut = text[: end.start()].strip() if end else text.strip()
    return cut if len(cut.split()) >= _LEAST_WORDS else text.strip()
