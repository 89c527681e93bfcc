"""The code grader on real problems: samples per second, memory, processes left over.

    .venv/bin/python benchmarks/evaluation/code_grading.py --data ../shared/data
    .venv/bin/python benchmarks/evaluation/code_grading.py --data ../shared/data --mutants

Grades --samples programs (1,000) of a fixed mix through ``ProgramGrader``: HumanEval and HumanEval+
(canonical solutions and wrong versions), LeetCode functions with their asserts, Codeforces and
CodeContests programs that read standard input, and one hostile program in fifty. Every verdict is
known: a right program that fails or a hostile one that passes ends the benchmark with exit code 1.
Processor time is this process's and all sandboxes'. Memory is the largest sum of resident pages
(shared ones counted for each process) of this process and all it started, looked at ten times a
second. --mutants instead counts the wrong versions of all HumanEval(+) solutions that pass, beside
the verdicts of the benchmarks' own ways (``code_peers.py``). Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "evaluation"))

from code_peers import judge_evalplus, judge_humaneval, passes
from program_mutants import mutants

from evaluation.code_grading import ProgramGrader
from pipeline.benchmark_items import ProgramTests
from promptcot.verification.sandbox_process import SandboxProcess, processor_s

Job = tuple[str, str, ProgramTests]
"""Kind of the program (right, none, constant, operator, hostile), source, tests."""
Row = dict[str, Any]

PAGE = os.sysconf("SC_PAGE_SIZE")
HOSTILE = (
    "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
    "while True: print('x' * 10**5)",
    "data = []\nwhile True: data.append(bytearray(1 << 20))",
    "import os\nos._exit(0)",
    "import sys\nsys.exit(0)",
    "#" * (100 << 20),
    "n = 0\nwhile True:\n  n += 1\n  open(f'/tmp/{n}', 'w').write('x' * 60000)",
    "import time\ntime.sleep(1000)",
)


def read_lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def humaneval(data: Path) -> Iterator[tuple[Row, ProgramTests]]:
    for row in read_lines(data / "benchmarks" / "HumanEval.jsonl.gz"):
        tests = ProgramTests(
            kind="check", entry_point=row["entry_point"], prompt=row["prompt"], check=row["test"]
        )
        yield row, tests


def humaneval_plus(data: Path) -> Iterator[tuple[Row, ProgramTests]]:
    for row in read_lines(data / "benchmarks" / "HumanEvalPlus.jsonl.gz"):
        tests = ProgramTests(
            kind="reference",
            entry_point=row["entry_point"],
            prompt=row["prompt"],
            reference=row["prompt"] + row["canonical_solution"],
            contract=row["contract"],
            inputs=json.dumps(row["base_input"] + row["plus_input"]),
            atol=row["atol"],
        )
        yield row, tests


def humaneval_versions(data: Path) -> Iterator[Job]:
    for row, tests in humaneval(data):
        yield from versions(row, tests)


def humaneval_plus_versions(data: Path) -> Iterator[Job]:
    for row, tests in humaneval_plus(data):
        yield from versions(row, tests)


def versions(row: dict[str, Any], tests: ProgramTests) -> Iterator[Job]:
    program = row["prompt"] + row["canonical_solution"]
    yield "right", program, tests
    for kind, source in mutants(program, tests.entry_point):
        yield kind, source, tests


def leetcode(data: Path) -> Iterator[Job]:
    for row in json.loads((data / "code" / "leetcode_test_rllm.json").read_text()):
        check, _, call = row["tests"]["functional"].strip().rpartition("\n")
        name = call.removeprefix("check(Solution().").removesuffix(")")
        if "sortedcontainers" not in row["solutions"]:
            yield (
                "right",
                row["solutions"],
                ProgramTests(kind="check", entry_point=name, check=check),
            )


def contests(data: Path) -> Iterator[Job]:
    for name in ("codeforces_test_rllm.json.gz", "code_contests_test_rllm.json.gz"):
        with gzip.open(data / "code" / name, "rt", encoding="utf-8") as file:
            rows = json.load(file)
        for row in rows:
            tests = row["tests"]
            if isinstance(tests, dict):
                pairs = zip(tests["inputs"], tests["outputs"], strict=True)
                tests = [{"input": given, "output": wanted} for given, wanted in pairs]
            known = {case["input"]: case["output"] for case in tests[:10]}
            # These files have no solutions: a program that knows the outputs stands for one.
            source = f"import sys\nprint({known!r}[sys.stdin.read()])"
            if len(source) < 1 << 19:
                yield "right", source, ProgramTests(kind="stdin", cases=tuple(tests[:10]))


def mix(data: Path, count: int) -> list[Job]:
    """A fixed selection, half of it HumanEval and HumanEval+."""
    shares = (
        (humaneval_versions, 0.25),
        (humaneval_plus_versions, 0.25),
        (leetcode, 0.15),
        (contests, 0.35),
    )
    chosen: list[Job] = []
    rng = random.Random(0)
    for source, share in shares:
        jobs = list(source(data))
        chosen += rng.choices(jobs, k=round(share * count))
    rng.shuffle(chosen)
    for number in range(0, len(chosen), 50):
        program = HOSTILE[number // 50 % len(HOSTILE)]
        chosen[number] = ("hostile", program, chosen[number][2])
    return chosen


class MemoryWatch(threading.Thread):
    """Resident memory of this process and its descendants, now and then."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self.peak_own = 0
        self.ended = threading.Event()

    def run(self) -> None:
        """Look until told to end."""
        while not self.ended.wait(0.1):
            sizes = resident_by_process()
            self.peak_bytes = max(self.peak_bytes, sum(sizes.values()))
            self.peak_own = max(self.peak_own, sizes.get(os.getpid(), 0))


