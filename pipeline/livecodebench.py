"""LiveCodeBench's files (``livecodebench/code_generation_lite``): tests larger than memory.

A row has a statement, dates and tests; the private ones are packed (base64, zlib, pickle of a JSON
text). Statements are read row by row, and an item's tests stay in the file until they are used:
:class:`StoredCases` unpacks one problem's at a time. The text is read off the pickle's opcodes;
nothing is ever unpickled, so that nothing in a file can run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import pickletools
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from pipeline.benchmark_items import ProgramTests
from pipeline.benchmark_rows import FoundRow, Place, PlacedRow, find_text, get_text, parse_line
from pipeline.errors import SourceError
from pipeline.settings.benchmarks import BenchmarkSettings
from pipeline.store import read_rows

_PRIVATE = "private_test_cases"
_PUBLIC = "public_test_cases"
_TEXT_OPCODES = {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_FRAME_OPCODES = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"}
"""What else the pickle of a text is made of."""
_AS_PUBLISHED = "pass the dataset's files as they were published"


@dataclass(frozen=True, slots=True)
class StoredCases(Sequence[Mapping[str, str]]):
    """Tests that stay in the benchmark's file; every use reads and unpacks them."""

    place: Place
    where: str
    digest: str
    """SHA-256 of the packed tests."""
    is_functional: bool
    most_bytes: int
    """Of the unpacked private tests."""

    def __iter__(self) -> Iterator[Mapping[str, str]]:
        return iter(self._unpack())

    def __len__(self) -> int:
        return len(self._unpack())

    @overload
    def __getitem__(self, position: int) -> Mapping[str, str]: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Mapping[str, str]]: ...
    def __getitem__(self, position: int | slice) -> Mapping[str, str] | Sequence[Mapping[str, str]]:
        return self._unpack()[position]

    def _unpack(self) -> list[dict[str, str]]:
        row = FoundRow(read_at(self.place), self.where, self.place)
        if _digest(row) != self.digest:
            raise SourceError(
                f"{self.where}: its tests are not those that were there before",
                hint="leave the file alone while it is used, and run the same command again",
            )
        return unpack_tests(row, is_functional=self.is_functional, most_bytes=self.most_bytes)


def iterate_stored(
    path: Path, settings: BenchmarkSettings, *, with_tests: bool
) -> Iterator[PlacedRow]:
    """Rows of one file that may lie in the benchmark's window, one in memory at a time.

    Raises:
        SourceError: The file is missing, damaged or packed as a whole.
    """
    if path.suffix == ".parquet":
        columns = None if with_tests else _columns_but_private(path)
        rows = read_rows(path, columns, batch_rows=1)
        for number, row in enumerate(rows):
            yield PlacedRow(row, number + 1, Place(path, number))
        return
    if path.suffix != ".jsonl":
        raise SourceError(
            f"{path}: tests are read from their place in a .jsonl or .parquet file",
            hint="unpack it (gunzip)",
        )
    if not path.is_file():
        raise SourceError(f"file not found: {path}", hint="check the path")
    date = re.compile(rb'"%s"\s*:\s*"(\d{4}-\d\d-\d\d)' % re.escape(settings.date_field.encode()))
    start = 0
    with path.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            # Inside a JSON text its quotes are escaped, so this can only be the key. Most rows of
            # most releases lie outside a window, and parsing megabytes of tests takes long.
            found = date.search(line) if settings.date_field else None
            if line.strip() and (found is None or is_in_window(settings, found[1].decode())):
                yield PlacedRow(parse_line(path, number, line), number, Place(path, start))
            start += len(line)


def is_in_window(settings: BenchmarkSettings, day: str) -> bool:
    """Whether a day (YYYY-MM-DD) lies between the settings' two, both included."""
    first, last = settings.date_from, settings.date_until
    return (not first or day >= first.isoformat()) and (not last or day <= last.isoformat())


def read_at(place: Place) -> dict[str, Any]:
    """The row at a place.

    Raises:
        SourceError: The file is gone or has changed.
    """
    if place.path.suffix == ".parquet":
        return _read_parquet_row(place)
    try:
        with place.path.open("rb") as handle:
            handle.seek(place.start)
            return parse_line(place.path, 0, handle.readline())
    except OSError as exc:
        raise SourceError(
            f"{place.path}: cannot be read any more ({exc.strerror})", hint="put the file back"
        ) from exc


def read_stored_tests(row: FoundRow, settings: BenchmarkSettings) -> ProgramTests:
    """An item's tests, left where they are.

    Raises:
        SourceError: A column is missing or holds something else.
    """
    metadata = _parse_json(row, "metadata", find_text(row, "metadata") or "{}")
    function = metadata.get("func_name") if isinstance(metadata, dict) else None
    public = _check_tests(row, _PUBLIC, _parse_json(row, _PUBLIC, get_text(row, _PUBLIC)))
    kinds = {test["testtype"] for test in public}
    is_functional = "functional" in kinds if kinds else bool(function)
    if is_functional and not (isinstance(function, str) and function):
        raise SourceError(
            f"{row.where}: field 'metadata' names no func_name for its functional tests",
            hint=_AS_PUBLISHED,
        )
    return ProgramTests(
        kind="functional" if is_functional else "stdin",
        cases=StoredCases(
            place=row.place,
            where=row.where,
            digest=_digest(row),
            is_functional=is_functional,
            most_bytes=settings.max_tests_mib << 20,
        ),
        entry_point=str(function) if is_functional else "",
    )


