"""Names of synthesis stages, in order; import-light so that any command may use them."""

from __future__ import annotations

STAGES: tuple[str, ...] = ("combinations", "problems", "judged", "solutions", "verified")
