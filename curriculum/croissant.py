"""The Croissant description of a phase version: files with hashes, and every column.

Croissant 1.0, which all its readers know; ``mlcroissant`` validates it and reads rows by it. Inside
structs, fields are found by JSON paths, the form that its readers understand.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.manifest import Manifest
from pipeline.records import TrainingRow, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = "application/x-parquet"
"""The name that Croissant's readers know; they refuse the registered one."""
PAPER = "https://arxiv.org/abs/2505.22425"
_TYPES = {"string": "sc:Text", "int64": "sc:Integer", "double": "sc:Float", "bool": "sc:Boolean"}


def make_croissant(manifest: Manifest) -> dict[str, Any]:
    """Croissant JSON-LD of a version."""
    phase = manifest.extra["phase"]
    variant = manifest.extra.get("variant")
    name = f"phase {phase}" + (f", variant {variant}" if variant else "")
    files = {
        "@type": "cr:FileSet",
        "@id": "shards",
        "name": "shards",
        "encodingFormat": PARQUET,
        "includes": "data/*.parquet",
    }
    fields = [_describe_field(f"rows/{column.name}", column) for column in _schema()]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "-".join(["promptcot-mamba-phase", phase, *([variant] if variant else [])]),
        "description": f"{manifest.rows_out} reasoning rows of the PromptCoT-Mamba curriculum, "
        f"{name}, version {manifest.version}.",
        "version": f"1.0.0+{manifest.version}",
        "license": sorted(manifest.licences),
        "url": PAPER,
        "citeAs": f"PromptCoT-Mamba, {PAPER}",
        "isLiveDataset": False,
        "distribution": [*map(_describe_shard, manifest.shards), files],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "rows", "name": "rows", "field": fields}],
    }


def _describe_shard(shard: Any) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": shard.path,
        "name": Path(shard.path).name,
        "contentUrl": shard.path,
        "contentSize": f"{shard.bytes} B",
        "encodingFormat": PARQUET,
        "sha256": shard.sha256,
    }


def _schema() -> pa.Schema:
    return arrow_schema(TrainingRow)


def _describe_field(name: str, column: pa.Field) -> dict[str, Any]:
    """A column: flat, a list of messages, or a struct."""
    import pyarrow as pa

    kind = column.type
    is_list = pa.types.is_list(kind)
    inner = kind.value_type if is_list else kind
    field: dict[str, Any] = {"@type": "cr:Field", "@id": name, "name": name}
    if is_list:
        field["repeated"] = True
    if pa.types.is_struct(inner):
        parts = [inner.field(n) for n in range(inner.num_fields)]
        field["subField"] = [_describe_part(name, column.name, part) for part in parts]
    else:
        field["dataType"] = _TYPES[str(inner)]
        field["source"] = _source(column.name)
    return field


def _describe_part(parent: str, column: str, part: pa.Field) -> dict[str, Any]:
    import pyarrow as pa

    inner = part.type.value_type if pa.types.is_list(part.type) else part.type
    name = f"{parent}/{part.name}"
    return {
        "@type": "cr:Field",
        "@id": name,
        "name": name,
        "dataType": _TYPES[str(inner)],
        **({"repeated": True} if pa.types.is_list(part.type) else {}),
        "source": {**_source(column), "transform": {"jsonPath": part.name}},
    }


def _source(column: str) -> dict[str, Any]:
    return {"fileSet": {"@id": "shards"}, "extract": {"column": column}}


_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
