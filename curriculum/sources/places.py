"""Places in a row: ``messages.1.content``, ``turns.[role=assistant].text``, ``a|b``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Step = str | int | tuple[str, str]


@dataclass(frozen=True, slots=True)
class Place:
    """Alternatives of steps into a row."""

    routes: tuple[tuple[Step, ...], ...]

    @property
    def columns(self) -> list[str]:
        """The columns it begins in."""
        return [str(route[0]) for route in self.routes]

    def find(self, row: dict[str, Any]) -> Any:
        """What is there: the first alternative that holds something, or ``None``."""
        for route in self.routes:
            value = _follow(row, route)
            if value is not None and value != "":
                return value
        return None

    def text(self, row: dict[str, Any]) -> str | None:
        """What is there as text; numbers are written out, lists and objects are no text."""
        value = self.find(row)
        if isinstance(value, str):
            return value
        if isinstance(value, bool | int | float):
            return str(value)
        return None


@lru_cache(maxsize=1024)
def parse_place(text: str) -> Place:
    """A place from its spelling."""
    return Place(tuple(_parse_route(route) for route in text.split("|") if route.strip()))


def _parse_route(text: str) -> tuple[Step, ...]:
    steps: list[Step] = []
    for piece in text.strip().split("."):
        if piece.startswith("[") and piece.endswith("]") and "=" in piece:
            name, _, value = piece[1:-1].partition("=")
            steps.append((name, value))
        elif steps and piece.lstrip("-").isdigit():
            steps.append(int(piece))
        else:
            steps.append(piece)
    return tuple(steps)


def _follow(value: Any, route: tuple[Step, ...]) -> Any:
    for step in route:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        elif not isinstance(value, list):
            return None
        elif isinstance(step, int):
            value = value[step] if -len(value) <= step < len(value) else None
        else:
            value = _first_with(value, *step)
        if value is None:
            return None
    return value


def _first_with(elements: list[Any], name: str, wanted: str) -> Any:
    for element in elements:
        if isinstance(element, dict) and str(element.get(name)) == wanted:
            return element
    return None
