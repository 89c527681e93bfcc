"""Expected results of HumanEval+: what the canonical solution returns, computed once a problem."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from threading import Lock

from evaluation.code_grading_calls import Call, answer_setup, read_loaded, run_calls
from evaluation.code_grading_names import seeding_for
from pipeline.benchmark_items import ProgramTests
from pipeline.errors import SourceError
from promptcot.verification import plain_values
from promptcot.verification.sandbox import Limits, Sandbox

Calls = tuple[Call, ...]

_DIGEST_OVER = 1 << 14
"""Characters: the results of HumanEval+ are 290 MB as text, nearly all in a few long ones."""


class ReferenceResults:
    """The calls of problems with what their references return, the most recently used ones kept.

    Args:
        max_problems: Problems kept.
        max_bytes: Of their arguments and results, as text.
    """

    def __init__(self, *, max_problems: int = 256, max_bytes: int = 64 << 20) -> None:
        self._max_problems = max_problems
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._found: OrderedDict[str, Future[Calls]] = OrderedDict()

    def get(self, key: str, compute: Callable[[], Calls]) -> Calls:
        """What was computed under a key; threads that ask meanwhile wait for the first."""
        with self._lock:
            future = self._found.get(key)
            if is_first := future is None:
                future = Future()
                self._found[key] = future
            self._found.move_to_end(key)
        if is_first:
            try:
                future.set_result(compute())
            except (SourceError, ValueError) as exc:
                future.set_exception(exc)
            finally:
                self._tidy(key, future)
        return future.result()

    def _tidy(self, key: str, future: Future[Calls]) -> None:
        with self._lock:
            if not future.done():
                future.cancel()
            if future.cancelled() or future.exception() is not None:
                self._found.pop(key, None)
            while len(self._found) > 1 and self._is_full():
                self._found.popitem(last=False)

    def _is_full(self) -> bool:
        done = [future.result() for future in self._found.values() if future.done()]
        size = sum(len(call.arguments) + len(call.expected) for calls in done for call in calls)
        return len(self._found) > self._max_problems or size > self._max_bytes


def reference_key(tests: ProgramTests) -> str:
    """Hash of all that the expected results depend on."""
    contract = tests.contract if tests.within_contract else ""
    parts = [tests.entry_point, tests.reference, tests.inputs, tests.prompt, contract]
    return hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()


def reference_setup(program: str, tests: ProgramTests, *, prompt: str = "") -> dict[str, str]:
    """How a reference or an answer that is held against it is called."""
    # Digests cannot be compared with a tolerance.
    digest_over = _DIGEST_OVER if tests.atol == 0 else 0
    return answer_setup(
        program,
        tests.entry_point,
        prompt=prompt,
        preamble=seeding_for(program),
        digest_over=digest_over,
    )


def compute_reference(sandbox: Sandbox, tests: ProgramTests, limits: Limits) -> Calls:
    """The inputs that count, and what the reference returns for each.

    EvalPlus asks its contracts when inputs are made, and counts every input when answers are graded
    (evalplus/evaluate.py, evalplus/eval/__init__.py at 26d6d00). ``within_contract`` asks them here
    too.

    Raises:
        SourceError: The reference or the inputs are broken, or the contract admits no input.
        SandboxError: The sandbox does not start.
    """
    where = f"reference of {tests.entry_point!r}"
    calls = [Call(plain_values.encode(arguments)) for arguments in _read_inputs(where, tests)]
    if tests.within_contract and tests.contract.strip():
        guard = tests.prompt + tests.contract
        outcomes = _outcomes(sandbox, reference_setup(guard, tests), calls, limits)
        calls = [
            call
            for call, outcome in zip(calls, outcomes, strict=False)
            if outcome.startswith('["value",')
        ]
    outcomes = _outcomes(sandbox, reference_setup(tests.reference, tests), calls, limits)
    if not calls or len(outcomes) != len(calls):
        raise SourceError(
            f"{where}: {len(outcomes)} of {len(calls)} inputs have a result",
            hint="restore the benchmark's file, or raise evaluation.code_timeout_s",
        )
    found = []
    for number, (call, outcome) in enumerate(zip(calls, outcomes, strict=True), start=1):
        if not outcome.startswith('["value",'):
            raise SourceError(
                f"{where}: input {number} has no result: {outcome[:200]}",
                hint="restore the benchmark's file",
            )
        found.append(replace(call, expected=outcome.removeprefix('["value",').removesuffix("]")))
    return tuple(found)


def _read_inputs(where: str, tests: ProgramTests) -> list[list[object]]:
    try:
        inputs = json.loads(tests.inputs)
    except (ValueError, RecursionError) as exc:
        raise SourceError(
            f"{where}: inputs are not valid JSON ({exc})", hint="restore the benchmark's file"
        ) from exc
    if not isinstance(inputs, list) or not all(isinstance(entry, list) for entry in inputs):
        raise SourceError(
            f"{where}: inputs should be a list of argument lists",
            hint="restore the benchmark's file",
        )
    return inputs


def _outcomes(
    sandbox: Sandbox, setup: dict[str, str], calls: list[Call], limits: Limits
) -> list[str]:
    """The reply to each call, up to the first that ends the program."""
    with sandbox.open_calls(setup, limits) as session:
        failure = read_loaded(session)
        if failure is not None:
            raise SourceError(
                f"reference of {setup['entry_point']!r} does not load: {failure.detail}",
                hint="restore the benchmark's file",
            )
        runs = [run for _, run in run_calls(session, calls)]
    return [run.stdout for run in runs if run.status == "ok"]
