"""What names no version must be unable to change one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.hashing import code_files
from pipeline.presentation import PRESENTATION

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "promptcot", "curriculum", "trainer", "evaluation")
COUNTED = [path for package in PACKAGES for path in code_files(package, ROOT / package)]


def imported_files(path: Path) -> Iterator[str]:
    """Files that a module imports anywhere in it, lazily too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (f"{name.replace('.', '/')}.py" for name in names)


def test_everything_listed_exists_and_the_rest_counts() -> None:
    assert [name for name in sorted(PRESENTATION) if not (ROOT / name).is_file()] == []
    counted = {path.relative_to(ROOT).as_posix() for path in COUNTED}
    assert {"promptcot/problems.py", "promptcot/cards.py", "pipeline/hashing.py"} <= counted
    assert any(name.startswith("promptcot/prompts/") for name in counted)
    assert counted.isdisjoint(PRESENTATION)


@pytest.mark.parametrize("path", COUNTED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_counts_uses_nothing_that_does_not(path: Path) -> None:
    if path.suffix == ".py":
        assert set(imported_files(path)) & PRESENTATION == set()
    if path.name == "presentation.py":
        return
    # Modules and templates can also be named in a string.
    text = path.read_text(encoding="utf-8")
    names = [Path(name) for name in sorted(PRESENTATION)]
    called = {".".join(n.with_suffix("").parts) if n.suffix == ".py" else n.name for n in names}
    assert [name for name in sorted(called) if f'"{name}"' in text] == []


def test_a_new_file_renames_and_a_report_does_not(tmp_path: Path) -> None:
    for name in ("promptcot/report.py", "promptcot/problems.py", "promptcot/engines/report.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = code_files("promptcot", tmp_path / "promptcot")
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "promptcot/engines/report.py",
        "promptcot/problems.py",
    ]
