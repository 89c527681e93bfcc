"""The decode loop: transformers' greedy texts, and texts that depend on no slot and no neighbour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
from transformers import Mamba2Config  # noqa: E402

from evaluation.decoding.batching import Batcher, Generated, Job  # noqa: E402
from evaluation.decoding.choice import Sampling  # noqa: E402
from evaluation.decoding.loop import DecodeOptions, Decoder  # noqa: E402
from evaluation.decoding.step import round_either_way  # noqa: E402
from pipeline.errors import ConfigError  # noqa: E402
from trainer.model.student import StudentModel  # noqa: E402

VOCABULARY = 400
GREEDY = Sampling(temperature=0)
SAMPLED = Sampling(temperature=0.9, top_p=0.9, repetition_penalty=1.1)
LENGTHS = (1, 2, 5, 17, 40, 9, 3, 33, 8, 21, 64)


def make_model(**changes: Any) -> StudentModel:
    shape = {
        "hidden_size": 32, "num_hidden_layers": 2, "head_dim": 8, "num_heads": 8, "n_groups": 2,
        "state_size": 8, "chunk_size": 8, "vocab_size": VOCABULARY, "initializer_range": 0.2,
    }  # fmt: skip
    torch.manual_seed(0)
    config = Mamba2Config(
        **{**shape, **changes}, expand=2, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    return StudentModel(config).eval()


@pytest.fixture(scope="module")
def model() -> StudentModel:
    return make_model()


@pytest.fixture(scope="module")
def prompts() -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(1)
    return [
        tuple(torch.randint(3, VOCABULARY, (length,), generator=generator).tolist())
        for length in LENGTHS
    ]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Other tests' processes are at work beside these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def decode(
    decoder: Decoder, jobs: list[Job[int]], *, steps_per_check: int = 1, end_token: int = 2
) -> dict[int, Generated[int]]:
    batcher: Batcher[int] = Batcher(decoder, end_token=end_token, steps_per_check=steps_per_check)
    for job in jobs:
        batcher.add(job)
    return {ended.tag: ended for ended in batcher.run()}


def make_jobs(prompts: list[tuple[int, ...]], limit: int = 24) -> list[Job[int]]:
    return [Job(n, prompt, 100 + n, limit) for n, prompt in enumerate(prompts)]


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_texts_are_those_of_transformers(
    prompts: list[tuple[int, ...]], groups: int, penalty: float
) -> None:
    model = make_model(n_groups=groups)
    sampling = Sampling(temperature=0, repetition_penalty=penalty)
    found = decode(Decoder(model, 4, sampling=sampling), make_jobs(prompts))
    for number, prompt in enumerate(prompts):
        output = model.generate(
            torch.tensor([prompt]), max_new_tokens=24, do_sample=False, repetition_penalty=penalty
        )[0, len(prompt) :].tolist()
        ended = output[-1] == 2
        assert list(found[number].tokens) == (output[:-1] if ended else output)
        assert found[number].reason == ("stop" if ended else "length")
    assert len({ended.tokens for ended in found.values()}) > len(prompts) // 2


@pytest.mark.parametrize("num_slots", [1, 3, 8, 16])
def test_a_text_depends_on_no_slot_and_no_neighbour(
    model: StudentModel, prompts: list[tuple[int, ...]], num_slots: int
) -> None:
    jobs = make_jobs(prompts)
    together = decode(Decoder(model, num_slots, sampling=SAMPLED), jobs)
    backwards = decode(Decoder(model, num_slots, sampling=SAMPLED), jobs[::-1])
    assert backwards == together
    decoder = Decoder(model, num_slots, sampling=SAMPLED)
    for job in jobs[::3]:
        assert decode(decoder, [job])[job.tag] == together[job.tag]


@pytest.mark.parametrize("num_slots", [1, 3, 16])
def test_rows_agree_on_several_threads(model: StudentModel, num_slots: int) -> None:
    torch.set_num_threads(2)
    decoder = Decoder(model, num_slots, sampling=SAMPLED)
    assert decoder.rows_agree()
    assert not decoder.tokens.any()  # the slots are as new


def test_slots_are_refilled_at_once(
    model: StudentModel, prompts: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [1, 30, 2, 9, 4, 17, 3, 8, 5, 6, 7]
    jobs = [
        Job(n, prompt, n, limit)
        for n, (prompt, limit) in enumerate(zip(prompts, limits, strict=True))
    ]
    decoder, steps = Decoder(model, 2, sampling=SAMPLED), []
    step = decoder.step
    monkeypatch.setattr(decoder, "step", lambda: (steps.append(1), step())[1])
    found = decode(decoder, jobs, end_token=-1)
    assert {n: len(ended.tokens) for n, ended in found.items()} == dict(enumerate(limits))
    # 92 tokens in two slots; only the end of the last text can leave one of them idle.
    assert len(steps) <= (sum(limits) + max(limits)) // 2


def test_what_follows_an_end_is_dropped(
    model: StudentModel, prompts: list[tuple[int, ...]]
) -> None:
    jobs = make_jobs(prompts)
    often = decode(Decoder(model, 4, sampling=SAMPLED), jobs)
    end = next(ended.tokens[3] for ended in often.values() if len(ended.tokens) > 10)
    often = decode(Decoder(model, 4, sampling=SAMPLED), jobs, end_token=end)
    seldom = decode(Decoder(model, 4, sampling=SAMPLED), jobs, end_token=end, steps_per_check=7)
    assert seldom == often
    assert "stop" in {ended.reason for ended in often.values()}
    assert all(end not in ended.tokens for ended in often.values())


def test_a_dropped_sequence_frees_its_slot(
    model: StudentModel, prompts: list[tuple[int, ...]]
) -> None:
    batcher: Batcher[int] = Batcher(Decoder(model, 2, sampling=GREEDY), end_token=-1)
    for job in make_jobs(prompts[:4]):
        batcher.add(job)
    batcher.step()
    batcher.drop(0)
    batcher.drop(3)
    assert (batcher.num_busy, batcher.num_waiting) == (1, 1)
    assert {ended.tag for ended in batcher.run()} == {1, 2}
    assert batcher.is_idle


def test_memory_does_not_grow_with_length(model: StudentModel) -> None:
    decoder = Decoder(model, 8, sampling=SAMPLED)
    held = decoder.num_bytes
    decoder.fill(0, [5] * 300, seed=1)
    decoder.run(50)
    assert decoder.num_bytes == held
    config = model.config
    state = config.num_heads * config.head_dim * config.state_size
    window = (config.conv_kernel - 1) * (64 + 2 * config.n_groups * config.state_size)
    per_slot = 4 * config.num_hidden_layers * (state + window) + 4 * VOCABULARY + 3 * 8
    assert held == 8 * per_slot


def test_a_step_works_with_nothing_filled_in(model: StudentModel) -> None:
    decoder = Decoder(model, 5, sampling=GREEDY)
    decoder.tokens.copy_(torch.arange(8) + 3)
    assert decoder.step().shape == (5,)
    decoder.reset()
    assert not decoder.tokens.any() and not decoder.states.states[0].any()


def test_a_narrow_state_stays_close_to_a_wide_one(
    model: StudentModel, prompts: list[tuple[int, ...]]
) -> None:
    narrow = Decoder(model, 1, sampling=GREEDY, options=DecodeOptions(state_dtype="bfloat16"))
    wide = Decoder(model, 1, sampling=GREEDY)
    for decoder in (narrow, wide):
        decoder.fill(0, prompts[4], seed=0)
        decoder.step()
    first, second = (d.states.states[-1].float() for d in (narrow, wide))
    assert 0 < (first - second).norm() / second.norm() < 0.02
    held = sum(state.numel() for state in wide.states.states)
    assert wide.num_bytes - narrow.num_bytes == 2 * held


def test_samples_of_one_prompt_read_it_once(
    model: StudentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []
    forward = type(model.backbone).forward

    def counted(self: Any, ids: torch.Tensor, *rest: Any, **options: Any) -> Any:
        lengths.append(ids.shape[1])
        return forward(self, ids, *rest, **options)

    monkeypatch.setattr(type(model.backbone), "forward", counted)
    jobs = [Job(n, (7, 8, 9, 10) if n < 5 else (11, 12), n, 3) for n in range(8)]
    found = decode(Decoder(model, 2, sampling=SAMPLED), jobs, end_token=-1)
    assert lengths == [3, 1]
    assert len({ended.tokens for ended in found.values()}) > 4


def test_wrong_arguments_are_refused(model: StudentModel) -> None:
    with pytest.raises(ValueError, match="0 slots"):
        Decoder(model, 0)
    with pytest.raises(ValueError, match="float16"):
        Decoder(model, 1, options=DecodeOptions(state_dtype="float16"))
    with pytest.raises(ConfigError, match="unknown decoding kernels 'cuda'"):
        Decoder(model, 1, options=DecodeOptions(kernels="cuda"))
    with pytest.raises(ValueError, match="at least one token"):
        Decoder(model, 1).fill(0, [], seed=0)


def test_rounding_a_state_is_right_on_average_and_the_same_in_every_slot() -> None:
    generator = torch.Generator().manual_seed(5)
    one = torch.rand(1, 4, 32, 64, generator=generator) + 1.0  # spacing of bf16: 2^-7
    steps = torch.tensor([7, 8, 7], dtype=torch.int32)
    rounded = round_either_way(one.expand(3, -1, -1, -1).contiguous(), steps)
    assert torch.equal(rounded[0], rounded[2]) and not torch.equal(rounded[0], rounded[1])
    assert torch.equal(rounded, rounded.bfloat16().float()), "each is a number of bf16"
    assert (rounded[0] - one[0]).abs().max() < 2**-7
    # 8,192 numbers: the mean error of one spacing's chance is 2^-7 / sqrt(12 * 8192) at most.
    assert abs(float((rounded[0] - one[0]).mean())) < 4 * 2**-7 / (6 * 8192) ** 0.5
    assert torch.equal(round_either_way(rounded, steps), rounded), "what fits stays"


def test_small_additions_to_a_narrow_state_are_not_lost() -> None:
    state = torch.full((1, 2, 16, 16), 256.0)
    for step in range(400):  # a twentieth of bf16's spacing each
        state = round_either_way(state + 0.1, torch.tensor([step], dtype=torch.int32))
    assert abs(float(state.mean()) - 296) < 2
