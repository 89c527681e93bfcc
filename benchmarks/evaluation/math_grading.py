r"""The maths grader on real gold answers: how often it is right, and how fast.

    .venv/bin/python benchmarks/evaluation/math_grading.py --data ../shared/data/benchmarks

Accuracy: each gold answer of MATH-500, AIME 24 and 25, OlympiadBench and GSM8K (test) against
itself, against equivalent rewritings and against near misses (``math_rewritings.py``), and
MATH-500's written solutions as they are. ``--failures`` shows every wrong verdict. ``--peer N``
asks math-verify alone about every N-th pair too.

Speed: 10,000 whole answers (thinking with a wrong box, then the answer), pathological ones among
them, through ``AnswerGrader`` on two cores; beside it, in the same run, a naive grader that starts
one process per answer, two at a time, on a sample.

Memory: ``python -m evaluation grade`` on a file of 10,000 answers with 100,000 characters of
thinking each (1 GB), in a folder for temporary files. Ends with one JSON line; exit code 1 when a
verdict is wrong or a bar of docs/results.md is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from math_rewritings import RIGHT, WRONG

from evaluation.grading import AnswerGrader, ToGrade
from pipeline.benchmark_items import BenchmarkItem, MathGold
from pipeline.benchmark_rows import read_json_lines
from pipeline.benchmarks import load_benchmark
from pipeline.settings.evaluation import EvaluationSettings
from pipeline.settings.recipe import load_recipe
from promptcot.verification.math_answers import MathGrader
from promptcot.verification.math_boxes import extract_answer

ROOT = Path(__file__).resolve().parents[2]
NUM_ANSWERS = 10_000
NAIVE_SAMPLE = 40
STREAM_SAMPLES = 20
BAR = 5.0
STREAM_PEAK_MIB = 600
NAIVE = """
import sys
from math_verify import parse, verify
gold, text = sys.argv[1:]
print(verify(parse("\\\\boxed{" + gold + "}"), parse(text)))
"""
ENDLESS = (
    r"\prod_{n=1}^{1000000}(1+\frac{1}{n^2})",
    r"\int_0^1 x^{x^{x^x}} dx",
    r"\sum_{n=1}^{10^9} \frac{1}{n!}",
)
HOSTILE = (
    "9^{9^{9^{9}}}",
    "9**9**9**9",
    "(10^9)!",
    "(" * 900 + "1" + ")" * 900,
    r"\frac{1}{" * 200 + "2" + "}" * 200,
    "+".join(["x"] * 900),
    r"\sqrt" * 300 + "2",
    "(x+y+z+1)^{300}",
    "1.0000001^{99999999999}",
    "{" * 100_000,
    "\\" * 100_000,
    "9" * 100_000,
)
HUGE_CHARS = 100_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """Pairs of one kind, all of which are equal, or none."""

    kind: str
    equal: bool
    pairs: list[tuple[MathGold, str]]


def load_golds(folder: Path) -> dict[str, list[MathGold]]:
    """Gold answers by set, the four of the paper in the form that evaluation grades them."""
    recipe = load_recipe("paper", (f"benchmark_folder={folder.resolve()}",))
    golds = {
        settings.name: [item.gold for item in load_benchmark(recipe, settings) if item.gold]
        for settings in recipe.settings.benchmarks
        if settings.domain == "math"
    }
    rows = read_json_lines(folder / "gsm8k_test.jsonl")
    golds["gsm8k"] = [MathGold(text=row["answer"].rpartition("#### ")[2].strip()) for row in rows]
    return golds


def make_cases(name: str, golds: Sequence[MathGold]) -> Iterator[Case]:
    """All kinds of rewritings and near misses that apply to some answer of a set."""
    for equal, table in ((True, RIGHT), (False, WRONG)):
        for kind, rewrite in table.items():
            pairs = [
                (gold, extract_answer(f"So it is $\\boxed{{{text}}}$.", gold) or "")
                for gold in golds
                for text in dict.fromkeys(rewrite(gold))
            ]
            if pairs:
                yield Case(kind, equal, pairs)


def solution_case(folder: Path) -> Case:
    """MATH-500's solutions, written by people, as they are."""
    rows = list(read_json_lines(folder / "math500_original.jsonl"))
    golds = [MathGold(text=row["answer"]) for row in rows]
    found = [extract_answer(r["solution"], g) or "" for r, g in zip(rows, golds, strict=True)]
    return Case("written solutions", True, list(zip(golds, found, strict=True)))


