"""Content hashes and derived seeds: the same content gives the same names and draws everywhere."""

from __future__ import annotations

import hashlib
import json
import random
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.presentation import PRESENTATION

VERSION_LENGTH = 16
"""Hex digits of a version's or stage's name: 64 bits."""


def canonical_json(value: Any) -> str:
    """Serialise so that equal content gives equal text: sorted keys, no spaces, UTF-8 kept."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_hash(value: Any, length: int = VERSION_LENGTH) -> str:
    """SHA-256 of a JSON-serialisable value, shortened to ``length`` hex digits."""
    return hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()[:length]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read piece by piece."""
    with path.open("rb", buffering=0) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def derive_seed(root_seed: int, *parts: str) -> int:
    """A 31-bit seed for one row of one stage; independent of order and parallelism."""
    text = "\x1f".join([str(root_seed), *parts])
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:4], "big") >> 1


def derive_random(root_seed: int, *parts: str) -> random.Random:
    """A generator seeded by :func:`derive_seed`."""
    return random.Random(derive_seed(root_seed, *parts))


@cache
def code_version(*packages: str) -> str:
    """Package version plus a hash of the named packages' source files.

    The hash covers every ``.py``, ``.json``, prompt and template file, so that changed code never
    reuses an artifact that the old code made. Tests, documentation and what is listed as
    presentation do not count.
    """
    digest = hashlib.sha256()
    for package in sorted(packages):
        root = Path(next(iter(import_module(package).__path__)))
        for path in code_files(package, root):
            digest.update(f"{package}/{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return f"{PACKAGE_VERSION}+{digest.hexdigest()[:12]}"


def code_files(package: str, root: Path) -> list[Path]:
    """The files of a package (whose folder is ``root``) that can change what it makes, sorted."""
    folder = package.replace(".", "/")
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix in {".py", ".md", ".j2", ".json"}
        and path.is_file()
        and f"{folder}/{path.relative_to(root).as_posix()}" not in PRESENTATION
    )


PACKAGE_VERSION = "0.1.0"
"""Kept equal to ``pyproject.toml`` by a test."""
