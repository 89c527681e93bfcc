"""Scores of triples: equal to the model's own loss, stored once, the same in any company."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from tiny_scorer import build_tiny_scorer

from pipeline.errors import ConfigError, SourceError
from pipeline.settings.recipe import Recipe, load_recipe
from pipeline.settings.refinement import ScorerSettings
from promptcot.scoring import Score, ScoreBook, open_scorer
from promptcot.triple_text import TripleText, join_triple, triple_completion, triple_prompt

CONCEPTS = ["modular arithmetic", "Fermat's little theorem"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_scorer(tmp_path_factory.mktemp("scorer"))


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("demo", ())


def triple(rationale: str, problem: str = "What is the rest of 7^222 divided by 10?") -> TripleText:
    return join_triple(CONCEPTS, "AIME", "math", rationale=rationale, problem=problem)


def score(recipe: Recipe, model: Path, out: Path, texts: list[TripleText]) -> list[Score | None]:
    settings = ScorerSettings(model=str(model), batch_tokens=512)
    with ScoreBook(open_scorer(settings, recipe), out) as book:
        return book.score_all(texts)


def test_a_text_is_prompt_and_completion_of_the_training_row() -> None:
    joined = triple("Powers repeat.")
    prompt = triple_prompt(CONCEPTS, "AIME", "math")
    assert joined.text == prompt + triple_completion(
        "Powers repeat.", "What is the rest of 7^222 divided by 10?"
    )
    assert joined.text[: joined.rationale_at] == prompt
    assert joined.text[joined.problem_at :].startswith("<!-- BEGIN PROBLEM -->")


def test_a_prompts_tokens_are_a_prefix_of_the_training_texts(model: Path) -> None:
    """GPT-2's way of cutting white space joins two line breaks only where nothing follows."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    joined = triple("Powers repeat.")
    prompt = tokenizer(joined.text[: joined.rationale_at])["input_ids"]
    assert tokenizer(joined.text)["input_ids"][: len(prompt)] == prompt


def test_sum_equals_the_models_own_loss(recipe: Recipe, model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    wanted = triple("Powers of 7 repeat with the period four – modulo ten, as Fermat's idea shows.")
    found = score(recipe, model, tmp_path, [triple("Short."), wanted, triple("x" * 90)])[1]
    assert found is not None
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    encoded = tokenizer(wanted.text, return_offsets_mapping=True)
    ids = torch.tensor([encoded["input_ids"]])
    for start, end, value, count in (
        (wanted.rationale_at, wanted.problem_at, found.rationale, found.num_rationale_tokens),
        (wanted.problem_at, len(wanted.text) + 1, found.problem, found.num_problem_tokens),
    ):
        inside = torch.tensor([[start <= at < end for at, _ in encoded["offset_mapping"]]])
        with torch.no_grad():
            loss = network(ids, labels=ids.masked_fill(~inside, -100)).loss
        assert count == int(inside.sum())
        assert value == pytest.approx(-float(loss) * count, rel=1e-4)
    assert found.objective("sum") == found.rationale + found.problem
    assert found.objective("per_token") > found.objective("sum")


def test_scores_do_not_depend_on_company_and_are_computed_once(
    recipe: Recipe, model: Path, tmp_path: Path
) -> None:
    texts = [triple(f"The rest repeats after {n} steps" + "." * n) for n in range(9)]
    together = score(recipe, model, tmp_path / "a", texts)
    alone = [score(recipe, model, tmp_path / "b", [text])[0] for text in texts]
    for one, other in zip(together, alone, strict=True):
        assert one is not None
        assert other is not None
        assert one.rationale == pytest.approx(other.rationale, rel=1e-4)
    assert score(recipe, model, tmp_path / "a", texts[::-1]) == together[::-1]
    with sqlite3.connect(tmp_path / "a" / "scores.sqlite") as base:
        assert base.execute("SELECT count(*) FROM scores").fetchone() == (9,)


def test_a_half_stored_call_ends_with_the_same_numbers(
    recipe: Recipe, model: Path, tmp_path: Path
) -> None:
    texts = [triple(f"The rest repeats after {n} steps" + "." * n) for n in range(9)]
    whole = score(recipe, model, tmp_path, texts)
    with sqlite3.connect(tmp_path / "scores.sqlite") as base:
        keys = base.execute("SELECT key FROM scores ORDER BY key").fetchall()
        base.executemany("DELETE FROM scores WHERE key = ?", keys[::2])
    assert score(recipe, model, tmp_path, texts) == whole


def test_a_text_beyond_the_context_has_no_score(
    recipe: Recipe, model: Path, tmp_path: Path
) -> None:
    found = score(recipe, model, tmp_path, [triple("a b " * 1200), triple("Fine.")])
    assert found[0] is None
    assert found[1] is not None


def test_models_are_named_by_their_weights(recipe: Recipe, model: Path, tmp_path: Path) -> None:
    identity = open_scorer(ScorerSettings(model=str(model)), recipe).identity
    moved = tmp_path / "elsewhere"
    model.rename(moved)
    assert open_scorer(ScorerSettings(model=str(moved)), recipe).identity == identity
    moved.rename(model)
    with pytest.raises(ConfigError, match="commit"):
        open_scorer(ScorerSettings(model="owner/name"), recipe)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no model"):
        open_scorer(ScorerSettings(model=str(tmp_path / "empty")), recipe)
