"""Where a benchmark's files are: a path, a folder of local copies, the hub, or a URL.

What is fetched is pinned: a commit of the hub, or a hash of the file at a URL. Fetched files stay
in the hub's cache, or in the user's (``~/.cache/promptcot-mamba/benchmarks``).
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline import console
from pipeline.errors import ConfigError, GateRefused, SourceError
from pipeline.hub_errors import explain_hub_errors
from pipeline.settings.benchmarks import UNPINNED, BenchmarkSettings
from pipeline.settings.recipe import Recipe
from pipeline.store import atomic_path, cache_folder

FOLDER_VARIABLE = "PROMPTCOT_BENCHMARKS"
"""Environment variable with the folder of local copies, where the recipe names none."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Located:
    """The files of a benchmark, on this machine."""

    files: tuple[Path, ...]
    origin: Literal["path", "folder", "hub", "url"]
    place: str
    """For people: the path, or dataset and commit, or URL."""
    is_statements: bool = False
    """Whether these are the questions alone."""


def locate(recipe: Recipe, settings: BenchmarkSettings, *, questions_only: bool = False) -> Located:
    """Find a benchmark's files, and fetch them if need be.

    Args:
        recipe: Its folder is where relative paths begin.
        settings: Where to look.
        questions_only: A file without answers will do.

    Raises:
        ConfigError: The hub's revision is not pinned.
        SourceError: The file is nowhere, or cannot be fetched.
        GateRefused: The URL has another file than the recipe was written for.
    """
    if settings.path:
        return _at_path(recipe.file(settings.path), settings)
    folder = _folder(recipe)
    if folder is not None and (found := _in_folder(folder, settings, questions_only)) is not None:
        return found
    if questions_only and settings.statements is not None and settings.statements.url:
        statements = settings.statements
        file = _fetch_url(settings, statements.url, statements.sha256)
        return Located((file,), "url", statements.url, is_statements=True)
    if settings.hub_id:
        return _on_hub(settings)
    if settings.url:
        file = _fetch_url(settings, settings.url, settings.sha256 or "")
        return Located((file,), "url", settings.url)
    searched = f"; {folder} has none of {', '.join(_local_names(settings))}" if folder else ""
    raise SourceError(
        f"benchmark {settings.name!r}: the recipe names no file{searched}",
        hint="give its `path`, `hub_id` with `revision`, or `url` with `sha256`",
    )


def file_content_sha256(path: Path) -> str:
    """SHA-256 of a file's content, of what is packed in it where its name ends in ``.gz``.

    Raises:
        SourceError: The file is damaged.
    """
    return _content_sha256(path, is_packed=path.suffix == ".gz")


def _content_sha256(path: Path, *, is_packed: bool) -> str:
    digest = hashlib.sha256()
    try:
        with gzip.open(path, "rb") if is_packed else path.open("rb") as handle:
            while piece := handle.read(1 << 20):
                digest.update(piece)
    except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
        raise SourceError(
            f"{path}: cannot be read ({exc})", hint="download this file again; it is damaged"
        ) from exc
    return digest.hexdigest()


def _at_path(path: Path, settings: BenchmarkSettings) -> Located:
    if path.is_dir() and settings.files:
        files = tuple(path / name for name in settings.files)
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise SourceError(
                f"benchmark {settings.name!r}: {path} has no {', '.join(missing)}",
                hint=f"put {', '.join(settings.files)} there, or correct `path` or `release`",
            )
        return Located(files, "path", str(path))
    if not path.is_file():
        raise SourceError(
            f"benchmark {settings.name!r}: file not found: {path}",
            hint="check its `path` in the recipe (relative to the recipe's folder)",
        )
    return Located((path,), "path", str(path))


def _folder(recipe: Recipe) -> Path | None:
    """The folder of local copies.

    Raises:
        SourceError: One is named and does not exist.
    """
    named = recipe.settings.benchmark_folder
    variable = os.environ.get(FOLDER_VARIABLE, "")
    if not named and not variable:
        return None
    folder = recipe.file(named) if named else Path(variable).expanduser().resolve()
    if not folder.is_dir():
        said = "benchmark_folder" if named else f"environment variable {FOLDER_VARIABLE}"
        raise SourceError(f"{said}: folder not found: {folder}", hint="correct it, or remove it")
    return folder


