"""Compare mathematical answers: by rules at once, else with math-verify in worker processes.

The rules (:mod:`promptcot.verification.math_equality`) are exact, bounded and take well below a
millisecond. What they leave open (sums, integrals, limits) goes to worker processes
(:mod:`promptcot.verification.math_worker`) with limits of time and memory for each comparison.
The workers are started on first need: most benchmarks are graded without one.
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
from dataclasses import asdict
from fractions import Fraction
from itertools import pairwise
from math import ceil
from types import TracebackType
from typing import IO, Any, cast

from pipeline.benchmark_items import MathGold
from pipeline.errors import SandboxError
from pipeline.keys import child_environment
from promptcot.verification.math_equality import is_equal_answer
from promptcot.verification.math_forms import strip_edges
from promptcot.verification.math_text import MAX_CHARS, MAX_DIGITS, is_word, tokenise

_START_S = 120.0
"""Importing sympy takes about a second; a machine under load may need many."""
_PATIENCE = 10
"""Seconds of the clock per allowed processor second, on a machine that is this much overloaded."""
MEMORY_MIB = 1024
"""Address space of one comparison; ordinary ones need 70 MiB."""
_WHOLE = re.compile(r"[+-]?\d+")
_FRACTION = re.compile(
    r"(?P<sign>[+-]?)(?:\\frac\{(?P<a>[+-]?\d{1,300})\}\{(?P<b>\d{1,300})\}|(?P<c>\d{1,300})/(?P<d>\d{1,300}))"
)

Gold = MathGold | str
"""A gold answer, or its text alone."""


def normalise_answer(text: str) -> str:
    """An answer in one spelling of LaTeX, without spacing; whole numbers in plain digits.

    Equal results mean equal answers; unequal ones may be equal all the same (1/2 and 0.5).
    """
    if len(text) > MAX_CHARS:
        return text
    if text.isdecimal() and text.isascii() and len(text) <= MAX_DIGITS:
        return str(int(text))  # by far the most common answer
    tokens = strip_edges(tokenise(text))
    bare = [token[1:] if is_word(token) else token for token in tokens]
    pieces = bare[:1]
    for before, token in pairwise(bare):
        # A command would swallow the letter behind it, a number the number or the lone point.
        needs_space = before[-1:].isalnum() and (token[:1].isalnum() or token[:1] == ".")
        is_open = len(before) > 1 or before[:1].isdecimal()
        pieces.append(" " + token if needs_space and is_open else token)
    joined = "".join(pieces)
    is_whole = len(joined) <= MAX_DIGITS and _WHOLE.fullmatch(joined) is not None
    return str(int(joined)) if is_whole else joined


def _read_exact(text: str) -> Fraction | None:
    """The value of a normalised answer that is a whole number or a plain fraction."""
    if len(text) <= MAX_DIGITS and _WHOLE.fullmatch(text):
        return Fraction(int(text))
    match = _FRACTION.fullmatch(text)
    if match is None or not (below := int(match["b"] or match["d"])):
        return None
    value = Fraction(int(match["a"] or match["c"]), below)
    return -value if match["sign"] == "-" else value


def settle_by_text(gold: Gold, predicted: str) -> bool | None:
    """Whether an answer equals the gold one, where the rules decide it without a worker."""
    return is_equal_answer(_as_gold(gold), predicted)


def settle_normalised(left: str, right: str) -> bool | None:
    """Whether two normalised answers are equal, where their texts alone decide it."""
    if not left or not right or max(len(left), len(right)) > MAX_CHARS:
        return False
    if left == right:
        return True
    first, second = _read_exact(left), _read_exact(right)
    return None if first is None or second is None else first == second


def _as_gold(gold: Gold) -> MathGold:
    return MathGold(text=gold) if isinstance(gold, str) else gold


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

    def grade(self, pairs: Sequence[tuple[Gold, str]]) -> list[bool]:
        """Whether each answer equals the gold answer it is paired with, in their order.

        A comparison that cannot be done within the limits counts as unequal.

        Raises:
            SandboxError: A worker process does not start.
        """
        return [verdict is True for verdict in self.compare(pairs)]

    def compare(self, pairs: Sequence[tuple[Gold, str]]) -> list[bool | None]:
        """As :meth:`grade`, with none where nobody can tell: a limit, or prose on both sides.

        Raises:
            SandboxError: A worker process does not start.
        """
        verdicts = [settle_by_text(gold, predicted) for gold, predicted in pairs]
        open_pairs = [n for n, known in enumerate(verdicts) if known is None]
        compared = self._pool.map(self._compare, [pairs[n] for n in open_pairs])
        for number, verdict in zip(open_pairs, compared, strict=True):
            verdicts[number] = verdict
        return verdicts

    def _compare(self, pair: tuple[Gold, str]) -> bool | None:
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
            env=child_environment(),
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

    def ask(self, pair: tuple[Gold, str]) -> dict[str, bool | None] | None:
        """The reply about a pair; none when the worker itself died or hangs."""
        gold, predicted = pair
        request = json.dumps({"gold": asdict(_as_gold(gold)), "predicted": predicted}) + "\n"
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
