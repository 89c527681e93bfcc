"""Wrong versions of right programs, made by rule from their syntax trees."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator

_SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


def mutants(program: str, function: str) -> Iterator[tuple[str, str]]:
    """Kind and source of up to three wrong versions of a function in a program.

    ``none``: it returns ``None`` at once. ``constant``: its first whole number is one more.
    ``operator``: its first operator is another.
    """
    for kind, change in (("none", _no_result), ("constant", _count_up), ("operator", _swap)):
        tree = copy.deepcopy(ast.parse(program))
        (body,) = [
            node
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and node.name == function
        ]
        if change(body):
            yield kind, ast.unparse(ast.fix_missing_locations(tree))


def _no_result(function: ast.FunctionDef) -> bool:
    function.body = [ast.Return(value=None)]
    return True


def _count_up(function: ast.FunctionDef) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Constant) and type(node.value) is int:
            node.value += 1
            return True
    return False


def _swap(function: ast.FunctionDef) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Compare) and type(node.ops[0]) in _SWAPS:
            node.ops[0] = _SWAPS[type(node.ops[0])]()  # type: ignore[assignment]
            return True
        if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in _SWAPS:
            node.op = _SWAPS[type(node.op)]()  # type: ignore[assignment]
            return True
    return False
