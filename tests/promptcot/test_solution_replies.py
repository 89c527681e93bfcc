"""Solution and test replies, and the vote over answers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.records import Domain, FinishReason, Problem
from pipeline.settings.synthesis import Form, SolutionSettings
from promptcot import solutions
from promptcot.engines.protocol import Answer
from promptcot.parsing import Defect, ProgramTest, Reply, parse_test
from promptcot.recommended import choose_sampling
from promptcot.solutions import read_reply
from promptcot.statement_language import find_loop
from promptcot.verification.math_answers import MathGrader
from promptcot.voting import count_votes

BOXED = r"So the larger one is \boxed{12}."
THINK = "The two numbers are the roots of x^2 - 17x + 60, which are 5 and 12."


def problem(domain: Domain) -> Problem:
    return Problem(
        id="p", combination_id="c", concepts=["a", "b"], level="AMC12", domain=domain,
        rationale="r", statement="s", teacher="t", prompt_hash="h", seed=1,
    )  # fmt: skip


def read(
    text: str, domain: Domain = "math", *, form: Form = "free", finish: FinishReason = "stop"
) -> Reply | Defect:
    return read_reply(problem(domain), Answer(text, finish, 1, 1), form, min_thinking_chars=10)


@pytest.mark.parametrize(
    "text", [f"<think>{THINK}</think>{BOXED}", f"{THINK}\n</think>\n\n{BOXED}"]
)
def test_thinking_and_answer_are_taken_apart(text: str) -> None:
    assert read(text) == Reply(thinking=THINK, answer=BOXED)


def test_headings_become_thinking_and_boxed_answer() -> None:
    found = read(f"Reasoning: {THINK}\nAnswer: 12", form="constrained")
    assert isinstance(found, Reply)
    assert found.thinking == THINK
    assert "\\boxed{12}" in found.answer
    program = "Reasoning: Read both numbers and add them.\n```python\nprint(3)\n```"
    found = read(program, "code", form="constrained")
    assert found == Reply("Read both numbers and add them.", "```python\nprint(3)\n```")


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        (BOXED, "stop", "no_thinking"),
        ("", "stop", "no_thinking"),
        (f"<think></think>{BOXED}", "stop", "no_thinking"),
        (f"Hello <think>{THINK}</think>{BOXED}", "stop", "no_thinking"),
        (f"<think>{THINK}", "length", "truncated"),
        (f"<think>{THINK}", "stop", "unclosed_think"),
        ("", "length", "truncated"),
        ("", "error", "failed"),
        (f"<think>{THINK}</think>", "stop", "empty_answer"),
        (f"<think>{THINK}</think>{BOXED}</think>{BOXED}", "stop", "two_think"),
        (f"<think>{THINK}<think>{THINK}</think>{BOXED}", "stop", "two_think"),
        (f"<think>{THINK}</think>{BOXED}", "length", "truncated"),
        (f"<think>{THINK}</think>It is 12.", "stop", "no_boxed"),
        (f"<think>{THINK} \\boxed{{12}}</think>It is 12.", "stop", "no_boxed"),
        (f"<think>Hm.</think>{BOXED}", "stop", "thinking_too_short"),
        (f"<think>{'wait and see what comes. ' * 30}</think>{BOXED}", "stop", "repetitive"),
    ],
)
def test_malformed_solutions_have_a_name(text: str, finish: FinishReason, reason: str) -> None:
    found = read(text, finish=finish)
    assert isinstance(found, Defect)
    assert found.reason == reason


@pytest.mark.parametrize(
    ("text", "domain", "reason"),
    [
        (f"{THINK}\nAnswer: 12", "math", "no_thinking"),
        (f"Reasoning: {THINK}", "math", "empty_answer"),
        (f"Reasoning: {THINK}\nAnswer: 1\nAnswer: 2", "math", "empty_answer"),
        (f"Reasoning: {THINK}\nAnswer:", "math", "empty_answer"),
        ("Reasoning:\nAnswer: 3", "math", "no_thinking"),
        (f"Reasoning: {THINK}\nAnswer: 12", "code", "no_code_block"),
    ],
)
def test_malformed_headings_have_a_name(text: str, domain: Domain, reason: str) -> None:
    found = read(text, domain, form="constrained")
    assert isinstance(found, Defect)
    assert found.reason == reason


def test_code_needs_a_python_block() -> None:
    found = read(f"<think>{THINK}</think>Use print(3).", "code")
    assert isinstance(found, Defect)
    assert found.reason == "no_code_block"


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        ('I think {"x": 1}\n{"input": "2\\n", "output": "4"}', "free", ProgramTest("2\n", "4")),
        ('{"input": 2, "output": 4}', "free", None),
        ('{"input": "2", "output": ""}', "free", None),
        ('{"input": "2", "output": "4", "more": "x"}', "free", None),
        ("no test", "free", None),
        # A model that runs in a circle must not end the run.
        ('{"input": ' + "[" * 8000, "free", None),
        ('{"input": ' + "1" * 8000 + "}", "free", None),
        ('{"input": "2", "output": "4"}' + '{"x":' * 2000, "free", ProgramTest("2", "4")),
        ("Input: 2\\n3 4\nOutput: 7", "constrained", ProgramTest("2\n3 4\n", "7\n")),
        ("Input: 2", "constrained", None),
    ],
)
def test_tests_are_read_strictly(text: str, form: Form, expected: ProgramTest | None) -> None:
    found = parse_test(text, "stop", form)
    assert (found if isinstance(found, ProgramTest) else None) == expected


def test_votes_use_mathematical_equality() -> None:
    with MathGrader(num_workers=1) as grader:
        first, second, third = count_votes(
            [["1/2", "0.5", None, "3"], ["1", "2"], [None]], grader.compare
        )
    assert first.winner == (0, 1)
    assert (first.num_votes, first.size_of(1), first.size_of(2), first.size_of(3)) == (3, 2, 0, 1)
    assert second.winner is None, "a tie has no majority"
    assert third.winner is None


def test_whole_numbers_and_fractions_are_voted_on_without_a_comparison() -> None:
    def refuse(pairs: Sequence[tuple[str, str]]) -> list[bool | None]:
        raise AssertionError(f"compared {pairs}")

    (vote,) = count_votes([["1/2", r"\frac{2}{4}", "3", "03", "1,000", "1000", "3"]], refuse)
    assert vote.clusters == ((2, 3, 6), (0, 1), (4, 5))


def test_an_answer_that_cannot_be_compared_agrees_with_itself_only() -> None:
    (vote,) = count_votes([["x", "y", "x"]], lambda pairs: [None] * len(pairs))
    assert vote.clusters == ((0, 2), (1,))
    assert vote.num_uncompared == 1


@given(st.lists(st.one_of(st.none(), st.integers(-3, 3).map(str)), max_size=8))
def test_every_answer_is_in_exactly_one_cluster(answers: list[str | None]) -> None:
    (vote,) = count_votes([answers], lambda pairs: [False] * len(pairs))
    placed = sorted(position for cluster in vote.clusters for position in cluster)
    assert placed == [n for n, answer in enumerate(answers) if answer is not None]
    assert all(len({answers[n] for n in cluster}) == 1 for cluster in vote.clusters)


@pytest.mark.parametrize(
    ("model", "sampling"),
    [
        ("Qwen/QwQ-32B", "temperature 0.6, top_p 0.95, top_k 40"),
        ("/models/QwQ-32B-AWQ/", "temperature 0.6, top_p 0.95, top_k 40"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "temperature 0.6, top_p 0.95"),
        ("openai/gpt-oss-120b", "temperature 1, top_p 1"),
        ("Qwen/Qwen3-235B-A22B-Thinking-2507", "temperature 0.6, top_p 0.95, top_k 20"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "temperature 0.7, top_p 0.8, top_k 20"),
        ("Qwen/Qwen3-32B", "temperature 0.6, top_p 0.95, top_k 20"),
    ],
)
def test_known_teachers_have_a_recommended_sampling(model: str, sampling: str) -> None:
    settings = SolutionSettings(sampling="recommended", temperature=2.0)
    assert str(choose_sampling(settings, model)) == sampling


@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "QwQ-32B-Preview", "my-QwQ-32B", ""])
def test_an_unknown_teacher_stops_the_run_and_names_the_known_ones(model: str) -> None:
    with pytest.raises(ConfigError, match=r"known are: QwQ-32B, DeepSeek-R1") as refusal:
        choose_sampling(SolutionSettings(sampling="recommended"), model)
    assert "explicit" in refusal.value.hint


SENTENCE = st.lists(
    st.sampled_from(
        ["we", "take", "each", "box", "and", "count", "the", "pens", "in", "it", "again"]
    )
)


@given(
    st.lists(SENTENCE, min_size=1, max_size=12),
    SENTENCE,
    st.integers(0, 6),
    st.sampled_from([". ", "\n", ", ", "! "]),
)
def test_the_quick_look_for_loops_misses_none(
    sentences: list[list[str]], again: list[str], times: int, stop: str
) -> None:
    text = stop.join(" ".join(words) for words in [*sentences, *[again] * times])
    assert (solutions._find_loop(text) is None) == (find_loop(text) is None)
