"""Names of synthesis stages, in order; import-light so that any command may use them."""

from __future__ import annotations

STAGES: tuple[str, ...] = ("combinations", "problems", "judged", "solutions", "verified")

COMMANDS: dict[str, str] = {
    "combinations": "concepts",
    "problems": "problems",
    "judged": "judge",
    "solutions": "solve",
    "verified": "verify",
}
"""The ``python -m promptcot`` command that builds each stage."""
