"""The run folder: where one recipe's artifacts live, and the log that every command appends to.

Times, costs and host facts belong into ``logs/``; versions never hold them, so that equal inputs
give equal bytes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.permissions import is_open_to_all, open_no_link
from pipeline.settings.recipe import Recipe
from pipeline.store import dump_json_line, explain_disk_errors, write_json

SAVED_RECIPE = "recipe.json"
"""The resolved recipe in a run folder."""


def prepare_run_folder(recipe: Recipe, out: Path) -> None:
    """Create the folder and save the resolved recipe beside its artifacts.

    Raises:
        StoreError: The folder cannot be written.
    """
    write_json(
        out / SAVED_RECIPE,
        {"recipe": recipe.name, "settings": recipe.settings.model_dump(mode="json")},
    )
    if is_open_to_all(out):
        console.warn(
            f"every user of this machine can change what lies in {out}, and so what the next "
            f"command resumes from: chmod go-w {out}"
        )


def append_log(out: Path, name: str, entry: dict[str, Any]) -> None:
    """Append one dated line to ``logs/<name>.jsonl``.

    Raises:
        StoreError: The log cannot be written.
    """
    path = out / "logs" / f"{name}.jsonl"
    line = dump_json_line({"time": datetime.now(UTC).isoformat(timespec="seconds"), **entry})
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8", newline="", opener=open_no_link) as handle:
            handle.write(line + "\n")