def _in_folder(folder: Path, settings: BenchmarkSettings, questions_only: bool) -> Located | None:
    if questions_only and settings.statements is not None:
        # They are smaller, and who wants them reads them in many processes.
        for path in (folder / name for name in settings.statements.local_files):
            if path.is_file():
                return Located((path,), "folder", str(path), is_statements=True)
    inside = [folder / settings.name / name for name in settings.files]
    if inside and all(file.is_file() for file in inside):
        return Located(tuple(inside), "folder", str(folder / settings.name))
    for name in _local_names(settings):
        if (folder / name).is_file():
            return Located((folder / name,), "folder", str(folder / name))
    return None


def _local_names(settings: BenchmarkSettings) -> list[str]:
    return [
        *settings.local_files,
        *(f"{settings.name}{suffix}" for suffix in (".jsonl", ".jsonl.gz", ".parquet")),
    ]


def _advise_copy(settings: BenchmarkSettings) -> str:
    """How to do without the network."""
    names = _local_names(settings)[0]
    if settings.files:
        names = f"{settings.name}/ with {', '.join(settings.files)}"
    return f"keep a local copy, {names}, in a folder named by benchmark_folder or {FOLDER_VARIABLE}"


def _on_hub(settings: BenchmarkSettings) -> Located:
    revision = settings.revision
    if not _COMMIT.fullmatch(revision):
        said = f"revision {revision!r} of hub dataset {settings.hub_id} is no commit"
        if revision == UNPINNED:
            said = f"the recipe leaves the revision of hub dataset {settings.hub_id} to you"
        raise ConfigError(
            f"benchmark {settings.name!r}: {said}",
            hint="set `revision` to the 40 digits of a commit of the dataset's page, or "
            f"{_advise_copy(settings)}",
        )
    if not settings.files:
        raise ConfigError(
            f"benchmark {settings.name!r}: no files of hub dataset {settings.hub_id} are named",
            hint='set `hub_files`, e.g. ["test.jsonl"]',
        )
    files = tuple(_fetch_from_hub(settings, name) for name in settings.files)
    return Located(files, "hub", f"{settings.hub_id}@{revision}")


def _fetch_from_hub(settings: BenchmarkSettings, name: str) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    revision = settings.revision
    cached = try_to_load_from_cache(settings.hub_id, name, revision=revision, repo_type="dataset")
    if not isinstance(cached, str):
        console.say(f"downloading {name} of {settings.hub_id}@{settings.revision[:12]}")
    what = f"cannot fetch {name} of hub dataset {settings.hub_id}@{settings.revision}"
    hint = f"check the network and the names, or {_advise_copy(settings)}"
    with explain_hub_errors(f"benchmark {settings.name!r}: {what}", hint):
        return Path(
            hf_hub_download(
                settings.hub_id,
                name,
                repo_type="dataset",
                revision=revision,
                endpoint=settings.hub_endpoint,
            )
        )


def _fetch_url(settings: BenchmarkSettings, url: str, sha256: str) -> Path:
    """The file of a URL, from the cache once it was fetched; another content is refused."""
    target = cache_folder() / "benchmarks" / sha256 / url.rpartition("/")[2].partition("?")[0]
    if target.is_file():
        return target
    console.say(f"downloading {url}")
    with atomic_path(target) as temporary:
        _download(settings, url, temporary)
        found = _content_sha256(temporary, is_packed=target.suffix == ".gz")
        if found != sha256:
            raise GateRefused(
                f"benchmark {settings.name!r}: {url} has sha256 {found}, "
                f"the recipe expects {sha256}",
                hint="restore the original file, or correct `sha256` if you meant to change it",
            )
    return target


def _download(settings: BenchmarkSettings, url: str, target: Path) -> None:
    import httpx

    try:
        with (
            httpx.stream(
                "GET",
                url,
                # No packing for the way, so that a .gz stays one and all else arrives plain.
                headers={"Accept-Encoding": "identity"},
                follow_redirects=True,
                timeout=_TIMEOUT_S,
            ) as response,
            target.open("wb") as handle,
        ):
            response.raise_for_status()
            for piece in response.iter_raw():
                handle.write(piece)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise SourceError(
            f"benchmark {settings.name!r}: cannot fetch {url}: {exc or type(exc).__name__}",
            hint=f"check the network, or {_advise_copy(settings)}",
        ) from exc
