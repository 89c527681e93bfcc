"""The store of answers under kill -9, full disks, damage and company."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from promptcot.engines import answers
from promptcot.engines.answers import AnswerStore
from promptcot.engines.protocol import Answer

WRITER = """
import sys
from pathlib import Path
from promptcot.engines.answers import AnswerStore
from promptcot.engines.protocol import Answer

store = AnswerStore(Path(sys.argv[1]))
name, num_groups = sys.argv[2], int(sys.argv[3])
for group in range(num_groups):
    store.put({f"{name}-{group}-{i}": Answer("text " * 200, "stop", 1, 2) for i in range(8)})
    print(group, flush=True)
store.close()
"""


def start_writer(folder: Path, name: str, num_groups: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), name, str(num_groups)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@settings(max_examples=20, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1),
        st.builds(
            Answer,
            st.text(st.characters(exclude_categories=["Cs"])),
            st.sampled_from(["stop", "length", "error"]),
            st.integers(0, 2**31),
            st.integers(0, 2**31),
        ),
    )
)
def test_answers_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, Answer]
) -> None:
    folder = tmp_path_factory.mktemp("answers")
    store = AnswerStore(folder)
    store.put(entries)
    store.close()
    store = AnswerStore(folder)
    assert store.get([*entries, "absent"]) == entries
    assert store.stored([*entries, "absent"]) == set(entries)
    store.close()


def test_thousands_of_keys_in_one_question(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path)
    entries = {str(i): Answer(str(i), "stop", 0, 0) for i in range(3000)}
    store.put(entries)
    assert store.get(list(entries)) == entries
    assert len(store) == 3000
    store.close()


def test_the_first_answer_of_a_key_stays(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path)
    store.put({"key": Answer("first", "stop", 1, 1)})
    store.put({"key": Answer("second", "stop", 1, 1)})
    assert store.get(["key"])["key"].text == "first"
    store.close()


def test_kill_keeps_every_finished_group_and_no_half_one(tmp_path: Path) -> None:
    with start_writer(tmp_path, "a", 100_000) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(50)]
        os.kill(writer.pid, signal.SIGKILL)
        lines += writer.stdout.readlines()
    num_reported = len([line for line in lines if line.endswith("\n")])
    store = AnswerStore(tmp_path)
    num_stored = len(store)
    store.close()
    assert num_stored % 8 == 0
    assert num_reported <= num_stored // 8 <= num_reported + 1


def test_two_processes_may_write_at_once(tmp_path: Path) -> None:
    with start_writer(tmp_path, "a", 60) as one, start_writer(tmp_path, "b", 60) as other:
        one.communicate()
        other.communicate()
    assert (one.returncode, other.returncode) == (0, 0)
    store = AnswerStore(tmp_path)
    assert len(store) == 2 * 60 * 8
    store.close()


def test_a_process_that_holds_the_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_LOCK_WAIT_S", 0.1)
    store = AnswerStore(tmp_path)
    holder = sqlite3.connect(store.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="held by another process"):
        store.put({"key": Answer("text", "stop", 1, 1)})
    holder.close()
    store.put({"key": Answer("text", "stop", 1, 1)})
    store.close()


def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / answers.FILE_NAME).write_bytes(b"this was a database once" * 100)
    with pytest.raises(StoreError, match=answers.FILE_NAME) as caught:
        AnswerStore(tmp_path)
    assert "move it away" in caught.value.hint


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot write"):
        AnswerStore(tmp_path / "file" / "answers")


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


def test_a_full_disk_is_one_clear_error_and_keeps_what_was_stored(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), "a", "1000"]
    writer = subprocess.run(
        command, preexec_fn=limit_file_size, capture_output=True, text=True, check=False
    )
    assert "StoreError" in writer.stderr
    assert answers.FILE_NAME in writer.stderr
    store = AnswerStore(tmp_path)
    assert len(store) >= 8 * len(writer.stdout.splitlines()) > 0
    store.close()


def test_many_small_writes_are_quick(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path)
    start = time.monotonic()
    for i in range(500):
        store.put({str(i): Answer("text " * 100, "stop", 1, 2)})
    assert time.monotonic() - start < 5
    store.close()
