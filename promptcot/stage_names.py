"""Names of synthesis stages, in order; import-light so that any command may use them."""

from __future__ import annotations

STAGES: tuple[str, ...] = (
    "combinations",
    "problems",
    "distinct",
    "judged",
    "solutions",
    "verified",
)
"""The chain that every run goes through."""

EXTRACTED = "extracted"
BANK = "concepts"
SEED_STAGES = (EXTRACTED, BANK)
"""The stages before the chain, where the recipe makes its bank from seed problems: what teachers
say of each, then one name for each concept. One command runs both."""

COMMANDS: dict[str, str] = {
    EXTRACTED: "concepts",
    BANK: "concepts",
    "combinations": "combinations",
    "problems": "problems",
    "distinct": "distinct",
    "judged": "judge",
    "solutions": "solve",
    "verified": "verify",
}
"""The ``python -m promptcot`` command that builds each stage."""

TITLES: dict[str, str] = {
    EXTRACTED: "Seed problems",
    BANK: "Concept bank",
    "combinations": "Concept combinations",
    "problems": "Problems",
    "distinct": "Distinct problems",
    "judged": "Judged problems",
    "solutions": "Solutions",
    "verified": "Verified traces",
    "triples": "Triples",
    "calibration": "Calibration of the judges",
}
"""What each stage makes, for headings."""