def measure_accuracy(options: argparse.Namespace) -> dict[str, Any]:
    """Print the table; counts of pairs and of wrong verdicts."""
    totals = {"pairs": 0, "wrong": 0, "undecided": 0}
    peer = {"pairs": 0, "wrong": 0}
    print(f"{'set':14} {'kind':24} {'expected':9} {'n':>6} {'right':>8}   math-verify alone")
    with MathGrader(num_workers=2) as grader:
        for name, golds in load_golds(options.data).items():
            cases = list(make_cases(name, golds))
            cases += [solution_case(options.data)] if name == "math500" else []
            for case in cases:
                verdicts = grader.compare(case.pairs)
                wrong = [
                    (gold.text, text, verdict)
                    for (gold, text), verdict in zip(case.pairs, verdicts, strict=True)
                    if (verdict is True) != case.equal
                ]
                beside = ask_peer(case, options.peer, peer) if options.peer else ""
                share = 1 - len(wrong) / len(case.pairs)
                expected = "equal" if case.equal else "unequal"
                row = f"{name:14} {case.kind:24} {expected:9} {len(case.pairs):6} {share:8.2%}"
                print(f"{row}   {beside}", flush=True)
                for failure in wrong if options.failures else ():
                    print("      ", *failure, sep=" | ")
                totals["pairs"] += len(case.pairs)
                totals["wrong"] += len(wrong)
                totals["undecided"] += sum(verdict is None for verdict in verdicts)
    return {**totals, "peer": peer} if options.peer else totals


def ask_peer(case: Case, every: int, totals: dict[str, int]) -> str:
    """The share of every N-th pair that math-verify alone judges as expected."""
    from math_verify import parse, verify

    pairs = list(islice(case.pairs, 0, None, every))
    right = 0
    for gold, text in pairs:
        wanted = parse(f"\\boxed{{{gold.text}}}")
        right += bool(verify(wanted, parse(f"\\boxed{{{text}}}"))) == case.equal
    totals["pairs"] += len(pairs)
    totals["wrong"] += len(pairs) - right
    return f"{right / len(pairs):8.2%} of {len(pairs)}"


