"""Runs inside the sandbox: loads one program and answers calls of its function, or makes them.

Stdlib only; started by :mod:`promptcot.verification.sandbox_runner` as a script, never imported.
Two roles, in two sandboxes that know nothing of each other but values: ``answer`` executes an
untrusted program and calls its function as told; ``check`` executes a benchmark's own
``check(candidate)`` with a candidate that is called elsewhere. What an untrusted program does to
its own process, this script included, changes at most what its function seems to return.

Lines on the channels are JSON. answer: reads ``[arguments, keywords]``; writes ``["loaded"]`` or
``["not_loaded", type, message]``, then per call ``["value", v]`` or ``["error", type, message]``.
check: writes ``["call", [arguments, keywords]]`` and reads what answer writes; at the end it writes
``["passed"]`` or ``["failed", type, message, line of the check]``.
"""

import ast
import builtins
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TextIO

import plain_values  # type: ignore[import-not-found]

# The folder of this script; programs import the standard library only.
sys.path.pop(0)

MESSAGE_CHARS = 500


class Channel:
    """Lines from and to the process that watches this one."""

    def __init__(self) -> None:
        self._incoming: TextIO = os.fdopen(os.dup(0), encoding="ascii", newline="\n")
        self._outgoing = os.dup(1)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)

    def read(self) -> str:
        """The next line; empty when there is none."""
        return self._incoming.readline()

    def write(self, line: str) -> None:
        """Send one line."""
        data = line.encode("ascii") + b"\n"
        while data:
            data = data[os.write(self._outgoing, data) :]


def run_answer(setup: dict[str, str], channel: Channel) -> None:
    """Load the program, then call its function once per line."""
    try:
        function = load_answer(setup)
    except BaseException as exc:
        channel.write(json.dumps(["not_loaded", *describe(exc)]))
        return
    channel.write('["loaded"]')
    digest_over = int(setup["digest_over"])
    while line := channel.read():
        arguments, keywords = plain_values.decode(line)
        try:
            value = function(*arguments, **keywords)
            reply = f'["value",{plain_values.encode(value, digest_over=digest_over)}]'
        except BaseException as exc:
            reply = json.dumps(["error", *describe(exc)])
        channel.write(reply)


def load_answer(setup: dict[str, str]) -> Callable[..., Any]:
    """The function of an answer that restates the prompt's function or continues the prompt."""
    module = make_module("solution")
    names = module.__dict__
    execute(setup["preamble"], "preamble.py", names)
    prompt, program, entry_point = setup["prompt"], setup["program"], setup["entry_point"]
    if not prompt:
        execute(program, "program.py", names)
    elif defines(program, entry_point):
        # The prompt's imports and other functions stay; its function without a body does not.
        execute(prompt, "prompt.py", names)
        names.pop(entry_point, None)
        execute(program, "program.py", names)
    else:
        execute(prompt + program, "program.py", names)
    return find_function(names, entry_point)


def defines(program: str, name: str) -> bool:
    """Whether a program by itself binds a function of that name."""
    try:
        body = ast.parse(program).body
    except SyntaxError:
        return False
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name in (name, "Solution"):
                return True
        elif isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets):
            return True
    return False


def find_function(names: dict[str, Any], entry_point: str) -> Callable[..., Any]:
    """A method of a ``Solution`` object where there is such a class, else a function."""
    solution = names.get("Solution")
    if isinstance(solution, type) and hasattr(solution, entry_point):
        function = getattr(solution(), entry_point)
    elif entry_point in names:
        function = names[entry_point]
    else:
        raise NameError(f"the program does not define {entry_point}")
    if not callable(function):
        raise TypeError(f"{entry_point} is not a function")
    return function  # type: ignore[no-any-return]


def run_check(setup: dict[str, str], channel: Channel) -> None:
    """Run a benchmark's check on a candidate that is called through the channel."""

    def candidate(*arguments: Any, **keywords: Any) -> Any:
        channel.write(f'["call",{plain_values.encode([arguments, keywords])}]')
        return read_outcome(channel.read())

    names = make_module("check").__dict__
    try:
        execute(setup["preamble"], "preamble.py", names)
        execute(setup["prompt"], "prompt.py", names)
        # Some checks call the function by its name.
        names[setup["entry_point"]] = candidate
        execute(setup["program"], "check.py", names)
        check = names["check"]
    except BaseException as exc:
        channel.write(json.dumps(["not_loaded", *describe(exc)]))
        return
    channel.write('["loaded"]')
    try:
        check(candidate)
    except BaseException as exc:
        line = failing_line(exc, setup["program"])
        channel.write(json.dumps(["failed", *describe(exc), line]))
    else:
        channel.write('["passed"]')


def read_outcome(line: str) -> Any:
    """What a call elsewhere returned, or raise what it raised."""
    outcome = json.loads(line)
    if outcome[0] != "value":
        raise_named(*outcome[1:])
    return plain_values.from_tree(outcome[1])


def raise_named(name: str, message: str) -> NoReturn:
    """Raise an ordinary exception of a built-in type by its name; another as ``Exception``.

    Those that end a loop are no ordinary ones: ``all(map(candidate, ...))`` would end there.
    """
    kind = getattr(builtins, name, None)
    ends_loops = (StopIteration, StopAsyncIteration)
    if isinstance(kind, type) and issubclass(kind, Exception) and kind not in ends_loops:
        raise kind.__new__(kind, message)
    raise Exception(f"{name}: {message}")


def failing_line(error: BaseException, source: str) -> str:
    """The line of the check that did not hold."""
    numbers = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == "check.py" and frame.lineno is not None
    ]
    lines = source.split("\n")
    return lines[numbers[-1] - 1].strip()[:MESSAGE_CHARS] if numbers else ""


def make_module(name: str) -> ModuleType:
    """An importable empty module; dataclasses look their own up."""
    module = ModuleType(name)
    sys.modules[name] = module
    return module


def execute(source: str, name: str, names: dict[str, Any]) -> None:
    """Run source text in a module."""
    exec(compile(source, name, "exec", dont_inherit=True), names)


def describe(error: BaseException) -> tuple[str, str]:
    """Type and message of what a program raised; its own types may fail at being printed."""
    try:
        return type(error).__name__, str(error)[:MESSAGE_CHARS]
    except BaseException:
        return type(error).__name__, ""


def main() -> None:
    """Play the role that the setup file names."""
    setup = json.loads(Path(sys.argv[1]).read_text(encoding="ascii"))
    channel = Channel()
    if setup["role"] == "check":
        run_check(setup, channel)
    else:
        run_answer(setup, channel)


if __name__ == "__main__":
    main()
