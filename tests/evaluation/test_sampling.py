"""A sample's text is a function of its item, its seed and the settings, and of nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluation.checkpoints import choose_checkpoints, hash_checkpoint
from evaluation.sampling import Completion, SampleRequest, make_request, open_sampler
from pipeline.benchmark_items import BenchmarkItem, MathGold
from pipeline.errors import SourceError, TeacherError
from pipeline.settings.recipe import Recipe, load_recipe
from promptcot.engines.answers import AnswerStore

ITEMS = [
    BenchmarkItem(id=f"i{n}", benchmark="b", domain="math", question=text, gold=MathGold(text="1"))
    for n, text in enumerate(("1 + 1?", "What is 2 + 2? Think first.", "a b c " * 20))
]
REQUESTS = [SampleRequest(item, n) for item in ITEMS for n in range(3)]


def with_settings(recipe: Recipe, *overrides: str) -> Recipe:
    return load_recipe(str(recipe.path), [*overrides])


def draw(
    recipe: Recipe, checkpoint: Path, out: Path, requests: Sequence[SampleRequest] = REQUESTS
) -> list[Completion]:
    with open_sampler(recipe, checkpoint, out, "test") as sampler:
        sampler.start(requests)
        return sampler.sample(requests)


def test_order_neighbours_and_benchmarks_change_no_text(
    recipe: Recipe, checkpoint: Path, tmp_path: Path
) -> None:
    together = draw(recipe, checkpoint, tmp_path / "together")
    backwards = draw(recipe, checkpoint, tmp_path / "backwards", REQUESTS[::-1])
    assert backwards[::-1] == together
    alone = draw(recipe, checkpoint, tmp_path / "alone", [REQUESTS[4]])
    assert alone == [together[4]]
    assert len({completion.text for completion in together}) == len(REQUESTS)


def test_what_is_stored_is_not_sampled_again(
    recipe: Recipe, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = draw(recipe, checkpoint, tmp_path / "whole")
    draw(recipe, checkpoint, tmp_path / "cut", REQUESTS[:4])
    assert draw(recipe, checkpoint, tmp_path / "cut") == whole
    monkeypatch.setattr("evaluation.student_engine.load_student", None)
    assert draw(recipe, checkpoint, tmp_path / "cut") == whole
    store = AnswerStore(tmp_path / "cut" / "evaluation" / "answers")
    assert len(store) == len(REQUESTS)
    store.close()


def test_other_settings_are_other_samples(recipe: Recipe, checkpoint: Path, tmp_path: Path) -> None:
    first = draw(recipe, checkpoint, tmp_path)
    for override in ("seed=9", "temperature=0.5", "repetition_penalty=1.5", "top_k=2"):
        other = draw(with_settings(recipe, f"evaluation.{override}"), checkpoint, tmp_path)
        assert [one.text for one in other] != [one.text for one in first], override
    # What changes no text asks for nothing again.
    again = with_settings(recipe, "evaluation.num_workers=1")
    assert draw(again, checkpoint, tmp_path) == first


def test_looking_at_tokens_less_often_changes_no_text(
    recipe: Recipe, checkpoint: Path, tmp_path: Path
) -> None:
    seldom = with_settings(recipe, "evaluation.steps_per_check=5")
    assert draw(seldom, checkpoint, tmp_path / "a") == draw(recipe, checkpoint, tmp_path / "b")


def test_a_prompt_ends_inside_the_thought(recipe: Recipe) -> None:
    request = make_request(REQUESTS[0], recipe.settings.evaluation)
    (message,) = request.messages
    assert request.template == "none"
    assert "1 + 1?\nPlease reason step by step" in message.content
    assert message.content.endswith("<|im_start|>assistant\n<think>\n")


def test_a_completion_tells_what_it_took(recipe: Recipe, checkpoint: Path, tmp_path: Path) -> None:
    (completion,) = draw(recipe, checkpoint, tmp_path, REQUESTS[:1])
    assert (completion.finish_reason, completion.truncated) == ("length", True)
    assert completion.num_tokens == recipe.settings.evaluation.max_new_tokens
    assert completion.num_prompt_tokens > 30
    assert completion.answer is None  # the thought never ended


def make_script(folder: Path, rows: list[dict[str, Any]]) -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "script.jsonl").write_text(text, encoding="utf-8")
    return 'teachers.default={engine="scripted", script="script.jsonl"}'


@pytest.mark.parametrize("prompt_format", ["student", "chat"])
def test_a_teacher_answers_in_either_format(
    recipe: Recipe, tmp_path: Path, prompt_format: str
) -> None:
    opening = "" if prompt_format == "student" else "<think>"
    script = make_script(
        tmp_path, [{"match": "1 + 1", "text": f"{opening}\ntwo\n</think>\n\n\\boxed{{2}}"}]
    )
    settings = ["evaluation.engine=default", f"evaluation.prompt_format={prompt_format}"]
    asking = with_settings(recipe, script, *settings)
    with open_sampler(asking, None, tmp_path / "out", "test") as sampler:
        sampler.start(REQUESTS[:2])
        completions = sampler.sample(REQUESTS[:2])
    assert {(c.thinking, c.answer) for c in completions} == {("two", "\\boxed{2}")}
    request = make_request(REQUESTS[0], asking.settings.evaluation)
    assert request.messages[0].content.endswith("<think>\n") == (prompt_format == "student")


def test_a_chat_answer_without_thought_is_all_answer(recipe: Recipe, tmp_path: Path) -> None:
    script = make_script(tmp_path, [{"match": "1 + 1", "text": "It is \\boxed{2}."}])
    settings = ["evaluation.engine=default", "evaluation.prompt_format=chat"]
    with open_sampler(with_settings(recipe, script, *settings), None, tmp_path, "test") as sampler:
        (completion,) = sampler.sample(REQUESTS[:1])
    assert (completion.thinking, completion.answer) == ("", "It is \\boxed{2}.")


def test_a_chat_text_that_the_limit_ended_without_tags_is_a_thought(
    recipe: Recipe, tmp_path: Path
) -> None:
    text = "It may be \\boxed{2}, but"
    script = make_script(tmp_path, [{"match": "1", "text": text, "finish_reason": "length"}])
    settings = ["evaluation.engine=default", "evaluation.prompt_format=chat"]
    with open_sampler(with_settings(recipe, script, *settings), None, tmp_path, "test") as sampler:
        (completion,) = sampler.sample(REQUESTS[:1])
    assert (completion.thinking, completion.answer) == (text, None)


def test_a_sample_without_an_answer_stops_the_run(recipe: Recipe, tmp_path: Path) -> None:
    rows = [{"match": "1 + 1", "text": "no", "finish_reason": "error"}]
    asking = with_settings(recipe, make_script(tmp_path, rows), "evaluation.engine=default")
    with (
        open_sampler(asking, None, tmp_path, "test") as sampler,
        pytest.raises(TeacherError, match=r"1 of 1 samples have no answer; the first, b/i0/0"),
    ):
        sampler.sample(REQUESTS[:1])


def damaged(checkpoint: Path, folder: Path) -> Path:
    return Path(shutil.copytree(checkpoint, folder / "copy"))


def test_garbage_weights_are_a_clear_error(
    recipe: Recipe, checkpoint: Path, tmp_path: Path
) -> None:
    copy = damaged(checkpoint, tmp_path)
    (copy / "model.safetensors").write_bytes(b"garbage" * 100)
    with pytest.raises(SourceError, match="cannot be loaded"):
        draw(recipe, copy, tmp_path)


def test_weights_of_another_shape_are_a_clear_error(
    recipe: Recipe, checkpoint: Path, tmp_path: Path
) -> None:
    copy = damaged(checkpoint, tmp_path)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(SourceError, match=r"weights are missing, e\.g\. backbone\.layers\.2"):
        draw(recipe, copy, tmp_path)
    (copy / "config.json").write_text(json.dumps({**config, "state_size": 8}))
    with pytest.raises(SourceError, match="cannot be loaded"):
        draw(recipe, copy, tmp_path)


def test_a_model_of_another_architecture_is_a_clear_error(
    recipe: Recipe, checkpoint: Path, tmp_path: Path
) -> None:
    copy = damaged(checkpoint, tmp_path)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(SourceError, match="a 'llama' model, not mamba2") as caught:
        draw(recipe, copy, tmp_path)
    assert 'evaluation.engine = "transformer"' in caught.value.hint


def test_weights_that_are_no_numbers_are_a_clear_error(
    recipe: Recipe, checkpoint: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    copy = damaged(checkpoint, tmp_path)
    weights = load_file(copy / "model.safetensors")
    weights[min(weights)].view(-1)[0] = float("nan")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match="NaN"):
        draw(recipe, copy, tmp_path)


def test_a_folder_without_a_model_is_a_clear_error(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no model"):
        hash_checkpoint(tmp_path)
    with pytest.raises(SourceError, match="not found"):
        choose_checkpoints(recipe, tmp_path, tmp_path / "none")
