"""Libraries report nothing about their use, unless the environment says that they may."""

from __future__ import annotations

import os

_SWITCHES = {
    # Prefect's client, vLLM, the hub's client and others heed this one (donottrack.sh).
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
}


def switch_off_telemetry() -> None:
    """Set the libraries' switches where nobody has; some are read when a library is imported."""
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
