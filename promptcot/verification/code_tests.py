"""Grade model-written programs by their tests, in the sandbox.

A program reads standard input and writes standard output. It passes when it ends without an error
on every test and prints the expected lines; spaces around and between the words of a line do not
count, nor do empty lines at the end. Outputs are compared here, outside the sandbox.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from promptcot.verification.sandbox import (
    Execution,
    Limits,
    Sandbox,
    Status,
    require_sandbox,
)

CodeReason = Literal[
    "passed",
    "no_tests",
    "too_long",
    "syntax_error",
    "tests_failed",
    "runtime_error",
    "timeout",
    "memory_limit",
    "output_limit",
    "crashed",
]
ProgramWithTests = tuple[str, Sequence[Mapping[str, str]]]
"""Python source and its tests, each ``{"input": ..., "output": ...}``."""

_TOO_SLOW: tuple[Status, ...] = ("timeout",)
_FENCE = 3
"""Backticks, at least."""
PYTHON_LABELS = frozenset({"python", "py", "python3"})
_REASONS: dict[str, CodeReason] = {
    "error": "runtime_error",
    "timeout": "timeout",
    "memory_limit": "memory_limit",
    "output_limit": "output_limit",
    "crashed": "crashed",
}


@dataclass(frozen=True, slots=True)
class CodeResult:
    """The verdict on one program."""

    passed: bool
    reason: CodeReason
    detail: str = ""
    """The first failing test's number and what happened, on one line."""


def extract_python(text: str, *, labels: Collection[str] = PYTHON_LABELS) -> str | None:
    """The program of an answer: its last closed ```` ```python ```` block, or none.

    Blocks are CommonMark's: three backticks or more, closed by as many; one in a list is indented,
    and so is what is in it; the first word behind the backticks is the label.

    Args:
        text: The answer alone, after the thinking.
        labels: Blocks with other labels do not count.
    """
    program: str | None = None
    lines: list[str] = []
    label: str | None = None
    size = indent = 0
    for line in text.splitlines(keepends=True):
        mark = line.strip()
        info = mark.lstrip("`")
        ticks = len(mark) - len(info)
        if label is None and ticks >= _FENCE and "`" not in info:
            label, lines = (info.split(maxsplit=1) or [""])[0].lower(), []
            size, indent = ticks, len(line) - len(line.lstrip(" \t"))
        elif label is not None and ticks >= size and not info:
            program = "".join(lines) if label in labels else program
            label = None
        elif label is not None:
            lines.append(line[:indent].lstrip(" \t") + line[indent:])
    return program if program is not None and program.strip() else None


def find_syntax_error(program: str) -> str | None:
    """Why a program does not compile, or none."""
    tree = parse_program(program)
    return tree if isinstance(tree, str) else None


def parse_program(program: str) -> ast.Module | str:
    """A program's syntax tree, or why it does not compile.

    What Python only warns about, such as an unknown escape sequence, is the program's own affair.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(program, "program.py")
            compile(tree, "program.py", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as exc:
        return f"{type(exc).__name__}: {exc}"
    return tree


def outputs_match(expected: str, found: str) -> bool:
    """Whether two outputs have the same words on the same lines."""
    return normalise_output(expected) == normalise_output(found)


def normalise_output(text: str) -> str:
    """The words of each line with single spaces between them, without empty lines at the end."""
    return "\n".join(" ".join(line.split()) for line in text.split("\n")).rstrip("\n")


class CodeGrader:
    """Runs programs; one sandbox per program, several at once, from any number of threads.

    Raises:
        SandboxError: No sandbox works here and running code without one is not allowed.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 10.0,
        memory_limit_mib: int = 1024,
        output_kib: int = 1024,
        num_workers: int = 2,
        allow_unsandboxed: bool = False,
    ) -> None:
        self._sandbox: Sandbox = require_sandbox(allow_unsandboxed=allow_unsandboxed)
        # Processor time decides, so that a busy machine gives the same verdict as an idle one;
        # the wall clock only stops programs that wait.
        self._limits = Limits(
            cpu_s=timeout_s,
            wall_s=3 * timeout_s,
            memory_mib=memory_limit_mib,
            output_kib=output_kib,
        )
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="code-grader")

    def __enter__(self) -> CodeGrader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for running programs and free the threads."""
        self._pool.shutdown(cancel_futures=True)

    def cancel(self) -> None:
        """Leave out what has not begun; whoever waits for it gets ``CancelledError``."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def execute(self, programs: Sequence[tuple[str, Sequence[str]]]) -> list[list[Execution]]:
        """Run each (source, inputs) on all its inputs, and none after one that took too long.

        Raises:
            SandboxError: The sandbox itself stopped working.
        """
        return list(self._pool.map(self._execute_one, programs))

    def _execute_one(self, entry: tuple[str, Sequence[str]]) -> list[Execution]:
        program, inputs = entry
        return self._sandbox.run_many(program, inputs, limits=self._limits, stop_after=_TOO_SLOW)

    def grade(self, programs: Sequence[ProgramWithTests]) -> list[CodeResult]:
        """Verdicts on programs, in their order.

        Raises:
            SandboxError: The sandbox itself stopped working.
        """
        return list(self._pool.map(self._grade_one, programs))

    def _grade_one(self, entry: ProgramWithTests) -> CodeResult:
        program, tests = entry
        if not tests:
            return CodeResult(False, "no_tests", "the problem has no tests")
        error = find_syntax_error(program)
        if error is not None:
            return CodeResult(False, "syntax_error", _one_line(error))
        inputs = (test["input"] for test in tests)
        with closing(self._sandbox.run_each(program, inputs, limits=self._limits)) as runs:
            for number, (run, test) in enumerate(zip(runs, tests, strict=True), start=1):
                result = describe_failure(number, run, test["output"])
                if result is not None:
                    return result
        return CodeResult(True, "passed")


def describe_failure(number: int, run: Execution, expected: str) -> CodeResult | None:
    """The verdict on the program by one of its tests, or none if it passed that one."""
    if run.status != "ok":
        return describe_end(number, run)
    if not outputs_match(expected, run.stdout):
        return describe_difference(number, expected, run.stdout)
    return None


def describe_end(number: int, run: Execution) -> CodeResult:
    """The verdict on a program whose run of a test did not end well."""
    last = run.stderr.strip().rsplit("\n", 1)[-1]
    detail = f"test {number}: {_one_line(last) or run.status}"
    return CodeResult(False, _REASONS[run.status], detail)


def describe_difference(number: int, expected: str, found: str) -> CodeResult:
    """The verdict on a program that gave another output than the expected one."""
    detail = f"test {number}: expected {_short(expected)}, got {_short(found)}"
    return CodeResult(False, "tests_failed", detail)


def _short(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
