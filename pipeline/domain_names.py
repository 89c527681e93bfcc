"""How people spell the domains."""

from __future__ import annotations

from pipeline.records import Domain

DOMAIN_SPELLINGS: dict[str, Domain] = {
    "math": "math",
    "maths": "math",
    "mathematics": "math",
    "code": "code",
    "coding": "code",
    "programming": "code",
    "computer science": "code",
    "other": "other",
}
