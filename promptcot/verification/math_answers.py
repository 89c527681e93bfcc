"""Extract and compare mathematical answers.

Equal texts, whole numbers and plain fractions are settled at once; everything else goes to
math-verify, which runs in worker processes (:mod:`promptcot.verification.math_worker`) under limits
of time and memory for each comparison. The workers are started on first need, so grading whole
numbers costs nothing.
"""

from __future__ import annotations

import json
import os
import queue
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from math import ceil
from types import TracebackType
from typing import IO, Any, cast

from pipeline.errors import SandboxError

_START_S = 120.0
"""Importing sympy takes about a second; a machine under load may need many."""
_PATIENCE = 10
"""Seconds of the clock per allowed processor second, on a machine that is this much overloaded."""
MEMORY_MIB = 1024
"""Address space of one comparison; ordinary ones need 70 MiB."""
_MAX_CHARS = 2000
"""No benchmark's answer is nearly as long; a model's runaway one is wrong, not slow."""
_MAX_DIGITS = 1000
"""Python refuses to convert longer numerals than 4,300 digits."""
_BOX = "\\boxed{"
_WHOLE = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:,\d{3})+)")
_WORDS = re.compile(r"\\(?:text|mathrm|textbf|mbox)\{([^{}]*)\}")
_DROPPED = re.compile(r"\\left|\\right|\\!|\\,|\\;|\\ |\$|\s")
_REWRITTEN = {"\\dfrac": "\\frac", "\\tfrac": "\\frac"}
_FRACTION = re.compile(
    r"(?P<sign>[+-]?)(?:\\frac\{(?P<a>[+-]?\d{1,300})\}\{(?P<b>\d{1,300})\}|(?P<c>\d{1,300})/(?P<d>\d{1,300}))"
)


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
    if text.isdecimal() and text.isascii() and len(text) <= _MAX_DIGITS:
        return str(int(text))  # by far the most common answer
    text = _DROPPED.sub("", _WORDS.sub(r"\1", text))
    for old, new in _REWRITTEN.items():
        text = text.replace(old, new)
    text = text.rstrip(".")
    return str(int(text.replace(",", ""))) if _is_whole(text) else text


def _is_whole(text: str) -> bool:
    return len(text) <= _MAX_DIGITS and _WHOLE.fullmatch(text) is not None


def _read_exact(text: str) -> Fraction | None:
    """The value of a normalised answer that is a whole number or a plain fraction."""
    if _is_whole(text):
        return Fraction(int(text))
    match = _FRACTION.fullmatch(text)
    if match is None or not (below := int(match["b"] or match["d"])):
        return None
    value = Fraction(int(match["a"] or match["c"]), below)
    return -value if match["sign"] == "-" else value


def settle_by_text(gold: str, predicted: str) -> bool | None:
    """Whether two answers are equal, where their texts decide it."""
    return settle_normalised(normalise_answer(gold), normalise_answer(predicted))


def settle_normalised(left: str, right: str) -> bool | None:
    """As :func:`settle_by_text`, of answers that are normalised already."""
    if not left or not right or max(len(left), len(right)) > _MAX_CHARS:
        return False
    if left == right:
        return True
    first, second = _read_exact(left), _read_exact(right)
    return None if first is None or second is None else first == second


class MathGrader:
    """Compares answers in worker processes; usable from any number of threads at once.

    Args:
        num_workers: Processes at most.
        timeout_s: Processor seconds of one comparison, rounded up: the same verdict on a busy
            machine as on an idle one.
        memory_mib: Address space of one comparison.
    """

    def __init__(
        self, *, num_workers: int = 2, timeout_s: float = 5.0, memory_mib: int = MEMORY_MIB
    ) -> None:
        self._limits = (max(1, ceil(timeout_s)), memory_mib << 20)
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
        """Finish the comparison at hand, leave out all others and end the workers."""
        self._pool.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def cancel(self) -> None:
        """Leave out what has not begun; whoever waits for it gets ``CancelledError``."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def grade(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each (gold, predicted) pair of answer texts is equal, in their order.

        A comparison that cannot be done within the limits counts as unequal.

        Raises:
            SandboxError: A worker process does not start.
        """
        return [verdict is True for verdict in self.compare(pairs)]

    def compare(self, pairs: Sequence[tuple[str, str]]) -> list[bool | None]:
        """As :meth:`grade`, with none where a limit ended the comparison.

        Raises:
            SandboxError: A worker process does not start.
        """
        verdicts = [settle_by_text(gold, predicted) for gold, predicted in pairs]
        open_pairs = [n for n, known in enumerate(verdicts) if known is None]
        compared = self._pool.map(self._compare, [pairs[n] for n in open_pairs])
        for number, verdict in zip(open_pairs, compared, strict=True):
            verdicts[number] = verdict
        return verdicts

    def _compare(self, pair: tuple[str, str]) -> bool | None:
        try:
            worker = self._idle.get_nowait()
        except queue.Empty:
            worker = _Worker(*self._limits)
        reply = worker.ask(pair)
        if reply is None:
            worker.close()
            return None
        self._idle.put(worker)
        return reply["equal"]


class _Worker:
    """One worker process and its pipes.

    Raises:
        SandboxError: It does not start.
    """

    def __init__(self, cpu_s: int, memory_bytes: int) -> None:
        self._patience_s = 10.0 + _PATIENCE * cpu_s
        # Lives as long as the process; close() closes it.
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "promptcot.verification.math_worker",
                str(cpu_s),
                str(memory_bytes),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,
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

    def ask(self, pair: tuple[str, str]) -> dict[str, bool | None] | None:
        """The reply about a pair; none when the worker itself died or hangs."""
        gold, predicted = pair
        request = json.dumps({"gold": gold, "predicted": predicted}) + "\n"
        try:
            self._requests.write(request.encode("ascii"))
        except BrokenPipeError:
            return None
        return self._read(self._patience_s)

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
        with suppress(ProcessLookupError):
            # Its fork too, which may be at work.
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._requests, self._replies, self._errors):
            pipe.close()
        self._process.wait()
