"""Grade programs by the official tests of programming benchmarks, in the sandbox.

One sandbox and one process per answer at a time (two for HumanEval's checks). Where the published
runners measure wall time, processor time decides here, so that a busy machine gives the verdicts of
an idle one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from types import TracebackType
from typing import Any

from evaluation.code_grading_calls import (
    Call,
    answer_setup,
    grade_by_check,
    grade_calls,
    no_tests,
)
from evaluation.code_grading_compare import (
    is_root,
    output_matches,
    result_is_close,
    result_matches,
)
from evaluation.code_grading_names import imports_for, seeding_for
from evaluation.code_grading_reference import (
    ReferenceResults,
    compute_reference,
    reference_key,
    reference_setup,
)
from pipeline.benchmark_items import ProgramTests
from pipeline.errors import SourceError
from promptcot.verification import plain_values
from promptcot.verification.code_tests import CodeResult, describe_difference, describe_end
from promptcot.verification.sandbox import Execution, Limits, Sandbox, require_sandbox

MAX_PROGRAM_CHARS = 1 << 20
"""A longer program is not run; no answer that means to be one comes near."""
_REFERENCE_TOTAL_S = 60.0
"""All inputs of one HumanEval+ problem together, as in EvalPlus."""
_AMPLE = 10
_HINT = "restore the benchmark's file"


class ProgramGrader:
    """Runs programs against official tests, several at once.

    Args:
        timeout_s: Processor seconds of a test whose benchmark publishes no limit.
        memory_limit_mib: Address space of one program.
        output_kib: Standard output of one run, or the result of one call.
        num_workers: Programs run at once.
        allow_unsandboxed: Run without a sandbox where none works.

    Raises:
        SandboxError: No sandbox works here and running code without one is not allowed.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 10.0,
        memory_limit_mib: int = 1024,
        output_kib: int = 16 << 10,
        num_workers: int = 2,
        allow_unsandboxed: bool = False,
    ) -> None:
        self._sandbox: Sandbox = require_sandbox(allow_unsandboxed=allow_unsandboxed)
        self._timeout_s = timeout_s
        self._memory_mib = memory_limit_mib
        self._output_kib = output_kib
        self._references = ReferenceResults()
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="program-grader")

    def __enter__(self) -> ProgramGrader:
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

    def grade(self, programs: Sequence[tuple[str, ProgramTests]]) -> list[CodeResult]:
        """Verdicts on programs, in their order.

        Raises:
            SandboxError: The sandbox itself stopped working.
            SourceError: A benchmark's tests cannot be used.
        """
        return list(self._pool.map(self._grade_one, programs))

    def _grade_one(self, entry: tuple[str, ProgramTests]) -> CodeResult:
        program, tests = entry
        if len(program) > MAX_PROGRAM_CHARS:
            detail = f"the program has more than {MAX_PROGRAM_CHARS} characters"
            return CodeResult(False, "too_long", detail)
        if tests.kind == "stdin":
            return self._grade_stdin(program, tests)
        if tests.kind == "functional":
            return self._grade_functional(program, tests)
        if tests.kind == "check":
            return self._grade_check(program, tests)
        return self._grade_reference(program, tests)

    def _limits(self, tests: ProgramTests, total_s: float | None = None) -> Limits:
        seconds = tests.time_limit_s or self._timeout_s
        return Limits(
            cpu_s=seconds,
            total_cpu_s=None if total_s is None else max(total_s, seconds),
            # Only for programs that wait or sleep.
            wall_s=3 * seconds + 1,
            memory_mib=self._memory_mib,
            output_kib=self._output_kib,
        )

    def _grade_stdin(self, program: str, tests: ProgramTests) -> CodeResult:
        outputs: list[str] = []

        def inputs() -> Iterator[str]:
            # Cases may be larger than memory: each is read when its turn comes.
            for case in tests.cases:
                outputs[:] = [case["output"]]
                yield case["input"]

        number = 0
        runs = self._sandbox.run_each(
            program,
            inputs(),
            limits=self._limits(tests),
            preamble=imports_for(program, self._sandbox.packages),
        )
        with closing(runs):
            for number, run in enumerate(runs, start=1):
                failure = _judge_output(number, outputs[0], run)
                if failure is not None:
                    return failure
        return CodeResult(True, "passed") if number else no_tests()

    def _grade_functional(self, program: str, tests: ProgramTests) -> CodeResult:
        setup = answer_setup(
            program, tests.entry_point, preamble=imports_for(program, self._sandbox.packages)
        )
        calls = (_read_case(n, tests, case) for n, case in enumerate(tests.cases, start=1))
        return grade_calls(
            self._sandbox,
            setup,
            calls,
            lambda _, expected, found: result_matches(expected, found),
            self._limits(tests),
        )

    def _grade_check(self, program: str, tests: ProgramTests) -> CodeResult:
        limits = self._limits(tests, total_s=0.0)
        # Without a prompt there is none whose imports an answer could rely on.
        preamble = seeding_for(program)
        if not tests.prompt:
            preamble = imports_for(program, self._sandbox.packages)
        answer = answer_setup(program, tests.entry_point, prompt=tests.prompt, preamble=preamble)
        check = answer_setup(
            tests.check,
            tests.entry_point,
            prompt=tests.prompt,
            preamble=seeding_for(tests.check),
        )
        try:
            return grade_by_check(self._sandbox, answer, check, limits)
        except ValueError as exc:
            raise SourceError(
                f"check of {tests.entry_point!r} does not load: {exc}", hint=_HINT
            ) from exc

    def _grade_reference(self, program: str, tests: ProgramTests) -> CodeResult:
        limits = self._limits(tests, total_s=_REFERENCE_TOTAL_S)
        # The reference is right by definition, also on a machine where it is slow.
        ample = replace(
            limits,
            cpu_s=_AMPLE * limits.cpu_s,
            total_cpu_s=_AMPLE * _REFERENCE_TOTAL_S,
            wall_s=_AMPLE * limits.wall_s,
        )
        calls = self._references.get(
            reference_key(tests), lambda: compute_reference(self._sandbox, tests, ample)
        )
        setup = reference_setup(program, tests, prompt=tests.prompt)

        def matches(arguments: str, expected: Any, found: Any) -> bool:
            if tests.entry_point == "find_zero":
                return is_root(plain_values.decode(arguments)[0], found, tests.atol)
            return result_is_close(expected, found, tests.atol)

        return grade_calls(self._sandbox, setup, calls, matches, limits)


def _judge_output(number: int, expected: str, run: Execution) -> CodeResult | None:
    """The verdict on a program by one of its runs, or none if it passed that one."""
    if run.status == "ok" and output_matches(expected, run.stdout):
        return None
    if run.status == "ok":
        return describe_difference(number, expected, run.stdout)
    result = describe_end(number, run)
    last = run.stderr.strip().rsplit("\n", 1)[-1]
    if last.startswith(("SyntaxError", "IndentationError", "TabError")):
        return CodeResult(False, "syntax_error", result.detail)
    return result


def _read_case(number: int, tests: ProgramTests, case: Any) -> Call:
    """LiveCodeBench's form: a JSON value per line, an argument each; the result in JSON."""
    try:
        arguments = [json.loads(line) for line in case["input"].split("\n") if line.strip()]
        expected = json.loads(case["output"])
    except (ValueError, RecursionError) as exc:
        raise SourceError(
            f"test {number} of {tests.entry_point!r} is not valid JSON ({exc})", hint=_HINT
        ) from exc
    return Call(plain_values.encode(arguments), plain_values.encode(expected))
