"""Versions are checked, tokenised once, and resumed; what cannot be trained on is counted."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny_experiment import make_dataset, make_row

import trainer.data.tokens as tokens
from pipeline.errors import ConfigError, ManifestMismatch, SourceError, StoreError, TooManyRejected
from pipeline.hashing import file_sha256
from pipeline.manifest import Version, load_version
from pipeline.records import Message, TrainingRow, arrow_schema
from pipeline.store import write_json, write_parquet
from trainer.data import DataSettings, open_dataset, plan_data, prepare_rows
from trainer.data.encoding import encode_by_reference, encode_rows
from trainer.data.tokens import tokenise

ROWS = [make_row(n, 1 + n % 4) for n in range(10)]
MANY = [make_row(n, 1 + n % 3) for n in range(180)]


def settings_with(**values: object) -> DataSettings:
    given = {"packing": "exact", "documents_per_step": 4, "max_length": 500, **values}
    return DataSettings(**{"max_row_tokens": 500, **given})  # type: ignore[arg-type]


def read_tokens(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.suffix in {".arrow", ".json"}}


def rewrite(version: Version, rows: Sequence[TrainingRow]) -> Version:
    """The version with other rows in its one shard, its manifest told of them."""
    path = version.shard_paths()[0]
    write_parquet(path, rows, arrow_schema(TrainingRow))
    manifest = version.manifest.model_dump()
    manifest["shards"][0].update(
        rows=len(rows), sha256=file_sha256(path), bytes=path.stat().st_size
    )
    write_json(version.folder / "manifest.json", manifest)
    return load_version(version.folder)


def test_over_long_rows_are_dropped_whole_and_counted(tmp_path: Path) -> None:
    version = make_dataset(tmp_path, ROWS)
    lengths = sorted(row.num_tokens for row in ROWS)
    data = prepare_rows(
        version, settings_with(max_length=lengths[6]), cache=tmp_path / "c", num_workers=1
    )
    kept = [length for length in lengths if length <= lengths[6]]
    assert data.counts.num_rows == len(kept)
    assert data.counts.rejected == {"over_max_length": len(ROWS) - len(kept)}
    assert sum(len(row["input_ids"]) for row in data.dataset) == sum(kept)


def test_rows_without_an_answer_or_a_form_are_counted_by_name(tmp_path: Path) -> None:
    silent = ROWS[0].model_copy(
        update={
            "completion": [Message(role="assistant", content="<think>\n")],
            "num_completion_tokens": 1,
        }
    )
    formless = ROWS[1].model_copy(
        update={"completion": [Message(role="assistant", content="no tag")]}
    )
    endless = ROWS[2].model_copy(update={"completion": []})
    version = rewrite(make_dataset(tmp_path, ROWS), [silent, formless, endless, *ROWS[3:]])
    counts = prepare_rows(version, settings_with(), cache=tmp_path / "c", num_workers=1).counts
    assert counts.rejected == {"no_answer_tokens": 1, "not_encodable": 2}
    assert counts.num_rows == 7


def test_rows_whose_labels_are_all_masked_are_counted_by_the_plan(tmp_path: Path) -> None:
    masked = ROWS[0].model_copy(update={"num_completion_tokens": 0})
    version = rewrite(make_dataset(tmp_path, ROWS), [masked, *ROWS[1:]])
    assert plan_data(version, settings_with()).rejected == {"all_labels_masked": 1}


@pytest.mark.parametrize("rows", [[], ROWS])
def test_nothing_to_train_on_is_refused(tmp_path: Path, rows: list[TrainingRow]) -> None:
    version = make_dataset(tmp_path, rows)
    with pytest.raises(TooManyRejected, match="no row of dataset") as caught:
        prepare_rows(version, settings_with(max_length=32), cache=tmp_path / "c", num_workers=1)
    assert caught.value.exit_code == 3
    with pytest.raises(TooManyRejected, match="no row of dataset"):
        plan_data(version, settings_with(max_length=32))


def test_rows_too_short_for_a_document_name_the_setting(tmp_path: Path) -> None:
    version = make_dataset(tmp_path, ROWS)
    longest = max(row.num_tokens for row in ROWS)
    with pytest.raises(ConfigError, match=r"training\.max_row_tokens = 120") as caught:
        plan_data(version, settings_with(max_row_tokens=120))
    assert f"at least {longest}" in caught.value.hint


def test_a_damaged_shard_is_refused(tmp_path: Path) -> None:
    version = make_dataset(tmp_path, ROWS)
    shard = version.shard_paths()[0]
    shard.write_bytes(shard.read_bytes()[:-9] + b"corrupted")
    with pytest.raises(ManifestMismatch, match="differs from its manifest"):
        open_dataset(tmp_path, "1", None)


def test_an_empty_shard_is_refused(tmp_path: Path) -> None:
    version = rewrite(make_dataset(tmp_path, ROWS), [])
    with pytest.raises(SourceError, match=r"part-.* holds no rows") as caught:
        open_dataset(tmp_path, "1", version.folder)
    assert "build it again" in caught.value.hint


@pytest.mark.parametrize("kind", ["columns", "format"])
def test_a_shard_of_another_form_is_refused(tmp_path: Path, kind: str) -> None:
    version = make_dataset(tmp_path, ROWS)
    path = version.shard_paths()[0]
    if kind == "columns":
        pq.write_table(pq.read_table(path).drop_columns(["num_prompt_tokens"]), path)
    else:
        path.write_text("{}")
    manifest = version.manifest.model_dump()
    manifest["shards"][0]["sha256"] = file_sha256(path)
    write_json(version.folder / "manifest.json", manifest)
    wanted = {"columns": "missing column.* num_prompt_tokens", "format": "not a readable Parquet"}
    with pytest.raises(SourceError, match=wanted[kind]):
        open_dataset(tmp_path, "1", None)


def test_a_wrong_number_of_rows_is_refused(tmp_path: Path) -> None:
    version = make_dataset(tmp_path, ROWS)
    manifest = version.manifest.model_dump()
    manifest["shards"][0]["rows"] = 11
    write_json(version.folder / "manifest.json", manifest)
    with pytest.raises(ManifestMismatch, match="holds 10 rows, its manifest says 11"):
        open_dataset(tmp_path, "1", None)


def test_a_dataset_for_another_tokenizer_is_refused(tmp_path: Path) -> None:
    version = make_dataset(tmp_path, ROWS)
    manifest = version.manifest.model_dump()
    manifest["extra"]["tokenizer"] = "f" * 64
    write_json(version.folder / "manifest.json", manifest)
    with pytest.raises(SourceError, match=r"another tokenizer.*ffffffffffff"):
        open_dataset(tmp_path, "1", None)


def test_token_counts_of_another_tokenizer_are_refused_with_the_row(tmp_path: Path) -> None:
    told = ROWS[3].model_copy(update={"num_completion_tokens": ROWS[3].num_completion_tokens + 2})
    version = rewrite(make_dataset(tmp_path, ROWS), [*ROWS[:3], told, *ROWS[4:]])
    with pytest.raises(SourceError, match=rf"parquet, row 3 \({told.id}\)") as caught:
        prepare_rows(version, settings_with(), cache=tmp_path / "c", num_workers=1)
    assert "another tokenizer or chat format" in caught.value.hint
    assert not list((tmp_path / "c").rglob("*.arrow"))


def test_a_missing_dataset_names_the_command_that_builds_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        open_dataset(tmp_path, "2", None)
    assert "curriculum.build --phase 2" in caught.value.hint


def test_a_dataset_is_named_by_folder_by_root_or_as_the_latest(tmp_path: Path) -> None:
    older = make_dataset(tmp_path, ROWS[:3])
    newer = make_dataset(tmp_path, ROWS)
    assert open_dataset(tmp_path, "1", older.folder).name == older.name
    for place in (None, Path("latest"), newer.folder.parent):
        assert open_dataset(tmp_path, "1", place).name == newer.name


def test_tokens_are_made_once_for_all_limits_and_packings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = make_dataset(tmp_path, MANY)
    prepare_rows(version, settings_with(), cache=tmp_path / "c", num_workers=1)
    monkeypatch.setattr(tokens, "tokenise_shard", _refuse)
    for packing in ("off", "best_fit"):
        other = settings_with(packing=packing, max_length=200, encoded_rows=3)
        assert prepare_rows(version, other, cache=tmp_path / "c", num_workers=1).counts.num_rows
    # A version that holds the same shard, e.g. after another card was written.
    fewer = make_dataset(tmp_path, MANY[:50], "2")
    assert len(tokenise(fewer, tmp_path / "c", num_workers=1, encoded_rows=64).paths) == 1


def _refuse(*_: object) -> None:
    raise AssertionError("tokenised again")


def test_workers_make_the_same_files_as_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = make_dataset(tmp_path, MANY)
    tokenise(version, tmp_path / "one", num_workers=1, encoded_rows=64)
    monkeypatch.setattr(tokens, "MIN_ROWS_A_WORKER", 1)
    monkeypatch.setattr(tokens, "MIN_ROWS_TO_COMPILE", 1)
    tokenise(version, tmp_path / "two", num_workers=2, encoded_rows=7)
    assert len(read_tokens(tmp_path / "one")) == 8
    assert read_tokens(tmp_path / "one") == read_tokens(tmp_path / "two")


KILLED = """
import os, signal, sys
from pathlib import Path
import trainer.data.tokens as tokens
from pipeline.manifest import load_version
encode_rows = tokens.encode_rows
def encode_or_die(rows, first, *, source, encode):
    if "part-00002" in source and first > 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode_rows(rows, first, source=source, encode=encode)
