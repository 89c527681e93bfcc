"""The learning run's script does all of its parts, small enough for a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_learning_run_goes_through_and_is_done_once(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "trainer" / "learning.py"
    command = [sys.executable, str(script), str(tmp_path / "work"), "--scale", "tiny"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    names = {"curriculum, phase 1", "curriculum, phase 2", "mixed", "chains"}
    assert set(told["accuracy"]) == names
    assert all(set(scores) == {"one-step", "chains"} for scores in told["accuracy"].values())
    tokens = told["tokens"]
    for control in ("mixed", "chains"):
        assert tokens[control] == pytest.approx(tokens["curriculum"], rel=0.2)
    assert (tmp_path / "work" / "learning.png").read_bytes().startswith(b"\x89PNG")

    questions = {}
    for kind in ("one-step", "chains"):
        for name in (kind, f"{kind}-items"):
            text = (tmp_path / "work" / f"{name}.jsonl").read_text(encoding="utf-8")
            questions[name] = {json.loads(row)["question"] for row in text.splitlines()}
        assert not questions[kind] & questions[f"{kind}-items"]
