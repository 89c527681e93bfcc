"""A recipe and the script of its teacher, which takes synthesis through every stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import promptcot
from pipeline.manifest import Version
from pipeline.settings.recipe import Recipe, load_recipe

WHY = "Rationale: Equal groups lead to a product, and what is left over to a difference."
JUDGED = "Format: {f}\nFactual Accuracy: Perfect\nDifficulty Alignment: Perfect\nConcept Coverage: Perfect\nSolvability: Perfect\nFinal Judgement: Perfect"
SHELF = "A shelf has {} boxes with {} pens in each of them, and {} pens are sold. How many pens are left?"
SUM = "{} writes two numbers on one line of a {}. Read both numbers. Print their sum."
# Many enough that few combinations get the same one; all numbers differ, so none is a near-duplicate.
PROBLEMS = [
    reply
    for n in range(7, 207)
    for reply in (
        *(f"{WHY}\nProblem: {SHELF.format(m, m - 1, m - 2)}" for m in (n, n + 300, n + 600)),
        f"{WHY}\nProblem: The figure below shows a shelf with 7 boxes of pens. How many pens are left?",
        "Rationale: cut",
    )
]
PROGRAMS = [
    f"{WHY}\nProblem: {SUM.format(who, where)}"
    for who in ("Ada", "Bob", "Cleo", "Dan", "Eve", "Finn")
    for where in ("notebook", "blackboard", "postcard", "napkin", "wall", "ticket")
]
SOLVE = (
    "Reasoning: Count the pens in all boxes first, then take away the five that are sold.\nAnswer: "
)
ADD = "Reasoning: Read both numbers and print their sum.\n```python\na, b = map(int, input().split())\nprint(a + b)\n```"
SCRIPT: list[dict[str, Any]] = [
    {"match": "You write short maths", "text": PROBLEMS},
    {
        "match": "You write short programming",
        "text": PROGRAMS,
    },
    {
        "match": "Rate this mathematics",
        "text": [JUDGED.format(f="Perfect")] * 4 + [JUDGED.format(f="Bad")],
    },
    {"match": "Rate this", "text": JUDGED.format(f="Perfect")},
    {
        "match": "Solve this problem",
        "text": [SOLVE + "37", SOLVE + "37", SOLVE + "37", SOLVE + "12", "hm"],
    },
    {
        "match": "Write a short Python program",
        "text": [ADD, ADD.replace("a + b", "a - b"), ADD.replace("(a + b)", "(a + b")],
    },
    {
        "match": "Give one small example",
        "text": ["Input: 2 3\nOutput: 5", "Input: 10 -4\nOutput: 6"],
    },
]
RECIPE = """
name = "tiny"
seed = 7
[teachers.default]
engine = "scripted"
script = "script.jsonl"
[synthesis]
bank = "bank.jsonl"
batch_size = 8
[synthesis.combinations]
num_combinations = 24
math_share = 0.875
[synthesis.problems]
form = "constrained"
[synthesis.judging]
form = "constrained"
[synthesis.solutions]
form = "constrained"
[synthesis.verification]
minimum_agreement = 0.4
"""


def make_recipe(folder: Path, *overrides: str, script: list[dict[str, Any]] = SCRIPT) -> Recipe:
    folder.mkdir(exist_ok=True, parents=True)
    bank = Path(promptcot.__path__[0]) / "data" / "seeds.jsonl"
    (folder / "bank.jsonl").write_bytes(bank.read_bytes())
    lines = [json.dumps(row) + "\n" for row in script]
    (folder / "script.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "tiny.toml").write_text(RECIPE, encoding="utf-8")
    return load_recipe(str(folder / "tiny.toml"), overrides)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "synthesis").rglob("*"))
        if path.is_file()
    }


def reasons(version: Version) -> dict[str, int]:
    return next(iter(version.manifest.rejected.values()), {})
