"""The worker process of :mod:`promptcot.verification.math_answers`: one comparison per line.

math-verify limits its own time with an alarm signal, which only works in a process's main thread;
it refuses to run anywhere else. So it runs here: JSON lines ``{"gold", "predicted"}`` in,
``{"equal"}`` out, after a first line ``{"ready": true}``. The parent ends a worker that hangs.
"""

from __future__ import annotations

import json
import logging
import resource
import sys

_MEMORY_BYTES = 4 << 30
"""Address space: a tower of powers ends this process, not the machine."""
_PARSE_S, _COMPARE_S = 3, 3


def are_equal(gold: str, predicted: str) -> bool:
    r"""Whether two answers, as found within ``\boxed{}``, mean the same mathematics."""
    from math_verify import parse, verify

    left = parse(f"\\boxed{{{gold}}}", parsing_timeout=_PARSE_S)
    right = parse(f"\\boxed{{{predicted}}}", parsing_timeout=_PARSE_S)
    if not left or not right:
        return False
    return bool(verify(left, right, timeout_seconds=_COMPARE_S))


def main() -> None:
    """Answer requests until standard input ends."""
    import math_verify  # noqa: F401  # loaded before the parent's clock runs

    # Its warnings about unparsable answers are our ordinary case.
    logging.disable(logging.CRITICAL)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    replies = sys.stdout
    # Nothing that a library prints may mix with the replies.
    sys.stdout = sys.stderr
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        equal = are_equal(request["gold"], request["predicted"])
        print(json.dumps({"equal": equal}), file=replies, flush=True)


if __name__ == "__main__":
    main()
