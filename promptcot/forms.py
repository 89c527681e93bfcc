r"""Regular expressions that an engine enforces while it generates, for teachers of any size.

Length is bounded by words and sentences, not characters: with the embedded engine a bound such as
``[^\n]{40,300}`` takes minutes to compile and slows every token. Words have a price too (measured
on 64 maths prompts): sentences of up to 28 words cost 10.5 CPU seconds of compilation a run and end
within 160 tokens 42 times; up to 18 words, 7.7 s and 43 times; without a bound 2 s, but only 25
times, because a small model does not find an end. Words hold no commas, or it glues them to escape.
"""

from __future__ import annotations

from pipeline.records import Domain
from promptcot.engines.protocol import Constraint

_RATING = "(Perfect|Acceptable|Bad)"
_WORD = r"([A-Za-z][a-z']*|[0-9]+|[-+*/=^()<>0-9a-z]+)"


def _words(low: int, high: int) -> str:
    """That many words and one more, the last without a comma behind it."""
    return rf"( {_WORD}[,;]?){{{low},{high}}} {_WORD}"


_SENTENCE = rf"[A-Z][a-z']*{_words(3, 18)}\."


def _regex(value: str) -> Constraint:
    return Constraint(kind="regex", value=value)


def problem_form(domain: Domain) -> Constraint:
    """``Rationale: …`` and ``Problem: …``, one paragraph each.

    A maths problem ends with one question, a programming task with what is read and printed.
    """
    rationale = rf"Rationale: {_SENTENCE}( {_SENTENCE})?"
    facts = rf"{_SENTENCE}( {_SENTENCE})?"
    if domain == "math":
        ending = rf"(What is|How many|Find){_words(2, 18)}\?"
    else:
        ending = rf"Read{_words(0, 14)}\. Print{_words(1, 14)}\."
    return _regex(rf"{rationale}\nProblem: {facts} {ending}")


def rationale_form() -> Constraint:
    """``Rationale: …`` in two to four sentences."""
    return _regex(rf"Rationale: {_SENTENCE}( {_SENTENCE}){{1,3}}")


def judge_form(headings: tuple[str, ...]) -> Constraint:
    """One rating a line for each heading."""
    return _regex("\n".join(f"{heading}: {_RATING}" for heading in headings))


def solution_form(domain: Domain) -> Constraint:
    """``Reasoning: …``, then ``Answer: <number>`` (maths) or a fenced program (code)."""
    if domain == "math":
        # A small model fills whatever room it gets: with decimals allowed, it adds noise digits.
        number = r"-?[0-9]{1,4}(/[1-9][0-9]?)?"
        steps = rf"{_SENTENCE}( {_SENTENCE}){{1,4}}"
        return _regex(rf"Reasoning: {steps}\nAnswer: {number}")
    return _regex(rf"Reasoning: {_SENTENCE}( {_SENTENCE})?\n```python\n([^`\n]+\n){{1,14}}```")


def program_test_form() -> Constraint:
    r"""``Input: …`` and ``Output: …`` on one line each; ``\n`` stands for a new line."""
    items = "-?[A-Za-z0-9]+( -?[A-Za-z0-9]+){0,7}"
    return _regex(rf"Input: {items}(\\n{items})?\nOutput: {items}")


def concepts_form(count: int) -> Constraint:
    """So many lines ``Knowledge Point: …`` of one to four plain words of at most 16 letters.

    The last line ends with a line feed too: without it a small model goes on writing letters.
    """
    line = r"Knowledge Point: [A-Za-z][a-z]{1,15}( [a-z]{1,16}){0,3}\n"
    return _regex(rf"({line}){{{count}}}")
