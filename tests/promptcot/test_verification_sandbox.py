"""Untrusted programs reach nothing, end in time and cannot claim what they did not compute."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.errors import SandboxError
from promptcot.verification import sandbox as module
from promptcot.verification.sandbox import Limits, Sandbox, find_sandbox, require_sandbox

LIMITS = Limits(cpu_s=1, wall_s=5, memory_mib=256, output_kib=64)


@pytest.fixture(scope="module")
def sealed() -> Sandbox:
    sandbox = find_sandbox()
    if sandbox is None:
        pytest.skip("bubblewrap does not work on this machine (user namespaces are forbidden?)")
    return sandbox


def test_a_program_gets_its_input_and_its_output_comes_back(sealed: Sandbox) -> None:
    execution = sealed.run("print(input()[::-1])", stdin="häuser\n")
    assert (execution.status, execution.stdout) == ("ok", "resuäh\n")


def test_ordinary_program_forms_work(sealed: Sandbox) -> None:
    program = """
from __future__ import annotations
import sys, threading
from dataclasses import dataclass
@dataclass
class Pair:
    left: int
def deep(n):
    return 0 if n == 0 else 1 + deep(n - 1)
def main():
    print(Pair(deep(20000)))
if __name__ == "__main__":
    sys.setrecursionlimit(10**6)
    threading.stack_size(64 << 20)
    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    exit()
"""
    assert sealed.run(program).stdout == "Pair(left=20000)\n"


def test_many_inputs_share_one_sandbox_and_nothing_else(sealed: Sandbox) -> None:
    program = (
        "import pathlib\np = pathlib.Path('/tmp/program.py')\nprint(input()); p.write_text('')"
    )
    runs = sealed.run_many(program, ["a", "b", "c"])
    assert [run.stdout for run in runs] == ["a\n", "b\n", "c\n"]


@pytest.mark.parametrize(
    "program",
    [
        "import socket; socket.create_connection(('1.1.1.1', 80), timeout=2)",
        "open('/usr/promptcot', 'w')",
        "open('/promptcot', 'w')",
        "open('/dev/shm/promptcot', 'w')",
        "open('/etc/passwd').read()",
        "import os; os.fork()",
        "import subprocess; subprocess.run(['/bin/true'], check=True)",
        "import os; os.memfd_create('x')",
        "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    ],
)
def test_the_machine_is_out_of_reach(sealed: Sandbox, program: str) -> None:
    assert sealed.run(program, limits=LIMITS).status == "error"


def test_no_secret_of_the_environment_or_the_home_is_visible(
    sealed: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (tmp_path / "token").write_text("hf_secret")
    program = f"""
import os
print("hf_secret" in str(dict(os.environ)), os.path.exists({str(tmp_path)!r}))
print([pid for pid in (1, os.getppid()) if os.path.exists(f"/proc/{{pid}}/environ")])
"""
    assert sealed.run(program).stdout == "False False\n[]\n"


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("while True: pass", "timeout"),
        ("data = []\nwhile True: data.append('x' * 10**6)", "memory_limit"),
        ("while True: print('x' * 10**4)", "output_limit"),
        ("open('/tmp/big', 'w').write('x' * 10**7)", "output_limit"),
        ("raise SystemExit(3)", "error"),
        ("import os; os.kill(os.getppid(), 9)", "crashed"),
        ("import os; os.abort()", "crashed"),
    ],
)
def test_every_excess_is_bounded_and_named(sealed: Sandbox, program: str, status: str) -> None:
    start = time.monotonic()
    execution = sealed.run(program, limits=LIMITS)
    assert execution.status == status
    assert len(execution.stdout) <= 64 << 10
    assert time.monotonic() - start < 20


def test_ignoring_the_cpu_limits_signal_does_not_help(sealed: Sandbox) -> None:
    program = "import signal\nsignal.signal(24, signal.SIG_IGN)\nwhile True: pass"
    # CPU or wall limit: which one ends it first depends on how busy the machine is.
    assert sealed.run(program, limits=LIMITS).status in {"crashed", "timeout"}


def test_a_sleeping_program_is_stopped_by_the_wall_clock(sealed: Sandbox) -> None:
    limits = Limits(cpu_s=1, wall_s=0.5)
    assert sealed.run("import time; time.sleep(60)", limits=limits).status == "timeout"


def test_a_fork_bomb_starts_nothing(sealed: Sandbox) -> None:
    program = """
import os
started = 0
for _ in range(1000):
    try:
        started += os.fork() > 0
    except OSError:
        pass
print(started)
"""
    assert sealed.run(program, limits=LIMITS).stdout == "0\n"


def test_nothing_written_elsewhere_is_taken_for_a_report(sealed: Sandbox) -> None:
    forged = '{"status": "ok", "stdout": "42", "stderr": ""}'
    program = f"""
import os
for number in range(3, 100):
    try:
        os.write(number, {forged!r}.encode())
    except OSError:
        pass
print("mine")
raise SystemExit(1)
"""
    execution = sealed.run(program)
    assert (execution.status, execution.stdout) == ("error", "mine\n")


def test_the_first_failure_ends_the_series(sealed: Sandbox) -> None:
    runs = sealed.run_many("print(1 / int(input()))", ["1", "0", "1"], stop_early=True)
    assert [run.status for run in runs] == ["ok", "error", "not_run"]


def test_without_a_working_sandbox_code_is_refused_unless_the_user_insists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_binaries", list)
    module._search.cache_clear()
    try:
        assert find_sandbox() is None
        with pytest.raises(SandboxError, match="bwrap") as refusal:
            require_sandbox()
        assert "install bubblewrap" in refusal.value.hint
        bare = require_sandbox(allow_unsandboxed=True)
    finally:
        module._search.cache_clear()
    assert not bare.is_sealed
    assert bare.run("print(6 * 7)").stdout == "42\n"
    assert bare.run("while True: pass", limits=LIMITS).status == "timeout"


def test_a_sandbox_that_cannot_start_is_an_error_not_a_verdict() -> None:
    with pytest.raises(SandboxError, match="does not start"):
        Sandbox(prefix=("/bin/false",)).run("print(1)")
    with pytest.raises(SandboxError, match="does not start"):
        Sandbox(prefix=("/no/such/bwrap",)).run("print(1)")


def test_a_bubblewrap_that_may_not_make_namespaces_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_binaries", lambda: ["/bin/false"])
    module._search.cache_clear()
    try:
        with pytest.raises(SandboxError, match="/bin/false does not start"):
            require_sandbox()
    finally:
        module._search.cache_clear()