class ProcessorTime:
    """Processor seconds of all sandboxes, read just before each is ended."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()
        leave = SandboxProcess.__exit__

        def measured_leave(process: SandboxProcess, *error: Any) -> None:
            used = processor_s(process._process.pid)
            with self._lock:
                self.seconds += used
            leave(process, *error)

        SandboxProcess.__exit__ = measured_leave  # type: ignore[method-assign]


def resident_by_process() -> dict[int, int]:
    """Bytes by process id, of this process and all below it."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            sizes[int(path.name)] = int((path / "statm").read_text().split()[1]) * PAGE
        except (OSError, IndexError):
            continue  # it ended meanwhile
    ours = {os.getpid()}
    while grown := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= grown
    return {pid: sizes.get(pid, 0) for pid in ours}


def processes_left() -> int:
    """Descendants after a moment to end."""
    deadline = time.monotonic() + 5
    while len(resident_by_process()) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    return len(resident_by_process()) - 1


def measure(data: Path, samples: int, workers: int) -> dict[str, Any]:
    jobs = mix(data, samples)
    watch = MemoryWatch()
    watch.start()
    sandboxes, own_before, start = ProcessorTime(), time.process_time(), time.monotonic()
    with ProgramGrader(num_workers=workers) as grader:
        results = grader.grade([(source, tests) for _, source, tests in jobs])
    seconds = time.monotonic() - start
    cpu_s = sandboxes.seconds + time.process_time() - own_before
    watch.ended.set()
    watch.join()
    verdicts = Counter(
        (kind, "passed" if result.passed else "failed")
        for (kind, _, _), result in zip(jobs, results, strict=True)
    )
    return {
        "samples": len(jobs),
        "seconds": round(seconds, 1),
        "samples_per_s": round(len(jobs) / seconds, 2),
        "processor_s": round(cpu_s, 1),
        "samples_per_processor_s": round(len(jobs) / cpu_s, 2),
        "peak_tree_mib": watch.peak_bytes >> 20,
        "peak_own_mib": watch.peak_own >> 20,
        "processes_left": processes_left(),
        "verdicts": {" ".join(key): count for key, count in sorted(verdicts.items())},
        "reasons": dict(Counter(result.reason for result in results)),
        "wrong_verdicts": verdicts["right", "failed"] + verdicts["hostile", "passed"],
    }


def count_mutants(data: Path, workers: int, every: int) -> dict[str, Any]:
    """Verdicts on wrong versions, ours and those of the benchmarks' own ways."""
    found: dict[str, Any] = {"wrong_verdicts": 0}
    sources = ((humaneval, judge_humaneval), (humaneval_plus, judge_evalplus))
    with ProgramGrader(num_workers=workers) as grader:
        for source, judge in sources:
            rows = list(source(data))[::every]
            jobs = [(row, job) for row, tests in rows for job in versions(row, tests)]
            results = grader.grade([(program, tests) for _, (_, program, tests) in jobs])
            verdicts: Counter[str] = Counter()
            for (row, (kind, program, _)), result in zip(jobs, results, strict=True):
                verdicts[f"{kind} {'passed' if result.passed else 'failed'}"] += 1
                agrees = passes(judge, program, row) is result.passed
                verdicts["agrees" if agrees else "differs"] += 1
            found[source.__name__] = dict(sorted(verdicts.items()))
            found["wrong_verdicts"] += verdicts["right failed"] + verdicts["differs"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--mutants", action="store_true")
    parser.add_argument("--every", type=int, default=1, help="with --mutants: every N-th problem")
    options = parser.parse_args()
    if options.mutants:
        found = count_mutants(options.data, options.workers, options.every)
    else:
        found = measure(options.data, options.samples, options.workers)
    print(json.dumps(found))
    raise SystemExit(1 if found["wrong_verdicts"] else 0)


if __name__ == "__main__":
    main()
