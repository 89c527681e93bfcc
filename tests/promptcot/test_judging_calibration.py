"""Judges are held against labelled problems before they see one of the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from judging_fixture import ALWAYS, Script, judge, open_run, reply

from pipeline.errors import ConfigError, GateRefused, SourceError
from promptcot.judging import check_judging


def labelled(folder: Path, rows: Sequence[tuple[int, str]]) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / "labels.jsonl"
    lines = [
        json.dumps(
            {
                "id": f"l{n}",
                "problem": f"A tray has {n} cups with 2 beans each. How many beans are there?",
                "concepts": ["multiplication"],
                "level": "AMC12",
                "domain": "math",
                "label": label,
            }
        )
        for n, label in rows
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


GATE = ("synthesis.judging.calibration=labels.jsonl", "synthesis.judging.minimum_precision=0.6")
LABELS = [(n, "perfect") for n in range(10)] + [(n, "bad") for n in range(10, 20)]


def test_judges_below_the_minimum_see_no_problem_of_the_run(tmp_path: Path) -> None:
    labelled(tmp_path, LABELS)
    only_cups: Script = [{"match": "cups", "text": reply()}]
    run = open_run(tmp_path, *GATE, strict=only_cups, kind=only_cups)
    with pytest.raises(GateRefused, match=r"precision 0\.500, at least 0\.299.*minimum_pre") as e:
        judge(run)
    assert e.value.exit_code == 3
    assert not (tmp_path / "out/synthesis/judged/LATEST").exists()
    assert (tmp_path / "out/calibration/verdicts.jsonl").is_file()


def test_judges_that_keep_nothing_are_refused_too(tmp_path: Path) -> None:
    labelled(tmp_path, LABELS)
    never: Script = [{"match": "", "text": reply("Bad")}]
    with pytest.raises(GateRefused, match="kept none of the 20 labelled"):
        judge(open_run(tmp_path, *GATE, strict=never, kind=never))


def test_good_judges_pass_and_their_scores_stand_in_the_manifest(tmp_path: Path) -> None:
    labelled(tmp_path, LABELS)
    right: Script = [{"match": f" {n} cups", "text": reply("Bad")} for n in range(10, 20)]
    version = judge(open_run(tmp_path, *GATE, strict=right + ALWAYS))
    scores = version.manifest.extra["calibration"]
    assert scores["panel"]["precision"]["value"] == 1.0
    assert scores["panel"]["precision"]["low"] == pytest.approx(0.7225, abs=1e-4)
    assert scores["judges"][1]["name"] == "kind"
    assert scores["judges"][1]["precision"]["value"] == 0.5
    assert "calibration" in {ref.name for ref in version.manifest.inputs}
    # Paid once: the same judges would have no reply to a request that was not stored.
    before = (tmp_path / "out/calibration/report.json").read_bytes()
    again = judge(open_run(tmp_path, *GATE, strict=right + ALWAYS))
    assert again.reused
    assert (tmp_path / "out/calibration/report.json").read_bytes() == before


def test_minimum_out_of_reach_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    labelled(tmp_path, LABELS)
    run = open_run(tmp_path, GATE[0], "synthesis.judging.minimum_precision=0.9", strict=[], kind=[])
    with pytest.raises(ConfigError, match=r"would reach 0\.722 on its 10 problems") as e:
        judge(run)
    assert "label at least 35" in e.value.hint


def test_missing_labels_are_named_at_the_start(tmp_path: Path) -> None:
    run = open_run(tmp_path, GATE[0])
    with pytest.raises(SourceError, match=r"labels\.jsonl"):
        check_judging(run.recipe)
