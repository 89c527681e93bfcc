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
from promptcot.engines.answers import AnswerStore, Purpose, StoredAnswer, read_spent
from promptcot.engines.protocol import Answer

PURPOSE = Purpose("problems", "default", "http", "model")


def entries(answers_by_key: dict[str, Answer], purpose: Purpose = PURPOSE) -> list[StoredAnswer]:
    return [StoredAnswer(key, answer, purpose, 0.5) for key, answer in answers_by_key.items()]


WRITER = """
import sys
from pathlib import Path
from promptcot.engines.answers import AnswerStore, Purpose, StoredAnswer
from promptcot.engines.protocol import Answer

store = AnswerStore(Path(sys.argv[1]))
name, num_groups = sys.argv[2], int(sys.argv[3])
purpose = Purpose("problems", name, "http", "model")
for group in range(num_groups):
    answers = [Answer(f"{group} {i} " * 200, "stop", 1, 2) for i in range(8)]
    keys = [f"{name}-{group}-{i}" for i in range(8)]
    rows = [StoredAnswer(k, a, purpose, 0.1) for k, a in zip(keys, answers)]
    store.put(rows, seconds={purpose: 1.0})
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
            # Lone surrogates too: a server's JSON can hold them.
            st.text().flatmap(lambda text: st.sampled_from([text, text * 1000])),
            st.sampled_from(["stop", "length"]),
            st.integers(0, 2**31),
            st.integers(0, 2**31),
        ),
    )
)
def test_answers_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, given_answers: dict[str, Answer]
) -> None:
    folder = tmp_path_factory.mktemp("answers")
    store = AnswerStore(folder)
    store.put(entries(given_answers))
    store.close()
    store = AnswerStore(folder)
    assert store.get([*given_answers, "absent"]) == given_answers
    assert store.stored([*given_answers, "absent"]) == set(given_answers)
    store.close()


def test_thousands_of_keys_in_one_question(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path)
    many = {str(i): Answer(str(i), "stop", 0, 0) for i in range(3000)}
    store.put(entries(many))
    assert store.get(list(many)) == many
    assert len(store) == 3000
    store.close()


def test_the_first_answer_of_a_key_stays(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path)
    first = Answer("first", "stop", 1, 1)
    assert store.put(entries({"key": first})) == {}
    # The caller learns which answer counts, and the ledger counts that one only.
    assert store.put(entries({"key": Answer("second", "stop", 1, 1)})) == {"key": first}
    assert store.get(["key"]) == {"key": first}
    assert store.spent()[0].stored == 1
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
    (spent,) = read_spent(tmp_path)
    assert (spent.stored, spent.completion_tokens) == (num_stored, 2 * num_stored)
    assert spent.seconds == num_stored / 8
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
        store.put(entries({"key": Answer("text", "stop", 1, 1)}))
    holder.close()
    store.put(entries({"key": Answer("text", "stop", 1, 1)}))
    store.close()


def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / answers.FILE_NAME).write_bytes(b"this was a database once" * 100)
    with pytest.raises(StoreError, match=answers.FILE_NAME) as caught:
        AnswerStore(tmp_path)
    assert "move it away" in caught.value.hint


def test_a_file_of_an_older_program_is_named_with_the_remedy(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / answers.FILE_NAME)
    old.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, text TEXT NOT NULL)")
    old.close()
    for _ in range(2):
        with pytest.raises(StoreError, match="format of another version") as caught:
            AnswerStore(tmp_path)
        assert "another --out" in caught.value.hint


def test_errors_are_counted_and_not_kept(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path)
    bad = Answer("", "error", 9, 3, "garbage")
    store.put(entries({"a": bad, "b": Answer("text", "stop", 1, 2)}))
    assert store.stored(["a", "b"]) == {"b"}
    (spent,) = store.spent()
    assert (spent.stored, spent.failed) == (1, 1)
    assert (spent.prompt_tokens, spent.completion_tokens) == (10, 5)
    store.close()


def test_long_texts_are_kept_small(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path)
    thought = {str(i): f"Let {i} be the number of steps; then f({i}) holds. " for i in range(500)}
    store.put(entries({k: Answer(t * 100, "stop", 1, 2) for k, t in thought.items()}))
    store.close()
    assert store.path.stat().st_size < sum(len(t) * 100 for t in thought.values()) / 5


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
        store.put(entries({str(i): Answer("text " * 100, "stop", 1, 2)}))
    assert time.monotonic() - start < 5
    store.close()
