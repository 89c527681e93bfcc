"""The whole loop's command ends in one message, the documented exit code and nothing half-written."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.settings.recipe import RECIPES

NOBODY = [
    "--set",
    "teachers.default.engine=http",
    "--set",
    'teachers.default.base_urls=["http://127.0.0.1:9/v1"]',
]


def command(out: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "flows.whole_loop", "--out", str(out), *arguments]


def run(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(out, *arguments), capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message", "remedy"),
    [
        (["--set", "synthesis.batchsize=1"], 2, "synthesis.batchsize", "batch_size"),
        (["--recipe", "nothing"], 2, "no recipe named 'nothing'", "demo"),
        (["--set", "benchmarks.0.path=none.jsonl"], 2, "none.jsonl", "path"),
        (["--set", "synthesis.bank=none.jsonl"], 2, "none.jsonl", "paths"),
        (["--set", "training.trl.packing=true"], 2, "trl.packing is refused", "remove"),
        ([*NOBODY, "--set", "teachers.default.outage_s=0"], 2, "127.0.0.1:9", "start"),
    ],
)
def test_mistakes_end_in_one_message(
    tmp_path: Path, arguments: list[str], code: int, message: str, remedy: str
) -> None:
    done = run(tmp_path / "out", *arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    error, hint = done.stderr.split("remedy:", 1)
    assert error.count("error:") == 1
    assert message in error
    assert remedy in hint
    assert not list(tmp_path.rglob("LATEST")) or "127.0.0.1" in message
    assert not list(tmp_path.rglob(".tmp-*"))


def test_unwritable_output_names_the_folder_and_the_remedy(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder", encoding="utf-8")
    done = run(blocked / "out")
    assert done.returncode == 2
    assert str(blocked) in done.stderr
    assert "--out" in done.stderr


def test_ctrl_c_prints_the_command_that_continues(tmp_path: Path) -> None:
    arguments = command(tmp_path / "out", *NOBODY, "--set", "teachers.default.max_retries=9")
    with subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not list((tmp_path / "out").glob("synthesis/problems/.lock-*")):
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.05)
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert "continue with: python -m flows.whole_loop" in errors
    assert "Traceback" not in errors


def test_corrupt_source_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    project = RECIPES.parent
    copy = tmp_path / "project"
    for folder in ("recipes", "curriculum/data", "evaluation/data", "promptcot/data"):
        shutil.copytree(project / folder, copy / folder)
    source = copy / "curriculum" / "data" / "open_thoughts2.parquet"
    source.write_bytes(source.read_bytes()[:200])
    recipe = str(copy / "recipes" / "demo.toml")
    arguments = ["--phase", "1", "--recipe", recipe, "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "curriculum.build", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    assert "open_thoughts2.parquet" in done.stderr
    assert "remedy:" in done.stderr
    # What was prepared of the sound source stays for the next try; no dataset exists.
    assert not list((tmp_path / "out" / "datasets").rglob("manifest.json"))
