"""A pilot: the first combinations of a run through all stages, to measure what the rest will take.

Its versions lie under ``<out>/pilot``; its answers are stored with the run's own, so what a pilot
paid for is not asked again where the run sends the same request. Command: ``python -m promptcot
estimate --pilot N``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.errors import ConfigError
from pipeline.events import recording
from pipeline.hashing import code_version, content_hash, file_sha256
from pipeline.manifest import LATEST, Version
from pipeline.permissions import open_no_link
from pipeline.run_folder import prepare_run_folder
from pipeline.settings.base import determining
from pipeline.settings.recipe import Recipe
from pipeline.store import dump_json_line, explain_disk_errors, write_json
from promptcot.costs import newest_versions, stage_of_label
from promptcot.engines.protocol import Answer, Request
from promptcot.engines.teacher import Teacher
from promptcot.run_context import SynthesisRun
from promptcot.stage_names import BANK
from promptcot.synthesis import chain_of, run_chain

FILE_NAME = "pilot.json"
"""Written last: a pilot without it is not finished."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer that the pilot got."""

    stage: str
    teacher: str
    prompt: str
    """Hash of the prompt: answers to one prompt belong together."""
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Pilot:
    """A finished pilot."""

    num_combinations: int
    has_whole_bank: bool
    """Whether its concepts came from all seeds, as the run's do."""
    versions: Mapping[str, Version]
    asked: Sequence[Asked]


class PilotRun(SynthesisRun):
    """A run that notes the size of every answer it gets, in the run folder's log."""

    def __init__(self, recipe: Recipe, out: Path, *, books: Path, log: Path) -> None:
        super().__init__(recipe, out, books=books)
        self._log = log
        self._note_lock = threading.Lock()

    def teacher(self, name: str) -> Teacher:
        """The teacher, watched."""
        teacher = super().teacher(name)
        if teacher.watch is None:
            teacher.watch = lambda label, requests, answers: self._note(
                (label, name), requests, answers
            )
        return teacher

    def _note(
        self, origin: tuple[str, str], requests: Sequence[Request], answers: Sequence[Answer]
    ) -> None:
        """Append before the batch is written: a resumed pilot knows all that it skips."""
        label, teacher = origin
        lines = [
            dump_json_line(
                {
                    "stage": stage_of_label(label),
                    "teacher": teacher,
                    "prompt": request.prompt_hash,
                    "seed": request.seed,
                    "prompt_tokens": answer.num_prompt_tokens,
                    "completion_tokens": answer.num_completion_tokens,
                }
            )
            for request, answer in zip(requests, answers, strict=True)
        ]
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with (
            self._note_lock,
            explain_disk_errors(self._log),
            open(self._log, "a", encoding="utf-8", newline="", opener=open_no_link) as handle,
        ):
            handle.write("".join(line + "\n" for line in lines))


def pilot_folder(out: Path) -> Path:
    """Where a run folder keeps its pilot."""
    return out / "pilot"


def run_pilot(recipe: Recipe, out: Path, count: int) -> None:
    """Run the first ``count`` combinations through all stages.

    Raises:
        ConfigError: The run has no more combinations than that.
        TeacherError: A teacher cannot be used, or the budget is spent; finished work is kept.
    """
    total = recipe.settings.synthesis.combinations.num_combinations
    if count >= total:
        raise ConfigError(
            f"a pilot of {count:,} combinations is no smaller than the run, which has {total:,}",
            hint="pass a smaller --pilot; 50 to 500 combinations tell most",
        )
    folder = pilot_folder(out)
    # The bank of all seeds is used when it is there, or costs nothing; else a part of the seeds.
    whole_bank = (
        not recipe.settings.synthesis.seeds or (out / "synthesis" / BANK / LATEST).is_file()
    )
    small = _shrink(recipe, count, whole_bank=whole_bank)
    prepare_run_folder(small, folder)
    (folder / FILE_NAME).unlink(missing_ok=True)
    console.heading(f"pilot: {count:,} of {total:,} combinations, in {folder}")
    log = _log_path(folder, recipe, count)
    with (
        recording(folder, recipe.settings.events, "pilot"),
        PilotRun(small, folder, books=out, log=log) as run,
    ):
        versions = run_chain(run)
    write_json(
        folder / FILE_NAME,
        {
            "num_combinations": count,
            "has_whole_bank": whole_bank,
            "settings": _fingerprint(recipe),
            "versions": {stage: version.name for stage, version in versions.items()},
        },
    )


def find_pilot(recipe: Recipe, out: Path) -> Pilot | None:
    """The finished pilot of a run folder, when it was made with the recipe's settings."""
    folder = pilot_folder(out)
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    versions = newest_versions(folder)
    names = {stage: version.name for stage, version in versions.items()}
    if found["settings"] != _fingerprint(recipe) or names != found["versions"]:
        console.warn(
            f"the pilot in {folder} was made with other settings or code and is not used; "
            "run it again with --pilot"
        )
        return None
    return Pilot(
        num_combinations=found["num_combinations"],
        has_whole_bank=found["has_whole_bank"],
        versions={stage: versions[stage] for stage in chain_of(recipe)},
        asked=_read_asked(_log_path(folder, recipe, found["num_combinations"])),
    )


def _shrink(recipe: Recipe, count: int, *, whole_bank: bool) -> Recipe:
    """The recipe with fewer combinations, and fewer seeds where the bank must be made first."""
    settings = recipe.settings
    synthesis = settings.synthesis
    seeds = synthesis.seeds
    if not whole_bank:
        seeds = tuple(
            source.model_copy(update={"max_rows": min(count, source.max_rows or count)})
            for source in seeds
        )
    combinations = synthesis.combinations.model_copy(update={"num_combinations": count})
    changed = synthesis.model_copy(
        # A pilot that accepts nothing has found something out.
        update={"combinations": combinations, "seeds": seeds, "min_rows": 0}
    )
    return Recipe(path=recipe.path, settings=settings.model_copy(update={"synthesis": changed}))


def _fingerprint(recipe: Recipe) -> str:
    """What a pilot's figures depend on: everything but how many combinations there are."""
    synthesis = determining(recipe.settings.synthesis)
    synthesis["combinations"].pop("num_combinations")
    synthesis.pop("min_rows")
    teachers = {name: determining(t) for name, t in recipe.settings.teachers.items()}
    # Not part of any version's code, but this module's log is read back by what wrote it.
    code = [code_version("pipeline", "promptcot"), file_sha256(Path(__file__))]
    return content_hash([synthesis, teachers, recipe.settings.seed, code])


def _log_path(folder: Path, recipe: Recipe, count: int) -> Path:
    """A log for each size and settings: stages that are reused are not asked again."""
    return folder / "logs" / f"asked-{_fingerprint(recipe)}-{count}.jsonl"


def _read_asked(log: Path) -> list[Asked]:
    """Every answer once, also where a batch was asked again after a kill."""
    found: dict[tuple[Any, ...], Asked] = {}
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line of a killed pilot may be cut
        key = (entry["stage"], entry["teacher"], entry["prompt"], entry["seed"])
        found[key] = Asked(
            entry["stage"],
            entry["teacher"],
            entry["prompt"],
            entry["prompt_tokens"],
            entry["completion_tokens"],
        )
    return list(found.values())
