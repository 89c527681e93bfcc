"""Progress of work that many threads do: one line for all of them, on a terminal and in a log."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from rich.console import Console

from pipeline import console


@pytest.fixture
def fresh_console() -> Iterator[None]:
    console.reset()
    yield
    console.reset()


def work(number: int) -> None:
    with console.meter("problems", total=10, unit="answers") as advance:
        for _ in range(10):
            advance(1)


@pytest.mark.usefixtures("fresh_console")
def test_many_threads_share_one_line_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        console.progress("stage", total=40, unit="batches") as advance,
        ThreadPoolExecutor(8) as pool,
    ):
        for _ in pool.map(work, range(40)):
            advance(1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" in ")[0] for line in lines] == [
        "problems: 400/400 answers",
        "stage: 40/40 batches",
    ]


@pytest.mark.usefixtures("fresh_console")
def test_a_detail_is_told_with_the_counts(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("samples", 3, "samples", detail=lambda: "9 tokens/s") as advance:
        advance(3)
    assert capsys.readouterr().out == "samples: 3/3 samples in 0 s, 9 tokens/s\n"


@pytest.mark.usefixtures("fresh_console")
def test_a_meter_of_its_own_ends_with_its_last_user(capsys: pytest.CaptureFixture[str]) -> None:
    work(0)
    work(1)
    assert capsys.readouterr().out.count("problems: 10/10 answers") == 2


@pytest.mark.usefixtures("fresh_console")
def test_bars_on_a_terminal_are_shared_and_cleaned_up(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal: dict[str, Any] = {"console": Console(file=screen, force_terminal=True, width=100)}
    monkeypatch.setattr(console, "_state", terminal)
    with (
        console.progress("stage", total=40) as advance,
        ThreadPoolExecutor(8) as pool,
    ):
        for _ in pool.map(work, range(40)):
            advance(1)
    last_frame = screen.getvalue().rsplit("\x1b[2K", 1)[-1]
    assert "40/40" in last_frame
    assert "problems" not in last_frame, "a finished inner bar stays on the screen"
    # A second display can begin: the first one has ended.
    work(0)


@pytest.mark.usefixtures("fresh_console")
def test_an_interrupted_stage_leaves_no_line_behind(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), console.progress("stage", total=2):
        work(0)
        raise KeyboardInterrupt
    assert "stage" not in capsys.readouterr().out
    work(1)
    assert capsys.readouterr().out.startswith("problems: 10/10 answers")


SPEAKING = """
import os, sys, threading
from pipeline import console
said = threading.Thread(target=lambda: [console.say("x" * 100_000) for _ in range(3)])
sys.stdin.read()
said.start()
said.join()
console.show_error("nobody reads this either")
os.write(int(sys.argv[1]), b"went on")
"""


def test_work_goes_on_when_nobody_reads_its_output_any_more() -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", SPEAKING, str(writing)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[writing],
    )
    os.close(writing)
    for pipe in (process.stdout, process.stderr, process.stdin):
        assert pipe is not None
        pipe.close()
    with os.fdopen(reading, "rb") as told:
        assert told.read() == b"went on"
    assert process.wait() == 0
