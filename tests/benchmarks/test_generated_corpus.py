"""The generated corpus: the same bytes however it is written, and labels that tell the truth."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import corpus as generator
import pyarrow.parquet as pq
import pytest
from corpus_rows import Item, Maker
from corpus_texts import likeness, make_texts, plant_alike

SCRIPT = Path(generator.__file__)
ITEMS = tuple(
    Item("generated", f"item-{number}", " ".join(make_texts(1).problem("items", number, 200, 900)))
    for number in range(20)
)


def describe(out: Path, rows: int = 150, rows_per_file: int = 60) -> generator.Corpus:
    return generator.Corpus(out, rows, 1, ITEMS, rows_per_file)


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "corpus"
    generator.write_corpus(describe(out), 1)
    return out


@pytest.mark.slow
def test_two_workers_write_the_bytes_of_one(written: Path, tmp_path: Path) -> None:
    generator.write_corpus(describe(tmp_path / "corpus"), 2)
    assert read_all(tmp_path / "corpus") == read_all(written)
    assert len(list(written.glob("traces-*.parquet"))) == 3


def test_a_killed_run_goes_on_and_keeps_what_was_finished(written: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    generator.claim(describe(out))
    generator.write_file((describe(out), 1))
    finished = out / "traces-0001.parquet"
    before = finished.stat().st_mtime_ns
    (out / "traces-0000.unfinished").write_bytes(b"half a file")
    generator.write_corpus(describe(out), 1)
    assert read_all(out) == read_all(written)
    assert finished.stat().st_mtime_ns == before


def test_a_finished_corpus_is_not_written_again(written: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.glob("*.parquet")}
    generator.write_corpus(describe(written), 1)
    assert {path: path.stat().st_mtime_ns for path in written.glob("*.parquet")} == before


def test_a_folder_of_something_else_is_left_alone(written: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="other arguments"):
        generator.write_corpus(describe(written, rows=160), 1)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit, match="holds no corpus"):
        generator.write_corpus(describe(tmp_path), 1)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = []
    for rows in (1000, 4000):
        command = [sys.executable, str(SCRIPT), "--rows", str(rows), "--rows-per-file", "500"]
        out = str(tmp_path / str(rows))
        process = subprocess.Popen(
            [*command, "--workers", "1", "--out", out], stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks.append(usage.ru_maxrss / 1024)
    assert peaks[1] - peaks[0] < 40, f"{peaks} MiB"


@pytest.mark.parametrize("target", [0.3, 0.5, 0.8, 0.95])
def test_planted_likeness_is_the_true_one(target: float) -> None:
    texts = make_texts(1)
    problem = texts.problem("problem", 7, 900, 2000)
    text, stated = plant_alike(problem, target, texts, 7)
    assert stated == likeness(" ".join(problem), text)
    assert stated == pytest.approx(target, abs=0.06)


def test_labels_name_rows_and_repeats(written: Path) -> None:
    labels = pq.read_table(written / "labels.parquet").to_pylist()
    assert [label["row"] for label in labels] == list(range(150))
    assert len({label["row_id"] for label in labels}) == 150
    maker = Maker(1, 150, ITEMS)
    for label in labels:
        if label["kind"] == "joined" and label["of_row"] is not None:
            mine, other = maker.make(label["row"])[1], maker.make(label["of_row"])[1]
            assert mine["index"] == other["index"]
            assert mine["output"] != other["output"]
            break
    else:
        pytest.fail("no two rows of split_1 share a question")
