"""What a judge is asked: a template, and a problem that nobody vouches for put into it.

The constant part of a template comes first, so that engines with prefix caching read it once; the
problem stands last, between two equal lines whose code is derived from the problem itself. A text
cannot hold its own hash, so it cannot close the fence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from pipeline.errors import ConfigError
from pipeline.hashing import content_hash, file_sha256
from pipeline.manifest import InputRef
from pipeline.records import Message, Problem
from pipeline.settings.judging import JudgeSettings
from pipeline.settings.recipe import Recipe
from pipeline.settings.synthesis import Form
from promptcot.problems import describe_domain
from promptcot.prompting import numbered, one_line

NEEDED = ("statement", "boundary", "level", "concepts")
"""Places that every judge's template must have."""
KNOWN = (*NEEDED, "domain", "rationale")

# Control tokens that servers act upon even inside a message, and tags of thinking sections, which
# decide where a reply begins. A space makes them ordinary text.
_CONTROL = re.compile(
    r"<(?=\||\uff5c|/?think|/?s>|(?:start|end)_of_turn|/?(?:system|user|assistant)>)"
    r"|\[(?=/?(?:INST|SYSTEM|AVAILABLE_TOOLS)[ _A-Z]*\])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """A judge's template and the form of its problem."""

    template: Template
    form: Form

    def render(self, problem: Problem) -> tuple[Message, ...]:
        """The messages that ask about a problem."""
        constrained = self.form == "constrained"
        statement = one_line(problem.statement) if constrained else problem.statement
        values = {
            "domain": describe_domain(problem.domain),
            "level": defuse(problem.level),
            "concepts": defuse(
                ", ".join(problem.concepts) if constrained else numbered(problem.concepts)
            ),
            "rationale": defuse(problem.rationale) or "(none given)",
            "statement": defuse(statement),
            "boundary": boundary_of(problem),
        }
        text = self.template.substitute(values)
        return (Message(role="user", content=text),)


def boundary_of(problem: Problem) -> str:
    """The line that opens and closes a problem in a prompt."""
    code = content_hash([problem.statement, problem.rationale, problem.level, problem.concepts])
    return f"===== {code} ====="


def defuse(text: str) -> str:
    """Text in which no control token of a chat template is left whole."""
    return _CONTROL.sub(lambda found: found[0] + " ", text)


def load_prompt(judge: JudgeSettings, recipe: Recipe, form: Form) -> JudgePrompt:
    """A judge's own template, or the bundled one of a form.

    Raises:
        ConfigError: The judge's template is missing, lacks a place or has an unknown one.
    """
    if judge.prompt is None:
        file = resources.files("promptcot") / "prompts" / f"judge_{form}.md"
        return JudgePrompt(Template(file.read_text(encoding="utf-8").strip()), form)
    path = recipe.file(judge.prompt)
    return JudgePrompt(_read_template(path, judge), form)


def prompt_inputs(judges: tuple[JudgeSettings, ...], recipe: Recipe) -> list[InputRef]:
    """The judges' own templates as inputs of a version, named by their content.

    Raises:
        ConfigError: A template is missing, lacks a place or has an unknown one.
    """
    found = []
    for judge in judges:
        if judge.prompt is not None:
            path = recipe.file(judge.prompt)
            _read_template(path, judge)
            found.append(InputRef(name=f"prompt:{judge.label}", version=file_sha256(path)))
    return found


def _read_template(path: Path, judge: JudgeSettings) -> Template:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"prompt of judge {judge.label!r} cannot be read: {path} ({exc})",
            hint="set judges.N.prompt to a UTF-8 text file, relative to the recipe",
        ) from exc
    if (problem := find_template_defect(text)) is not None:
        raise ConfigError(
            f"prompt of judge {judge.label!r}, {path}: {problem}",
            hint="start from promptcot/prompts/judge_free.md; a dollar sign is written $$",
        )
    return Template(text)


def find_template_defect(text: str) -> str | None:
    """What is wrong with a template's places, or none."""
    positions: dict[str, list[int]] = {}
    for match in Template.pattern.finditer(text):
        parts: Mapping[str, str | None] = match.groupdict()
        if parts["invalid"] is not None:
            line = text.count("\n", 0, match.start()) + 1
            return f"line {line} holds a dollar sign that opens no place"
        if (name := parts["named"] or parts["braced"]) is not None:
            positions.setdefault(name, []).append(match.start())
    for name in positions:
        if name not in KNOWN:
            return f"unknown place ${name} (known: {', '.join('$' + known for known in KNOWN)})"
    for name in NEEDED:
        if name not in positions:
            return f"the place ${name} is missing"
    fence = positions["boundary"]
    inside = positions["statement"] + positions.get("rationale", [])
    if not all(min(fence) < position < max(fence) for position in inside):
        return "$statement (and $rationale) must stand between two $boundary lines"
    return None
