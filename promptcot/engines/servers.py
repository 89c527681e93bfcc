"""Where to ask over HTTP, how patiently, and how messages call the settings to correct."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.settings.refinement import ScorerSettings
from pipeline.settings.teacher import TeacherSettings

_SCORER_RETRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The servers of one teacher, or of the scoring model; fields as in its settings."""

    base_urls: tuple[str, ...]
    api_key_env: str
    max_concurrency: int
    timeout_s: float
    max_retries: int
    outage_s: float
    first_contact_s: float
    section: str
    """Of the recipe, e.g. ``teachers.default``."""
    urls_setting: str
    """Full name of the setting that the servers come from."""
    refusal_hint: str
    """What to do where requests are refused for no reason that their status tells."""
    model: str = ""
    """Which all of several servers must serve; empty: not checked."""
    replicas: str = ""
    """File or address that lists the servers instead of ``base_urls``."""
    replicas_refresh_s: float = 10.0


def teacher_servers(name: str, settings: TeacherSettings, replicas: str = "") -> Servers:
    """The servers of the teacher of that name; ``replicas`` is its list as a path or address."""
    section = f"teachers.{name}"
    return Servers(
        base_urls=settings.base_urls,
        api_key_env=settings.api_key_env,
        max_concurrency=settings.max_concurrency,
        timeout_s=settings.timeout_s,
        max_retries=settings.max_retries,
        outage_s=settings.outage_s,
        first_contact_s=settings.first_contact_s,
        section=section,
        urls_setting=f"{section}.{'replicas' if replicas else 'base_urls'}",
        model=settings.model,
        replicas=replicas,
        replicas_refresh_s=settings.replicas_refresh_s,
        refusal_hint="correct the teacher's settings; if the server does not know structured "
        f"outputs, set {section}.constraints = []",
    )


def scorer_servers(settings: ScorerSettings, *, has_answered: bool = False) -> Servers:
    """The scoring model's server; one that has answered before gets the time of an outage."""
    section = "synthesis.refinement.scorer"
    return Servers(
        base_urls=(settings.base_url,),
        api_key_env=settings.api_key_env,
        max_concurrency=settings.max_concurrency,
        timeout_s=settings.timeout_s,
        max_retries=_SCORER_RETRIES,
        outage_s=settings.outage_s,
        first_contact_s=settings.outage_s if has_answered else settings.first_contact_s,
        section=section,
        urls_setting=f"{section}.base_url",
        refusal_hint=f"correct {section}: prompt log-probabilities need a vLLM server",
    )
