"""Runs inside the sandbox: one untrusted program over many inputs, one process per input.

Stdlib only; started by :mod:`promptcot.verification.sandbox` as a script, never imported. Reads one
JSON request from standard input, writes one JSON line ``{"ready": true}`` and then one line per
input. Expected outputs never come here, so a program that tampers with this process or its channel
can at most claim an output, which is compared outside.
"""

import ctypes
import json
import os
import resource
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
with open({path!r}, encoding="utf-8") as _source:
    _source = compile(_source.read(), "program.py", "exec")
exec(_source)
"""

# Architecture -> (audit number, clone, clone3, other calls that are refused). Refused are fork,
# vfork, ptrace, unshare, setns, shmget, msgget, semget, memfd_create and io_uring_setup: new
# processes, new namespaces and memory that the address-space limit does not see.
SYSCALLS = {
    "x86_64": (0xC000003E, 56, 435, (57, 58, 101, 272, 308, 29, 68, 64, 319, 425)),
    "aarch64": (0xC00000B7, 220, 435, (117, 97, 268, 194, 186, 190, 279, 425)),
}
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38
_CLONE_THREAD, _X32 = 0x10000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38


def build_filter(machine: str) -> bytes:
    """A seccomp program: threads may be created, processes may not."""
    audit, clone, clone3, refused = SYSCALLS[machine]
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _REFUSE), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _REFUSE)]
    # clone3's flags lie behind a pointer; "unknown call" makes libc fall back to clone.
    code += [(_EQUAL, 0, 1, clone3), (_RETURN, 0, 0, _UNKNOWN)]
    for number in refused:
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    code += [(_EQUAL, 0, 3, clone), (_LOAD, 0, 0, 16)]
    code += [(_ANY_BIT, 1, 0, _CLONE_THREAD), (_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("<HBBI", *step) for step in code)


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
    steps = build_filter(os.uname().machine)
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


def start(request: dict[str, Any], path: str, files: Sequence[BinaryIO]) -> int:
    """Fork the program's process: limits, filter, its three files and nothing else."""
    pid = os.fork()
    if pid:
        return pid
    try:
        for number, file in enumerate(files):
            os.dup2(file.fileno(), number)
        os.closerange(3, 1024)
        limit(resource.RLIMIT_CORE, 0)
        limit(resource.RLIMIT_NOFILE, 64)
        limit(resource.RLIMIT_NPROC, 256)
        limit(resource.RLIMIT_FSIZE, request["output_bytes"])
        limit(resource.RLIMIT_AS, request["memory_bytes"])
        # At the soft limit SIGXCPU, which names the reason; a program that ignores it dies.
        limit(resource.RLIMIT_CPU, request["cpu_s"], grace=1)
        if sys.platform == "linux":
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            refuse_new_processes()
        program = PROLOGUE.format(path=path)
        flags = ["-s", "-S", "-P", "-B", "-X", "utf8"]
        os.execve(sys.executable, [sys.executable, *flags, "-c", program], request["environment"])
    except (OSError, ValueError, KeyError) as exc:
        os.write(2, f"sandbox: {type(exc).__name__}: {exc}".encode())
    finally:
        os._exit(120)


def wait(pid: int, seconds: float) -> int | None:
    """Wait-status of a child; a child that outlives its time is killed and has none."""
    deadline = time.monotonic() + seconds
    pause = 0.001
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
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


def run_one(request: dict[str, Any], path: str, text: str) -> dict[str, str]:
    """Run the program on one input."""
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        stdin.write(text.encode("utf-8", "surrogatepass"))
        stdin.flush()
        stdin.seek(0)
        status = wait(start(request, path, (stdin, stdout, stderr)), request["wall_s"])
        tail = read_tail(stderr, STDERR_TAIL)
        return {
            "status": name_status(status, tail),
            "stdout": read_tail(stdout, request["output_bytes"]),
            "stderr": tail,
        }


def main() -> None:
    """Serve the one request."""
    if sys.platform == "linux":
        # Same-user processes may then not look into this one.
        prctl(_PR_SET_DUMPABLE, 0)
    request = json.loads(sys.stdin.buffer.read())
    os.chdir(request["folder"])
    path = Path(request["folder"]) / "program.py"
    report = os.fdopen(os.dup(1), "w", encoding="ascii")
    print(json.dumps({"ready": True}), file=report, flush=True)
    for text in request["inputs"]:
        # Written anew each time: the run before may have changed it.
        path.write_bytes(request["program"].encode("utf-8", "surrogatepass"))
        result = run_one(request, str(path), text)
        print(json.dumps(result), file=report, flush=True)
        if result["status"] != "ok" and request["stop_early"]:
            break


if __name__ == "__main__":
    main()
