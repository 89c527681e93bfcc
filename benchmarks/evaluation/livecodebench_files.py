"""LiveCodeBench's files at their real size: time and memory of reading statements and tests.

    .venv/bin/python benchmarks/evaluation/livecodebench_files.py --folder /tmp/lcb
    .venv/bin/python benchmarks/evaluation/livecodebench_files.py --folder /tmp/lcb --problems 880

Writes files in the published format (digits that hardly compress, as real tests; a third of the
problems in the window, as release_v5 has), then reads them in processes of their own:

- ``questions``: what decontamination does. No test is unpacked.
- ``items``: what an evaluation does at its start. Tests stay in the files.
- ``tests``: every test of every problem, one problem at a time, as for the content hash.
- ``all at once``: every unpacked test in one list, which is what is to be avoided.

Prints seconds and the most memory of each process. The bar of all but the last: ten times one
problem's tests plus 300 MiB, whatever the number of problems; exit code 1 where it is missed.
"""

from __future__ import annotations

import argparse
import base64
import json
import pickle
import random
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from pipeline import console
from pipeline.benchmark_hashes import hash_content
from pipeline.benchmark_items import BenchmarkItem
from pipeline.benchmarks import load_benchmark, load_questions
from pipeline.settings.benchmarks import BenchmarkSettings
from pipeline.settings.recipe import Recipe, RecipeSettings

_FILES = 5
_TASKS = ("questions", "items", "tests", "all at once")
_BASE_MIB, _TIMES = 300, 10


def make_row(number: int, tests_kib: int) -> dict[str, str]:
    """A problem whose private tests unpack to about ``tests_kib`` KiB."""
    generator = random.Random(number)
    text = "".join(generator.choices("0123456789 \n", k=tests_kib * 1024 // 8))
    tests = [{"input": text, "output": "1\n", "testtype": "stdin"} for _ in range(8)]
    # Eight different inputs: equal ones would compress to one.
    for position, test in enumerate(tests):
        test["input"] = text[position * 97 :] + text[: position * 97][::-1]
    packed = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)), 1)).decode()
    is_inside = number % 3 == 0
    return {
        "question_title": f"Problem {number}",
        "question_content": f"Problem {number}: add up the digits.",
        "platform": "atcoder",
        "question_id": f"q{number}",
        "contest_id": f"c{number}",
        "contest_date": "2024-10-05T00:00:00" if is_inside else "2023-10-05T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps([{"input": "1", "output": "1", "testtype": "stdin"}]),
        "private_test_cases": packed,
        "metadata": "{}",
    }


def write_files(folder: Path, num_problems: int, tests_kib: int) -> None:
    """The five files of a release; what is there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ["test.jsonl", *(f"test{n}.jsonl" for n in range(2, _FILES + 1))]
    with console.progress("writing", num_problems, "problems") as advance:
        for file, name in enumerate(names):
            if (folder / name).is_file():
                continue
            with (folder / name).open("w", encoding="utf-8") as handle:
                for number in range(file, num_problems, _FILES):
                    handle.write(json.dumps(make_row(number, tests_kib)) + "\n")
                    advance(1)


def describe(folder: Path) -> tuple[Recipe, BenchmarkSettings]:
    """The bundled benchmark on these files."""
    unpinned = {"expected_items": 0, "ids_sha256": "", "files_sha256": {}}
    fields = {"use": "livecodebench_v5", "path": str(folder), **unpinned}
    recipe = Recipe(path=folder / "r.toml", settings=RecipeSettings(name="r"))
    return recipe, BenchmarkSettings.model_validate(fields)


def work(task: str, folder: Path) -> None:
    """One measured process."""
    recipe, settings = describe(folder)
    begin = time.monotonic()
    if task == "questions":
        items = load_questions(recipe, settings)
    else:
        items = load_benchmark(recipe, settings)
    kept = list(iterate_tests(items)) if task == "all at once" else []
    if task == "tests":
        hash_content(items)
    seconds = time.monotonic() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps([len(kept) or len(items), seconds, peak]))


def iterate_tests(items: list[BenchmarkItem]) -> Iterator[list[dict[str, str]]]:
    """The unpacked tests of each problem."""
    for item in items:
        if item.tests is not None:
            yield [dict(case) for case in item.tests.cases]


def main() -> int:
    """Measure, print, and say whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--tests-kib", type=int, default=8192, help="unpacked, of one problem")
    parser.add_argument("--task", choices=_TASKS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.task:
        work(chosen.task, chosen.folder)
        return 0
    write_files(chosen.folder, chosen.problems, chosen.tests_kib)
    size = sum(file.stat().st_size for file in chosen.folder.glob("*.jsonl"))
    most_mib = _BASE_MIB + _TIMES * chosen.tests_kib / 1024
    rows, is_good = [], True
    for task in _TASKS:
        command = [sys.executable, __file__, "--folder", str(chosen.folder), "--task", task]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        num_items, seconds, peak = json.loads(done.stdout)
        verdict = "ok" if peak <= most_mib else "MISSED"
        if task == "all at once":
            verdict = "none"
        is_good = is_good and verdict != "MISSED"
        rows.append([task, num_items, f"{seconds:.1f}", f"{peak:.0f}", verdict])
    title = f"{chosen.problems} problems, {size / 1e9:.2f} GB; bar {most_mib:.0f} MiB"
    console.table(title, ["task", "items", "seconds", "peak MiB", "bar"], rows)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
