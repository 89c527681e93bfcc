"""The search that proves that a run leaves no key behind finds one, however it is packed."""

from __future__ import annotations

import base64
import gzip
import json
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from echo_teacher import echoing_teacher
from key_search import find_key

from pipeline import redaction
from pipeline.settings.recipe import load_recipe
from pipeline.store import write_table

KEY = "sk-Qz7/pL+9vXe2RkT4mNw8Yb1Hc"


def plant_in_parquet(path: Path) -> None:
    texts = [f"row {number}" for number in range(400)] + [f"I was sent {KEY}."]
    write_table(path, pa.table({"text": texts}))


def plant_in_database(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE answers (text)")
        packed = zlib.compress(f"<think>{KEY}</think>".encode() * 3, 1)
        database.execute("INSERT INTO answers VALUES (?)", (packed,))
    database.close()


def plant_in_frames(path: Path) -> None:
    frame = pa.compress(f"a row with {KEY}".encode(), codec="zstd", asbytes=True)
    path.write_bytes(b"\0" * 7 + pa.compress(b"another row", "zstd", asbytes=True) + frame)


@pytest.mark.parametrize(
    "plant",
    [
        lambda path: path.write_text(f"Authorization: Bearer {KEY}\n", encoding="utf-8"),
        lambda path: path.write_text(f"HTTP 500: {KEY[:13]}", encoding="utf-8"),
        lambda path: path.write_text(json.dumps({"k": KEY}).replace("/", "\\/"), encoding="utf-8"),
        lambda path: path.write_bytes(b"x" + base64.b64encode(f"me:{KEY}".encode())),
        lambda path: path.write_bytes(gzip.compress(f"a line\nwith {KEY}\n".encode())),
        lambda path: path.write_bytes(gzip.compress(gzip.compress(KEY.encode()))),
        plant_in_parquet,
        plant_in_database,
        plant_in_frames,
    ],
)
def test_a_planted_key_is_found(tmp_path: Path, plant: Callable[[Path], object]) -> None:
    (tmp_path / "innocent").write_text(f"{KEY[:11]} [secret]", encoding="utf-8")
    folder = tmp_path / "deep" / "below"
    folder.mkdir(parents=True)
    plant(folder / "file")
    assert find_key(KEY, tmp_path) == [str(folder / "file")]


def test_a_run_that_masks_nothing_is_found_out(
    tmp_path: Path, scripted_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from promptcot.synthesis import synthesize

    monkeypatch.setenv("PROMPTCOT_API_KEY", KEY)
    for name in ("mask_reply", "mask_message", "mask_bytes"):
        monkeypatch.setattr(f"promptcot.engines.openai_format.{name}", lambda text: text)
    out = tmp_path / "out"
    with echoing_teacher(tmp_path / "script.jsonl") as url:
        settings = f'engine="http", base_urls=["{url}"], model="m"'
        synthesize(load_recipe(str(scripted_recipe), [f"teachers.default={{{settings}}}"]), out)
    found = " ".join(find_key(KEY, out))
    redaction._values.discard(KEY)
    assert "answers.sqlite" in found
    assert "synthesis/solutions" in found and "synthesis/verified" in found
