"""Prefect flows and deployments, the same steps without Prefect, and views of a run folder."""

from pipeline.telemetry import switch_off_telemetry

# Prefect reads its switch when it is imported, which no module of this package does before here.
switch_off_telemetry()
