"""Disturb run after run from a seeded plan of faults, and hold what they leave against calm runs.

    .venv/bin/python benchmarks/flows/soak.py --minutes 30 --faults 100 --seed 1

Real processes all round: a Prefect server and a serving process, a teacher behind a network that
can be cut, a disk that can be filled (a tmpfs: needs root), and runs of the whole loop (synthesis,
both datasets, two short trainings, evaluation, report), plain and served in turn, every third of
them with Ray. A fault strikes every few seconds of work. Where it ends the run, the one command
that began it is issued again, and may fail again only under another fault. At the end of each run,
compared with an undisturbed run of the same recipe: every published byte; every stored answer; rows
that are twice; finished files that were made again (by inode); requests that were asked again
though no fault had cost their answers. Nor may a process of Ray be left. The exit code is 0 only
when all of that is zero.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soak_checks import Finished, Reference, count_rows_twice, count_served, read_reference
from soak_faults import Fault, Scene, plan_faults, wait_for_ray
from soak_world import (
    ROOT,
    Attempt,
    Disk,
    Executor,
    Mode,
    Ports,
    World,
    is_faketime_there,
    plain_command,
)

CONCURRENCY = 8
"""Requests in flight: what one fault may cost at most twice, with what is about to be stored."""
_RECIPE = (Path(__file__).with_name("soak_recipe.toml")).read_text(encoding="utf-8")
_ZEROS = (
    "files_lost",
    "files_more",
    "files_different",
    "redone",
    "rows_twice",
    "asked_more",
    "answers_lost",
    "answers_more",
    "answers_different",
    "left_of_ray",
)
_ASKING = ("start", "combinations", "problems", "distinct", "judged", "solutions", "verified")
"""Stages during which, or right after which, answers are under way."""
_FOREIGN_TRACE = re.compile(
    r"Traceback \(most recent call last\):\n"
    r"  File \"[^\n]*resource_tracker\.py\"[^\n]*\n[^\n]*\nKeyError"
)
_START_S = 120.0
_STUCK_S = 420.0
_ZOMBIE_S = 15.0
_MOST_IN_VAIN = 5


@dataclass
class Soak:
    """The whole soak: its world, its plan, and what it has seen."""

    world: World
    disk: Disk
    options: argparse.Namespace
    rng: random.Random
    references: list[tuple[Path, Reference]] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)
    num_in_vain: int = 0
    """Commands in turn that failed although nothing had befallen them."""

    def __post_init__(self) -> None:
        self.plan = plan_faults(self.rng)

    def is_over(self) -> bool:
        """Whether it has lasted long enough."""
        minutes = (time.monotonic() - self.start) / 60
        return minutes >= self.options.minutes and len(self.faults) >= self.options.faults

    def tell(self, line: str) -> None:
        """One line of the log."""
        seconds = int(time.monotonic() - self.start)
        sys.stdout.write(f"{seconds // 60:3d}:{seconds % 60:02d}  {line}\n")
        sys.stdout.flush()

    def complain(self, line: str) -> None:
        """Note what should not be."""
        self.problems.append(line)
        self.tell(f"PROBLEM: {line}")

    def make_references(self) -> None:
        """Undisturbed runs of every recipe."""
        for number in range(self.options.recipes):
            recipe = self.world.folder / f"soak-{number}.toml"
            url = f"http://127.0.0.1:{self.world.ports.network}/v1"
            text = _RECIPE.replace("{url}", url).replace("{root}", str(ROOT))
            text = text.replace("seed = 1\n", f"seed = {number + 1}\n")
            recipe.write_text(text, encoding="utf-8")
            out = self.world.folder / "calm" / str(number)
            start = time.monotonic()
            process = self.world.start(plain_command(recipe, out), self.world.new_log("calm"))
            if process.wait(900):
                raise SystemExit(f"the undisturbed run failed: see {self.world.folder / 'logs'}")
            self.references.append((recipe, read_reference(out, self.world.served)))
            self.world.served.unlink()
            self.world.teacher.kill()
            self.world.teacher.wait()
            self.world.start_teacher()
            self.tell(f"undisturbed run {number}: {time.monotonic() - start:.0f} s")

    def run_round(self, number: int) -> None:
        """One run, from nothing to its end, through all that befalls it."""
        recipe, reference = self.references[number % len(self.references)]
        mode: Mode = "plain" if number % 2 else "served"
        every = self.options.ray_every
        executor: Executor = "ray" if number % every == 1 % every else "local"
        out = self.disk.folder / f"run-{number}"
        self.world.set_clock(0)
        self.world.served.unlink(missing_ok=True)
        self.world.teacher.kill()
        self.world.teacher.wait()
        self.world.start_teacher()
        begin = time.monotonic()
        state = Round(number, mode, executor, out, Finished())
        self._drive(state, recipe)
        asked, distinct = count_served(self.world.served)
        found = {
            "round": number,
            "mode": mode,
            "executor": executor,
            "seconds": round(time.monotonic() - begin),
            "faults": state.num_faults,
            "commands": state.num_commands,
            "asked": distinct,
            "asked_more": distinct - reference.asked,
            "asked_again": asked - distinct,
            "asked_again_allowed": 2 * CONCURRENCY * state.num_losses,
            "redone": state.finished.redone,
            "rows_twice": count_rows_twice(out),
            "left_of_ray": self.world.find_left_of_ray(),
            **reference.compare(out),
        }
        self.rounds.append(found)
        self._judge(found)
        self.tell(json.dumps(found))
        self.disk.clear(out)

    def _judge(self, found: dict[str, Any]) -> None:
        for key in _ZEROS:
            if found[key]:
                self.complain(f"round {found['round']}: {key} {found[key]}")
        if found["asked_again"] > found["asked_again_allowed"]:
            self.complain(f"round {found['round']}: asked again {found['asked_again']}")

    def _drive(self, state: Round, recipe: Path) -> None:
        """Issue the command until the run is done, with faults in between."""
        attempt = self._issue(state, recipe)
        while True:
            pause = self.rng.uniform(0.5, self.options.pause_s)
            if self._wait(attempt, pause) is None and not self.is_over():
                self._strike(state, attempt)
            code = self._settle(attempt)
            if code is None:
                continue
            if code == 0:
                return
            self.tell(f"    ended: {attempt.words()[:300]}")
            self._check_ending(attempt)
            attempt = self._issue(state, recipe)

    def _issue(self, state: Round, recipe: Path) -> Attempt:
        state.num_commands += 1
        state.finished.look(state.out)
        return Attempt(self.world, recipe, state.out, state.mode, state.executor)

    def _wait(self, attempt: Attempt, pause: float) -> int | None:
        """Until the run is at work, and then so many seconds; its end if that comes before."""
        deadline = time.monotonic() + _START_S
        while attempt.end() is None and not attempt.stage():
            if time.monotonic() > deadline:
                self.complain(f"nothing began within {_START_S:.0f} s: {attempt.log.name}")
                return 1
            time.sleep(0.3)
        deadline = time.monotonic() + pause
        while time.monotonic() < deadline and attempt.end() is None:
            time.sleep(0.2)
        return attempt.end()

    def _strike(self, state: Round, attempt: Attempt) -> None:
        scene = Scene(self.world, self.disk, attempt, self.rng)
        wait_for_ray(scene)
        fault = next(kind for kind in next(self.plan) if kind.is_possible(scene))
        stage = attempt.stage()
        state.finished.look(state.out)
        note = fault.inject(scene)
        attempt.num_faults += 1
        state.num_faults += 1
        state.num_losses += fault.loses_answers and stage in _ASKING
        self._record(fault, state, stage, note)

    def _record(self, fault: Fault, state: Round, stage: str, note: str) -> None:
        number = len(self.faults) + 1
        entry = {"fault": fault.name, "mode": state.mode, "stage": stage, "note": note}
        self.faults.append(entry)
        where = f"{state.mode} {state.executor} run {state.number}, {stage}"
        self.tell(f"{number:4d} {fault.name} ({where}): {note}")
        if note.split(":")[0].isupper() or note.startswith(("LEFT", "NOT")):
            self.complain(f"{fault.name}: {note}")

    def _settle(self, attempt: Attempt) -> int | None:
        """The run's end; a served one whose process is gone counts as ended after a while."""
        if attempt.end() is None and attempt.runner() is None:
            deadline = time.monotonic() + _ZOMBIE_S
            while time.monotonic() < deadline and attempt.end() is None:
                time.sleep(0.5)
                if attempt.runner() is not None:
                    return None
            code = attempt.end()
            return 1 if code is None else code
        if self.is_over() and attempt.end() is None:
            return self._finish(attempt)
        return attempt.end()

    def _finish(self, attempt: Attempt) -> int | None:
        """Nothing strikes any more: the run has all the time that it needs."""
        deadline = time.monotonic() + _STUCK_S
        while attempt.end() is None and attempt.runner() is not None:
            if time.monotonic() > deadline:
                raise SystemExit(f"a run does not end: {attempt.log}")
            time.sleep(0.5)
        return attempt.end()

    def _check_ending(self, attempt: Attempt) -> None:
        self.num_in_vain = 0 if attempt.num_faults else self.num_in_vain + 1
        if not attempt.num_faults:
            self.complain(f"failed without a fault: {attempt.log.name}: {attempt.words()}")
        if self.num_in_vain == _MOST_IN_VAIN:
            raise SystemExit("the command fails again and again without a fault")
        if attempt.mode == "plain":
            text = attempt.log.read_text(encoding="utf-8", errors="replace")
            # Python's own tracker of semaphores, where it was the worker killed: its successor
            # does not know what the first was told of.
            if "Traceback" in _FOREIGN_TRACE.sub("", text):
                self.complain(f"a traceback instead of a sentence: {attempt.log.name}")

    def show(self) -> int:
        """The closing tables; the exit code."""
        kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for entry in self.faults:
            kinds[entry["fault"]].append(entry)
        sys.stdout.write(
            "\n| fault | times | plain | served | during |\n| --- | --- | --- | --- | --- |\n"
        )
        for name, entries in sorted(kinds.items(), key=lambda item: -len(item[1])):
            modes = Counter(entry["mode"] for entry in entries)
            stages = Counter(entry["stage"] for entry in entries).most_common(4)
            during = ", ".join(f"{stage} {count}" for stage, count in stages)
            row = [name, len(entries), modes["plain"], modes["served"], during]
            sys.stdout.write("| " + " | ".join(map(str, row)) + " |\n")
        total = {
            "minutes": round((time.monotonic() - self.start) / 60, 1),
            "faults": len(self.faults),
            "runs": len(self.rounds),
            "commands": sum(one["commands"] for one in self.rounds),
            "files_compared": sum(one["files"] for one in self.rounds),
            "answers_compared": sum(one["answers"] for one in self.rounds),
            "asked_again": sum(one["asked_again"] for one in self.rounds),
            "lost": sum(len(one["files_lost"]) + one["answers_lost"] for one in self.rounds),
            "duplicated": sum(
                len(one["redone"]) + one["rows_twice"] + one["asked_more"] for one in self.rounds
            ),
            "different": sum(
                len(one["files_different"]) + one["answers_different"] for one in self.rounds
            ),
            "problems": self.problems,
        }
        sys.stdout.write("\n" + json.dumps(total, indent=1) + "\n")
        return 1 if self.problems else 0


