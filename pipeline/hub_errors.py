"""What goes wrong while something is read from the hub, as one sentence with a remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import SourceError

_DISK_PROBLEMS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


@contextmanager
def explain_hub_errors(what: str, hint: str) -> Iterator[None]:
    """Turn errors of the network, the hub and its client into one.

    Args:
        what: What could not be done, e.g. ``cannot read hub dataset NAME``.
        hint: The remedy.

    Raises:
        SourceError: Offline, or no such repository, revision or file; a full disk stays what it is.
    """
    from huggingface_hub.errors import HfHubHTTPError

    # The HTTP library below it changed with 2.0; its errors are named by their ancestor.
    transport = [kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError"]
    problems: tuple[type[Exception], ...] = (OSError, ValueError, *transport)
    try:
        yield
    except problems as exc:
        if isinstance(exc, OSError) and exc.errno in _DISK_PROBLEMS:
            raise
        reason = next(iter(str(exc).strip().splitlines()), type(exc).__name__)
        raise SourceError(f"{what}: {reason}", hint=hint) from exc
