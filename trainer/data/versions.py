"""Find a phase's dataset version and check that it is what its manifest says."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ManifestMismatch, SourceError
from pipeline.manifest import LATEST, MANIFEST, Version, load_version, resolve_version
from pipeline.manifest import verify_version as verify_shards
from pipeline.student import TOKENIZER_SHA256, VOCAB_SIZE
from trainer.data.encoding import COLUMNS


def open_dataset(out: Path, phase: str, dataset: Path | None) -> Version:
    """The phase's newest dataset version, or the one the user named, checked against its manifest.

    Args:
        out: The run folder.
        phase: ``1`` or ``2``.
        dataset: A version's folder, a folder of versions (its newest is taken), or ``latest``.

    Raises:
        SourceError: Not built yet, an empty shard, or another tokenizer than this one.
        ManifestMismatch: A shard is missing or differs from its manifest.
    """
    version = _find(out, phase, dataset)
    verify_shards(version)
    check_contents(version)
    return version


def is_built(out: Path, phase: str) -> bool:
    """Whether the run folder has a dataset version of the phase."""
    return (_versions(out, phase) / LATEST).is_file()


def _versions(out: Path, phase: str) -> Path:
    return out / "datasets" / f"phase-{phase}"


def _find(out: Path, phase: str, dataset: Path | None) -> Version:
    if dataset is not None and dataset != Path("latest"):
        is_root = (dataset / LATEST).is_file() and not (dataset / MANIFEST).is_file()
        return resolve_version(dataset) if is_root else load_version(dataset)
    try:
        return resolve_version(_versions(out, phase))
    except SourceError as exc:
        raise SourceError(
            f"no dataset of phase {phase}: {exc}",
            hint=f"run `python -m curriculum.build --phase {phase}` with the same --recipe and "
            "--out first, or pass --dataset",
        ) from exc


def check_contents(version: Version) -> None:
    """Hold what can be told from manifest and file footers against what training needs.

    Raises:
        SourceError: An empty shard, one of another schema, or counts made with another tokenizer.
        ManifestMismatch: A shard holds another number of rows than its manifest says.
    """
    told = version.manifest.extra.get("tokenizer")
    if told is not None and told != TOKENIZER_SHA256:
        raise SourceError(
            f"dataset {version.folder} was built for another tokenizer (sha256 {str(told)[:12]}…) "
            f"than the student's ({TOKENIZER_SHA256[:12]}…, {VOCAB_SIZE:,} pieces)",
            hint="build the dataset again with curriculum.build of this version of the project",
        )
    for shard in version.manifest.shards:
        path = version.folder / shard.path
        found = _read_footer(path)
        if found != shard.rows:
            raise ManifestMismatch(
                f"{path} holds {found} rows, its manifest says {shard.rows}",
                hint=f"delete {version.folder} and build it again",
            )
        if found == 0:
            raise SourceError(
                f"{path} holds no rows",
                hint=f"delete {version.folder} and build it again; a finished build has no empty "
                "shard",
            )


def _read_footer(path: Path) -> int:
    """Number of rows of a shard that has the columns of training.

    Raises:
        SourceError: It has not, or it is not Parquet.
    """
    try:
        with pq.ParquetFile(path) as file:
            names, num_rows = file.schema_arrow.names, file.metadata.num_rows
    except (pa.ArrowInvalid, pa.ArrowIOError) as exc:
        raise SourceError(
            f"{path}: not a readable Parquet file ({str(exc).splitlines()[0]})",
            hint="build the dataset with curriculum.build",
        ) from exc
    missing = sorted(set(COLUMNS) - set(names))
    if missing:
        raise SourceError(
            f"{path}: missing column(s) {', '.join(missing)}; it has {', '.join(names)}",
            hint="build the dataset with curriculum.build",
        )
    return int(num_rows)
