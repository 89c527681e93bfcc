"""A supervised command: its log, its end, and that nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import redaction
from pipeline.errors import StoreError
from pipeline.supervised import LogTail, Supervision, is_unwritten, supervise
from pipeline.tied_process import LAUNCHER_PID

LAUNCHER = """
import os, subprocess, sys, time
print("launcher", os.getpid(), flush=True)
children = [
    # As torchrun does: a session of its own, so no signal to the group reaches it.
    subprocess.Popen([sys.executable, "-c", CHILD], start_new_session=True) for _ in range(2)
]
for child in children:
    child.wait()
"""
CHILD = """
import os, signal, sys, time
from pipeline.tied_process import tie_to_launcher
def save(*_):
    os.write(1, b"saved\\n")
    sys.exit(130)
signal.signal(signal.SIGTERM, save)
tie_to_launcher()
os.write(1, b"ready\\n")
while True:
    time.sleep(0.05)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


def script(text: str) -> list[str]:
    return [sys.executable, "-c", text.replace("CHILD", repr(CHILD))]


def how(log: Path, on_line: Callable[[str], None], grace_s: float = 60.0) -> Supervision:
    return Supervision(log=log, stop_grace_s=grace_s, on_line=on_line, environment={"MARK": "7"})


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Interrupt:
    """Collects lines; acts at the second ``ready``."""

    def __init__(self, act: Callable[[list[str]], None], number: int = 2) -> None:
        self.lines: list[str] = []
        self._act, self._number = act, number

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if line == "ready":
            self._number -= 1
            if not self._number:
                self._act(self.lines)


def interrupt(lines: list[str]) -> None:
    raise KeyboardInterrupt


def test_lines_exit_code_and_environment(tmp_path: Path) -> None:
    lines: list[str] = []
    code = f"""
import os, sys
print(os.environ["MARK"], os.environ["{LAUNCHER_PID}"] == str(os.getpid()))
sys.stderr.write("no end")
sys.exit(3)
"""
    log = tmp_path / "logs" / "run.log"
    assert supervise(script(code), how(log, lines.append)) == 3
    assert sorted(lines) == ["7 True", "no end"]
    assert "7 True\n" in log.read_text(encoding="utf-8")


def test_an_interruption_is_passed_on_and_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    watch = Interrupt(interrupt, 1)
    with pytest.raises(KeyboardInterrupt):
        supervise(script(CHILD), how(log, watch))
    assert watch.lines == ["ready", "saved"]


def test_sigterm_to_the_watcher_interrupts_it(tmp_path: Path) -> None:
    watch = Interrupt(lambda lines: signal.raise_signal(signal.SIGTERM), 1)
    with pytest.raises(KeyboardInterrupt):
        supervise(script(CHILD), how(tmp_path / "run.log", watch))
    assert watch.lines == ["ready", "saved"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_does_not_end_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    with pytest.raises(KeyboardInterrupt):
        supervise(script(STUBBORN), how(log, Interrupt(interrupt, 1), grace_s=0.3))
    assert is_unwritten(log)


def test_a_killed_launcher_leaves_no_processes_and_they_save_first(tmp_path: Path) -> None:
    def kill(lines: list[str]) -> None:
        os.kill(int(lines[0].split()[1]), signal.SIGKILL)

    log, watch = tmp_path / "run.log", Interrupt(kill)
    assert supervise(script(LAUNCHER), how(log, watch)) == -signal.SIGKILL
    assert watch.lines.count("saved") == 2
    assert is_unwritten(log)


def test_a_killed_watcher_takes_everything_with_it(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    code = f"""
from pathlib import Path
from pipeline.supervised import Supervision, supervise
how = Supervision(log=Path({str(log)!r}), stop_grace_s=60, on_line=print)
supervise({script(LAUNCHER)!r}, how)
"""
    watcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    wait_until(lambda: log.is_file() and log.read_text(encoding="utf-8").count("ready") == 2)
    # Who comes meanwhile is told, and starts nothing.
    with pytest.raises(StoreError, match="an earlier run still write"):
        supervise(script(LAUNCHER), how(log, print))
    watcher.kill()
    watcher.wait()
    wait_until(lambda: is_unwritten(log))
    assert log.read_text(encoding="utf-8").count("saved") == 2


def test_a_process_that_starts_after_its_launcher_died_ends_at_once(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    code = "from pipeline.tied_process import tie_to_launcher; tie_to_launcher(); print('alive')"
    late = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, LAUNCHER_PID: str(gone.pid)},
        capture_output=True,
        check=False,
    )
    assert (late.returncode, late.stdout) == (-signal.SIGTERM, b"")


def test_logs_are_put_aside_and_bounded(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    for number in range(5):
        supervise([sys.executable, "-c", f"print({number})"], how(log, lambda line: None))
    texts = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert texts == {"run.log": "4\n", "run.log.1": "3\n", "run.log.2": "2\n", "run.log.3": "1\n"}


def test_a_log_that_grows_too_large_is_begun_again_and_no_line_is_missed(tmp_path: Path) -> None:
    log, lines = tmp_path / "run.log", list[str]()
    log.touch()
    tail = LogTail(log, lines.append, largest=100)
    with log.open("a", encoding="utf-8") as file:
        for number in range(50):
            file.write(f"line {number}\n")
            file.flush()
            tail.read()
    assert lines == [f"line {number}" for number in range(50)]
    assert log.stat().st_size < 100
    assert log.with_name("run.log.1").stat().st_size < 120


def test_keys_of_teachers_are_not_handed_on_but_all_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_ACCESS", "sk-planted-0123456789")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_hub")
    redaction.declare(["TEACHER_ACCESS", "HF_TOKEN"])
    lines: list[str] = []
    command = script("import os; print(sorted({'TEACHER_ACCESS', 'HF_TOKEN'} & set(os.environ)))")
    assert supervise(command, how(tmp_path / "log", lines.append)) == 0
    assert lines == ["['HF_TOKEN']"]
    redaction._variables.difference_update({"TEACHER_ACCESS", "HF_TOKEN"})
    redaction._values.difference_update({"sk-planted-0123456789", "hf_of_the_hub"})
