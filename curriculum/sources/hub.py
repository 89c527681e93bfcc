"""A pinned hub dataset: its files, downloaded one by one and read like local ones.

One process cuts file after file into parts; a file is deleted again once all its rows are stored,
so that the disk holds the few files in work and never the whole dataset. How a file was cut is
remembered, so that finished parts cost no second download. A broken connection goes on where it
ended; a killed process begins its one file again.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from curriculum.sources.parts import SourceFile, SourcePart, StoredFiles, stored_parts
from curriculum.sources.reading import Schema, split_file
from pipeline import console
from pipeline.errors import ConfigError, SourceError
from pipeline.hashing import file_sha256
from pipeline.hub_errors import explain_hub_errors
from pipeline.settings.sources import SourceSettings
from pipeline.store import explain_disk_errors, write_json

_INDEXED = (".parquet", ".jsonl")
"""Files whose parts lie in the file itself, so that it may go and come again."""
_FILES, _PARTS, _CHUNKS, _LISTING = "files", "parts", "chunks", "files.json"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of the dataset, as the hub lists it."""

    name: str
    size: int
    sha256: str | None
    """``None`` where the hub keeps it in git itself, as it does with small files."""


UNPINNED = "unpinned"
"""What bundled recipes say instead of a commit: which one is the user's to choose."""


def _require_pinned(settings: SourceSettings) -> None:
    """Stop before anything is fetched at a revision that nobody chose.

    Raises:
        ConfigError: The recipe's placeholder is still there.
    """
    if settings.revision == UNPINNED:
        raise ConfigError(
            f"source {settings.name}: the recipe leaves the revision of {settings.hub_id} to you",
            hint="take a commit from the dataset's page and pass --set "
            "curriculum.sources.N.revision=COMMIT (N counts from 0), or write it into the recipe",
        )


