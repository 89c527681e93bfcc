"""The deployment files say what the catalog says, and the form says what the recipe's settings say."""

from __future__ import annotations

import ast
import importlib
import inspect
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from flows import forms
from flows.catalog import CATALOG, CatalogEntry
from flows.forms import Switch, list_overrides, sections
from flows.manifests import make_files
from flows.parameters import list_tags, read_request, run_label
from pipeline.errors import ConfigError
from pipeline.settings.recipe import RECIPES, RecipeSettings, load_recipe

ROOT = RECIPES.parent
CONFIGS = [
    forms.SynthesisConfig,
    forms.RefinementConfig,
    forms.CurriculumConfig,
    forms.TrainingConfig,
    forms.EvaluationConfig,
    forms.WholeLoopConfig,
]
COMMON: dict[str, Any] = {"recipe": "demo", "out": "", "overrides": (), "dry_run": False}
names = [entry.name for entry in CATALOG]


def load_flow(entry: CatalogEntry) -> Any:
    return getattr(importlib.import_module(f"flows.{entry.function}"), entry.function)


def defaults_of(entry: CatalogEntry) -> dict[str, Any]:
    parameters = inspect.signature(load_flow(entry).fn).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


@pytest.mark.parametrize("name", [str(name) for name in make_files()])
def test_the_committed_files_are_those_of_the_catalog(name: str) -> None:
    written = (ROOT / name).read_text(encoding="utf-8")
    assert written == make_files()[Path(name)], "run: python -m flows.deployments --write"


@pytest.mark.parametrize("entry", CATALOG, ids=names)
def test_the_flow_is_where_and_what_the_catalog_says(entry: CatalogEntry) -> None:
    flow, defaults = load_flow(entry), defaults_of(entry)
    assert flow.name == entry.name
    path, _, function = entry.entrypoint.partition(":")
    assert (ROOT / path).is_file() and function == entry.function
    for knob in entry.knobs:
        assert defaults[knob] == forms.UNTURNED[knob]
    # A run as the recipe says changes nothing in it.
    assert read_request(entry.name, defaults).overrides == ()


@pytest.mark.parametrize("entry", CATALOG, ids=names)
def test_the_form_can_be_filled_without_json(entry: CatalogEntry) -> None:
    schema = load_flow(entry).parameters.model_dump()
    models = {"": schema, **schema["definitions"]}
    for where, model in models.items():
        for name, field in model["properties"].items():
            place = f"{where}.{name}"
            part = schema["definitions"].get(field.get("$ref", "").rpartition("/")[2], {})
            assert field.get("description") or part.get("description"), f"{place} has no help"
            assert "anyOf" not in field and "oneOf" not in field, f"{place} is a choice of types"
            assert "$ref" in field or field["type"] != "object", f"{place} is a box for JSON"
        if where:
            assert model["additionalProperties"] is False


@pytest.mark.parametrize("entry", CATALOG, ids=names)
def test_the_form_names_the_recipes_there_are(entry: CatalogEntry) -> None:
    told = load_flow(entry).parameters.properties["recipe"]["description"]
    assert [p.stem for p in RECIPES.glob("*.toml") if p.stem not in told] == []


def setting_at(place: str) -> Any:
    """The model at a place of the recipe, whatever the name of a teacher or phase."""
    model: Any = RecipeSettings
    for part in place.split("."):
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[part].annotation
        else:
            model = get_args(model)[1]
    return model


def form_fields() -> Iterator[tuple[str, Any, type[BaseModel]]]:
    for config in CONFIGS:
        for section, prefix in sections(config):
            model = setting_at(prefix.format(phase="1", teacher="default"))
            part = config.model_fields[section].annotation
            assert part is not None
            for name in part.model_fields:
                yield f"{prefix}.{name}", part, model


def plain(schema: dict[str, Any]) -> dict[str, Any]:
    told = ("title", "description", "default", "execution_only")
    return {key: value for key, value in schema.items() if key not in told}


@pytest.mark.parametrize(("place", "part", "model"), list(form_fields()), ids=lambda x: str(x)[:60])
def test_a_field_of_the_form_takes_what_the_setting_takes(
    place: str, part: Any, model: type[BaseModel]
) -> None:
    name = place.rpartition(".")[2]
    ours = part.model_json_schema()["properties"][name]
    if set(get_args(part.model_fields[name].annotation)) == {Switch, types.NoneType}:
        ours = {"type": "boolean"}
    assert plain(ours) == plain(model.model_json_schema()["properties"][name])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_unknown_keys_are_refused(config: type[forms.Config]) -> None:
    section, _ = next(iter(sections(config)))
    for typo in ({"typo": 1}, {section: {"typo": 1}}):
        with pytest.raises(ValidationError, match="Extra inputs"):
            config.model_validate(typo)


def request(flow: str, **given: Any) -> Any:
    entry = next(entry for entry in CATALOG if entry.name == flow)
    return read_request(flow, {**defaults_of(entry), **given})


