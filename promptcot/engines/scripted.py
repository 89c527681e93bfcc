"""A teacher that answers from a file: for tests of everything that stands behind a teacher.

The file is JSONL. Each row has ``match`` (text that the last user message must contain) or
``pattern`` (regular expression searched in it), and ``text``: one reply, or a list from which the
request's seed chooses. The first row that fits answers. ``finish_reason`` is ``stop`` by default.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError, model_validator

from pipeline.errors import TeacherError
from pipeline.hashing import file_sha256
from pipeline.records import FinishReason
from pipeline.settings.base import Settings
from promptcot.engines.protocol import Answer, Capabilities, Request


class ScriptRow(Settings):
    """One rule of a script."""

    match: str | None = None
    pattern: str | None = None
    text: str | tuple[str, ...]
    finish_reason: FinishReason = "stop"

    @model_validator(mode="after")
    def _one_rule(self) -> ScriptRow:
        if (self.match is None) == (self.pattern is None):
            raise ValueError("give either match or pattern")
        if not self.text and not isinstance(self.text, str):
            raise ValueError("text is an empty list")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as exc:
                raise ValueError(f"pattern is not a regular expression: {exc}") from exc
        return self

    def fits(self, message: str) -> bool:
        """Whether this row answers a message."""
        if self.pattern is not None:
            return re.search(self.pattern, message) is not None
        return str(self.match) in message

    def reply(self, seed: int) -> str:
        """The text; a list is cycled by the seed."""
        return self.text if isinstance(self.text, str) else self.text[seed % len(self.text)]


class ScriptedEngine:
    """Answers from a script.

    Raises:
        TeacherError: The script is missing or malformed, or has no row for a request.
    """

    def __init__(self, path: Path, *, max_concurrency: int = 64) -> None:
        self._path = path
        self._max_concurrency = max_concurrency
        self._rows = _read_script(path)
        # The script's content is the "weights": another script is asked anew.
        self._model = f"script@{file_sha256(path)[:12]}"

    @property
    def capabilities(self) -> Capabilities:
        """Any constraint is accepted and ignored: the script says what comes."""
        return Capabilities(
            name="scripted",
            model=self._model,
            constraints=frozenset({"regex", "json_schema"}),
            group_size=None,
            max_concurrency=self._max_concurrency,
        )

    async def answer(self, requests: Sequence[Request]) -> Sequence[Answer]:
        """Answer at once; token counts are word counts."""
        return [self._answer(request) for request in requests]

    async def close(self) -> None:
        """Nothing is held open."""

    def _answer(self, request: Request) -> Answer:
        message = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
        for row in self._rows:
            if row.fits(message):
                text = row.reply(request.seed)
                num_prompt = sum(len(m.content.split()) for m in request.messages)
                return Answer(text, row.finish_reason, num_prompt, len(text.split()))
        raise TeacherError(
            f"script {self._path} has no reply for the request that begins {message[:80]!r}",
            hint="add a row whose match or pattern fits it",
        )


def _read_script(path: Path) -> list[ScriptRow]:
    if not path.is_file():
        raise TeacherError(
            f"script not found: {path}",
            hint="set teachers.NAME.script to a JSONL file, relative to the recipe",
        )
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(ScriptRow.model_validate_json(line))
        except ValidationError as exc:
            problem = exc.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise TeacherError(
                f"script {path}, line {number}: {problem}",
                hint='write rows like {"match": "…", "text": "…"}',
            ) from exc
    return rows
