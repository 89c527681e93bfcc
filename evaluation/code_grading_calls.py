"""Grade answers that are functions: by cases, by HumanEval's check, by HumanEval+'s reference.

The function runs in a sandbox and its results come out as plain data. What they are held against
never goes into that sandbox: expected results stay here, and a ``check(candidate)`` runs in a
sandbox of its own whose candidate asks this process, which asks the first sandbox.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from evaluation.code_grading_compare import parse_result
from promptcot.verification.code_tests import CodeResult, describe_difference, describe_end
from promptcot.verification.sandbox import CallSession, Execution, Limits, Sandbox

_BYTES_AHEAD = 1 << 15
"""Of calls sent before their turn: less than a pipe holds, so that both sides never wait."""
_SYNTAX_ERRORS = {"SyntaxError", "IndentationError", "TabError"}
_MEMORY_ERROR = "MemoryError"

Matches = Callable[[str, Any, Any], bool]
"""Whether a result is right, from the call's arguments (encoded) and two parsed results."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function, as lines of :mod:`promptcot.verification.plain_values`."""

    arguments: str
    expected: str = "null"


def answer_setup(
    program: str,
    entry_point: str,
    *,
    prompt: str = "",
    preamble: str = "",
    digest_over: int = 0,
) -> dict[str, str]:
    """What the sandbox is told about a function that is to be called.

    Args:
        program: Source that restates the prompt's function or continues the prompt.
        entry_point: Name of the function, or of a method of ``Solution``.
        prompt: Source before the function's body.
        preamble: Source that is executed first.
        digest_over: Characters of a result beyond which its digest comes back.
    """
    return {
        "role": "answer",
        "program": program,
        "entry_point": entry_point,
        "prompt": prompt,
        "preamble": preamble,
        "digest_over": str(digest_over),
    }


def grade_calls(
    sandbox: Sandbox,
    setup: dict[str, str],
    calls: Iterable[Call],
    matches: Matches,
    limits: Limits,
) -> CodeResult:
    """The verdict on a function by its results, up to the first wrong one.

    Raises:
        SandboxError: The sandbox does not start.
    """
    number = 0
    with sandbox.open_calls(setup, limits) as session:
        if (failure := read_loaded(session)) is not None:
            return failure
        for number, (call, run) in enumerate(run_calls(session, calls), start=1):
            failure = _judge(number, call, run, matches)
            if failure is not None:
                return failure
    return CodeResult(True, "passed") if number else no_tests()


def no_tests() -> CodeResult:
    """The verdict where there is nothing to hold a program against."""
    return CodeResult(False, "no_tests", "the problem has no tests")


def run_calls(session: CallSession, calls: Iterable[Call]) -> Iterator[tuple[Call, Execution]]:
    """Make calls in order, up to the first after which the program has ended.

    Several small calls are under way at once, or one large one: the program never waits for this
    side to read while this side waits for it to read.
    """
    waiting: deque[Call] = deque()
    bytes_ahead = 0
    for call in calls:
        while waiting and bytes_ahead + len(call.arguments) > _BYTES_AHEAD:
            first, run = waiting.popleft(), session.receive()
            yield first, run
            if run.status != "ok":
                return
            bytes_ahead -= len(first.arguments)
        session.send(f'[{call.arguments},{{"dict":[]}}]')
        waiting.append(call)
        bytes_ahead += len(call.arguments)
    while waiting:
        run = session.receive()
        yield waiting.popleft(), run
        if run.status != "ok":
            return


def read_loaded(session: CallSession) -> CodeResult | None:
    """Wait until the program is loaded; the verdict when it does not load."""
    run = session.receive()
    if run.status != "ok":
        return describe_end(1, run)
    kind, *rest = read_message(run.stdout)
    return None if kind == "loaded" else _describe_raised(1, *rest[:2])


def read_message(line: str) -> list[Any]:
    """A line of the driver; one that is none is a message of kind ``damaged``."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    known = isinstance(message, list) and message and isinstance(message[0], str)
    return message if known else ["damaged"]


def _judge(number: int, call: Call, run: Execution, matches: Matches) -> CodeResult | None:
    """The verdict on the function by one of its calls, or none if it passed that one."""
    if run.status != "ok":
        return describe_end(number, run)
    if not run.stdout.startswith('["value",'):
        return _describe_raised(number, *read_message(run.stdout)[1:3])
    text = run.stdout.removeprefix('["value",').removesuffix("]")
    try:
        if matches(call.arguments, json.loads(call.expected), parse_result(text)):
            return None
    except (ValueError, RecursionError):
        return CodeResult(False, "crashed", f"test {number}: the result is damaged")
    return describe_difference(number, call.expected, text)


def _describe_raised(number: int, *error: object) -> CodeResult:
    """The verdict on a function that raised, from what it says of the exception."""
    name, message = ([*map(str, error), "", ""])[:2]
    run = Execution("error", "", " ".join(f"{name}: {message}".split()))
    result = describe_end(number, run)
    if name in _SYNTAX_ERRORS:
        return CodeResult(False, "syntax_error", result.detail)
    return CodeResult(False, "memory_limit", result.detail) if name == _MEMORY_ERROR else result


def grade_by_check(
    sandbox: Sandbox, answer: dict[str, str], check: dict[str, str], limits: Limits
) -> CodeResult:
    """The verdict on a function by ``check(candidate)``, which runs in another sandbox.

    Raises:
        SandboxError: A sandbox does not start.
        ValueError: The check itself does not load.
    """
    with (
        sandbox.open_calls(answer, limits) as function,
        sandbox.open_calls(check | {"role": "check"}, limits) as checker,
    ):
        if (failure := read_loaded(function)) is not None:
            return failure
        if (failure := read_loaded(checker)) is not None:
            raise ValueError(failure.detail)
        raised: CodeResult | None = None
        for number in range(1, _MOST_STEPS):
            run = checker.receive()
            if run.status != "ok":
                return describe_end(number, run)
            kind, *rest = read_message(run.stdout)
            if kind != "call":
                return _describe_check(kind, rest, raised)
            function.send(run.stdout.removeprefix('["call",').removesuffix("]"))
            run = function.receive()
            if run.status != "ok":
                return describe_end(number, run)
            outcome = read_message(run.stdout)
            raised = None if outcome[0] == "value" else _describe_raised(number, *outcome[1:3])
            checker.send(run.stdout)
    return CodeResult(False, "timeout", "the check does not end")


_MOST_STEPS = 1_000_000


def _describe_check(kind: str, rest: list[Any], raised: CodeResult | None) -> CodeResult:
    """The verdict that the check came to; an exception of the function explains a failure."""
    if kind == "passed":
        return CodeResult(True, "passed")
    if raised is not None:
        return raised
    name, message, line = ([*map(str, rest), "", "", ""])[:3]
    detail = " ".join(f"{name} {message}: {line}".split())
    return CodeResult(False, "tests_failed", detail[:200])
