"""Others cannot write what a run writes, and a planted link is not written through."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.claims import claiming
from pipeline.errors import StoreError
from pipeline.events import EventLog
from pipeline.permissions import is_open_to_all, keep_others_from_writing
from pipeline.run_folder import append_log, prepare_run_folder
from pipeline.settings.events import EventSettings
from pipeline.settings.recipe import load_recipe
from pipeline.store import exclusive_lock, shared_lock


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Each test begins with one that lets everybody write."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize(("before", "after"), [(0o000, 0o022), (0o002, 0o022), (0o077, 0o077)])
def test_the_umask_is_only_made_stricter(before: int, after: int) -> None:
    os.umask(before)
    keep_others_from_writing()
    assert os.umask(0) == after


def test_nothing_a_command_writes_can_be_changed_by_others(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "promptcot", "run", "--out", str(tmp_path / "run")]
    # Refused for want of combinations, after the folder was prepared.
    subprocess.run(
        [*command, "--set", "teachers.default.engine=scripted"], capture_output=True, check=False
    )
    made = list((tmp_path / "run").rglob("*"))
    assert tmp_path / "run" / "recipe.json" in made
    assert [path for path in made if path.stat().st_mode & 0o022] == []


def test_a_run_folder_that_everybody_can_write_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe("demo")
    folder = tmp_path / "run"
    folder.mkdir(mode=0o777)
    prepare_run_folder(recipe, folder)
    assert f"chmod go-w {folder}" in capsys.readouterr().out
    folder.chmod(0o755)
    prepare_run_folder(recipe, folder)
    assert capsys.readouterr().out == ""
    # As /tmp is: nobody can replace what another one put there.
    folder.chmod(0o1777)
    assert not is_open_to_all(folder)


def test_logs_and_locks_are_not_written_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine", encoding="utf-8")
    (tmp_path / "logs").mkdir()
    events = EventLog(tmp_path, EventSettings())
    names = ("notes.jsonl", ".claim-data-1")
    for link in (tmp_path / "lock", events.path, *(tmp_path / "logs" / name for name in names)):
        link.symlink_to(victim)
    with pytest.raises(StoreError, match="symbolic link"), exclusive_lock(tmp_path / "lock", "x"):
        pass
    with pytest.raises(StoreError, match="symbolic link"), shared_lock(tmp_path / "lock", "x"):
        pass
    with pytest.raises(StoreError, match=r"events\.jsonl is a symbolic link"):
        events.append({"event": "news"})
    with pytest.raises(StoreError, match=r"notes\.jsonl is a symbolic link"):
        append_log(tmp_path, "notes", {})
    with pytest.raises(StoreError, match="symbolic link"), claiming(tmp_path, ["data-1"]):
        pass
    assert victim.read_text(encoding="utf-8") == "mine"
