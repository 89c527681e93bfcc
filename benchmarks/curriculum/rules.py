"""What the row rules cost, and how right the inferred domain and difficulty are.

    .venv/bin/python benchmarks/curriculum/rules.py
    .venv/bin/python benchmarks/curriculum/rules.py --data FOLDER

Cost: reading a Parquet part, parsing, normalising and validating rows of 13,000 ASCII characters,
in microseconds of processor time a row; the best of five passes. Code rows also pay for Python's
parser, which is given apart. With --data, a folder of labelled problems (seeds/, code/, longcot/),
also: the share of problems whose domain is found from the question alone, and the rank correlation
of the estimated difficulty with labels, the written solutions standing in for reasonings. Ends with
one JSON line.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curriculum.difficulty import estimate_rank
from curriculum.domains import infer_domain
from curriculum.normalize import normalize_row
from curriculum.sources.catalog import Parser, schema_of
from curriculum.sources.parts import RawRow, SourcePart
from curriculum.sources.reading import read_part
from curriculum.sources.templates import strip_instructions
from curriculum.validate import find_syntax_error, validate_row
from pipeline.records import Rejected
from pipeline.settings.sources import SourceSettings
from pipeline.settings.validation import ValidationSettings

ROWS = 500
CHARS = 12_000
VALIDATION = ValidationSettings()
TEXT = """
so we have that the number of ways is then equal to but wait if x were odd the sum would be even
which gives a contradiction let me check again with n = 12 and k = 5 since each term divides the
product therefore hence triangle circle prime function input array index loop recall modulo integer
digits square length width corner vertex edge graph path stack queue answer final simplify expand
factor bound limit tends grows shrinks positive negative zero unless whenever because suppose assume
claim proof lemma follows directly trivially case second third remaining possible choose order pairs
"""
WORDS = TEXT.split()
PROGRAM = """import sys

def solve(n, values):
    best, total = 0, 0
    for value in values[:n]:
        total = max(0, total + value)
        best = max(best, total)
    return best

def main():
    data = sys.stdin.read().split()
    t = int(data[0])
    place = 1
    for _ in range(t):
        n = int(data[place])
        values = [int(v) for v in data[place + 1 : place + 1 + n]]
        place += n + 1
        print(solve(n, values))

main()
"""
DOMAINS = (
    ("math", "seeds/math_train_rllm.json.gz", "problem"),
    ("math", "seeds/aime_train_rllm.json.gz", "problem"),
    ("math", "seeds/omni_math_num_500.jsonl", "problem"),
    ("math", "seeds/dataflow_pipeline_math.json", "instruction"),
    ("code", "code/leetcode_test_rllm.json", "problem"),
    ("code", "code/codeforces_test_rllm.json.gz", "problem"),
    ("code", "code/code_contests_test_rllm.json.gz", "problem"),
    ("code", "longcot/taco_generation_example.json.gz", "prompt"),
)
LABELS = (
    ("seeds/omni_math_num_500.jsonl", "difficulty"),
    ("seeds/aime_train_rllm.json.gz", "problem_number"),
)


def main() -> None:
    """Measure, print, and end with one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of labelled problems")
    options = parser.parse_args()
    report: dict[str, Any] = {"rows": ROWS, "microseconds": measure_costs()}
    if options.data is not None:
        report["domains"] = measure_domains(options.data)
        report["difficulty"] = measure_difficulty(options.data)
    for name, part in report.items():
        print(f"{name}: {part}")
    print(json.dumps(report))


def measure_costs() -> dict[str, float]:
    """Microseconds of processor time a row, by what is done."""
    rng = random.Random(7)
    maths = [make_row(rng, f"It is \\boxed{{{n}}}.") for n in range(ROWS)]
    code = [make_row(rng, f"Here.\n\n```python\n{PROGRAM}```") for _ in range(ROWS)]
    source = SourceSettings(name="s", kind="open_thoughts2", paths=("-",), licence="mit")
    strict = source.model_copy(update={"code_rule": "strict", "domain": "code"})
    return {
        "read": round(time_reading(source, maths), 1),
        "rules, maths": round(best_of(lambda: judge(source, maths)), 1),
        "rules, code": round(best_of(lambda: judge(strict, code)), 1),
        "of which Python's parser": round(best_of(parse_programs), 1),
    }


def make_row(rng: random.Random, answer: str) -> dict[str, Any]:
    """A row whose reasoning has 12,000 characters."""
    lines = [" ".join(rng.choices(WORDS, k=14)) + "." for _ in range(CHARS // 70)]
    question = "Find the number " + " ".join(rng.choices(WORDS, k=120))
    turns = [
        {"from": "user", "value": question},
        {"from": "assistant", "value": "<think>\n" + "\n".join(lines) + f"\n</think>\n\n{answer}"},
    ]
    return {"conversations": turns, "question": question, "source": None, "id": 1}


def judge(source: SourceSettings, rows: Sequence[dict[str, Any]]) -> None:
    """Parse, normalise and validate rows, all of which must pass."""
    parser = Parser(settings=source)
    for position, values in enumerate(rows):
        candidate = parser.parse(RawRow("r", "f", position, values))
        if isinstance(candidate, Rejected):
            raise SystemExit(candidate.reason)
        row = normalize_row(candidate, VALIDATION.max_chars)
        broken = row if isinstance(row, Rejected) else validate_row(row, VALIDATION)
        if broken is not None:
            raise SystemExit(f"{broken.reason}: {broken.detail}")


def parse_programs() -> None:
    """What a strict code row pays for its program."""
    for _ in range(ROWS):
        find_syntax_error(PROGRAM)


def time_reading(source: SourceSettings, rows: list[dict[str, Any]]) -> float:
    """Microseconds a row of reading a part of a Parquet file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")
        part, schema = SourcePart(0, path, 0, ROWS), schema_of(source)
        return best_of(lambda: sum(1 for _ in read_part(part, schema, path)))


def best_of(work: Callable[[], object]) -> float:
    """Microseconds of processor time a row, the best of five."""
    times = []
    for _ in range(5):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times) / ROWS * 1e6


def measure_domains(folder: Path) -> dict[str, dict[str, float]]:
    """Share of problems whose domain the question alone shows."""
    report = {}
    for wanted, name, column in DOMAINS:
        texts = [strip_task(str(row[column])) for row in read_rows(folder / name)]
        right = sum(infer_domain(text) == wanted for text in texts)
        report[name] = {"problems": len(texts), "right": round(right / len(texts), 4)}
    return report


def strip_task(text: str) -> str:
    """A problem without what its file wraps around it."""
    return strip_instructions(re.sub(r"^QUESTION:|ANSWER:\s*$", "", text))


def measure_difficulty(folder: Path) -> dict[str, float]:
    """Spearman's correlation of the estimate with labels."""
    report = {}
    for name, label in LABELS:
        rows = read_rows(folder / name)
        estimates = [estimate_rank(len(row["problem"]), len(row["solution"])) for row in rows]
        report[f"{name} {label}"] = round(
            float(np.corrcoef(rank(estimates), rank([float(row[label]) for row in rows]))[0, 1]), 3
        )
    return report


def rank(values: Sequence[float]) -> np.ndarray:
    """Ranks, equal values sharing their mean."""
    array = np.asarray(values)
    _, places, counts = np.unique(array, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: np.ndarray = (ends - (counts - 1) / 2)[places]
    return means


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON or JSONL file, packed or not."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if ".jsonl" in path.name:
        return [json.loads(line) for line in data.splitlines() if line.strip()]
    rows: list[dict[str, Any]] = json.loads(data)
    return rows


if __name__ == "__main__":
    main()
