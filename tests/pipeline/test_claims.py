"""Two runs never work on one part of a run folder, and a killed one leaves nothing locked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.claims import claiming
from pipeline.errors import StoreError

HOLD = """
import sys
from pathlib import Path
from pipeline.claims import claiming
with claiming(Path(sys.argv[1]), ["synthesis", "data-1"]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_run(out: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds two parts of a run folder until its input ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out)], text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def claim_elsewhere(out: Path, part: str) -> Exception | None:
    """Claim in another thread, which is in no claim's block."""
    found: list[Exception | None] = []

    def claim() -> None:
        try:
            with claiming(out, [part]):
                found.append(None)
        except StoreError as exc:
            found.append(exc)

    thread = threading.Thread(target=claim)
    thread.start()
    thread.join()
    return found[0]


def test_a_second_run_is_refused_by_a_sentence_that_names_the_first(tmp_path: Path) -> None:
    with another_run(tmp_path) as first:
        with pytest.raises(StoreError) as refused, claiming(tmp_path, ["data-1", "sft-1"]):
            raise AssertionError("must not begin")
        assert f"at work on the data-1 of {tmp_path}: process {first.pid} of " in str(refused.value)
        assert "python -c" in str(refused.value)
        assert "--out" in refused.value.hint
        with claiming(tmp_path, ["sft-1"]):
            pass  # another part, which the refused run has given back


def test_a_killed_run_leaves_nothing_locked(tmp_path: Path) -> None:
    with another_run(tmp_path) as first:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        with claiming(tmp_path, ["synthesis", "data-1"]):
            assert isinstance(claim_elsewhere(tmp_path, "synthesis"), StoreError)
    assert claim_elsewhere(tmp_path, "synthesis") is None


def test_a_run_may_claim_again_what_it_has(tmp_path: Path) -> None:
    with claiming(tmp_path, ["synthesis"]):
        with claiming(tmp_path / "x" / "..", ["synthesis", "data-2"]):
            assert isinstance(claim_elsewhere(tmp_path, "data-2"), StoreError)
        assert claim_elsewhere(tmp_path, "data-2") is None
        assert isinstance(claim_elsewhere(tmp_path, "synthesis"), StoreError)
    assert claim_elsewhere(tmp_path, "synthesis") is None


def test_a_damaged_note_does_not_hide_the_refusal(tmp_path: Path) -> None:
    with claiming(tmp_path, ["synthesis"]):
        (tmp_path / "logs" / ".claim-synthesis").write_text("{half", encoding="utf-8")
        refused = claim_elsewhere(tmp_path, "synthesis")
    assert str(refused) == f"another run is at work on the synthesis of {tmp_path}"
