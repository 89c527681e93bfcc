"""Runs inside the sandbox: one untrusted program over many inputs, or one that answers calls.

Stdlib only; started by :mod:`promptcot.verification.sandbox` as a script, never imported. Reads a
JSON request from standard input, framed by its length, and writes the line ``{"ready": true}``.
Then either every further frame is an input, gets a process of its own and is answered by one JSON
line; or one process (:mod:`promptcot.verification.sandbox_driver`) reads the rest of standard input
itself, and its lines are passed on behind a ``+`` until a JSON line says how it ended. Expected
outputs never come here, so a program that tampers with this process or its channel can at most
claim an output, which is compared outside.
"""

import ctypes
import json
import os
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

STDERR_TAIL = 2000
# What the interpreter's `site` module would have given; -S skips it with its path files.
PROLOGUE = """\
import _signal, _sitebuiltins, builtins
# Python starts with this signal ignored; a program's death by it must be visible.
_signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
builtins.exit = _sitebuiltins.Quitter("exit", "end of file")
builtins.quit = _sitebuiltins.Quitter("quit", "end of file")
del _signal, _sitebuiltins, builtins
{preamble}
with open({path!r}, encoding="utf-8") as _source:
    _source = compile(_source.read(), "program.py", "exec")
exec(_source)
"""
POLL_S = 0.05
IDLE_SHARE = 0.01
PATIENCE = 20.0
CHUNK = 1 << 16

# Refused calls, x86_64 and aarch64: new processes and namespaces, tracing and other processes'
# memory, memory that the address-space limit does not see (shared memory, queues, memfd, io_uring),
# kernel interfaces that no program of ours needs (keys, bpf, perf, userfaultfd).
REFUSED = {
    "fork": (57, None),
    "vfork": (58, None),
    "unshare": (272, 97),
    "setns": (308, 268),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "io_uring_setup": (425, 425),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
}
# Per architecture: its audit number and the calls whose arguments decide.
ARCHITECTURES = {
    "x86_64": (0xC000003E, {"clone": 56, "clone3": 435, "kill": 62, "tgkill": 234, "socket": 41}),
    "aarch64": (
        0xC00000B7,
        {"clone": 220, "clone3": 435, "kill": 129, "tgkill": 131, "socket": 198},
    ),
}
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38
_CLONE_THREAD, _X32, _FIRST_ARGUMENT = 0x10000, 0x40000000, 16
_SOCKETS = (1, 2, 10, 16)  # unix, inet, inet6, netlink; others may leave the network namespace
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_Steps = list[tuple[int, int, int, int]]


def build_filter(machine: str, pid: int) -> bytes:
    """A seccomp program: threads but no processes, and signals to the process ``pid`` alone."""
    audit, calls = ARCHITECTURES[machine]
    column = list(ARCHITECTURES).index(machine)
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _REFUSE), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _REFUSE)]
    # clone3's flags lie behind a pointer; "unknown call" makes libc fall back to clone.
    code += [(_EQUAL, 0, 1, calls["clone3"]), (_RETURN, 0, 0, _UNKNOWN)]
    for numbers in REFUSED.values():
        if (number := numbers[column]) is not None:
            code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    code += _allow_only(calls["kill"], [pid])
    code += _allow_only(calls["tgkill"], [pid])
    code += _allow_only(calls["socket"], _SOCKETS)
    code += [(_EQUAL, 0, 3, calls["clone"]), (_LOAD, 0, 0, _FIRST_ARGUMENT)]
    code += [(_ANY_BIT, 1, 0, _CLONE_THREAD), (_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("<HBBI", *step) for step in code)


def _allow_only(call: int, values: Sequence[int]) -> _Steps:
    """Refuse a call unless its first argument is one of ``values``; other calls pass on."""
    steps: _Steps = [(_LOAD, 0, 0, _FIRST_ARGUMENT)]
    for position, value in enumerate(values):
        steps.append((_EQUAL, len(values) - position, 0, value))
    steps += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(steps), call), *steps]