@dataclass
class Round:
    """One run and what befell it."""

    number: int
    mode: Mode
    executor: Executor
    out: Path
    finished: Finished
    num_faults: int = 0
    num_losses: int = 0
    num_commands: int = 0


def main() -> int:
    """Run the soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--recipes", type=int, default=2, help="runs that differ in their seed")
    parser.add_argument("--pause-s", type=float, default=8.0, help="longest work between faults")
    parser.add_argument("--ray-every", type=int, default=3, help="of so many runs one has Ray")
    parser.add_argument("--median-ms", type=float, default=1200.0, help="of the teacher")
    parser.add_argument("--port", type=int, default=4313, help="and the two ports after it")
    options = parser.parse_args()
    # What was started is ended, whoever ends the soak.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    (folder / "logs").mkdir()
    disk = Disk(folder / "disk", 256)
    world = World(
        folder, Ports(options.port, options.port + 1, options.port + 2), options.median_ms
    )
    soak = Soak(world, disk, options, random.Random(options.seed))
    soak.tell(f"seed {options.seed}, logs in {folder}, false clock: {is_faketime_there()}")
    try:
        soak.make_references()
        world.start_serving()
        soak.start, number = time.monotonic(), 0
        while not soak.is_over():
            soak.run_round(number)
            number += 1
    finally:
        world.close()
        disk.close()
        code = soak.show()
    return code


if __name__ == "__main__":
    sys.exit(main())
