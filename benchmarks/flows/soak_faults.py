"""What can befall a run, drawn from a seeded plan."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil
from soak_world import Attempt, Disk, World, is_of_ray, plain_command

_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault can lay hands on."""

    world: World
    disk: Disk
    attempt: Attempt
    rng: random.Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of mishap."""

    name: str
    weight: int
    inject: Callable[[Scene], str]
    """Does it, undoes it where that is another's business, and says how it went."""
    is_possible: Callable[[Scene], bool] = lambda scene: True
    loses_answers: bool = True
    """Whether answers that are under way may have to be asked for again."""


def kill_run(scene: Scene) -> str:
    """SIGKILL to the process that runs the flow; says how many of its own outlived it."""
    runner = scene.attempt.runner()
    if runner is None:
        return "it was gone already"
    below = runner.children(recursive=True)
    runner.kill()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and any(_is_alive(process) for process in below):
        time.sleep(0.2)
    left = [process for process in below if _is_alive(process)]
    return f"LEFT BEHIND {len(left)}: {_name(left[0])}" if left else f"{len(below)} below it ended"


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _name(process: psutil.Process, length: int = 120) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())[:length].strip()
    return "gone"


def kill_worker(scene: Scene) -> str:
    """SIGKILL to one process below the run: a worker, a sandbox, a launched training."""
    return _kill_one(scene, _workers(scene))


def kill_ray_worker(scene: Scene) -> str:
    """SIGKILL to one process in which Ray does our tasks; to one at work, if one is soon."""
    deadline = time.monotonic() + 5
    while (found := _ray_workers(scene)) and time.monotonic() < deadline:
        if busy := [process for process in found if _name(process) != "ray::IDLE"]:
            return _kill_one(scene, busy)
        time.sleep(0.02)
    return _kill_one(scene, found)


def kill_raylet(scene: Scene) -> str:
    """SIGKILL to Ray's own server on this machine, which ends the run with a sentence."""
    return _kill_one(scene, _raylets(scene))


def _kill_one(scene: Scene, below: list[psutil.Process]) -> str:
    if not below:
        return "none was left"
    chosen = scene.rng.choice(sorted(below, key=lambda process: process.pid))
    name = _name(chosen)
    with suppress(psutil.Error):
        chosen.kill()
    return name


def _below(scene: Scene) -> list[psutil.Process]:
    runner = scene.attempt.runner()
    with suppress(psutil.Error):
        return runner.children(recursive=True) if runner is not None else []
    return []


def _workers(scene: Scene) -> list[psutil.Process]:
    return [process for process in _below(scene) if not is_of_ray(process)]


def _ray_workers(scene: Scene) -> list[psutil.Process]:
    names = [(process, _name(process)) for process in _below(scene)]
    return [p for p, name in names if name.startswith("ray::") and "Agent" not in name]


def wait_for_ray(scene: Scene) -> None:
    """While Ray is being started, until its workers are there: they are so for seconds only."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and _raylets(scene) and not _ray_workers(scene):
        time.sleep(0.1)


def _raylets(scene: Scene) -> list[psutil.Process]:
    return [process for process in _below(scene) if "/raylet --" in _name(process, 400)]


def kill_serving(scene: Scene) -> str:
    """SIGKILL to ``python -m flows.deployments``, which is then started again."""
    assert scene.world.serving is not None
    scene.world.serving.kill()
    scene.world.serving.wait()
    scene.world.start_serving()
    return "started again"


def kill_server(scene: Scene) -> str:
    """SIGKILL to Prefect's server; whoever serves starts it again."""
    server = scene.world.server()
    if server is None:
        return "it was gone already"
    scene.world.server_deaths.append(time.monotonic())
    server.kill()
    start = time.monotonic()
    if not scene.world.wait_for_server():
        return "NOT STARTED AGAIN"
    return f"answers again after {time.monotonic() - start:.0f} s"


def kill_teacher(scene: Scene) -> str:
    """SIGKILL to the teacher, which comes back a little later."""
    scene.world.teacher.kill()
    scene.world.teacher.wait()
    seconds = scene.rng.uniform(0.5, 5.0)
    time.sleep(seconds)
    scene.world.start_teacher()
    return f"away {seconds:.1f} s"


def stop_teacher(scene: Scene) -> str:
    """The teacher takes connections and says nothing."""
    process = psutil.Process(scene.world.teacher.pid)
    process.suspend()
    seconds = scene.rng.uniform(1.0, 6.0)
    time.sleep(seconds)
    process.resume()
    return f"silent {seconds:.1f} s"


