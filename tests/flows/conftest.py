"""One temporary Prefect server for the flow tests that need one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A server of the tests' own; it takes some 15 s, so only slow tests ask for it."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    # Without heartbeats a run does not wait a second for the thread that sends them.
    with (
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
        prefect_test_harness(server_startup_timeout=120),
    ):
        yield


# The flows call synthesis and evaluation; until both are here their tests cannot run.
collect_ignore_glob = (
    [] if Path(__file__).parents[2].joinpath("promptcot", "synthesis.py").is_file() else ["test_*"]
)