tokens.encode_rows = encode_or_die
tokens.tokenise(load_version(Path(sys.argv[1])), Path(sys.argv[2]), num_workers=1, encoded_rows=20)
"""


def test_killed_tokenising_goes_on_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = make_dataset(tmp_path, MANY)
    command = [sys.executable, "-c", KILLED, str(version.folder), str(tmp_path / "killed")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    before = read_tokens(tmp_path / "killed")
    assert sum(name.endswith(".json") for name in before) == 2
    done: list[str] = []
    monkeypatch.setattr(tokens, "tokenise_shard", _record(done))
    tokenise(version, tmp_path / "killed", num_workers=1, encoded_rows=20)
    assert len(done) == 2
    tokenise(version, tmp_path / "whole", num_workers=1, encoded_rows=20)
    after, whole = read_tokens(tmp_path / "killed"), read_tokens(tmp_path / "whole")
    assert {name: after[name] for name in whole} == whole


def _record(done: list[str]) -> Callable[[tokens.ShardTask], None]:
    tokenise_shard = tokens.tokenise_shard

    def record(task: tokens.ShardTask) -> None:
        done.append(task.shard.name)
        tokenise_shard(task)

    return record


def test_a_damaged_token_file_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = make_dataset(tmp_path, MANY)
    (first, *_) = tokenise(version, tmp_path / "c", num_workers=1, encoded_rows=64).paths
    whole = first.read_bytes()
    first.write_bytes(whole[:500] + b"x" + whole[501:])
    tokenise(version, tmp_path / "c", num_workers=1, encoded_rows=64)
    assert first.read_bytes() == whole
    assert "is damaged" in capsys.readouterr().out


def test_processes_of_one_run_tokenise_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = make_dataset(tmp_path, MANY)
    done: list[str] = []
    monkeypatch.setattr(tokens, "tokenise_shard", _record(done))
    arguments = {"num_workers": 1, "encoded_rows": 64}
    threads = [
        threading.Thread(target=tokenise, args=(version, tmp_path / "c"), kwargs=arguments)
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted(path.name for path in version.shard_paths())


def test_a_full_disk_keeps_finished_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = make_dataset(tmp_path, MANY)
    hash_file, written = tokens._hash, list[Path]()

    def fill(path: Path) -> str:
        written.append(path)
        if len(written) == 3:
            monkeypatch.setattr("pipeline.store.fsync", _fail)
        return hash_file(path)

    monkeypatch.setattr(tokens, "_hash", fill)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        tokenise(version, tmp_path / "c", num_workers=1, encoded_rows=64)
    assert "free some disk space" in caught.value.hint
    assert sum(name.endswith(".json") for name in read_tokens(tmp_path / "c")) == 2


def _fail(path: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_row_out_of_schema_is_named(tmp_path: Path) -> None:
    row = {"id": "r", "prompt": [{"role": "robot", "content": "x"}], "completion": []}
    with pytest.raises(SourceError, match=r"shard, row 8 \(r\) is not in the training schema"):
        encode_rows([row], 8, source="shard", encode=encode_by_reference)


def test_the_versions_own_counts_are_read_for_a_plan(tmp_path: Path) -> None:
    version = make_dataset(tmp_path, MANY)
    told = sum(
        pq.read_table(path)["num_tokens"].to_pandas().sum() for path in version.shard_paths()
    )
    assert plan_data(version, settings_with()).num_tokens == told