def cut_network(scene: Scene) -> str:
    """Connections to the teacher are reset, new ones too, for a moment."""
    scene.world.network.cut()
    seconds = scene.rng.uniform(0.2, 5.0)
    time.sleep(seconds)
    scene.world.network.mend()
    return f"cut {seconds:.1f} s"


def cut_for_long(scene: Scene) -> str:
    """The network stays away for longer than the recipe's ``outage_s``."""
    scene.world.network.cut()
    start = time.monotonic()
    while time.monotonic() - start < 14 and scene.attempt.end() is None:
        time.sleep(0.5)
    scene.world.network.mend()
    return f"cut {time.monotonic() - start:.0f} s"


def fill_disk(scene: Scene) -> str:
    """No byte is left where the run folder is, until the run gives up or some seconds pass."""
    scene.disk.fill()
    start, limit = time.monotonic(), scene.rng.uniform(3, 10)
    while time.monotonic() - start < limit and scene.attempt.end() is None:
        time.sleep(0.3)
    scene.disk.free()
    return f"full {time.monotonic() - start:.0f} s"


def run_second(scene: Scene) -> str:
    """The same command for the same folder, while the first is at work; it has to be refused."""
    start = time.monotonic()
    log = scene.world.new_log("second-run")
    process = scene.world.start(plain_command(scene.attempt.recipe, scene.attempt.out), log)
    try:
        code = process.wait(120)
    except subprocess.TimeoutExpired:
        process.kill()
        return "NOT REFUSED: went on for 120 s"
    text = log.read_text(encoding="utf-8", errors="replace")
    if code == 0 and scene.attempt.runner() is None:
        return "the first had just ended; this one went on in its place"
    sentences = [line for line in text.splitlines() if line.startswith("error:")]
    if code != 2 or len(sentences) != 1 or "Traceback" in text:
        return f"NOT REFUSED: exit code {code}, see {log.name}"
    seconds = time.monotonic() - start
    return f"refused after {seconds:.0f} s: {' '.join(sentences[0].split())[:90]}"


def set_clock_back(scene: Scene) -> str:
    """The run's clock jumps back by hours to weeks, for it and for the runs after it."""
    hours = scene.rng.randint(1, 24 * 30)
    scene.world.set_clock(-hours * _HOUR)
    time.sleep(2.0)
    return f"{hours} h back"


def _is_served(scene: Scene) -> bool:
    return scene.attempt.mode == "served"


def _is_asked(scene: Scene) -> bool:
    return scene.world.is_asked()


FAULTS = (
    Fault(name="run killed", weight=5, inject=kill_run),
    Fault(
        name="worker killed", weight=3, inject=kill_worker, is_possible=lambda s: bool(_workers(s))
    ),
    Fault(
        name="Ray worker killed",
        weight=12,
        inject=kill_ray_worker,
        is_possible=lambda s: bool(_ray_workers(s)),
    ),
    Fault(
        name="raylet killed", weight=2, inject=kill_raylet, is_possible=lambda s: bool(_raylets(s))
    ),
    Fault(
        name="serving process killed",
        weight=3,
        inject=kill_serving,
        is_possible=_is_served,
        loses_answers=False,
    ),
    Fault(
        name="Prefect server killed",
        weight=5,
        inject=kill_server,
        is_possible=lambda s: _is_served(s) and s.world.may_lose_server(),
        loses_answers=False,
    ),
    Fault(name="teacher killed", weight=4, inject=kill_teacher, is_possible=_is_asked),
    Fault(name="teacher silent", weight=3, inject=stop_teacher, is_possible=_is_asked),
    Fault(name="network cut", weight=4, inject=cut_network, is_possible=_is_asked),
    Fault(name="network cut for long", weight=2, inject=cut_for_long, is_possible=_is_asked),
    Fault(name="disk full", weight=4, inject=fill_disk),
    Fault(name="second run", weight=3, inject=run_second, loses_answers=False),
    Fault(
        name="clock set back",
        weight=3,
        inject=set_clock_back,
        is_possible=lambda s: s.attempt.has_fake_clock(),
        loses_answers=False,
    ),
)


def plan_faults(rng: random.Random) -> Iterator[list[Fault]]:
    """For each fault in turn the kinds by preference; the first that is possible then is done."""
    while True:
        kinds, order = list(FAULTS), []
        while kinds:
            order.append(rng.choices(kinds, [kind.weight for kind in kinds])[0])
            kinds.remove(order[-1])
        yield order
