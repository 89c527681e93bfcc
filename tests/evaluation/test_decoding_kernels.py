"""The step's kernels against PyTorch: on the GPU where there is one, else in the interpreter."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("triton", reason="needs Triton")
from test_decoding_loop import make_jobs, make_model  # noqa: E402

from evaluation.decoding.batching import Batcher  # noqa: E402
from evaluation.decoding.choice import Sampling, choose_tokens  # noqa: E402
from evaluation.decoding.kernels import choose_in_triton, mix_in_triton  # noqa: E402
from evaluation.decoding.loop import DecodeOptions, Decoder  # noqa: E402
from evaluation.decoding.step import load_step_operations, mix_in_torch  # noqa: E402
from pipeline.errors import ConfigError  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


@pytest.mark.parametrize(
    "shape",
    [
        {"n_groups": 1},
        {"n_groups": 8, "use_conv_bias": False},
        {"head_dim": 16, "num_heads": 4, "state_size": 12, "time_step_limit": (0.3, 0.9)},
    ],
    ids=["one group", "no bias", "odd sizes and a limited step"],
)
@pytest.mark.parametrize("state_dtype", [torch.float32, torch.bfloat16])
def test_a_mixer_step_is_that_of_pytorch(shape: dict[str, Any], state_dtype: torch.dtype) -> None:
    mixer = make_model(**shape).to(DEVICE).backbone.layers[0].mixer
    config, rows = mixer.config, 5
    projected = random(rows, sum(mixer.splits))
    projected[0, -1] = 40.0  # where softplus is the identity
    window = random(rows, config.conv_kernel - 1, mixer.splits[1])
    state = random(rows, config.num_heads, config.head_dim, config.state_size, dtype=state_dtype)
    steps = torch.arange(rows, dtype=torch.int32, device=DEVICE)
    results = []
    for mix in (mix_in_torch, mix_in_triton):
        own_window, own_state = window.clone(), state.clone()
        with torch.no_grad():
            first = mix(mixer, projected, own_window, own_state, steps)
            second = mix(mixer, projected.roll(1, 0), own_window, own_state, steps + 1)
        results.append((first, second, own_window, own_state.float()))
    limit = 2e-5 if state_dtype == torch.float32 else 2e-2
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=limit, atol=limit)


@pytest.mark.parametrize("bias", [-3.0, -9.0, -15.0, -25.0])
def test_the_smallest_steps_are_exact(bias: float) -> None:
    # Heads that remember long: 1 + exp(-9) keeps four digits of the exponential.
    mixer = make_model().to(DEVICE).backbone.layers[0].mixer
    config, rows = mixer.config, 3
    projected = random(rows, sum(mixer.splits))
    shape = (rows, config.num_heads, config.head_dim, config.state_size)
    states = []
    with torch.no_grad():
        mixer.dt_bias.fill_(bias)
        for mix, dtype in ((mix_in_triton, torch.float32), (mix_in_torch, torch.float64)):
            window = torch.zeros(
                rows, config.conv_kernel - 1, mixer.splits[1], dtype=dtype, device=DEVICE
            )
            state = torch.zeros(shape, dtype=dtype, device=DEVICE)
            steps = torch.zeros(rows, dtype=torch.int32, device=DEVICE)
            mix(mixer.to(dtype), projected.to(dtype), window, state, steps)
            states.append(state.double())
    # A GPU multiplies before it exponentiates, which rounds exp(-25) by 1.5e-6 of itself.
    assert (states[0] - states[1]).norm() / states[1].norm() < 5e-6


@pytest.mark.parametrize(
    "rules",
    [
        {"temperature": 0},
        {"temperature": 0, "repetition_penalty": 1.4},
        {"temperature": 0.8},
        {"temperature": 0.8, "top_p": 0.9},
        {"temperature": 0.8, "top_k": 5},
        {"temperature": 1.3, "top_k": 40, "top_p": 0.6, "repetition_penalty": 1.2},
        {"temperature": 0.8, "top_p": 0.01},
    ],
    ids=str,
)
def test_a_choice_is_that_of_pytorch(rules: dict[str, float]) -> None:
    sampling, rows, size = Sampling(**rules), 40, 300
    logits = random(rows, size) * 2
    penalties = None
    if sampling.repetition_penalty != 1:
        seen = torch.randint(0, size, (rows, 50), device=DEVICE)
        penalties = torch.ones_like(logits).scatter_(1, seen, sampling.repetition_penalty)
    seeds = torch.arange(rows, device=DEVICE) * 977
    positions = torch.arange(rows, device=DEVICE) % 7
    expected = choose_tokens(logits.clone(), sampling, seeds, positions, penalties)
    found = choose_in_triton(logits, sampling, seeds, positions, penalties)
    assert torch.equal(found, expected)
    assert len(found.unique()) > rows // 2


def test_a_choice_never_leaves_the_vocabulary_or_the_rules() -> None:
    # A size that is no power of two, and rows with a single possible token at either end.
    logits = torch.full((64, 130), -torch.inf, device=DEVICE)
    ends = torch.arange(64, device=DEVICE) % 2 * 129
    logits.scatter_(1, ends[:, None], 2.0)
    seeds = torch.arange(64, device=DEVICE)
    chosen = choose_in_triton(logits, Sampling(top_p=0.9), seeds, seeds, None)
    assert torch.equal(chosen, ends)


def test_texts_are_those_of_pytorch() -> None:
    model = make_model().to(DEVICE)
    prompts = [(5, 6, 7, 8), (9,)]
    found = []
    for kernels in ("torch", "triton"):
        options = DecodeOptions(kernels=kernels, use_graph=False)
        sampling = Sampling(temperature=0.7, top_p=0.9, repetition_penalty=1.1)
        decoder = Decoder(model, 1, sampling=sampling, options=options)
        batcher: Batcher[int] = Batcher(decoder, end_token=2)
        for job in make_jobs(prompts, limit=4):
            batcher.add(job)
        found.append({ended.tag: ended.tokens for ended in batcher.run()})
    assert found[0] == found[1]


def test_without_a_gpu_or_the_interpreter_the_message_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="PyTorch sees none") as caught:
        load_step_operations("triton")
    assert 'evaluation.kernels = "torch"' in caught.value.hint
