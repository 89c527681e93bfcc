"""The one text form of a triple: what a generator is trained on, asked with, and scored by.

A generator's prompt is a prefix of the text it was trained on, byte for byte, because training
sets, requests and scoring all call this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.records import Domain
from promptcot.prompting import numbered

DOMAIN_NAMES: dict[Domain, str] = {"math": "mathematics", "code": "programming", "other": "other"}

BEGIN_RATIONALE, END_RATIONALE = "<!-- BEGIN RATIONALE -->", "<!-- END RATIONALE -->"
BEGIN_PROBLEM, END_PROBLEM = "<!-- BEGIN PROBLEM -->", "<!-- END PROBLEM -->"


def triple_prompt(concepts: Sequence[str], level: str, domain: Domain) -> str:
    """What a generator is asked: concepts and level, open for the rationale."""
    return (
        "Given foundational concepts and a difficulty level, find what connects the concepts and "
        f"write a {DOMAIN_NAMES[domain]} problem of that level: first the rationale that leads "
        "from the concepts to the problem, then the problem.\n\n"
        f"Foundational Concepts:\n{numbered(concepts)}\n\n"
        # One line break: tokenizers cut two of them differently when the completion follows, and
        # the prompt's tokens must be a prefix of the training text's.
        f"Difficulty Level: {level}\n"
    )


def rationale_part(rationale: str) -> str:
    """The completion's text up to the problem: ``z``."""
    return f"{BEGIN_RATIONALE}\n{rationale}\n{END_RATIONALE}\n"


def problem_part(problem: str) -> str:
    """The rest of the completion: ``x``."""
    return f"{BEGIN_PROBLEM}\n{problem}\n{END_PROBLEM}"


def triple_completion(rationale: str, problem: str) -> str:
    """What a generator answers."""
    return rationale_part(rationale) + problem_part(problem)


def holds_marker(text: str) -> bool:
    """Whether a text would break the form: it holds one of the form's own marks."""
    folded = text.upper()
    return any(
        f"{edge} {name} -->" in folded
        for edge in ("BEGIN", "END")
        for name in ("RATIONALE", "PROBLEM")
    )


@dataclass(frozen=True, slots=True)
class TripleText:
    """A triple as one text, with the places where its parts begin."""

    text: str
    rationale_at: int
    problem_at: int


def join_triple(
    concepts: Sequence[str], level: str, domain: Domain, *, rationale: str, problem: str
) -> TripleText:
    """Prompt and completion as one text for scoring."""
    prompt, first = triple_prompt(concepts, level, domain), rationale_part(rationale)
    return TripleText(
        text=prompt + first + problem_part(problem),
        rationale_at=len(prompt),
        problem_at=len(prompt) + len(first),
    )
