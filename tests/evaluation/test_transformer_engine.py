"""A Transformer checkpoint answers in its own chat format, by the same rules and seeds."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
transformers = pytest.importorskip("transformers", reason="needs the train extra")
from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: E402

from evaluation.decoding.plan import plan_decoding  # noqa: E402
from evaluation.run import evaluate_checkpoint  # noqa: E402
from evaluation.sampling import SampleRequest, open_sampler  # noqa: E402
from evaluation.transformer_engine import TransformerEngine  # noqa: E402
from pipeline.benchmark_items import BenchmarkItem, MathGold  # noqa: E402
from pipeline.errors import ConfigError, SourceError, TeacherError  # noqa: E402
from pipeline.records import Message  # noqa: E402
from pipeline.settings.evaluation import EvaluationSettings  # noqa: E402
from pipeline.settings.recipe import Recipe, load_recipe  # noqa: E402
from promptcot.engines.protocol import Answer, Request  # noqa: E402

TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
CONTEXT = 160
SETTINGS = EvaluationSettings(batch_size=3, num_threads=1, device="cpu")


def save_model(folder: Path, template: str | None = TEMPLATE, **changes: Any) -> Path:
    # A token for each byte, as Qwen's own tokenizer has before any merge.
    alphabet = ["<pad>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bytewise = Tokenizer(models.BPE({token: n for n, token in enumerate(alphabet)}, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    tokenizer = transformers.Qwen2TokenizerFast(
        tokenizer_object=bytewise, eos_token="</s>", pad_token="<pad>", unk_token=None
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    config = transformers.Qwen2Config(
        **{"max_position_embeddings": CONTEXT, **changes},
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.4, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "qwen")


def make_request(text: str, seed: int = 0, **changes: Any) -> Request:
    values = {"temperature": 0.9, "top_p": 0.95, "max_tokens": 12, **changes}
    return Request(messages=(Message(role="user", content=text),), seed=seed, **values)


def ask(folder: Path, requests: Sequence[Request]) -> Sequence[Answer]:
    async def run() -> Sequence[Answer]:
        engine = TransformerEngine(folder, SETTINGS, plan_decoding(SETTINGS))
        try:
            return await engine.answer(requests)
        finally:
            await engine.close()

    return asyncio.run(run())


def test_greedy_texts_are_those_of_generate(qwen: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(qwen).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(qwen)
    texts = ["w1 w2", "w3 w4 w5 w6 w7", "w8"]
    answers = ask(qwen, [make_request(t, temperature=0, repetition_penalty=1.3) for t in texts])
    for text, answer in zip(texts, answers, strict=True):
        turns = [{"role": "user", "content": text}]
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
        assert prompt == f"[user] {text} [assistant] "
        output = model.generate(
            ids, max_new_tokens=12, do_sample=False, repetition_penalty=1.3, pad_token_id=0
        )[0, ids.shape[1] :]
        assert answer.text == tokenizer.decode(output, skip_special_tokens=True)
        assert answer.num_prompt_tokens == ids.shape[1]
        ended = int(output[-1]) == 1
        assert answer.finish_reason == ("stop" if ended else "length")
        assert answer.num_completion_tokens == len(output) - ended


def test_each_row_has_its_own_stream(qwen: Path) -> None:
    first = ask(qwen, [make_request("w1 w2", seed) for seed in (1, 2, 1)])
    assert first[0] == first[2] != first[1]
    assert ask(qwen, [make_request("w1 w2", seed) for seed in (2, 1, 5)])[1] == first[0]


def test_rows_end_at_their_own_limits_and_at_the_context(qwen: Path) -> None:
    requests = [
        make_request("w1 w2", 3, max_tokens=4),
        make_request("w1 w2", 3, max_tokens=500),
        make_request("w" * CONTEXT, 3),
    ]
    short, long, refused = ask(qwen, requests)
    assert short.num_completion_tokens <= 4
    assert long.num_prompt_tokens + long.num_completion_tokens <= CONTEXT
    assert refused.finish_reason == "error"
    assert f"context of {CONTEXT} tokens" in refused.detail


def test_a_thought_that_the_template_opens_is_part_of_the_answer(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", TEMPLATE.replace("[assistant]", "[assistant] <think>"))
    (answer,) = ask(folder, [make_request("w1")])
    assert answer.text.startswith("<think>\n")


def test_a_folder_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", None)
    with pytest.raises(SourceError, match="no chat template") as caught:
        ask(folder, [make_request("w1")])
    assert "chat_template.jinja" in caught.value.hint


def test_sampling_settings_inside_a_checkpoint_do_not_count(qwen: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(qwen, tmp_path / "copy"))
    path = folder / "generation_config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    own = {"do_sample": True, "temperature": 0.3, "top_k": 1, "repetition_penalty": 5.0}
    path.write_text(json.dumps({**values, **own, "eos_token_id": [1, 9]}), encoding="utf-8")
    requests = [make_request("w1 w2", seed) for seed in range(3)]
    plain, changed = ask(qwen, requests), ask(folder, requests)
    for one, other in zip(plain, changed, strict=True):
        # Only the further end token that the file names may cut a text.
        assert one.text.startswith(other.text.rstrip("\ufffd"))


def test_one_batch_chooses_in_one_way(qwen: Path) -> None:
    with pytest.raises(TeacherError, match="in different ways"):
        ask(qwen, [make_request("w1"), make_request("w2", top_p=0.5)])


def evaluate_with(recipe: Recipe, *overrides: str) -> Recipe:
    settings = ["evaluation.engine=transformer", "benchmarks.1.answer_field=", *overrides]
    return load_recipe(str(recipe.path), settings)


def test_samples_are_stored_batch_by_batch_and_do_not_depend_on_a_kill(
    recipe: Recipe, qwen: Path, tmp_path: Path
) -> None:
    items = [
        BenchmarkItem(id=f"i{n}", benchmark="b", domain="math", question=f"w{n} w{n + 1}",
                      gold=MathGold(text="1"))
        for n in range(4)
    ]  # fmt: skip
    requests = [SampleRequest(item, n) for item in items for n in range(2)]
    own = evaluate_with(recipe)
    size = own.settings.evaluation.batch_size
    batches = [requests[start : start + size] for start in range(0, len(requests), size)]

    def draw(out: Path, wanted: Sequence[Sequence[SampleRequest]]) -> list[str]:
        with open_sampler(own, qwen, out, "test") as sampler:
            sampler.start(requests)
            return [one.text for batch in wanted for one in sampler.sample(batch)]

    whole = draw(tmp_path / "whole", batches)
    draw(tmp_path / "cut", batches[:1])
    assert draw(tmp_path / "cut", batches) == whole
    assert len(set(whole)) == len(whole)


def test_a_transformer_is_evaluated_like_a_student(
    recipe: Recipe, qwen: Path, tmp_path: Path
) -> None:
    version = evaluate_checkpoint(
        evaluate_with(recipe, "benchmarks.1.tests_field="), qwen, tmp_path / "out", "qwen"
    )
    rows = list(version.rows())
    assert len(rows) == 6
    assert version.manifest.settings["engine"] == "transformer"
    assert {row["reason"] for row in rows} <= {"no_answer", "truncated"}
    # Another tokenizer is another model.
    path = qwen / "tokenizer_config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, "note": 1}), encoding="utf-8")
    again = evaluate_checkpoint(
        evaluate_with(recipe, "benchmarks.1.tests_field="), qwen, tmp_path / "out", "qwen"
    )
    assert again.name != version.name


def test_a_local_engine_needs_a_checkpoint(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="decodes a checkpoint, and none is given"):
        evaluate_checkpoint(evaluate_with(recipe), None, tmp_path, "x")


def test_an_unknown_engine_is_no_teacher(recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match="'gpt' is not among"):
        load_recipe(str(recipe.path), ["evaluation.engine=gpt"])
