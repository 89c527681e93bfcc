"""A flow's log may lose its reader: Prefect's handler then drops lines instead of ending the run."""

from __future__ import annotations

import logging
import os

from prefect.logging.handlers import PrefectConsoleHandler

from flows.unread_output import survive_unread_output


def test_a_log_line_that_nobody_reads_ends_nothing() -> None:
    reading, writing = os.pipe()
    logger = logging.getLogger("prefect.flow_runs")
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        handler = PrefectConsoleHandler(stream)
        logger.addHandler(handler)
        try:
            survive_unread_output()
            os.close(reading)
            for line in ("a line", "another"):
                handler.emit(logging.makeLogRecord({"msg": line, "levelno": logging.INFO}))
        finally:
            logger.removeHandler(handler)
        assert handler.console.quiet
