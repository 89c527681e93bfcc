"""A disk that is full while a shard is written: one sentence, and the same command finishes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from small_disk import KINDS, small_disk

from pipeline.errors import StoreError
from pipeline.manifest import InputRef, Version
from pipeline.records import ConceptCombination
from pipeline.stages import Batch, BatchResult, Stage, run_stage, split_batches

SIZES = (20_000, 20_000, 400_000)
"""Characters of each shard, which do not compress to less than half."""


def make(folder: Path) -> Version:
    """Three shards of one row each, of which the last one needs much room."""
    stage = Stage(
        name="toy",
        root=folder,
        record=ConceptCombination,
        settings={},
        inputs=[InputRef(name="numbers", version="v")],
        packages=["pipeline"],
    )
    return run_stage(stage, split_batches(range(3), 1, key=str), write_long)


def write_long(batch: Batch) -> BatchResult:
    (number,) = batch.rows
    text = random.Random(number).randbytes(SIZES[number] // 2).hex()
    row = ConceptCombination(id=str(number), concepts=[text], domain="math", level="L")
    return BatchResult(num_in=1, rows=[row])


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_that_does_not_fit_is_made_by_the_same_command_later(
    tmp_path: Path, kind: str
) -> None:
    calm = make(tmp_path / "calm")
    with small_disk(tmp_path / "disk", kind, room=160 << 10) as disk:
        out = disk.folder / "toy"
        with pytest.raises(StoreError, match=f"cannot write .*part-00002-.*: {disk.full}") as error:
            make(out)
        assert "run the same command again" in error.value.hint
        assert not (out / "LATEST").exists()
        kept = {path.name: path.stat().st_ino for path in out.glob(".staging-*/data/part-*")}
        assert [name[:10] for name in sorted(kept)] == ["part-00000", "part-00001"]
        disk.grow()
        version = make(out)
        assert files(version.folder) == files(calm.folder)
        data = {path.name: path.stat().st_ino for path in version.folder.glob("data/*")}
        assert kept.items() <= data.items()