@dataclass(frozen=True, slots=True)
class HubSource:
    """A dataset at its pinned commit."""

    settings: SourceSettings
    waiting: dict[str, int] = field(default_factory=dict, compare=False)
    """File to rows that are not stored yet; counted by the process that cuts."""

    def parts(
        self, schema: Schema, batch_rows: int, spool: Path, stored: StoredFiles
    ) -> Iterator[SourcePart]:
        """Cut the dataset; a file whose parts are not known yet is downloaded when its turn comes.

        Raises:
            SourceError: Offline, unknown dataset, revision or file, or other columns.
        """
        files = self._list_files(spool)
        for number, entry in enumerate(files, start=1):
            file = SourceFile(entry.name, self.settings.revision or "", spool / _FILES / entry.name)
            if (part_rows := stored.get((file.name, file.revision))) is not None:
                yield from stored_parts(file, part_rows)
                continue
            known = spool / _PARTS / f"{number:05d}-{batch_rows}.json"
            if not known.is_file():
                console.say(
                    f"downloading {entry.name} of {self.settings.hub_id} "
                    f"({number} of {len(files)}, {entry.size / 1e6:,.0f} MB)"
                )
                self._download(entry, spool)
                folder = spool / _CHUNKS / f"{number:05d}-{batch_rows}"
                cut = list(split_file(spool / _FILES / entry.name, schema, batch_rows, folder))
                write_json(known, [_describe(part, spool) for part in cut])
            spans = json.loads(known.read_text(encoding="utf-8"))
            if entry.name.endswith(_INDEXED):
                self.waiting[entry.name] = sum(span["num_rows"] for span in spans)
            for span in spans:
                yield replace(SourcePart(**span), path=spool / span["path"], file=file)

    def ensure(self, part: SourcePart) -> None:
        """Download a part's file again where it is gone.

        Raises:
            SourceError: It cannot be had.
        """
        if part.file is None or part.path.is_file():
            return
        spool = part.file.path.parents[part.file.name.count("/") + 1]
        entry = next(e for e in self._list_files(spool) if e.name == part.file.name)
        self._download(entry, spool)

    def release(self, part: SourcePart) -> None:
        """Note that a part's rows are stored; the file goes with its last part."""
        if part.file is None or part.file.name not in self.waiting:
            return
        self.waiting[part.file.name] -= part.num_rows
        if self.waiting[part.file.name] <= 0:
            part.file.path.unlink(missing_ok=True)

    def _list_files(self, spool: Path) -> list[HubFile]:
        """The dataset's files that the source names, sorted; asked once."""
        _require_pinned(self.settings)
        known = spool / _LISTING
        if known.is_file():
            return [HubFile(**entry) for entry in json.loads(known.read_text(encoding="utf-8"))]
        with self._explained():
            listed = self._ask_hub()
        patterns = hub_patterns(self.settings)
        found = [e for pattern in patterns for e in listed if fnmatchcase(e.name, pattern)]
        found = list(dict.fromkeys(found))
        if not found:
            folders = sorted({entry.name.partition("/")[0] for entry in listed})
            raise SourceError(
                f"{self._place}: no file is named {' or '.join(patterns)}; it has "
                f"{', '.join(folders[:12]) or 'nothing'}",
                hint='name its files in the recipe: hub_files = ["data/*.parquet"]',
            )
        write_json(known, [asdict(entry) for entry in found])
        return found

    def _ask_hub(self) -> list[HubFile]:
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile

        tree = HfApi(endpoint=self.settings.hub_endpoint).list_repo_tree(
            self.settings.hub_id or "",
            recursive=True,
            revision=self.settings.revision,
            repo_type="dataset",
        )
        files = [entry for entry in tree if isinstance(entry, RepoFile)]
        found = [HubFile(f.path, f.size, f.lfs.sha256 if f.lfs else None) for f in files]
        return sorted(found, key=lambda entry: entry.name)

    def _download(self, entry: HubFile, spool: Path) -> None:
        """Fetch one file and hold it to its hash; several processes may ask at once."""
        target = spool / _FILES / entry.name
        with _waiting_lock(spool / f".lock-{entry.name.replace('/', '-')}"):
            if target.is_file():
                return
            with explain_disk_errors(target), self._explained():
                self._fetch(entry, spool / _FILES)
            if entry.sha256 is not None and file_sha256(target) != entry.sha256:
                target.unlink()
                raise SourceError(
                    f"{self._place}: {entry.name} arrived with another hash than the hub states",
                    hint="run the same command again",
                )

    def _fetch(self, entry: HubFile, folder: Path) -> None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
        # It tries several times by itself, and goes on behind the bytes that arrived.
        hf_hub_download(
            self.settings.hub_id or "",
            entry.name,
            repo_type="dataset",
            revision=self.settings.revision,
            local_dir=folder,
            endpoint=self.settings.hub_endpoint,
        )

    @property
    def _place(self) -> str:
        return f"hub dataset {self.settings.hub_id}@{self.settings.revision}"

    def _explained(self) -> AbstractContextManager[None]:
        return explain_hub_errors(
            f"cannot read {self._place}",
            "check the network and the names, or download the files and give them as `paths`",
        )


def hub_patterns(settings: SourceSettings) -> list[str]:
    """Names of the files that make up a source; the default is how ``datasets`` uploads them."""
    if settings.hub_files:
        return list(settings.hub_files)
    if settings.kind == "open_code_reasoning" and not settings.config:
        # Its splits are named like its configs; its files are nevertheless called train.
        return ["split_0/train-*.parquet", "split_1/train-*.parquet"]
    return [f"{settings.config or 'data'}/{settings.split or 'train'}-*.parquet"]


def _describe(part: SourcePart, spool: Path) -> dict[str, Any]:
    """A part without the folder it lies in."""
    values = asdict(part)
    del values["file"]
    return {**values, "path": part.path.relative_to(spool).as_posix()}


@contextmanager
def _waiting_lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
