"""Schedules are checked before anything starts."""

from __future__ import annotations

import pytest

from flows.schedules import FlowSchedule, parse_schedules
from pipeline.errors import ConfigError


def test_a_flow_may_have_several_schedules() -> None:
    texts = ["synth-promptcot=0 2 * * *", "synth-promptcot = 30  14 * * 1-5"]
    assert parse_schedules(texts, "Europe/Berlin") == [
        FlowSchedule(flow="synth-promptcot", cron="0 2 * * *", timezone="Europe/Berlin"),
        FlowSchedule(flow="synth-promptcot", cron="30 14 * * 1-5", timezone="Europe/Berlin"),
    ]


@pytest.mark.parametrize(
    ("texts", "timezone", "said"),
    [
        (["synth=0 2 * * *"], "UTC", "no flow named 'synth'"),
        (["0 2 * * *"], "UTC", "has no '='"),
        (["evaluate=0 25 * * *"], "UTC", "'0 25 . . .' is no cron line"),
        (["evaluate=every night"], "UTC", "is no cron line"),
        (["evaluate=0 2 * * *", "evaluate=0  2 * * *"], "UTC", "given twice"),
        (["evaluate=0 2 * * *"], "Berlin", "no time zone named 'Berlin'"),
    ],
)
def test_what_is_no_schedule_is_said(texts: list[str], timezone: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_schedules(texts, timezone)
