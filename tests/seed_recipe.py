"""A recipe of work on seeds (triples, refinement): its bank and its teacher's replies are files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RECIPE = """
name = "tiny"
seed = 7
[teachers.default]
engine = "scripted"
script = "script.jsonl"
[synthesis]
bank = "bank.jsonl"
batch_size = 4
domains = ["math"]
[synthesis.combinations]
math_share = 1.0
"""
REFINEMENT = """
[synthesis.refinement]
rationales_per_problem = 4
rounds = 3
[synthesis.refinement.scorer]
model = {scorer}
batch_tokens = 1024
"""
WHYS = [
    "Equal groups call for a product, so the setter takes boxes of pens and asks what is left.",
    "A product of two small numbers is natural here, and a difference makes the last step.",
    "We want a short word problem; groups of equal size and one subtraction are quite enough.",
    "Start from multiplication, then let something be sold, and ask for the number that remains.",
    "The concepts meet in a shop: what is on the shelf is a product, what is sold goes away.",
]
REPLIES = [f"<!-- BEGIN RATIONALE -->\n{why}\n<!-- END RATIONALE -->" for why in WHYS]
SHOP_SEEDS: list[dict[str, Any]] = [
    {
        "concepts": ["products", f"topic {n % 3}"], "domain": "math", "level": "AIME",
        "problem": f"A shelf has {n} boxes with 6 pens in each, and 5 pens are sold. How many are left?",
        "source": "shop", "source_id": str(n), "licence": "MIT",
    }
    for n in range(5, 14)
]  # fmt: skip
"""Nine problems of one kind."""
SHOP_SCRIPT: list[dict[str, Any]] = [
    {"match": "10 boxes", "text": "no marks"},
    {"match": "Problem:", "text": [*REPLIES, "no marks"]},
]
"""Rationales of all of them but one."""


def write_seed_recipe(
    folder: Path,
    *,
    seeds: Sequence[Mapping[str, Any]],
    script: Sequence[Mapping[str, Any]],
    scorer: Path | None = None,
) -> Path:
    """Write the recipe, its bank and its script.

    Args:
        folder: Where to; made if missing.
        seeds: The bank's rows.
        script: What the teacher answers (``promptcot.engines.scripted``).
        scorer: Folder of the model that scores rationales; without it no refinement is set up.

    Returns:
        The recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("bank", seeds), ("script", script)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    path = folder / "tiny.toml"
    refinement = REFINEMENT.format(scorer=json.dumps(str(scorer))) if scorer else ""
    path.write_text(RECIPE + refinement, encoding="utf-8")
    return path
