"""A disk that is full while a checkpoint is written: one sentence, and the same weights later."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_disk import KINDS, small_disk
from tiny_experiment import Experiment, assert_equal_results, make_dataset, make_row

from pipeline.cli import exit_code_of
from trainer.sft import app

ROOM = {"tmpfs": 40 << 20, "limit": 6 << 20}
"""Bytes: for one checkpoint and not for two; for weights and not for the optimizer's moments."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_that_does_not_fit_costs_nothing_before_it(
    shared_experiment: Experiment,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    args = ["--phase", "1", "--recipe", str(shared_experiment.folder / "tiny.toml"), "--out"]
    calm = shared_experiment.out
    assert exit_code_of(app, "python -m trainer.sft", [*args, str(calm)]) == 0
    with small_disk(tmp_path / "disk", kind, ROOM[kind]) as disk:
        out = disk.folder / "run"
        make_dataset(out, [make_row(n, 1 + n % 2) for n in range(14)])
        capsys.readouterr()
        assert exit_code_of(app, "python -m trainer.sft", [*args, str(out)]) == 2
        error, remedy = capsys.readouterr().err.splitlines()
        assert error.startswith("error: cannot write ")
        assert "run the same command again" in remedy
        assert not (out / "checkpoints" / "phase-1").exists()
        disk.grow()
        assert exit_code_of(app, "python -m trainer.sft", [*args, str(out)]) == 0
        said = capsys.readouterr().out
        assert ("resuming phase 1 from checkpoint-" in said) == (kind == "tmpfs")
        assert_equal_results(out / "checkpoints" / "phase-1", calm / "checkpoints" / "phase-1")
