"""Which of Prefect's own log lines a run's page goes without: those that repeat ours.

Each step ends with one line of counts and rates, a run with what it wrote or why it stopped; the
engine would add a line to each that says the same in other words, the last of them a traceback.
"""

from __future__ import annotations

import logging

_ENGINE_LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")


def quiet_engine_logs() -> None:
    """Drop those lines from now on, in this process."""
    for name in _ENGINE_LOGGERS:
        logging.getLogger(name).addFilter(is_news)


def is_news(record: logging.LogRecord) -> bool:
    """Whether a record is more than the end of a run that is told already."""
    from prefect.exceptions import FailedRun

    kind = record.exc_info[0] if record.exc_info else None
    if kind is not None and issubclass(kind, FailedRun):
        return False
    return not record.getMessage().startswith("Finished in state ")
