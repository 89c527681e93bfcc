"""Stored rows come back as they were written, in any order, or their file is named."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from curriculum_rows import prepared_row
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum import row_files
from curriculum.candidates import Origin
from curriculum.measure import Size
from curriculum.row_files import Places, RowReader, append_rows
from curriculum.stored_rows import StoredRow, render_fields
from pipeline.errors import ManifestMismatch
from pipeline.records import Provenance

_TEXT = st.sampled_from(["", "a", "é" * 40, "(µ/ý", "字\n" * 300])


def _row(number: int, question: str, completion: str) -> StoredRow:
    candidate = prepared_row(question=question, thinking="", answer="").candidate._replace(
        row_id=f"{number:032x}",
        source_id='"1"',
        provenance=Origin(source_row="7", source_position=number),
    )
    middle = len(completion) // 2
    pieces = (completion[:middle].encode(), memoryview(completion[middle:].encode()))
    prompt = question.encode() + b"\nReason." if number % 2 else b"Reason: " + question.encode()
    return StoredRow(
        fields=render_fields(candidate, "mit", Size(number, 2)),
        prompt=prompt,
        completion=pieces,
        question=question.encode(),
    )


def _store(folder: Path, files: list[list[StoredRow]], *, compress: bool) -> Places:
    paths, numbers, offsets, sizes = [], list[int](), list[int](), list[int]()
    for number, rows in enumerate(files):
        paths.append(folder / f"{number}.rows")
        with paths[-1].open("wb", buffering=0) as handle:
            found = append_rows(handle.fileno(), rows, compress=compress)
        numbers += [number] * len(found)
        offsets += np.cumsum([0, *found])[:-1].tolist()
        sizes += found
    return Places(
        tuple(paths),
        np.array(numbers, np.uint32),
        np.array(offsets, np.uint64),
        np.array(sizes, np.uint32),
    )


def _content(table: pa.Table) -> list[tuple[str, str, str, str]]:
    return [
        (row["id"], row["question"], row["prompt"][0]["content"], row["completion"][0]["content"])
        for row in table.to_pylist()
    ]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), _TEXT, _TEXT), min_size=1, max_size=12),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_rows_come_back_in_any_order(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[tuple[int, str, str]],
    compress: bool,
    random: Random,
) -> None:
    rows = [_row(number, question, text) for number, (_, question, text) in enumerate(drawn)]
    files: list[list[StoredRow]] = [[], [], []]
    for row, (file, _, _) in zip(rows, drawn, strict=True):
        files[file].append(row)
    places = _store(tmp_path_factory.mktemp("rows"), files, compress=compress)
    stored = [row for file in files for row in file]
    order = list(range(len(stored)))
    random.shuffle(order)
    wanted = [
        (
            f"{rows.index(stored[place]):032x}",
            stored[place].question.decode(),
            stored[place].prompt.decode(),
            b"".join(stored[place].completion).decode(),
        )
        for place in order
    ]
    shuffled = Places(places.paths, places.file[order], places.offset[order], places.size[order])
    with RowReader(places.paths) as reader:
        assert _content(reader.gather(shuffled)) == wanted
        # The same memory again, for fewer and for more.
        assert _content(reader.gather(shuffled.slice(0, 1))) == wanted[:1]
        assert _content(reader.gather(shuffled)) == wanted


@pytest.mark.parametrize("is_own", [False, True])
def test_provenance_is_that_of_a_record(tmp_path: Path, is_own: bool) -> None:
    shared: dict[str, Any] = {
        "teacher": 'a "teacher"',
        "source_file": "é.parquet",
        "source_position": 3,
    }
    own = {
        "prompt_hash": "h",
        "seed": 1,
        "concepts": ["a", "é"],
        "level": None,
        "verdicts": [],
        "agreement": 0.5,
    }
    wanted = Provenance.model_validate({**shared, **(own if is_own else {})})
    assert set(Origin._fields) | set(own) == {*Provenance.model_fields, "synthesis"}
    row = prepared_row(question="q", thinking="", answer="").candidate._replace(
        provenance=Origin(**shared, synthesis=own if is_own else None)
    )
    stored = StoredRow(render_fields(row, "mit", Size(1, 2)), b"q", (b"c",), b"q")
    places = _store(tmp_path, [[stored]], compress=False)
    with RowReader(places.paths) as reader:
        (found,) = reader.gather(places)["provenance"].to_pylist()
    assert found == wanted.model_dump()


def _num_open() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_few_files_are_open_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "_MOST_OPEN", 2)
    places = _store(tmp_path, [[_row(n, f"q{n}", "c" * n)] for n in range(7)], compress=False)
    before = _num_open()
    with RowReader(places.paths) as reader:
        found = _content(reader.gather(places)) + _content(reader.gather(places))
        assert _num_open() <= before + 2
    assert [row[3] for row in found] == ["c" * n for n in range(7)] * 2
    assert _num_open() == before


@pytest.mark.parametrize("compress", [False, True])
def test_a_damaged_file_is_named(tmp_path: Path, compress: bool) -> None:
    places = _store(tmp_path, [[_row(1, "what", "text " * 50)]], compress=compress)
    whole = places.paths[0].read_bytes()
    damages = [
        whole[:-1],
        whole[:30],
        b"",
        *(_flip(whole, at) for at in (0, 5, 60, len(whole) - 1)),
    ]
    for damaged in damages:
        places.paths[0].write_bytes(damaged)
        with RowReader(places.paths) as reader, pytest.raises(ManifestMismatch, match=r"0\.rows"):
            reader.gather(places)


def _flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
