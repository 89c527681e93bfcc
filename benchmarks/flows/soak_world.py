"""The processes of a soak: teacher, network, Prefect's server, its serving process, and runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil
from soak_proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
TEACHER = ROOT / "benchmarks" / "teacher_server.py"
_START_S = 120.0
_FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
_OF_RAY = ("ray::", "/ray/", "ray_guard")
"""In the command lines of Ray's processes, and of ours that watches them."""
Mode = Literal["plain", "served"]
Executor = Literal["local", "ray"]


@dataclass(frozen=True, slots=True)
class Ports:
    """Prefect's server, the network's near end, the teacher."""

    prefect: int
    network: int
    teacher: int


class World:
    """Everything a run needs around it, each part a process that can be disturbed.

    Args:
        folder: For logs, Prefect's home and what the teacher served.
        ports: All free.
        median_ms: Of the teacher's latency.
    """

    def __init__(self, folder: Path, ports: Ports, median_ms: float) -> None:
        self.folder, self.ports, self._median_ms = folder, ports, median_ms
        self.served = folder / "served.txt"
        self.clock = folder / "clock"
        self.set_clock(0)
        kept = {key: text for key, text in os.environ.items() if not key.startswith("PREFECT_")}
        self.environment = {
            **kept,
            "PYTHONPATH": str(ROOT),
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{ports.prefect}/api",
            "DO_NOT_TRACK": "1",
            "COLUMNS": "200",
        }
        self.network = Proxy(ports.network, ports.teacher)
        self.teacher = self.start_teacher()
        self.serving: subprocess.Popen[bytes] | None = None
        self.server_deaths: list[float] = []
        self._num_logs = 0

    def start_teacher(self) -> subprocess.Popen[bytes]:
        """A new teacher at the same port."""
        command = [sys.executable, str(TEACHER), "--port", str(self.ports.teacher)]
        command += ["--median-ms", str(self._median_ms), "--sigma", "0.4"]
        self.teacher = subprocess.Popen(
            [*command, "--served", str(self.served)], stdout=subprocess.DEVNULL
        )
        return self.teacher

    def is_asked(self) -> bool:
        """Whether the teacher is at work right now."""
        log, before = self.served, count_bytes(self.served)
        time.sleep(1.0)
        return count_bytes(log) > before

    def start_serving(self) -> None:
        """``python -m flows.deployments``, until it says that it serves."""
        self.server_deaths.clear()
        log = self.new_log("deployments")
        self.serving = self.start([sys.executable, "-m", "flows.deployments"], log)
        deadline = time.monotonic() + _START_S
        while "Ctrl-C stops serving" not in log.read_text(encoding="utf-8", errors="replace"):
            if self.serving.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"flows.deployments does not serve: see {log}")
            time.sleep(0.3)
        while not self._is_registered():
            if self.serving.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the deployments are not registered: see {log}")
            time.sleep(0.3)

    def _is_registered(self) -> bool:
        with suppress(httpx.HTTPError):
            url = f"{self.api}/deployments/name/reproduce/local"
            return httpx.get(url, timeout=5, trust_env=False).status_code == 200
        return False

    def start(
        self, command: list[str], log: Path, extra: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """A process of its own session, with all output in a log."""
        with log.open("wb") as output:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env={**self.environment, **(extra or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def new_log(self, name: str) -> Path:
        """The next log file."""
        self._num_logs += 1
        return self.folder / "logs" / f"{self._num_logs:04d}-{name}.log"

    def server(self) -> psutil.Process | None:
        """Prefect's server, whoever started it."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                line = process.cmdline()
                if "server" in line and str(self.ports.prefect) in line:
                    return process
        return None

    def find_left_of_ray(self, seconds: float = 10.0) -> list[str]:
        """Ray's processes of runs that are over, after so many seconds, and its shared memory."""
        deadline = time.monotonic() + seconds
        while (found := self._list_ray()) and time.monotonic() < deadline:
            time.sleep(0.3)
        return found

    def _list_ray(self) -> list[str]:
        found = [path.name for path in Path("/dev/shm").glob("plasma*")]
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                # Agents overwrite a part of their environment, but not where they are at work.
                if is_of_ray(process) and process.cwd() == str(ROOT):
                    found.append(" ".join(process.cmdline())[:80])
        return found

    def may_lose_server(self) -> bool:
        """Whether it is started again: who serves gives up at the fifth death in ten minutes."""
        return sum(time.monotonic() - death < 600 for death in self.server_deaths) < 4

    def wait_for_server(self, seconds: float = 60.0) -> bool:
        """Whether Prefect's server answers within so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.api}/health", timeout=5, trust_env=False).status_code == 200:
                    return True
            time.sleep(0.3)
        return False

    @property
    def api(self) -> str:
        """Prefect's address."""
        return self.environment["PREFECT_API_URL"]

    def set_clock(self, seconds: int) -> None:
        """Shift the clock of plain runs, the one that goes on included; negative is back."""
        temporary = self.clock.with_suffix(".new")
        temporary.write_text(f"{seconds:+d}s\n", encoding="ascii")
        temporary.replace(self.clock)

    def fake_clock(self) -> dict[str, str]:
        """Variables that give a process the shifted clock."""
        return {
            "LD_PRELOAD": str(_FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Files keep their real times, which then lie in the future.
            "NO_FAKE_STAT": "1",
        }

    def close(self) -> None:
        """End all that is left."""
        for process in (self.serving, self.teacher):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(30)
                kill_tree(process.pid)
        if (server := self.server()) is not None:
            kill_tree(server.pid)


@dataclass
class Attempt:
    """One issue of the one command, and what became of it.

    Args:
        world: Where it runs.
        recipe: File of the recipe.
        out: The run folder.
        mode: ``plain`` (``python -m flows.whole_loop``) or ``served`` (``prefect deployment run``).
        executor: ``local`` or ``ray``.
    """

    world: World
    recipe: Path
    out: Path
    mode: Mode
    executor: Executor
    log: Path = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)
    run_id: str = ""
    num_faults: int = 0

    def __post_init__(self) -> None:
        self._known = {event["run"] for event in read_events(self.out)}
        self.log = self.world.new_log(f"{self.mode}-run")
        self.process = self.world.start(self.command(), self.log, self._variables())
        if self.mode == "served":
            self.process.wait(120)
            text = self.log.read_text(encoding="utf-8", errors="replace")
            if not self.process.returncode and "UUID: " in text:
                self.run_id = text.partition("UUID: ")[2].split()[0]

    def command(self) -> list[str]:
        """What a person types."""
        if self.mode == "plain":
            return plain_command(self.recipe, self.out, self.executor)
        prefect = str(Path(sys.executable).with_name("prefect"))
        run = [prefect, "deployment", "run", "reproduce"]
        run += ["-p", f"recipe={self.recipe}", "-p", f"out={self.out}"]
        if self.executor == "local":
            return run
        return [*run, "-p", f'overrides=["execution.executor={self.executor}"]']

    def _variables(self) -> dict[str, str]:
        return self.world.fake_clock() if self.has_fake_clock() else {}

    def has_fake_clock(self) -> bool:
        """Whether its clock can be set; libfaketime 0.9.10 breaks Python's sleep beside Ray."""
        return self.mode == "plain" and self.executor == "local" and is_faketime_there()

    def runner(self) -> psutil.Process | None:
        """The process that does the work, if it is there."""
        if self.mode == "plain":
            with suppress(psutil.Error):
                if self.process.poll() is None:
                    return psutil.Process(self.process.pid)
            return None
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if (
                    "prefect.engine" in process.cmdline()
                    and process.environ().get("PREFECT__FLOW_RUN_ID") in _ids(self.run_id)
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    return process
        return None

    def stage(self) -> str:
        """The stage at work by the event log; empty before the run has begun."""
        own = [event for event in read_events(self.out) if event["run"] not in self._known]
        stages = [event["stage"] for event in own if event["event"].startswith("stage.")]
        return (stages[-1] if stages else "start") if own else ""

    def end(self) -> int | None:
        """0 done, anything else failed, none while it goes on."""
        if self.mode == "plain":
            return self.process.poll()
        if not self.run_id:
            return 1
        state = self._state()
        if state == "COMPLETED":
            return 0
        return 1 if state in ("FAILED", "CRASHED", "CANCELLED") else None

    def _state(self) -> str:
        with suppress(httpx.HTTPError, ValueError):
            reply = httpx.get(
                f"{self.world.api}/flow_runs/{self.run_id}", timeout=5, trust_env=False
            )
            if reply.status_code == 200:
                return str(reply.json()["state_type"])
        return ""

    def words(self) -> str:
        """The last thing that a failed attempt said."""
        failed = [e for e in read_events(self.out) if e["event"] == "run.failed"]
        if self.mode == "served" and self.run_id:
            return str(failed[-1].get("error")) if failed else ""
        text = self.log.read_text(encoding="utf-8", errors="replace").strip()
        at = text.rfind("error:")
        return " ".join(text[at if at >= 0 else -300 :].split())[:400]


def _ids(run_id: str) -> set[str]:
    return {run_id, run_id.replace("-", "")}


def plain_command(recipe: Path, out: Path, executor: Executor = "local") -> list[str]:
    """The whole loop without Prefect."""
    command = [sys.executable, "-m", "flows.whole_loop"]
    command += ["--recipe", str(recipe), "--out", str(out)]
    return command if executor == "local" else [*command, "--set", f"execution.executor={executor}"]


def is_of_ray(process: psutil.Process) -> bool:
    """Whether it is one of Ray's processes, or watches them."""
    with suppress(psutil.Error):
        return any(mark in " ".join(process.cmdline()) for mark in _OF_RAY)
    return False


def read_events(out: Path) -> list[dict[str, Any]]:
    """The whole lines of a run folder's event log."""
    found = []
    with suppress(OSError):
        for line in (out / "logs" / "events.jsonl").read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
    return found


def is_faketime_there() -> bool:
    """Whether libfaketime is installed (Debian and Ubuntu: ``apt install libfaketime``)."""
    return _FAKETIME.is_file()


def count_bytes(path: Path) -> int:
    """A file's size; 0 if it is not there."""
    return path.stat().st_size if path.is_file() else 0


def kill_tree(pid: int) -> None:
    """SIGKILL to a process and all below it."""
    with suppress(psutil.Error):
        top = psutil.Process(pid)
        for process in [*top.children(recursive=True), top]:
            with suppress(psutil.Error):
                process.kill()


class Disk:
    """A file system of its own that can be filled: a tmpfs, which needs root.

    Args:
        folder: Where it is mounted.
        megabytes: Its size.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "none"]
        subprocess.run(["mount", *options, str(folder)], check=True)

    def fill(self) -> None:
        """Take all that is free."""
        with suppress(OSError), (self.folder / "ballast").open("wb", buffering=0) as ballast:
            for size in (1 << 20, 1 << 12):
                with suppress(OSError):
                    while True:
                        ballast.write(b"\0" * size)

    def free(self) -> None:
        """Give it back."""
        (self.folder / "ballast").unlink(missing_ok=True)

    def clear(self, out: Path) -> None:
        """Remove a run folder that is done with."""
        shutil.rmtree(out, ignore_errors=True)

    def close(self) -> None:
        """Unmount."""
        subprocess.run(["umount", "-l", str(self.folder)], check=False)