def unpack_tests(row: FoundRow, *, is_functional: bool, most_bytes: int) -> list[dict[str, str]]:
    """Public and private tests of a row, as ``input`` and ``output``.

    Raises:
        SourceError: They are not what LiveCodeBench publishes, or larger than ``most_bytes``.
    """
    public = _parse_json(row, _PUBLIC, get_text(row, _PUBLIC))
    packed = get_text(row, _PRIVATE)
    # A few releases have the plain JSON text.
    is_plain = packed.lstrip().startswith("[")
    text = packed if is_plain else unpack_text(row.where, packed, most_bytes)
    private = _parse_json(row, _PRIVATE, text)
    tests = [*_check_tests(row, _PUBLIC, public), *_check_tests(row, _PRIVATE, private)]
    wanted = "functional" if is_functional else "stdin"
    others = {test["testtype"] for test in tests} - {wanted}
    if others:
        raise SourceError(
            f"{row.where}: tests of kind {', '.join(sorted(others))} among {wanted} ones",
            hint=_AS_PUBLISHED,
        )
    return [{"input": test["input"], "output": test["output"]} for test in tests]


def unpack_text(where: str, packed: str, most_bytes: int) -> str:
    """The text in base64(zlib(pickle(text))).

    Raises:
        SourceError: It is packed otherwise, holds anything but a text, or is larger.
    """
    try:
        unpacker = zlib.decompressobj()
        pickled = unpacker.decompress(base64.b64decode(packed, validate=True), most_bytes)
        is_whole = unpacker.eof
    except (ValueError, zlib.error) as exc:
        raise SourceError(
            f"{where}: field {_PRIVATE!r} cannot be unpacked ({exc})", hint=_AS_PUBLISHED
        ) from exc
    if not is_whole:
        raise SourceError(
            f"{where}: field {_PRIVATE!r} is cut off, or unpacks to more than "
            f"{most_bytes >> 20} MiB",
            hint="raise `max_tests_mib` of the benchmark, or download the file again",
        )
    return _read_pickled_text(where, pickled)


def _read_pickled_text(where: str, pickled: bytes) -> str:
    """The text of a pickle that holds nothing else, read without unpickling: nothing can run."""
    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name in _TEXT_OPCODES:
                texts.append(str(argument))
            elif opcode.name not in _FRAME_OPCODES:
                raise ValueError(f"it has a {opcode.name}")
        (text,) = texts
    except ValueError as exc:
        raise SourceError(
            f"{where}: field {_PRIVATE!r} holds something else than a text ({exc})",
            hint=f"{_AS_PUBLISHED}; do not unpickle this one, it may be an attempt to run code",
        ) from exc
    return text


def _digest(row: FoundRow) -> str:
    """Hash of the packed tests of a row."""
    digest = hashlib.sha256()
    for field in (_PUBLIC, _PRIVATE):
        digest.update(get_text(row, field).encode("utf-8") + b"\0")
    return digest.hexdigest()


def _parse_json(row: FoundRow, field: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise SourceError(
            f"{row.where}: field {field!r} is not valid JSON ({exc})", hint=_AS_PUBLISHED
        ) from exc


def _check_tests(row: FoundRow, field: str, tests: Any) -> list[dict[str, str]]:
    for position, test in enumerate(tests if isinstance(tests, list) else [None]):
        keys = ("input", "output", "testtype")
        if not isinstance(test, dict) or not all(isinstance(test.get(key), str) for key in keys):
            raise SourceError(
                f"{row.where}: {field}[{position}] should hold the texts {', '.join(keys)}",
                hint=_AS_PUBLISHED,
            )
    return list(tests)


def _columns_but_private(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return [name for name in pq.read_schema(path).names if name != _PRIVATE]


def _read_parquet_row(place: Place) -> dict[str, Any]:
    import pyarrow.parquet as pq

    number = place.start
    try:
        with pq.ParquetFile(place.path) as file:
            group = 0
            while number >= file.metadata.row_group(group).num_rows:
                number -= file.metadata.row_group(group).num_rows
                group += 1
            batches = file.iter_batches(
                batch_size=1, row_groups=[group], columns=[_PUBLIC, _PRIVATE]
            )
            for position, batch in enumerate(batches):
                if position == number:
                    return dict(batch.to_pylist()[0])
    except (OSError, ValueError, IndexError) as exc:
        raise SourceError(
            f"{place.path}: cannot be read any more ({exc})", hint="put the file back"
        ) from exc
    raise SourceError(f"{place.path}: has no row {place.start + 1}", hint="put the file back")
