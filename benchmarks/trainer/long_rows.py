"""A phase version of long made-up rows, written by the project's own stage.

Made-up working with numbers, mixed with passages of Python's standard library (code and English,
which every machine has); log-normal lengths with a mean of 6,000 tokens and a median of 4,700, as
in the reasoning corpora, at most 16,384.
"""

from __future__ import annotations

import random
import sysconfig
from functools import cache
from pathlib import Path

import numpy as np

from pipeline.hashing import content_hash
from pipeline.manifest import Version
from pipeline.records import Message, Provenance, TrainingRow
from pipeline.stages import Batch, BatchResult, BatchStream, Stage, run_stage
from pipeline.student import assistant_turn, render_completion, render_prompt, user_turn
from pipeline.token_counts import token_counter

MAX_LENGTH = 16_384
MEAN_TOKENS = 6_000
ROWS_PER_SHARD = 250

_SENTENCES = (
    "Let {x} be the number of {n} with {x} ≤ {a}.",
    "We need \\({x}^2 + {a}{x} \\equiv {b} \\pmod{{{c}}}\\), so {x} = {b} or {x} = {c}.",
    "Wait, I should check the case {x} = {a} separately: {a} * {b} = {ab}, which is not {c}.",
    "Hmm, that would give {ab} {n}, but the statement says at most {c}.",
    "So the loop runs {a} times and each pass costs O(log {b}).",
    "    for i in range({a}, {ab}): total += dp[i][{b}] - prefix[i - {c}]",
    "By symmetry \\frac{{{a}}}{{{b}}} of the {n} are counted twice; subtract {c}.",
    "Therefore {x} = {ab} and the sum over all {n} is {a} + {b} + {c} = {abc}.",
    "Let me reconsider. If {x} > {c}, the inequality fails because {a} < {b}.",
    "    if left > right or seen[{a}]:\n        return {b}",
)
_NOUNS = ("divisors", "paths", "triangles", "lattice points", "permutations", "subarrays", "edges")


@cache
def source_files() -> list[Path]:
    """Code and English that any machine has: Python's own library."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    return sorted(path for path in folder.glob("*.py") if path.stat().st_size > 10_000)


@cache
def source_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def make_passage(draw: random.Random) -> list[str]:
    """A few lines of made-up working, or of somebody's code and comments."""
    if draw.random() < 0.4:
        lines = source_lines(draw.choice(source_files()))
        start = draw.randrange(len(lines) - 12)
        return lines[start : start + 12]
    made = []
    for _ in range(6):
        a, b, c = (draw.randrange(2, 10 ** draw.randrange(1, 5)) for _ in range(3))
        sentence = draw.choice(_SENTENCES)
        made.append(
            sentence.format(
                x=draw.choice("xynkm"), n=draw.choice(_NOUNS), a=a, b=b, c=c, ab=a * b,
                abc=a + b + c,
            )
        )  # fmt: skip
    return made


def make_row(number: int, seed: int) -> TrainingRow:
    """A made-up problem with a worked solution of log-normal length."""
    draw = random.Random(f"{seed}-{number}")
    # sigma 0.75: the median is 4.7k where the mean is 6k, as in the reasoning corpora.
    wanted = min(MAX_LENGTH - 900, draw.lognormvariate(np.log(MEAN_TOKENS * 0.775), 0.75))
    lines: list[str] = []
    size = 0
    while size < wanted:
        passage = make_passage(draw)
        size += int(token_counter().count(["\n".join(passage)])[0])
        lines += passage
    question = f"Problem {number}. {' '.join(lines[:3])} Find the number of {draw.choice(_NOUNS)}."
    turn = assistant_turn("\n".join(lines), f"The answer is \\boxed{{{draw.randrange(10**4)}}}.")
    prompt = [Message(role="user", content=user_turn(question, "math"))]
    completion = [Message(role="assistant", content=turn)]
    counts = token_counter().count_examples(
        [render_prompt(prompt)], [render_completion(completion)]
    )
    num_prompt = int(counts.num_prompt_tokens[0])
    num_completion = int(counts.num_completion_tokens[0])
    return TrainingRow(
        id=content_hash([seed, number]),
        prompt=prompt,
        completion=completion,
        question=question,
        source="made",
        source_revision="1",
        source_id=str(number),
        licence="Apache-2.0",
        domain="math",
        difficulty=None,
        num_prompt_tokens=num_prompt,
        num_completion_tokens=num_completion,
        num_tokens=num_prompt + num_completion,
        provenance=Provenance(),
    )


def write_version(out: Path, num_rows: int, seed: int) -> Version:
    """The generated phase version."""
    stage = Stage(
        name="phase-1",
        root=out / "datasets" / "phase-1",
        record=TrainingRow,
        settings={"rows": num_rows, "seed": seed, "benchmark": "packing"},
        inputs=(),
        packages=("pipeline",),
    )
    batches = BatchStream(
        rows=lambda: (make_row(number, seed) for number in range(num_rows)),
        num_rows=num_rows,
        size=ROWS_PER_SHARD,
        key=lambda row: row.id,
    )

    def keep(batch: Batch) -> BatchResult:
        return BatchResult(num_in=len(batch.rows), rows=batch.rows)

    return run_stage(stage, batches, keep)
