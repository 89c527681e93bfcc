"""Defects of generated rows, each with the reason by which a row must fall."""

from __future__ import annotations

from corpus_texts import Random

_BREAKS: dict[str, tuple[str, ...]] = {
    "open_code_reasoning_split_0": (
        "fence_in_thinking",
        "code_does_not_parse",
        "cut_off_answer",
        "no_code",
    ),
    "open_code_reasoning_split_1": ("question_not_joined",),
    "open_thoughts2": ("no_question",),
}
_ANYWHERE = (
    "think_not_closed",
    "repeated_think_tags",
    "no_thinking",
    "empty_answer",
    "degenerate_repetition",
    "no_response",
    "foreign_language",
)


def break_response(response: str, source: str, rng: Random) -> tuple[str, str]:
    """A response with one of the defects that its source can have, and the expected reason."""
    kinds = (*_BREAKS[source], *_ANYWHERE)
    kind = kinds[int(rng.integers(0, len(kinds)))]
    return _break(response, kind), kind


def _break(response: str, kind: str) -> str:
    thinking, _, answer = response.partition("\n</think>\n\n")
    if kind == "think_not_closed":
        return thinking
    if kind == "repeated_think_tags":
        return f"{response}\n<think>\n</think>"
    if kind == "no_thinking":
        return answer
    if kind == "empty_answer":
        return f"{thinking}\n</think>\n"
    if kind == "degenerate_repetition":
        return f"{thinking}{' and so we are back at the start again' * 100}\n</think>\n\n{answer}"
    if kind == "no_response":
        return ""
    if kind == "foreign_language":
        return f"<think>\n{'Итак, найдём все корни этого уравнения. ' * 80}\n</think>\n\n{answer}"
    if kind == "fence_in_thinking":
        return f"{thinking}\n```python\nx = 1\n```\n</think>\n\n{answer}"
    if kind == "code_does_not_parse":
        return response.replace("def main():", "def main(:")
    if kind == "cut_off_answer":
        return response.removesuffix("```")
    if kind == "no_code":
        return response.replace("```python", "```")
    return response
