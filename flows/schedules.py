"""Schedules of deployments: read from options, checked, and kept on the server without doubles.

A schedule of ours has a slug that begins with ``promptcot-``. Those are made to match what was
asked for, whatever an earlier start left behind; schedules that people made in the web pages or
with ``prefect deployment schedule`` are not touched.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flows.catalog import Target, find_entry
from pipeline.errors import ConfigError

_SLUG = "promptcot-"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSchedule:
    """When a flow runs by itself."""

    flow: str
    cron: str
    timezone: str
    """IANA name, which knows summer time."""


def parse_schedules(texts: Sequence[str], timezone: str) -> list[FlowSchedule]:
    """Schedules from ``FLOW=MINUTE HOUR DAY MONTH WEEKDAY`` texts.

    Args:
        texts: E.g. ``synth-promptcot=0 2 * * *``.
        timezone: Of all of them.

    Raises:
        ConfigError: No such flow or time zone, a cron line that is none, or one given twice.
    """
    if timezone not in zoneinfo.available_timezones():
        raise ConfigError(
            f"no time zone named {timezone!r}", hint="use an IANA name such as Europe/Berlin or UTC"
        )
    found: list[FlowSchedule] = []
    for text in texts:
        name, separator, cron = text.partition("=")
        if not separator:
            raise ConfigError(
                f"--schedule {text!r} has no '='",
                hint='write --schedule "synth-promptcot=0 2 * * *"',
            )
        entry = find_entry(name.strip())
        schedule = FlowSchedule(flow=entry.name, cron=" ".join(cron.split()), timezone=timezone)
        _check_cron(schedule.cron, text)
        if schedule in found:
            raise ConfigError(f"--schedule {text!r} is given twice", hint="leave one of them out")
        found.append(schedule)
    return found


def _check_cron(cron: str, text: str) -> None:
    from prefect.client.schemas.schedules import CronSchedule
    from pydantic import ValidationError

    try:
        CronSchedule(cron=cron)
    except ValidationError as exc:
        raise ConfigError(
            f"--schedule {text!r}: {cron!r} is no cron line",
            hint="five fields: minute hour day month weekday, e.g. 0 2 * * * for 2:00 every night",
        ) from exc


def sync_schedules(schedules: Sequence[FlowSchedule], target: Target) -> list[str]:
    """Make our schedules on a target's deployments those that were asked for.

    Args:
        schedules: All that there shall be.
        target: Whose deployments; they exist.

    Returns:
        What was changed, in words; empty when everything was as asked.
    """
    from prefect import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    changes: list[str] = []
    with get_client(sync_client=True) as client:
        of_target = DeploymentFilter(name=DeploymentFilterName(any_=[target]))
        for deployment in client.read_deployments(deployment_filter=of_target):
            flow = client.read_flow(deployment.flow_id).name
            wanted = {_slug(s): s for s in schedules if s.flow == flow}
            changes += _sync_one(client, deployment, wanted, f"{flow}/{target}")
    return changes


def _sync_one(
    client: Any, deployment: Any, wanted: dict[str, FlowSchedule], name: str
) -> list[str]:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    changes = []
    there = {s.slug: s for s in deployment.schedules if (s.slug or "").startswith(_SLUG)}
    for slug, old in there.items():
        if slug not in wanted:
            client.delete_deployment_schedule(deployment.id, old.id)
            changes.append(f"{name} no longer runs at {old.schedule.cron}")
    for slug, schedule in wanted.items():
        if slug not in there:
            cron = CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
            new = DeploymentScheduleCreate(schedule=cron, active=True, slug=slug)
            client.create_deployment_schedules(deployment.id, [new])
            changes.append(f"{name} runs at {schedule.cron} ({schedule.timezone})")
    return changes


def _slug(schedule: FlowSchedule) -> str:
    """Names exactly this schedule, so that another hour is another one."""
    words = f"{schedule.cron} {schedule.timezone}".lower()
    kept = {"*": "any", "/": "per", ",": "and", " ": "-"}
    return _SLUG + "".join(kept.get(c, c if c.isalnum() or c == "-" else "_") for c in words)