def test_a_filled_form_is_the_same_recipe_as_set() -> None:
    config = forms.WholeLoopConfig.model_validate(
        {
            "teacher": {"engine": "http", "model": 'a "b"', "base_urls": ["http://x/v1"]},
            "combinations": {"math_share": 0.5},
            "solutions": {"samples_per_problem": 4, "temperature": 1e-7},
            "verification": {"keep_unverified": "off"},
            "rows": {"deduplicate": "on"},
            "execution": {"ray_address": "auto"},
            "training": {"packing": "off", "documents_per_step": 4},
        }
    )
    settings = request("reproduce", config=config, seed=0, rows=12).load().settings
    teacher = settings.teachers["default"]
    assert (teacher.engine, teacher.model, teacher.base_urls) == ("http", 'a "b"', ("http://x/v1",))
    assert settings.synthesis.solutions.temperature == 1e-7
    assert settings.synthesis.verification.keep_unverified is False
    # A text that looks like something else stays a text.
    assert settings.execution.ray_address == "auto"
    assert settings.training.packing == "off"
    assert (settings.seed, settings.training.seed, settings.evaluation.seed) == (0, 0, 0)
    texts = [
        *("teachers.default.engine=http", 'teachers.default.model="a \\"b\\""'),
        'teachers.default.base_urls=["http://x/v1"]',
        *("synthesis.combinations.math_share=0.5", "synthesis.solutions.samples_per_problem=4"),
        "synthesis.solutions.temperature=1e-7",
        "synthesis.verification.keep_unverified=false",
        *("curriculum.deduplicate=true", 'execution.ray_address="auto"'),
        *('training.packing="off"', "training.documents_per_step=4"),
        *("seed=0", "training.seed=0", "evaluation.seed=0"),
        "synthesis.combinations.num_combinations=12",
    ]
    assert load_recipe("demo", texts).settings == settings


def test_overrides_win_over_knobs_and_knobs_over_the_form() -> None:
    config = forms.SynthesisConfig.model_validate({"combinations": {"math_share": 0.5, "size": 3}})
    given = {"config": config, "domain": "code", "rows": 7}
    synthesis = request("synth-promptcot", **given).load().settings.synthesis
    assert (synthesis.domains, synthesis.combinations.math_share) == (("code",), 0.0)
    assert (synthesis.combinations.size, synthesis.combinations.num_combinations) == (3, 7)
    wins = ["synthesis.combinations.num_combinations=9"]
    again = request("synth-promptcot", **given, overrides=wins).load()
    assert again.settings.synthesis.combinations.num_combinations == 9


def test_the_sections_of_a_phase_and_of_a_teacher_go_where_they_belong() -> None:
    training = forms.TrainingConfig.model_validate({"phase": {"epochs": 9}})
    phases = request("train-sft", phase=2, config=training).load().settings.training.phases
    assert (phases["1"].epochs, phases["2"].epochs) == (3, 9)
    synthesis = forms.SynthesisConfig.model_validate({"teacher": {"timeout_s": 5}})
    found = list_overrides(synthesis, phase="1", teacher="writer")
    assert found == ["teachers.writer.timeout_s=5.0"]


def test_settings_of_a_teacher_that_nobody_asks_are_refused() -> None:
    config = forms.SynthesisConfig.model_validate({"teacher": {"timeout_s": 5}})
    with pytest.raises(ConfigError, match="'writer'") as refused:
        request("synth-promptcot", teacher="writer", config=config).load()
    assert "default" in refused.value.hint


@pytest.mark.parametrize(
    ("flow", "given", "suffix", "label", "tags"),
    [
        ("synth-promptcot", {}, "96x3", "demo-96x3", ["recipe:demo", "domain:math", "domain:code"]),
        (
            "synth-promptcot",
            {"domain": "math", "seed": 7, "rows": 4, "overrides": ["synthesis.batch_size=8"]},
            "4x3",
            "demo-math-4x3-seed7+1",
            ["recipe:demo", "domain:math"],
        ),
        (
            "build-curriculum",
            {"phase": 2, "domain": "code", "dry_run": True},
            "data-2",
            "demo-code-data-2-plan",
            ["recipe:demo", "domain:code", "dry-run"],
        ),
        ("train-sft", {"phase": 1}, "sft-1", "demo-sft-1", ["recipe:demo"]),
    ],
)
def test_name_and_tags_say_what_runs(
    flow: str, given: dict[str, Any], suffix: str, label: str, tags: list[str]
) -> None:
    found = request(flow, **given)
    assert run_label(found, suffix) == label
    assert list_tags(found, found.load()) == tags


def test_files_with_flows_or_tasks_have_no_postponed_annotations() -> None:
    """Prefect's serve would fail on their pydantic parameters: "… is not fully defined"."""
    found = []
    for path in sorted((ROOT / "flows").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        marked = {d for node in imports if node.module == "prefect" for d in node.names}
        if {alias.name for alias in marked} & {"flow", "task"}:
            found.append(path.name)
            assert not any(node.module == "__future__" for node in imports), path.name
    assert len(found) > len(CATALOG)
