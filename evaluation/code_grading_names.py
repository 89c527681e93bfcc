"""Names that LiveCodeBench's runner gives to every program.

Its runner puts star imports of twenty modules before each program, and programs rely on it:
statements are shown as ``List[int]`` without an import. Only the names that a program's text
mentions are imported here, from where the star imports would have left them: importing all of it
for every run would take longer than most programs.
"""

from __future__ import annotations

import importlib
import re
from functools import cache

_STAR_IMPORTS = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random",
    "statistics", "itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing",
)  # fmt: skip
"""In the runner's order: a later module's name hides an earlier one's."""
_IMPORTS = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random",
    "statistics", "itertools", "functools", "operator", "io", "sys", "json",
)  # fmt: skip
_NOT_ALWAYS_THERE = {"last_exc", "last_traceback", "last_type", "last_value", "ps1", "ps2"}
"""Of ``sys``: what this interpreter may have and a fresh one has not."""
_WORD = re.compile(r"[A-Za-z_]\w*")


def imports_for(program: str, packages: str) -> str:
    """Import statements for the names of a program, and the runner's recursion limit.

    Args:
        program: Python source.
        packages: Folder of what is installed beside the standard library.
    """
    origins = _origins()
    words = sorted(set(_WORD.findall(program)) & origins.keys())
    lines = [
        f"import {word}" if origins[word] is None else f"from {origins[word]} import {word}"
        for word in words
    ]
    path = f"__import__('sys').path.append({packages!r})"
    limit = "__import__('sys').setrecursionlimit(50000)"
    return "\n".join([path, *lines, limit, seeding_for(program)])


def seeding_for(program: str) -> str:
    """A statement that makes a program which draws random numbers draw the same ones each time."""
    return "__import__('random').seed(0)" if "random" in program else ""


@cache
def _origins() -> dict[str, str | None]:
    """Module of each name; none: the name is a module."""
    origins: dict[str, str | None] = {}
    for name in _STAR_IMPORTS:
        module = importlib.import_module(name)
        public = getattr(module, "__all__", None) or [n for n in vars(module) if n[0] != "_"]
        origins.update(dict.fromkeys(public, name))
    origins.update(dict.fromkeys(_IMPORTS))
    for word in _NOT_ALWAYS_THERE:
        origins.pop(word, None)
    return {word: origin for word, origin in origins.items() if origin != "builtins"}