class Filter(ctypes.Structure):
    """The kernel's ``struct sock_fprog``."""

    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]


def prctl(option: int, *values: int) -> None:
    """Call prctl and raise on failure."""
    library = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    if library.prctl(ctypes.c_int(option), *arguments):
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")


def refuse_new_processes() -> None:
    """Install the filter for this process and what it becomes."""
    steps = build_filter(os.uname().machine, os.getpid())
    buffer = ctypes.create_string_buffer(steps, len(steps))
    program = Filter(len(steps) // 8, ctypes.addressof(buffer))
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    prctl(_PR_SET_SECCOMP, 2, ctypes.addressof(program))


def limit(kind: int, value: int, grace: int = 0) -> None:
    """Lower a resource limit, never above what is allowed already; ``grace`` is the hard part."""
    allowed = resource.getrlimit(kind)[1]
    soft, hard = value, value + grace
    if allowed != resource.RLIM_INFINITY:
        soft, hard = min(soft, allowed), min(hard, allowed)
    resource.setrlimit(kind, (soft, hard))


def start(request: dict[str, Any], arguments: Sequence[str], files: Sequence[int]) -> int:
    """Fork the program's process: limits, filter, its three files and nothing else."""
    pid = os.fork()
    if pid:
        return pid
    try:
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.closerange(3, 1024)
        limit(resource.RLIMIT_CORE, 0)
        limit(resource.RLIMIT_NOFILE, 64)
        limit(resource.RLIMIT_NPROC, 256)
        limit(resource.RLIMIT_FSIZE, request["output_bytes"])
        limit(resource.RLIMIT_AS, request["memory_bytes"])
        if request["total_cpu_s"] is not None:
            # At the soft limit SIGXCPU, which names the reason; a program that ignores it dies.
            limit(resource.RLIMIT_CPU, request["total_cpu_s"], grace=1)
        if sys.platform == "linux":
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            refuse_new_processes()
        flags = ["-s", "-S", "-B", "-X", "utf8"]
        command = [sys.executable, *flags, *arguments]
        os.execve(sys.executable, command, request["environment"])
    except (OSError, ValueError, KeyError) as exc:
        os.write(2, f"sandbox: {type(exc).__name__}: {exc}".encode())
    finally:
        os._exit(120)


def used_s(pid: int) -> float:
    """Processor seconds of another process; its clock's number is linux/posix-timers.h's."""
    return time.clock_gettime((~pid << 3) | 2)


def wait(pid: int, seconds: float) -> int | None:
    """Wait-status of a child; a child that outlives its time is killed and has none.

    One that computes has more time: on a busy machine it gets little done.
    """
    start = time.monotonic()
    pause = 0.001
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        waited = time.monotonic() - start
        is_idle = waited > seconds and used_s(pid) < IDLE_SHARE * waited
        if is_idle or waited > PATIENCE * seconds:
            break
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def name_status(status: int | None, stderr: str) -> str:
    """One word for how the program ended."""
    if status is None:
        return "timeout"
    if os.WIFSIGNALED(status):
        names: dict[int, str] = {signal.SIGXCPU: "timeout", signal.SIGXFSZ: "output_limit"}
        return names.get(os.WTERMSIG(status), "crashed")
    if os.WEXITSTATUS(status) == 0:
        return "ok"
    last = stderr.strip().rsplit("\n", 1)[-1]
    return "memory_limit" if last.startswith("MemoryError") else "error"


def read_tail(file: BinaryIO, size: int) -> str:
    """The last bytes of a file as text."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - size))
    return file.read().decode("utf-8", "replace")


def run_one(request: dict[str, Any], path: str, text: bytes) -> dict[str, str]:
    """Run the program on one input."""
    arguments = ["-P", "-c", PROLOGUE.format(path=path, preamble=request["preamble"])]
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        stdin.write(text)
        stdin.flush()
        stdin.seek(0)
        files = [file.fileno() for file in (stdin, stdout, stderr)]
        status = wait(start(request, arguments, files), request["wall_s"])
        tail = read_tail(stderr, STDERR_TAIL)
        return {
            "status": name_status(status, tail),
            "stdout": read_tail(stdout, request["output_bytes"]),
            "stderr": tail,
        }


def clear(folder: Path) -> None:
    """Remove what a run left behind, so that no run sees another's files or finds no room."""
    for parent, names, _ in os.walk(folder):
        for name in names:
            inner = Path(parent) / name
            if not inner.is_symlink():
                inner.chmod(0o700)  # it may have locked its folders
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def read_frame() -> bytes | None:
    """The next frame of standard input, not a byte more; none at its end.

    The rest may be for another process, so nothing here buffers.
    """
    header = _read_exactly(16)
    return _read_exactly(int(header)) if header else None


def _read_exactly(size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = os.read(0, min(size - len(data), 1 << 20))
        if not chunk:
            return b""
        data += chunk
    return bytes(data)


def serve_inputs(request: dict[str, Any], report: BinaryIO) -> None:
    """Run the program once per frame."""
    path = Path(request["folder"]) / "program.py"
    while (text := read_frame()) is not None:
        clear(path.parent)
        path.write_bytes(request["program"].encode("utf-8", "surrogatepass"))
        _write_line(report, json.dumps(run_one(request, str(path), text)).encode("ascii"))


def serve_calls(request: dict[str, Any], report: BinaryIO) -> None:
    """Let the driver answer calls in one process, and watch over it."""
    path = Path(request["folder"]) / "setup.json"
    path.write_text(json.dumps(request["setup"]), encoding="ascii")
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as stderr:
        pid = start(request, [request["driver"], str(path)], (0, writer, stderr.fileno()))
        os.close(writer)
        status = forward_replies(request, pid, reader, report)
        tail = read_tail(stderr, STDERR_TAIL)
    if status == "ended":
        status = name_status(wait(pid, 1.0), tail)
    else:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    end = {"status": status, "stdout": "", "stderr": tail}
    _write_line(report, json.dumps(end).encode("ascii"))


def forward_replies(request: dict[str, Any], pid: int, reader: int, report: BinaryIO) -> str:
    """Pass on the lines of a process until it closes its channel or uses too much.

    Returns:
        ``ended``, ``timeout`` or ``output_limit``.
    """
    line, used_before = bytearray(), 0.0
    while True:
        ready = select.select([reader], [], [], POLL_S)[0]
        used = used_s(pid)
        chunk = os.read(reader, CHUNK) if ready else b""
        ends = chunk.count(b"\n")
        # Of several lines at once nobody knows which took how long.
        if used - used_before > request["cpu_s"] and ends < 2:
            return "timeout"
        if ready and not chunk:
            return "ended"
        *complete, rest = chunk.split(b"\n")
        for part in complete:
            _write_line(report, b"+" + line + part)
            line.clear()
        line += rest
        if len(line) > request["output_bytes"]:
            return "output_limit"
        used_before = used if ends else used_before


def _write_line(report: BinaryIO, line: bytes) -> None:
    report.write(line + b"\n")
    report.flush()


def main() -> None:
    """Serve the one request."""
    if sys.platform == "linux":
        # Same-user processes may then not look into this one.
        prctl(_PR_SET_DUMPABLE, 0)
    request = json.loads(read_frame() or b"")
    os.chdir(request["folder"])
    with os.fdopen(os.dup(1), "wb") as report:
        _write_line(report, json.dumps({"ready": True}).encode("ascii"))
        if request["setup"] is None:
            serve_inputs(request, report)
        else:
            serve_calls(request, report)


if __name__ == "__main__":
    main()
