"""Prompt templates: text files with ``$name`` places, one per kind of request and form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from string import Template

from pipeline.records import Message


@cache
def _template(name: str) -> Template:
    file = resources.files("promptcot") / "prompts" / f"{name}.md"
    return Template(file.read_text(encoding="utf-8").strip())


def render_prompt(name: str, **values: str) -> tuple[Message, ...]:
    """The user turn made from ``prompts/<name>.md``.

    Values are inserted as they are and never expanded again, so text written by a model cannot
    reach other places of the template.

    Raises:
        KeyError: A place of the template has no value.
    """
    return (Message(role="user", content=_template(name).substitute(values)),)


def numbered(items: Sequence[str]) -> str:
    """One item a line, numbered from 1."""
    return "\n".join(f"{number}. {item}" for number, item in enumerate(items, start=1))


def one_line(text: str) -> str:
    """Text with all white space folded to single spaces."""
    return " ".join(text.split())
