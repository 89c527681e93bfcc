"""Ask the teacher for tests of programming tasks, one a request as in PromptCoT 2.0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pipeline.hashing import derive_seed
from pipeline.records import Problem, ProgramTest
from promptcot.engines.protocol import Answer, Request
from promptcot.forms import program_test_form
from promptcot.parsing import Defect, parse_test
from promptcot.prompting import one_line, render_prompt
from promptcot.run_context import SynthesisRun
from promptcot.solutions import sampling_of

LABEL = "tests"
_KINDS = ("small ordinary case", "edge case", "larger case", "case that trips wrong programs")


def write_tests(
    run: SynthesisRun, problems: Sequence[Problem], counts: Counter[str]
) -> tuple[dict[str, list[ProgramTest]], list[Answer]]:
    """Readable tests by problem, with the outputs as the teacher states them, and all replies.

    ``tests_asked`` and ``tests_unreadable`` are added to ``counts``.
    """
    tests: dict[str, list[ProgramTest]] = {problem.id: [] for problem in problems}
    number = run.settings.verification.code_tests
    asked = [(problem, n) for problem in problems for n in range(number)]
    if not asked:
        return tests, []
    teacher = run.settings.solutions.teacher
    constrained = run.resolve_form(run.settings.solutions.form, teacher) == "constrained"
    requests = [_ask(run, problem, n, constrained=constrained) for problem, n in asked]
    answers = run.teacher(teacher).answer_all(requests, LABEL)
    for (problem, _), request, answer in zip(asked, requests, answers, strict=True):
        counts["tests_asked"] += 1
        test = parse_test(
            answer.text, answer.finish_reason, "constrained" if constrained else "free"
        )
        if isinstance(test, Defect):
            counts["tests_unreadable"] += 1
            continue
        tests[problem.id].append(
            ProgramTest(
                input=test.input,
                output=test.output,
                votes=0,
                stated_output=test.output,
                prompt_hash=request.prompt_hash,
                seed=request.seed,
            )
        )
    return tests, answers


def _ask(run: SynthesisRun, problem: Problem, number: int, *, constrained: bool) -> Request:
    rules, sampling = run.settings.verification, sampling_of(run)
    messages = render_prompt(
        "test_constrained" if constrained else "test_free",
        number=str(number + 1),
        count=str(rules.code_tests),
        kind=_KINDS[number % len(_KINDS)],
        statement=one_line(problem.statement) if constrained else problem.statement,
    )
    return Request(
        messages=messages,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        max_tokens=rules.test_max_tokens,
        seed=derive_seed(run.root_seed, LABEL, problem.id, str(number)),
        constraint=program_test_form() if constrained else None,
    )