def make_answers(folder: Path) -> list[ToGrade]:
    """10,000 whole answers: rewritings and near misses of all sets, in turns, and hostile ones."""
    pairs = [
        pair
        for name, golds in load_golds(folder).items()
        for case in make_cases(name, golds)
        for pair in case.pairs
    ]
    step = max(1, len(pairs) // (NUM_ANSWERS - 100))
    chosen = pairs[::step][: NUM_ANSWERS - 100]
    half = MathGold(text=r"\frac{5}{2}")
    hostile = [(half, text) for text in (HOSTILE * 9)[: 100 - len(ENDLESS)] + ENDLESS]
    for number, pair in enumerate(hostile):
        chosen.insert(number * len(chosen) // len(hostile), pair)
    return [to_grade(number, *pair) for number, pair in enumerate(chosen)]


def to_grade(number: int, gold: MathGold, text: str) -> ToGrade:
    """An answer as a model writes one."""
    item = BenchmarkItem(id=str(number), benchmark="b", domain="math", question="?", gold=gold)
    return ToGrade(item=item, answer=f"Adding up, we find\n\n$$\\boxed{{{text}}}$$\n\nas required.")


def measure_speed(options: argparse.Namespace) -> dict[str, Any]:
    """Ours on 10,000 answers and one of 100 MB; the naive grader on a sample."""
    answers = make_answers(options.data)
    settings = EvaluationSettings(num_workers=2)
    before = time.process_time() + _children_s()
    start = time.monotonic()
    with AnswerGrader(settings, has_code=False) as grader:
        grades = [
            g for n in range(0, len(answers), 500) for g in grader.grade(answers[n : n + 500])
        ]
        took = time.monotonic() - start
        huge = ToGrade(item=answers[0].item, answer="\\boxed{" + "9" * HUGE_CHARS + "}")
        start = time.monotonic()
        (refused,) = grader.grade([huge])
        huge_s = time.monotonic() - start
    cpu_s = time.process_time() + _children_s() - before
    peaks = [
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    naive_s = measure_naive(answers)
    ours_s = took / len(answers)
    result = {
        "answers": len(answers),
        "correct": sum(grade.correct for grade in grades),
        "undecided": sum(bool(grade.detail) for grade in grades),
        "seconds": round(took, 1),
        "cpu_seconds": round(cpu_s, 1),
        "milliseconds_each": round(1000 * ours_s, 2),
        "naive_milliseconds_each": round(1000 * naive_s, 1),
        "ratio": round(naive_s / ours_s, 1),
        "peak_mib": round(peaks[0]),
        "peak_mib_of_a_worker": round(peaks[1]),
        "huge_answer": {"reason": refused.reason, "seconds": round(huge_s, 4)},
        "processes_left": len(_children()),
    }
    print(json.dumps(result, indent=1))
    return result


def measure_naive(answers: Sequence[ToGrade]) -> float:
    """Seconds per answer of one process per answer, two at a time, ordinary answers only."""
    ordinary = [entry for entry in answers if len(entry.answer or "") < 300]
    sample = ordinary[:: max(1, len(ordinary) // NAIVE_SAMPLE)][:NAIVE_SAMPLE]
    start = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_grade_naively, sample))
    return (time.monotonic() - start) / len(sample)


def measure_stream(options: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of the command that grades a file of 1 GB."""
    rows = list(read_json_lines(options.data / "math500_original.jsonl"))
    recipe = load_recipe("paper", (f"benchmark_folder={options.data.resolve()}",))
    (settings,) = (entry for entry in recipe.settings.benchmarks if entry.name == "math500")
    items = load_benchmark(recipe, settings)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for sample in range(STREAM_SAMPLES):
                for item, row in zip(items, rows, strict=True):
                    text = "so " * 33_333 + "</think>\n" + row["solution"]
                    line = {"id": item.id, "sample": sample, "answer": text}
                    file.write(json.dumps(line) + "\n")
        size_mib = path.stat().st_size >> 20
        command = [sys.executable, "-m", "evaluation", "grade", "--benchmark", "math500", "--json"]
        environment = {**os.environ, "PROMPTCOT_BENCHMARKS": str(options.data.resolve())}
        start = time.monotonic()
        done = subprocess.Popen(
            [*command, "--answers", str(path)], stdout=subprocess.PIPE, env=environment
        )
        report = json.loads(done.communicate()[0])
    result = {
        "file_mib": size_mib,
        "answers": report["num_answers"],
        "avg_at_k": report["scores"]["avg_at_k"],
        "seconds": round(time.monotonic() - start, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10,
    }
    print(json.dumps(result, indent=1))
    return result


def _grade_naively(entry: ToGrade) -> None:
    gold = entry.item.gold.text if entry.item.gold else ""
    command = [sys.executable, "-c", NAIVE, gold, entry.answer or ""]
    subprocess.run(command, capture_output=True, check=False, timeout=60)


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _children() -> list[int]:
    """Processes that this one left behind."""
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(pid) for pid in path.read_text(encoding="ascii").split()] if path.exists() else []


_MEASUREMENTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    # Memory first: what a command used shows only while no other child used more.
    "stream": measure_stream,
    "accuracy": measure_accuracy,
    "speed": measure_speed,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/benchmarks")
    parser.add_argument("--failures", action="store_true", help="show every wrong verdict")
    parser.add_argument("--peer", type=int, default=0, help="ask math-verify about every N-th pair")
    parser.add_argument("--only", choices=tuple(_MEASUREMENTS))
    options = parser.parse_args()
    chosen = [options.only] if options.only else list(_MEASUREMENTS)
    result = {name: _MEASUREMENTS[name](options) for name in chosen}
    print(json.dumps(result))
    failed = result.get("accuracy", {}).get("wrong", 0) > 0
    speed = result.get("speed")
    if speed is not None:
        failed |= speed["ratio"] < BAR or speed["processes_left"] > 0
    stream = result.get("stream")
    if stream is not None:
        failed |= stream["avg_at_k"] < 1 or stream["peak_mib"] > STREAM_PEAK_MIB
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
