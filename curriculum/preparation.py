"""What a source's preparation is made from, and the names that follow from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curriculum.sources.catalog import OpenedSource
from pipeline.benchmarks import benchmark_inputs
from pipeline.hashing import code_version, content_hash
from pipeline.manifest import InputRef
from pipeline.settings.base import determining
from pipeline.student import TOKENIZER_SHA256

PACKAGES = ("pipeline", "curriculum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """One source to prepare, and the name that follows from what determines the result."""

    source: OpenedSource
    root: Path
    """Folder of all prepared sources."""
    inputs: tuple[InputRef, ...]
    settings: dict[str, Any]
    basis: str
    """Hash of what determines a part besides its file."""
    version: str

    @property
    def folder(self) -> Path:
        """Where the result lives."""
        return self.root / self.source.name / self.version

    @property
    def staging(self) -> Path:
        """Where finished parts wait for the others."""
        return self.root / self.source.name / f".staging-{self.version}"

    @property
    def spool(self) -> Path:
        """What must be unpacked or downloaded before it can be read in parts."""
        return self.root / self.source.name / f".spool-{self.version}"


def plan_preparation(source: OpenedSource, out: Path) -> Preparation:
    """Name a source's preparation.

    Raises:
        SourceError: A benchmark's file is missing.
        GateRefused: A benchmark's file is not what the recipe was written for.
    """
    recipe = source.recipe
    curriculum = determining(recipe.settings.curriculum)
    # What a teacher says of prepared rows is a stage of its own.
    curriculum["decontamination"].pop("semantic")
    settings = {
        "source": determining(source.settings),
        **{name: curriculum[name] for name in ("validation", "decontamination", "batch_rows")},
        "benchmarks": [determining(entry) for entry in recipe.settings.benchmarks],
        "tokenizer": TOKENIZER_SHA256,
    }
    inputs = (*source.inputs, *benchmark_inputs(recipe))
    joined = [ref for ref in source.inputs if ref.name.startswith(f"{source.name}:questions:")]
    own = {k: v for k, v in settings["source"].items() if k not in ("revision", "hub_files")}
    return Preparation(
        source=source,
        root=out / "prepared",
        inputs=inputs,
        settings=settings,
        basis=_name({**settings, "source": own}, (*joined, *benchmark_inputs(recipe))),
        version=_name(settings, inputs),
    )


def _name(settings: dict[str, Any], inputs: Iterable[InputRef]) -> str:
    return content_hash(
        {
            "stage": "prepared",
            "settings": settings,
            "inputs": [ref.model_dump() for ref in inputs],
            "code": code_version(*PACKAGES),
        }
    )


def use_lock(out: Path) -> Path:
    """The lock that builds share from before they look for preparations until they published."""
    return out / "prepared" / ".lock-use"
