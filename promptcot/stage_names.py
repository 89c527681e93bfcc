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

BANK = "concepts"
"""The stage before the chain, where the recipe makes its bank from seed problems; what teachers
say of each is kept in a stage of its own, ``extracted``."""

COMMANDS: dict[str, str] = {
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
    "extracted": "Seeds with their concepts as first written",
    BANK: "Concept bank",
    "combinations": "Concept combinations",
    "problems": "Problems",
    "distinct": "Distinct problems",
    "judged": "Judged problems",
    "solutions": "Solutions",
    "verified": "Verified traces",
    "triples": "Triples",
}
"""What each stage makes, for headings."""
