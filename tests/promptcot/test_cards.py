"""The data card of the verified traces: valid on the Hub, true to the manifests, readable."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import synthesis_fixture as fixture
import yaml

from pipeline.manifest import Version, resolve_version
from pipeline.records import VerifiedTrace, arrow_schema
from pipeline.settings.recipe import Recipe
from promptcot.card_columns import COLUMNS
from promptcot.cards import render_card
from promptcot.product_card import render_product_card


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Version]:
    folder = tmp_path_factory.mktemp("card")
    recipe = fixture.write_recipe(folder)
    out = folder / "run"
    card = partial(render_product_card, root=out / "synthesis", settings=recipe.settings)
    return recipe, fixture.build_run(out, card=card)


def header(text: str) -> dict[str, Any]:
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_the_folder_loads_as_a_dataset(
    made: tuple[Recipe, Version], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    rows = datasets.load_dataset(str(made[1].folder), split="train", cache_dir=str(tmp_path))
    assert rows.num_rows == made[1].manifest.rows_out
    trace = VerifiedTrace.model_validate(rows[0])
    assert trace.solution.problem.concepts
    assert len(trace.solution.judgements) == 2


def test_front_matter_is_what_the_hub_reads(made: tuple[Recipe, Version]) -> None:
    found = header((made[1].folder / "README.md").read_text(encoding="utf-8"))
    assert found["license"] == "other"
    assert found["license_name"]
    assert found["size_categories"] == ["n<1K"]
    assert found["configs"][0]["data_files"] == [{"split": "train", "path": "data/*.parquet"}]


def test_a_stated_licence_is_on_the_card(made: tuple[Recipe, Version], tmp_path: Path) -> None:
    recipe = fixture.write_recipe(tmp_path, "synthesis.licence=apache-2.0")
    version = made[1]
    root = version.folder.parents[1]
    text = render_product_card(version.manifest, root=root, settings=recipe.settings)
    assert header(text)["license"] == "apache-2.0"
    assert "license_name" not in header(text)


def test_the_card_tells_how_the_rows_came_to_be(made: tuple[Recipe, Version]) -> None:
    text = (made[1].folder / "README.md").read_text(encoding="utf-8")
    for words in (
        "| Seed problems | 43 | 42 | 1 |",
        "| Distinct problems | 100 | 90 | 10 | near_duplicate 9, benchmark_item 1 |",
        "| default and second | 90 | 76.7% | 0.60 |",
        "| default | 40 | 9 | 40 | 1 |",
        "`Qwen2.5-72B-Instruct`",
        "temperature 0.6",
        "cc-by-4.0 (40)",
        "kept from the verdict “acceptable” upwards",
        "load_dataset",
    ):
        assert words in text, words
    for version in made[1].folder.parents[1].glob("[cdejpsv]*/LATEST"):
        assert version.read_text().strip() in text


def test_every_column_is_explained() -> None:
    assert set(_leaves(arrow_schema(VerifiedTrace))) == set(COLUMNS)


def _leaves(fields: Any, prefix: str = "") -> list[str]:
    names = []
    for entry in fields:
        kind = entry.type
        while pa.types.is_list(kind):
            kind = kind.value_type
        if pa.types.is_struct(kind):
            names += _leaves(
                [kind.field(i) for i in range(kind.num_fields)], f"{prefix}{entry.name}."
            )
        else:
            names.append(prefix + entry.name)
    return names


def test_short_cards_show_a_stages_own_figures(made: tuple[Recipe, Version]) -> None:
    root = made[1].folder.parents[1]
    text = render_card(resolve_version(root / "combinations").manifest)
    assert text.startswith("# Concept combinations\n")
    assert "- domains, math: concepts 40, concepts_used 38, coverage 0.95" in text
    text = render_card(resolve_version(root / "refined-2").manifest)
    assert text.startswith("# Refined triples, round 2\n")
    assert "objective: chosen -128.5, drawn -171" in text
