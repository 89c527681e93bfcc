"""Rules of the house that no linter here checks: sizes, names, printing, swallowed exceptions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "promptcot", "curriculum", "trainer", "evaluation", "flows")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 5
VAGUE_NAMES = {"utils.py", "util.py", "helpers.py", "helper.py", "common.py", "misc.py"}
PRINTERS = {"pipeline/console.py"}
BROAD_CATCHES = {
    # The one place that turns a bug of ours into a message, a traceback and exit code 1.
    "pipeline/cli.py",
    # Inside the sandbox: whatever an untrusted function raises is its reply.
    "promptcot/verification/sandbox_driver.py",
}
BROAD = {"Exception", "BaseException"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions_of(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(parse(path)) if isinstance(node, Function))


def count_lines(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def is_command(function: Function) -> bool:
    """Whether the function is a typer command, whose parameters are its options."""
    marks = [d.func if isinstance(d, ast.Call) else d for d in function.decorator_list]
    return any(isinstance(m, ast.Attribute) and m.attr in {"command", "callback"} for m in marks)


def is_flow(function: Function) -> bool:
    """Whether the function is a Prefect flow, whose parameters are the fields of its form."""
    marks = [d.func for d in function.decorator_list if isinstance(d, ast.Call)]
    return any(isinstance(m, ast.Name) and m.id == "flow" for m in marks)


def is_kernel(function: Function) -> bool:
    """Whether the function is compiled for a GPU, where pointers and strides are parameters."""
    return any(ast.unparse(mark) == "triton.jit" for mark in function.decorator_list)


def is_forward(function: Function) -> bool:
    """Whether transformers, TRL and ``generate`` say what the function is called with."""
    return function.name == "forward"


def count_parameters(function: Function) -> int:
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in {"self", "cls"}])


def writes_to_channel(call: ast.Call) -> bool:
    """Whether a print goes to a stream that no person reads: the pipe of a worker process."""
    targets = [word.value for word in call.keywords if word.arg == "file"]
    return any(ast.unparse(t) not in {"sys.stdout", "sys.stderr"} for t in targets)


def broad_catches(path: Path) -> list[int]:
    """Lines that catch everything, or nearly."""
    lines = []
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(
                kind is None or (isinstance(kind, ast.Name) and kind.id in BROAD) for kind in kinds
            ):
                lines.append(node.lineno)
    return lines


def test_the_rules_look_at_something() -> None:
    assert len(MODULES) > 20


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_are_short_enough_to_read_at_once(package: str) -> None:
    sizes = {
        name_of(p): len(p.read_text(encoding="utf-8").splitlines()) for p in in_package(package)
    }
    assert {name: size for name, size in sizes.items() if size > MAX_MODULE_LINES} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_fit_on_a_screen(package: str) -> None:
    sizes = {
        f"{name_of(path)}:{function.lineno} {function.name}": count_lines(function)
        for path in in_package(package)
        for function in functions_of(path)
    }
    assert {name: size for name, size in sizes.items() if size > MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_take_few_parameters(package: str) -> None:
    counts = {
        f"{name_of(path)}:{function.lineno} {function.name}": count_parameters(function)
        for path in in_package(package)
        for function in functions_of(path)
        if not any(kind(function) for kind in (is_command, is_flow, is_kernel, is_forward))
    }
    assert {name: count for name, count in counts.items() if count > MAX_PARAMETERS} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_are_named_for_what_they_do(package: str) -> None:
    assert [name_of(path) for path in in_package(package) if path.name in VAGUE_NAMES] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_only_the_console_prints(package: str) -> None:
    prints = [
        f"{name_of(path)}:{node.lineno}"
        for path in in_package(package)
        if name_of(path) not in PRINTERS
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
        and not writes_to_channel(node)
    ]
    assert prints == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_exception_is_swallowed_whole(package: str) -> None:
    catches = {
        name_of(path): lines
        for path in in_package(package)
        if name_of(path) not in BROAD_CATCHES and (lines := broad_catches(path))
    }
    assert catches == {}


def test_allowances_are_still_needed() -> None:
    assert {name for name in BROAD_CATCHES if not broad_catches(ROOT / name)} == set()


def in_package(package: str) -> list[Path]:
    return [path for path in MODULES if path.relative_to(ROOT).parts[0] == package]
