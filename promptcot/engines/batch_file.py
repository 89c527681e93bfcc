"""Offline fleets: requests go into files, results come back as files (OpenAI's batch format).

The first run writes ``<out>/batches/<model>/requests-NNNN.jsonl`` and stops with the commands that
answer them, e.g. ``vllm run-batch``. With ``results-*.jsonl`` (or ``*.results.jsonl``) beside them
the same command goes on; what was handed out before is not handed out again. A request that came
back failed is written into a next file, at most ``max_retries`` times; one that was refused, or
failed too often, becomes an ``error`` answer.

Each file asks one address. ``vllm run-batch`` answers chat completions, but not plain ones: a file
of requests without a chat template (``/v1/completions``) needs another fleet, or the ``http``
engine.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import TeacherError, WorkPending
from pipeline.settings.teacher import TeacherSettings
from promptcot.engines.batch_folder import FOLDERS, BatchFolder, results_of
from promptcot.engines.openai_format import (
    NotACompletion,
    error_message,
    read_completion,
    request_body,
    request_path,
)
from promptcot.engines.protocol import Answer, Capabilities, Request

_REFUSED = {400, 404, 413, 422}
_NAMED_FILES = 3
_CHAT = "/v1/chat/completions"
_UNSERVED = re.compile(r"URL \S+ was used\. Supported endpoints")
"""How ``vllm run-batch`` refuses every line of a file whose address it does not know."""


class BatchFileEngine:
    """A teacher that answers when somebody has run the files it asks in."""

    def __init__(self, name: str, settings: TeacherSettings, out: Path) -> None:
        self._name = name
        self._settings = settings
        self._path = out / "batches" / folder_name(settings.model)
        self._folder: BatchFolder | None = None
        self._lock = threading.Lock()
        self._opening: asyncio.Lock | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Independent requests; constraints as the recipe declares them for the fleet."""
        return Capabilities(
            name="batch_file",
            model=self._settings.model,
            constraints=frozenset(self._settings.constraints),
            group_size=None,
            max_concurrency=self._settings.max_concurrency,
        )

    async def answer(self, requests: Sequence[Request]) -> Sequence[Answer]:
        """Answer one request from the results, or hand it out.

        Raises:
            WorkPending: It is in a request file and has no result yet.
            TeacherError: The results were made by a program that does not know its address.
        """
        (request,) = requests
        folder = await self._opened_folder()
        custom_id = request.key(self._settings.model)
        with self._lock:
            failures = []
            for line in folder.results(custom_id):
                result = read_result(line)
                reason = result.detail if isinstance(result, Answer) else result
                if _UNSERVED.search(reason):
                    raise self._unserved(reason)
                if isinstance(result, Answer):
                    return [result]
                failures.append(reason)
            # A request that is missing in its file's results has failed like one with an error.
            num_failed = max(len(failures), folder.num_returned(custom_id))
            if num_failed > self._settings.max_retries:
                reason = failures[-1] if failures else "it is missing in the results"
                return [_error(f"no answer in {num_failed} tries; the last: {reason}")]
            if folder.num_exported(custom_id) <= num_failed:
                body = request_body(self._settings.model, request)
                folder.export(custom_id, f"/v1/{request_path(request)}", body)
            raise self._pending(folder.waiting)

    async def close(self) -> None:
        """Publish the last request file."""
        if self._folder is not None:
            self._folder = None
            FOLDERS.close(self._path)

    async def _opened_folder(self) -> BatchFolder:
        self._opening = self._opening or asyncio.Lock()
        async with self._opening:
            if self._folder is not None:
                return self._folder
            # Reading the files takes a while; the loop stays free.
            folder, self._lock = await asyncio.to_thread(
                FOLDERS.open, self._path, lines_per_file=self._settings.batch_lines
            )
            self._folder = folder
            return folder

    def _pending(self, files: Mapping[Path, str]) -> WorkPending:
        chat = [path for path, url in files.items() if url == _CHAT]
        plain = [path for path, url in files.items() if url != _CHAT]
        advice = []
        if chat:
            arguments = ["--model", self._settings.model, "-i", chat[0], "-o", results_of(chat[0])]
            command = shlex.join(["vllm", "run-batch", *map(str, arguments)])
            advice.append(
                "answer each requests-*.jsonl there that has no results-*.jsonl yet, e.g. "
                f"`{command}`"
            )
        if plain:
            advice.append(
                f"{_names(plain)} asks {files[plain[0]]}, which `vllm run-batch` does not serve: "
                + self._plain_remedy(plain[0])
            )
        return WorkPending(
            f"no results yet in {self._path} for {_names(list(files))}",
            hint="; ".join([*advice, "then run the same command again"]),
        )

    def _plain_remedy(self, path: Path) -> str:
        model = shlex.quote(self._settings.model)
        return (
            f"write {results_of(path).name} with a batch program that does, or start `vllm serve "
            f'{model}` and set teachers.{self._name}.engine = "http" and its base_urls'
        )

    def _unserved(self, reason: str) -> TeacherError:
        return TeacherError(
            f"the results in {self._path} come from a program that does not serve what was asked "
            f"({reason})",
            hint=f"move them away; {self._plain_remedy(self._path / 'requests-NNNN.jsonl')}",
        )


def _names(files: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in files[:_NAMED_FILES])
    more = len(files) - _NAMED_FILES
    return f"{names} and {more} more" if more > 0 else names


def folder_name(model: str) -> str:
    """A model's name as one folder's name."""
    return re.sub(r"[^\w.-]+", "--", model.strip("/.")) or "model"


def read_result(line: dict[str, Any]) -> Answer | str:
    """A result line's answer (an ``error`` one when it was refused), or why to try again."""
    response = line.get("response") or {}
    status, body = response.get("status_code", 0), response.get("body")
    if status == 200:
        try:
            return read_completion(json.dumps(body).encode())
        except NotACompletion as exc:
            return str(exc)
    message = error_message(body) or error_message(line.get("error")) or "no reason given"
    if status in _REFUSED:
        return _error(f"HTTP {status}: {message}")
    return f"HTTP {status}: {message}" if status else message


def _error(detail: str) -> Answer:
    return Answer("", "error", 0, 0, detail)
