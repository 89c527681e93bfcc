"""Two evaluated checkpoints compared: by name or folder, on the same problems only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from answers_fixture import build_answers

from evaluation.__main__ import app
from evaluation.compare import compare_versions
from pipeline import console
from pipeline.cli import exit_code_of
from pipeline.errors import SourceError
from pipeline.settings.evaluation import EvaluationSettings

SETTINGS = EvaluationSettings(bootstrap_samples=400)
WORSE = {"aime24": [[False] * 4] * 12, "math500": [[True, False]] * 10}
BETTER = {"aime24": [[True, False, False, False]] * 12, "math500": [[True, False]] * 10}


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of a table are read whole."""
    monkeypatch.setenv("COLUMNS", "240")


def call(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, Any, str]:
    console.reset()
    capsys.readouterr()
    code = exit_code_of(app, "python -m evaluation", [str(part) for part in argv])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out.startswith("{") else None, captured.err


def test_names_and_folders_lead_to_the_same_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = build_answers(tmp_path / "evaluation" / "phase-1", WORSE)
    second = build_answers(tmp_path / "evaluation" / "phase-2", BETTER)
    code, by_name, err = call(capsys, "compare", "phase-1", "phase-2", "--out", tmp_path, "--json")
    assert code == 0
    _, by_folder, _ = call(capsys, "compare", first.folder, second.folder.parent, "--json")
    assert by_name == by_folder
    aime, math = by_name["benchmarks"]
    assert aime["benchmark"] == "aime24"
    assert aime["difference"]["mean"] == pytest.approx(0.25)
    # All 12 problems moved the same way: 2 of 2**12 sign patterns are as far out.
    assert aime["difference"]["p_value"] == pytest.approx(2 / 2**12)
    assert aime["p_holm"] == pytest.approx(4 / 2**12)
    assert math["difference"]["mean"] == 0
    assert "B is better" in err and "not told apart" in err


def test_another_k_or_other_settings_are_said(tmp_path: Path) -> None:
    first = build_answers(tmp_path / "a", WORSE, settings={"repetition_penalty": 1.1})
    more = {"aime24": [[False] * 2] * 11}
    second = build_answers(tmp_path / "b", more, settings={"repetition_penalty": 1.0})
    notes = " ".join(compare_versions(first, second, SETTINGS).notes)
    assert "repetition_penalty is 1.1 for A and 1.0 for B" in notes
    assert "aime24: 11 common items compared; 1 of one side left out" in notes
    assert "k is 4 for A and 2 for B" in notes
    assert "one side only and left out: math500" in notes


def test_another_precision_is_said(tmp_path: Path) -> None:
    versions = [
        build_answers(tmp_path / dtype, WORSE, settings={"decoding": {"state_dtype": dtype}})
        for dtype in ("float32", "bfloat16")
    ]
    notes = " ".join(compare_versions(versions[0], versions[1], SETTINGS).notes)
    assert "decoding.state_dtype is float32 for A and bfloat16 for B" in notes


@pytest.mark.parametrize(
    ("other", "gold", "message"),
    [
        (WORSE, "8", "item i0 is another problem, or has another gold, in B"),
        ({"hmmt": [[True]]}, "7", "share no benchmark: A has aime24, math500, B has hmmt"),
    ],
)
def test_other_problems_are_refused(
    tmp_path: Path, other: dict[str, Sequence[Sequence[bool]]], gold: str, message: str
) -> None:
    first = build_answers(tmp_path / "a", WORSE)
    second = build_answers(tmp_path / "b", other, gold=gold)
    with pytest.raises(SourceError, match=message):
        compare_versions(first, second, SETTINGS)


def test_an_unknown_name_tells_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_answers(tmp_path / "evaluation" / "phase-1", WORSE)
    code, _, err = call(capsys, "compare", "phase-1", "phase-9", "--out", tmp_path)
    assert code == 2
    assert "no evaluation 'phase-9'" in err and "pass one of phase-1" in err


def test_the_same_version_twice_is_no_finding(tmp_path: Path) -> None:
    version = build_answers(tmp_path / "a", WORSE)
    found = compare_versions(version, version, SETTINGS)
    assert all(entry.p_holm == 1.0 for entry in found.benchmarks)
    assert "A and B are the same version." in found.notes
