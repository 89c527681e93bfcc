"""Decoding in batches is the same as decoding alone, and equal seeds give equal texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from evaluation.checkpoints import hash_checkpoint
from evaluation.sampling import Completion, Student, encode_item
from pipeline.benchmark_items import BenchmarkItem
from pipeline.errors import SourceError
from pipeline.settings.evaluation import EvaluationSettings
from pipeline.student import decode, processor

GREEDY = EvaluationSettings(temperature=0, max_new_tokens=8, num_threads=1)
PROMPTS = [
    [1, *processor().encode(text)]
    for text in ("Hi", "What is 2 + 2? Think first.", "a b c " * 20, "x " * 40)
]


def test_padding_on_the_left_changes_no_token(checkpoint: Path) -> None:
    student = Student(checkpoint, GREEDY)
    together = student.complete(PROMPTS, seed=1)
    alone = [student.complete([prompt], seed=1)[0] for prompt in PROMPTS]
    assert together == alone
    assert len({completion.text for completion in together}) == len(PROMPTS)


def test_a_repetition_penalty_does_not_see_the_padding(checkpoint: Path) -> None:
    student = Student(checkpoint, GREEDY.model_copy(update={"repetition_penalty": 1.5}))
    together = student.complete(PROMPTS, seed=1)
    assert together == [student.complete([prompt], seed=1)[0] for prompt in PROMPTS]


def test_equal_seeds_give_equal_texts_and_others_do_not(checkpoint: Path) -> None:
    settings = GREEDY.model_copy(update={"temperature": 1.0, "top_p": 0.95})
    first = Student(checkpoint, settings).complete(PROMPTS, seed=1)
    assert Student(checkpoint, settings).complete(PROMPTS, seed=1) == first
    assert Student(checkpoint, settings).complete(PROMPTS, seed=2) != first


def test_sampling_draws_from_the_whole_vocabulary(checkpoint: Path) -> None:
    # The library's default keeps the 50 likeliest tokens without a word.
    hot = GREEDY.model_copy(update={"temperature": 50.0, "top_p": 1.0, "max_new_tokens": 1})
    completions = Student(checkpoint, hot).complete([PROMPTS[0]] * 400, seed=1)
    assert len({completion.text for completion in completions}) > 100


def test_a_text_ends_at_its_end_token(checkpoint: Path) -> None:
    student = Student(checkpoint, GREEDY)
    word = processor().encode("seven")
    assert student._read([*word, 2, 0, 0]) == Completion(decode(word), len(word), False)
    assert student._read(word).truncated


def test_a_prompt_ends_inside_the_thought() -> None:
    item = BenchmarkItem(id="i", benchmark="b", domain="math", question="1 + 1?")
    text = decode(encode_item(item))
    assert "1 + 1?\nPlease reason step by step" in text
    assert text.endswith("<|im_start|>assistant\n<think>\n")


def damaged(checkpoint: Path, folder: Path) -> Path:
    return Path(shutil.copytree(checkpoint, folder / "copy"))


def test_garbage_weights_are_a_clear_error(checkpoint: Path, tmp_path: Path) -> None:
    copy = damaged(checkpoint, tmp_path)
    (copy / "model.safetensors").write_bytes(b"garbage" * 100)
    with pytest.raises(SourceError, match="cannot be loaded"):
        Student(copy, GREEDY).complete(PROMPTS, seed=1)


def test_weights_of_another_shape_are_a_clear_error(checkpoint: Path, tmp_path: Path) -> None:
    copy = damaged(checkpoint, tmp_path)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(SourceError, match=r"weights are missing, e\.g\. backbone\.layers\.2"):
        Student(copy, GREEDY).complete(PROMPTS, seed=1)
    (copy / "config.json").write_text(json.dumps({**config, "state_size": 8}))
    with pytest.raises(SourceError, match="cannot be loaded"):
        Student(copy, GREEDY).complete(PROMPTS, seed=1)


def test_a_model_of_another_architecture_is_a_clear_error(checkpoint: Path, tmp_path: Path) -> None:
    copy = damaged(checkpoint, tmp_path)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(SourceError, match="a 'llama' model, not mamba2"):
        Student(copy, GREEDY).complete(PROMPTS, seed=1)


def test_weights_that_are_no_numbers_are_a_clear_error(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = damaged(checkpoint, tmp_path)
    weights = load_file(copy / "model.safetensors")
    weights[min(weights)].view(-1)[0] = float("nan")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match="NaN"):
        Student(copy, GREEDY).complete(PROMPTS, seed=1)


def test_a_folder_without_a_model_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no model"):
        hash_checkpoint(tmp_path)
    with pytest.raises(SourceError, match="not found"):
        hash_checkpoint(tmp_path / "none")
