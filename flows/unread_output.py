"""A run outlives who reads its log, e.g. the process that served it."""

from __future__ import annotations

import logging
from functools import partial

from rich.console import Console

from pipeline.console import drop_output


def survive_unread_output() -> None:
    """Have Prefect's log handlers drop what nobody reads any more.

    They print with rich, which raises ``SystemExit`` in the thread that logs when the other end of
    standard error is gone: the run would end in the middle of its work.
    """
    names = list(logging.root.manager.loggerDict)
    for logger in (logging.root, *map(logging.getLogger, names)):
        for handler in logger.handlers:
            console = getattr(handler, "console", None)
            if isinstance(console, Console):
                console.on_broken_pipe = partial(drop_output, console)  # type: ignore[method-assign]
