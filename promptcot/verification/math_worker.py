"""The worker process of :mod:`promptcot.verification.math_answers`: one comparison per line.

JSON lines ``{"gold", "predicted"}`` in, ``{"equal"}`` out, after a first line ``{"ready": true}``;
``equal`` is null where the comparison could not be finished. Each comparison runs in a fork of this
process with hard limits on memory and processor time, so an explosive expression ends its own fork
and nothing that one comparison caches changes another. math-verify's own alarm is off: it counts
seconds of the clock, and a busy machine would give other verdicts than an idle one.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import signal
import sys

_EQUAL, _UNEQUAL, _UNABLE = 10, 11, 12
_WARM_UP = (("x+1", "1+x"), (r"\frac{1}{2}", "0.5"), (r"\{1,2\}", "2, 1"), ("(1,2)", "(2,1)"))
"""Compared once before the forks, so that each inherits what sympy sets up on first use."""


def are_equal(gold: str, predicted: str) -> bool:
    r"""Whether two answers, as found within ``\boxed{}``, mean the same mathematics."""
    from math_verify import parse, verify

    left = parse(f"\\boxed{{{gold}}}", parsing_timeout=None)
    right = parse(f"\\boxed{{{predicted}}}", parsing_timeout=None)
    if not left or not right:
        return False
    return bool(verify(left, right, timeout_seconds=None))


def compare_in_fork(gold: str, predicted: str, *, cpu_s: int, memory_bytes: int) -> bool | None:
    """The verdict of a fork, or none when a limit ended it."""
    pid = os.fork()
    if not pid:
        try:
            _limit(cpu_s, memory_bytes)
            os._exit(_EQUAL if are_equal(gold, predicted) else _UNEQUAL)
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
        equal = compare_in_fork(
            request["gold"], request["predicted"], cpu_s=cpu_s, memory_bytes=memory_bytes
        )
        print(json.dumps({"equal": equal}), file=replies, flush=True)


if __name__ == "__main__":
    main()
