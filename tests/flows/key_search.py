"""Look for a key in everything that a run wrote: any twelve characters of it, packed or not."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa

FRAGMENT = 12
"""Characters: half a key is a find as well."""
_ZLIB = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd")
_DEPTH = 2
_LARGEST = 64 << 20


def key_pattern(key: str) -> re.Pattern[bytes]:
    """Matches each fragment of a key as text, in an address, in JSON and in base64."""
    spellings = {key, quote(key, safe=""), json.dumps(key)[1:-1].replace("/", "\\/")}
    for shift in range(3):
        encoded = base64.b64encode(b" " * shift + key.encode()).decode().rstrip("=")
        # The characters at both ends depend on the neighbours.
        spellings.add(encoded[2 if shift else 0 : -2])
    fragments = {s[i : i + FRAGMENT] for s in spellings for i in range(len(s) - FRAGMENT + 1)}
    return re.compile(b"|".join(re.escape(f.encode()) for f in sorted(fragments)))


def layers(content: bytes, depth: int = _DEPTH) -> Iterator[bytes]:
    """The bytes, and what any gzip, zlib or zstd stream within unpacks to.

    So Parquet's pages, SQLite's packed texts and files of single frames need no reader of their
    own.
    """
    yield content
    if not depth:
        return
    for match in _ZLIB.finditer(content):
        try:
            unpacked = zlib.decompressobj(47).decompress(content[match.start() :], _LARGEST)
        except zlib.error:
            continue
        yield from layers(unpacked, depth - 1)
    for match in _ZSTD.finditer(content):
        pieces = []
        try:
            stream = pa.CompressedInputStream(pa.BufferReader(content[match.start() :]), "zstd")
            while piece := stream.read(1 << 16):
                pieces.append(piece)
        except OSError:
            pass  # what follows the frame
        yield from layers(b"".join(pieces), depth - 1)


def find_key(key: str, *places: Path) -> list[str]:
    """Files below folders (and files) that hold the key or a part of it, in content or name."""
    pattern = key_pattern(key)
    files = [f for place in places for f in (place.rglob("*") if place.is_dir() else [place])]
    found = []
    for path in sorted(files):
        if pattern.search(str(path).encode()):
            found.append(f"name of {path}")
        elif path.is_file() and any(map(pattern.search, layers(path.read_bytes()))):
            found.append(str(path))
    return found
