"""The licence gate: a phase holds rows under the licences it allows, and no others."""

from __future__ import annotations

import numpy as np

from curriculum.features import Features, Rows
from pipeline.errors import LicenceRefused
from pipeline.settings.phases import PhaseSettings


def is_allowed(licence: str, allowed: frozenset[str]) -> bool:
    """Whether a row's licence, or every one of several parted by commas, is allowed."""
    names = (name.strip().strip("-") for name in licence.lower().split(","))
    return {name for name in names if name} <= allowed and bool(licence.strip())


def check_licences(features: Features, rows: Rows, settings: PhaseSettings, *, phase: str) -> None:
    """Hold chosen rows to the phase's allowed licences.

    Raises:
        LicenceRefused: With the number of rows per licence and source.
    """
    allowed = frozenset(name.strip().lower() for name in settings.allowed_licences)
    if not allowed:
        return
    outside = [code for code, name in enumerate(features.licences) if not is_allowed(name, allowed)]
    wrong = rows[np.isin(features.licence[rows], outside)]
    if not len(wrong):
        return
    pairs = np.stack([features.licence[wrong].astype(np.int64), features.source[wrong]], axis=1)
    found = []
    for (code, source), count in zip(*np.unique(pairs, axis=0, return_counts=True), strict=True):
        # Numbers past the phase's own sources are those of the phase it replays.
        own = source < len(settings.sources)
        origin = settings.sources[source].source if own else "replayed"
        found.append(f"{count:,} rows {features.licences[code]!r} ({origin})")
    raise LicenceRefused(
        f"phase {phase} allows the licences {', '.join(sorted(allowed))}; found {', '.join(found)}",
        hint=f"add the licence to curriculum.phases.{phase}.allowed_licences after reading it, or "
        "drop the source",
    )
