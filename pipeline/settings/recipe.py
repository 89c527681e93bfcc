"""Load a recipe: file, then ``--set`` overrides, then validation with errors one can act on."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

import pipeline
from pipeline import redaction
from pipeline.errors import ConfigError
from pipeline.settings.ablations import AblationSettings
from pipeline.settings.addresses import SECRET, VariableName
from pipeline.settings.base import Settings, execution_only
from pipeline.settings.benchmarks import BenchmarkSettings
from pipeline.settings.curriculum import CurriculumSettings
from pipeline.settings.evaluation import EvaluationSettings
from pipeline.settings.events import EventSettings
from pipeline.settings.execution import ExecutionSettings
from pipeline.settings.synthesis import SynthesisSettings
from pipeline.settings.teacher import TeacherSettings
from pipeline.settings.throughput import ThroughputSettings
from pipeline.settings.training import ModelSettings, TrainingSettings

RECIPES = Path(pipeline.__path__[0]).parent / "recipes"
"""The bundled recipes."""


class RecipeSettings(Settings):
    """All of a recipe file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    description: str = ""
    seed: int = Field(20250522, ge=0)
    """Root of every derived seed."""
    teachers: dict[str, TeacherSettings] = Field(
        default_factory=lambda: {"default": TeacherSettings()}
    )
    synthesis: SynthesisSettings = SynthesisSettings()
    benchmarks: tuple[BenchmarkSettings, ...] = ()
    benchmark_folder: str = execution_only("")
    """Folder of local copies of benchmarks, relative to the recipe; empty: the environment
    variable ``PROMPTCOT_BENCHMARKS``, and without it benchmarks are fetched."""
    curriculum: CurriculumSettings = CurriculumSettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    throughput: ThroughputSettings = ThroughputSettings()
    ablations: AblationSettings = AblationSettings()
    execution: ExecutionSettings = ExecutionSettings()
    events: EventSettings = EventSettings()
    secret_blocks: dict[VariableName, str] = execution_only({})
    """Flows only: environment variable → name of the Prefect Secret block that holds its value,
    e.g. ``{ PROMPTCOT_API_KEY = "teacher-key" }``. A variable that is set already wins."""

    @property
    def key_variables(self) -> frozenset[str]:
        """Environment variables that hold keys of teachers and other models behind servers."""
        synthesis = self.synthesis
        named = [teacher.api_key_env for teacher in self.teachers.values()]
        named += [synthesis.combinations.encoder.api_key_env]
        named += [synthesis.refinement.scorer.api_key_env]
        return frozenset(named)

    @model_validator(mode="after")
    def _known_data(self) -> RecipeSettings:
        self.ablations.check(self.curriculum)
        return self

    @model_validator(mode="after")
    def _known_teachers(self) -> RecipeSettings:
        synthesis = self.synthesis
        stages = (synthesis.concepts, synthesis.triples, synthesis.problems, synthesis.solutions)
        used = [stage.teacher for stage in (*stages, synthesis.refinement)]
        used += [judge.teacher for judge in synthesis.judging.judges]
        used += [] if self.evaluation.is_local else [self.evaluation.engine]
        for name in used:
            if name not in self.teachers:
                raise ValueError(f"teacher {name!r} is not among {sorted(self.teachers)}")
        return self


@dataclass(frozen=True, slots=True)
class Recipe:
    """A validated recipe and where it came from."""

    path: Path
    settings: RecipeSettings

    @property
    def name(self) -> str:
        """The recipe's name, also of its default output folder."""
        return self.settings.name

    @property
    def is_bundled(self) -> bool:
        """Whether commands take it by its file's name without the suffix."""
        return self.path.resolve().parent == RECIPES.resolve()

    def file(self, relative: str) -> Path:
        """A path written in the recipe: absolute, or relative to the recipe's folder."""
        return (self.path.parent / relative).resolve()

    def out(self, chosen: Path | None) -> Path:
        """The output folder: the user's choice or ``runs/<name>``."""
        return chosen if chosen is not None else Path("runs") / self.name


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override and validate a recipe.

    Args:
        name_or_path: A file of ``recipes/`` without its suffix, or a path to a TOML file.
        overrides: ``section.key=value`` texts; values are TOML, bare words are strings.

    Raises:
        ConfigError: Unknown recipe or key, malformed TOML or override, or an invalid value.
    """
    path = _find(name_or_path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"recipe {path}: not valid TOML: {exc}", hint="fix that line") from exc
    for override in overrides:
        _override(values, override)
    try:
        settings = RecipeSettings.model_validate(values)
    except ValidationError as exc:
        problem = _explain(path, exc)
    else:
        redaction.declare(settings.key_variables)
        return Recipe(path=path, settings=settings)
    # Not `from exc`: pydantic's own words quote the value, which may be a key.
    raise problem


def _find(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix == ".toml" or "/" in name_or_path:
        if not path.is_file():
            raise ConfigError(f"recipe file not found: {path}", hint="check the path")
        return path
    bundled = RECIPES / f"{name_or_path}.toml"
    if not bundled.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise ConfigError(
            f"no recipe named {name_or_path!r}", hint=f"use one of {known}, or a path to a .toml"
        )
    return bundled


def _override(values: dict[str, Any], override: str) -> None:
    """Apply one ``a.b.c=value``; a number in the path indexes a list."""
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {override!r} has no '='", hint="write --set section.key=value")
    target: Any = values
    *parents, last = key.strip().split(".")
    try:
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target.setdefault(part, {})
        target[int(last) if isinstance(target, list) else last] = _parse_value(text.strip())
    except (AttributeError, TypeError, ValueError, IndexError) as exc:
        raise ConfigError(
            f"--set {override!r}: {key!r} does not lead to a value",
            hint="see the recipe for the names of sections and keys",
        ) from exc


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(path: Path, error: ValidationError) -> ConfigError:
    """One message for the first problem, with the nearest known key for a misspelt one."""
    first = error.errors(include_url=False)[0]
    location = ".".join(str(part) for part in first["loc"]) or "recipe"
    more = error.error_count() - 1
    tail = f" (and {more} more)" if more else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"][:-1])
        close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
        if redaction.is_secret_name(str(first["loc"][-1])):
            hint = (
                "no key stands in a recipe: put it into the environment variable that api_key_env "
                "names (PROMPTCOT_API_KEY), or into a Prefect block (secret_blocks)"
            )
        return ConfigError(f"recipe {path}: unknown key {location!r}{tail}", hint=hint)
    message = first["msg"].removeprefix("Value error, ")
    is_shown = first["type"] != SECRET and not isinstance(first["input"], dict)
    got = f", got {first['input']!r}" if is_shown else ""
    return ConfigError(
        f"recipe {path}: {location}: {message}{got}{tail}", hint="correct this value"
    )


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Field names of the model at a place in the recipe."""
    annotation: Any = RecipeSettings
    for part in location:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            annotation = annotation.model_fields[str(part)].annotation
        else:
            annotation = get_args(annotation)[-1 if isinstance(part, str) else 0]
        # A section that may be absent.
        if NoneType in (parts := get_args(annotation)):
            annotation = parts[0]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return sorted(annotation.model_fields)
    return []
