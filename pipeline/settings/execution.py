"""``[execution]`` of a recipe: which machines work on rows."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator

from pipeline.settings.base import Settings, execution_only

_ADDRESS = re.compile(r"auto|[A-Za-z0-9_.-]+:[0-9]{1,5}|\[[0-9A-Fa-f:]+\]:[0-9]{1,5}")


class ExecutionSettings(Settings):
    """``[execution]`` of a recipe; nothing in it changes a byte of what is made.

    How many work at once is said where the work is: ``curriculum.num_workers`` and
    ``synthesis.num_workers``.
    """

    executor: Literal["local", "ray"] = execution_only("local")
    """Who builds curricula and verifies solutions: processes of this machine, or tasks of a Ray
    cluster (extra ``ray``)."""
    ray_address: str = execution_only("")
    """With ``ray``: the cluster to join, ``host:port`` of its head or ``auto`` for the one whose
    node this machine is; empty starts one of this machine, on loopback."""
    max_losses: int = execution_only(3, ge=0, le=1000)
    """How often one batch may lose the process or machine that works on it before the run ends."""
    ray_patience_s: float = execution_only(600.0, gt=0)
    """With ``ray``: seconds without any processor in the cluster before the run ends."""

    @field_validator("ray_address")
    @classmethod
    def _reachable_form(cls, address: str) -> str:
        if address and not _ADDRESS.fullmatch(address):
            raise ValueError(
                'is "auto", "host:port" of the cluster\'s head (6379 where Ray was not told '
                "another port), or empty; Ray Client (ray://) is not supported: run the command "
                "on a machine of the cluster"
            )
        return address
