"""The worker process of :mod:`promptcot.verification.math_answers`: one comparison per line.

JSON lines ``{"gold", "predicted"}`` in, ``{"equal"}`` out, after a first line ``{"ready": true}``;
``equal`` is null where the comparison could not be finished. The rules decide the shape of answers
here as in the calling process; math-verify is asked about leaves that they leave open. Each
comparison runs in a fork of this process with hard limits on memory and processor time, so an
explosive expression ends its own fork and nothing that one comparison caches changes another.
math-verify's own alarm is off: it counts seconds of the clock, and a busy machine would give other
verdicts than an idle one.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import signal
import sys

from pipeline.benchmark_items import MathGold
from promptcot.verification.math_equality import is_equal_answer

_EQUAL, _UNEQUAL, _UNABLE = 10, 11, 12
_DECIMALS = 20
_WARM_UP = (
    ("x+1", "1+x"),
    (r"\frac{1}{2}", "0.5"),
    (r"\sum_{k=1}^{10} k", "55"),
    (r"\int_0^1 x dx", r"\frac{1}{2}"),
    (r"\lim_{x \to 0} \frac{\sin x}{x}", "1"),
)
"""Compared once before the forks, so that each inherits what sympy sets up on first use."""


def are_equal(gold: str, predicted: str) -> bool:
    r"""What math-verify says about two expressions.

    Its rounding to six decimals is off: 0.333333 is not one third.
    """
    from math_verify import parse, verify

    left = parse(f"\\boxed{{{gold}}}", parsing_timeout=None)
    right = parse(f"\\boxed{{{predicted}}}", parsing_timeout=None)
    if not left or not right:
        return False
    return bool(
        verify(left, right, float_rounding=_DECIMALS, numeric_precision=30, timeout_seconds=None)
    )


def compare_in_fork(
    gold: MathGold, predicted: str, *, cpu_s: int, memory_bytes: int
) -> bool | None:
    """The verdict of a fork, or none when a limit ended it."""
    pid = os.fork()
    if not pid:
        try:
            _limit(cpu_s, memory_bytes)
            verdict = is_equal_answer(gold, predicted, are_equal)
            os._exit({True: _EQUAL, False: _UNEQUAL, None: _UNABLE}[verdict])
        except (MemoryError, RecursionError):
            os._exit(_UNABLE)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {_EQUAL: True, _UNEQUAL: False}.get(code)


def _limit(cpu_s: int, memory_bytes: int) -> None:
    # The kernel's default action ends the fork even inside one long operation on huge numbers.
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def main() -> None:
    """Answer requests until standard input ends.

    Arguments: processor seconds and bytes of address space of one comparison.
    """
    cpu_s, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    # Its warnings about unparsable answers are our ordinary case.
    logging.disable(logging.CRITICAL)
    replies = sys.stdout
    # Nothing that a library prints may mix with the replies.
    sys.stdout = sys.stderr
    for pair in _WARM_UP:
        are_equal(*pair)
    gc.collect()
    gc.freeze()  # forks then share these pages instead of copying them
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        gold = MathGold(**request["gold"])
        equal = compare_in_fork(gold, request["predicted"], cpu_s=cpu_s, memory_bytes=memory_bytes)
        print(json.dumps({"equal": equal}), file=replies, flush=True)


if __name__ == "__main__":
    main()
