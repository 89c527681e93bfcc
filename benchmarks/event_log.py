"""What the event log costs: lines appended and read back, ``python benchmarks/event_log.py``.

Prints JSON: microseconds of processor and of wall time a line, alone and with several processes
writing into one log; and a stage of small shards with its log beside the same stage without one.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from flows.event_log import EventReader
from flows.run_state import RunState
from pipeline.events import EventLog, recording
from pipeline.records import ConceptCombination
from pipeline.settings.events import EventSettings
from pipeline.stages import Batch, BatchResult, Stage, run_stage

LINES, WRITERS, SHARDS = 5_000, 4, 300
EVENT = {"event": "note", "time": "2026-01-01T00:00:00+00:00", "run": "r", "filling": "x" * 400}


def append_lines(out: Path) -> None:
    log = EventLog(out, EventSettings())
    for number in range(LINES):
        log.append({**EVENT, "seq": number})


def append_together(out: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_lines, args=(out,)) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()


def read_lines(out: Path) -> None:
    state = RunState()
    for event in EventReader(out).read_new():
        state.add(event)
    state.as_json()


def run_shards(out: Path, *, with_log: bool) -> None:
    row = ConceptCombination(id="0" * 32, concepts=["a", "b"], domain="math", level="l")
    stage = Stage(
        name="s", root=out / "s", record=ConceptCombination, settings={}, inputs=[], packages=()
    )
    batches = [Batch(id=f"{number:04d}", rows=[row]) for number in range(SHARDS)]
    with recording(out, EventSettings(), "benchmark") if with_log else nullcontext():
        run_stage(stage, batches, lambda batch: BatchResult(num_in=1, rows=batch.rows))


def measure(work: Callable[[], None], number: int) -> dict[str, float]:
    def used() -> float:
        kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        found = [resource.getrusage(kind) for kind in kinds]
        return sum(one.ru_utime + one.ru_stime for one in found)

    start, before = time.perf_counter(), used()
    work()
    wall, cpu = time.perf_counter() - start, used() - before
    return {"wall_us": round(wall / number * 1e6, 1), "cpu_us": round(cpu / number * 1e6, 1)}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, Any] = {
            "append": measure(lambda: append_lines(folder / "one"), LINES),
            "append_4_writers": measure(lambda: append_together(folder / "many"), LINES * WRITERS),
            "read_and_add_up": measure(lambda: read_lines(folder / "many"), LINES * WRITERS),
            "shard_without_log": measure(
                lambda: run_shards(folder / "silent", with_log=False), SHARDS
            ),
            "shard_with_log": measure(lambda: run_shards(folder / "told", with_log=True), SHARDS),
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
