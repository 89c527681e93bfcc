"""Untrusted programs reach nothing, end in time and cannot claim what they did not compute."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
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
        "import ctypes, os; assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "import os; os.kill(os.getppid(), 9)",
        "import os; os.kill(os.getppid(), 19)",
        "import os; os.kill(1, 9)",
        "import os; os.kill(-1, 9)",
        "import os; os.killpg(0, 9)",
        "import os; os.listdir('/proc')",
        "import os; os.listdir('/sys')",
        "import os; os.listdir('/home')",
        "import os; os.remove('/sandbox/sandbox_runner.py')",
        "import os; os.mknod('/tmp/disk', 0o60600, os.makedev(8, 0))",
        "import socket; socket.socket(40, socket.SOCK_STREAM)",
        "files = [open('/tmp/program.py') for _ in range(100)]",
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


def test_no_server_of_this_machine_can_be_reached(sealed: Sandbox) -> None:
    name = f"promptcot-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(f"\0{name}")
        local.listen()
        for target in (
            f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), timeout=2)",
            f"socket.socket(socket.AF_UNIX).connect('\\0{name}')",
        ):
            execution = sealed.run(f"import socket; {target}", limits=LIMITS)
            assert execution.status == "error"
            assert "Refused" in execution.stderr


def test_links_lead_to_no_file_of_this_machine(sealed: Sandbox, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    marker.write_text("secret")
    program = f"""
import os
os.symlink({str(marker)!r}, "/tmp/link")
os.symlink("/", "/tmp/root")
for path in ("/tmp/link", "/tmp/root" + {str(marker)!r}, "/tmp/../.." + {str(marker)!r}):
    print(os.path.exists(path))
open("/tmp/link", "w").write("gone")
"""
    execution = sealed.run(program, limits=LIMITS)
    assert (execution.status, execution.stdout) == ("error", "False\n" * 3)
    assert marker.read_text() == "secret"


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("bytearray(10 << 30)", "memory_limit"),
        ("import mmap; mmap.mmap(-1, 10 << 30)", "error"),
        ("import threading, time\nwhile True: "
         "threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
         "error"),
        ("n = 0\nwhile True:\n  n += 1\n  open(f'/tmp/{n}', 'w').write('x' * 60000)", "error"),
        ("import signal, time\nfor n in {*range(1, 65)} - {9, 19, 32, 33}: signal.signal(n, 1)\n"
         "time.sleep(60)", "timeout"),
    ],
)  # fmt: skip
def test_greed_and_deafness_end_as_well(sealed: Sandbox, program: str, status: str) -> None:
    limits = Limits(cpu_s=2, wall_s=1.5, memory_mib=256, output_kib=64)
    found = sealed.run_many(program + "\nprint('survived')", ["", ""], limits=limits)
    # The second run finds room again.
    assert [execution.status for execution in found] == [status, status]


NAMED = """
import ctypes, time
ctypes.CDLL(None).prctl(15, {name!r}.encode(), 0, 0, 0)
while True: time.sleep(1)
"""


def processes_named(name: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().strip() == name:
                found.append(path.parent.name)
        except OSError:
            continue  # it ended meanwhile
    return found


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_no_process_of_a_stopped_program_lives_on(sealed: Sandbox) -> None:
    name = f"stopped-{os.getpid()}"[:15]
    program = NAMED.format(name=name)
    runner = threading.Thread(
        target=sealed.run, args=(program,), kwargs={"limits": Limits(cpu_s=1, wall_s=1)}
    )
    runner.start()
    assert wait_for(lambda: bool(processes_named(name)))
    runner.join()
    assert wait_for(lambda: not processes_named(name))


def test_programs_die_with_the_process_that_ran_them(sealed: Sandbox) -> None:
    name = f"orphan-{os.getpid()}"[:15]
    code = (
        "import sys; from promptcot.verification.sandbox import *; find_sandbox().run(sys.argv[1])"
    )
    with subprocess.Popen([sys.executable, "-c", code, NAMED.format(name=name)]) as owner:
        assert wait_for(lambda: bool(processes_named(name)))
        owner.kill()
    assert wait_for(lambda: not processes_named(name))


def test_runs_leave_nothing_to_each_other(sealed: Sandbox) -> None:
    program = """
import os
print(sorted(os.listdir("/tmp")))
os.makedirs("/tmp/folder/deep")
os.symlink("/usr", "/tmp/link")
open("/tmp/folder/deep/file", "w").write("x")
os.chmod("/tmp/folder/deep", 0)
"""
    runs = sealed.run_many(program, ["", ""])
    assert [(run.status, run.stdout) for run in runs] == [("ok", "['program.py']\n")] * 2


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
    runs = sealed.run_many("print(1 / int(input()))", ["1", "0", "1"], stop_after=("error",))
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
