"""Extract and compare mathematical answers.

Equal texts and whole numbers are settled at once; everything else goes to math-verify, which runs
in worker processes (:mod:`promptcot.verification.math_worker`) that are ended when they hang. The
workers are started on first need, so grading whole numbers costs nothing.
"""

from __future__ import annotations

import json
import queue
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import IO, Any, cast

from pipeline.errors import SandboxError

_START_S = 120.0
"""Importing sympy takes about a second; a machine under load may need many."""
_MAX_CHARS = 2000
"""No benchmark's answer is nearly as long; a model's runaway one is wrong, not slow."""
_BOX = "\\boxed{"
_WHOLE = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:,\d{3})+)")
_WORDS = re.compile(r"\\(?:text|mathrm|textbf|mbox)\{([^{}]*)\}")
_DROPPED = re.compile(r"\\left|\\right|\\!|\\,|\\;|\\ |\$|\s")
_REWRITTEN = {"\\dfrac": "\\frac", "\\tfrac": "\\frac"}


def extract_boxed(text: str) -> str | None:
    r"""Content of the last ``\boxed{...}`` whose braces are balanced, or none.

    Args:
        text: The answer alone, after the thinking.
    """
    start = text.rfind(_BOX)
    while start >= 0:
        content = _balanced(text, start + len(_BOX))
        if content is not None:
            return content.strip() or None
        start = text.rfind(_BOX, 0, start)
    return None


def _balanced(text: str, start: int) -> str | None:
    """Text up to the brace that closes the one before ``start``."""
    depth, position = 1, start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1  # an escaped brace is no brace
        elif character in "{}":
            depth += 1 if character == "{" else -1
            if depth == 0:
                return text[start:position]
        position += 1
    return None


def normalise_answer(text: str) -> str:
    """An answer without spacing, dollar signs and size commands; whole numbers in plain digits."""
    text = _DROPPED.sub("", _WORDS.sub(r"\1", text))
    for old, new in _REWRITTEN.items():
        text = text.replace(old, new)
    text = text.rstrip(".")
    return str(int(text.replace(",", ""))) if _is_whole(text) else text


def _is_whole(text: str) -> bool:
    # Python refuses to convert longer numerals than 4,300 digits.
    return len(text) <= 1000 and _WHOLE.fullmatch(text) is not None


def settle_by_text(gold: str, predicted: str) -> bool | None:
    """Whether two answers are equal, where their texts decide it."""
    left, right = normalise_answer(gold), normalise_answer(predicted)
    if not left or not right or len(predicted) > _MAX_CHARS:
        return False
    if left == right:
        return True
    return False if _is_whole(left) and _is_whole(right) else None


class MathGrader:
    """Compares answers in worker processes; usable from any thread.

    Args:
        num_workers: Processes at most.
        timeout_s: Longest time for one comparison; a longer one counts as unequal.
    """

    def __init__(self, *, num_workers: int = 2, timeout_s: float = 10.0) -> None:
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="math-grader")
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()

    def __enter__(self) -> MathGrader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        self._pool.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def grade(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each (gold, predicted) pair of answer texts is equal, in their order.

        Raises:
            SandboxError: A worker process does not start.
        """
        verdicts = [settle_by_text(gold, predicted) for gold, predicted in pairs]
        open_pairs = [pair for pair, known in zip(pairs, verdicts, strict=True) if known is None]
        compared = self._pool.map(self._compare, open_pairs)
        return [next(compared) if known is None else known for known in verdicts]

    def _compare(self, pair: tuple[str, str]) -> bool:
        try:
            worker = self._idle.get_nowait()
        except queue.Empty:
            worker = _Worker()
        equal = worker.ask(pair, self._timeout_s)
        if equal is None:
            worker.close()
            return False
        self._idle.put(worker)
        return equal


class _Worker:
    """One worker process and its pipes.

    Raises:
        SandboxError: It does not start.
    """

    def __init__(self) -> None:
        # Lives as long as the process; close() closes it.
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "promptcot.verification.math_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )
        self._requests = cast("IO[bytes]", self._process.stdin)
        self._replies = cast("IO[bytes]", self._process.stdout)
        if self._read(_START_S) is None:
            self._errors.seek(0)
            reason = self._errors.read().decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
            self.close()
            raise SandboxError(
                f"the answer checker does not start: {reason or 'no answer'}",
                hint="install math-verify again (pip install 'math-verify>=0.9,<0.10')",
            )

    def ask(self, pair: tuple[str, str], timeout_s: float) -> bool | None:
        """Whether a pair is equal; none when the worker died or took too long."""
        gold, predicted = pair
        request = json.dumps({"gold": gold, "predicted": predicted}) + "\n"
        try:
            self._requests.write(request.encode("ascii"))
        except BrokenPipeError:
            return None
        reply = self._read(timeout_s)
        return None if reply is None else bool(reply["equal"])

    def _read(self, timeout_s: float) -> dict[str, Any] | None:
        """The next reply, or none at the end of the stream or of the time."""
        deadline = time.monotonic() + timeout_s
        data = b""
        while not data.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._replies], [], [], left)[0]:
                return None
            piece = self._replies.read(4096)
            if not piece:
                return None
            data += piece
        reply: dict[str, Any] = json.loads(data)
        return reply

    def close(self) -> None:
        """End the process and wait for it."""
        self._process.kill()
        for pipe in (self._requests, self._replies, self._errors):
            pipe.close()
        self._process.wait()
