"""HumanEval's and EvalPlus's own way to a verdict, unsealed, in one process per program.

Only for programs known to be harmless: the wrong versions of canonical solutions. EvalPlus's
comparison is written out from its source (evalplus/eval/__init__.py, 26d6d00).
"""

from __future__ import annotations

import copy
import io
import math
import multiprocessing
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

Row = dict[str, Any]


def passes(judge: Callable[[str, Row], None], program: str, row: Row) -> bool:
    """Whether a judge accepts a program; one that ends or hangs its process does not pass."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=_report, args=(judge, program, row, sender)
    )
    process.start()
    sender.close()
    try:
        return bool(receiver.recv()) if receiver.poll(300) else False
    except EOFError:
        return False
    finally:
        process.kill()
        process.join()


def _report(judge: Callable[[str, Row], None], program: str, row: Row, sender: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (120, 121))
    sys.stdout = sys.stderr = io.StringIO()
    try:
        judge(program, row)
    except BaseException:  # as the published runners: whatever a program raises, exits too
        sender.send(False)
    else:
        sender.send(True)


def judge_humaneval(program: str, row: Row) -> None:
    """Program, test and ``check(function)`` in one namespace."""
    exec(f"{program}\n{row['test']}\ncheck({row['entry_point']})", {})


def judge_evalplus(program: str, row: Row) -> None:
    """Each input's result against the canonical solution's."""
    function = _load(program, row)
    reference = _load(row["prompt"] + row["canonical_solution"], row)
    for arguments in row["base_input"] + row["plus_input"]:
        expected = reference(*copy.deepcopy(arguments))
        signal.alarm(15)
        found = function(*copy.deepcopy(arguments))
        signal.alarm(0)
        _compare(row, arguments, expected, found)


def _load(source: str, row: Row) -> Callable[..., Any]:
    names: dict[str, Any] = {}
    exec(source, names)
    return names[row["entry_point"]]


def _compare(row: Row, arguments: list[Any], expected: Any, found: Any) -> None:
    if row["entry_point"] == "find_zero":
        (coefficients,) = arguments
        value = sum(c * math.pow(found, power) for power, c in enumerate(coefficients))
        assert abs(value) <= row["atol"]
        return
    atol = row["atol"]
    if atol == 0 and _is_floats(expected):
        atol = 1e-6
    if found == expected:
        return
    assert atol != 0
    assert type(found) is type(expected)
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
    assert np.allclose(found, expected, rtol=1e-07, atol=atol)


def _is_floats(value: Any) -> bool:
    if isinstance(value, list | tuple) and value:
        return all(isinstance(item, float) for item in value)
    return isinstance(value, float)
