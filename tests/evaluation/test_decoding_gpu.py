"""Decoding on a GPU: graphs, kernels at sizes of real models, and texts that depend on no slot."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)
from test_decoding_loop import SAMPLED, decode, make_jobs, make_model  # noqa: E402

from evaluation.decoding.choice import Sampling, choose_tokens  # noqa: E402
from evaluation.decoding.kernels import choose_in_triton, mix_in_triton  # noqa: E402
from evaluation.decoding.loop import DecodeOptions, Decoder  # noqa: E402
from evaluation.decoding.step import mix_in_torch  # noqa: E402
from trainer.model.student import StudentModel  # noqa: E402

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

CODESTRAL = {
    "hidden_size": 4096, "num_heads": 128, "head_dim": 64, "n_groups": 8, "state_size": 128,
    "chunk_size": 256, "num_hidden_layers": 2, "vocab_size": 32_768, "initializer_range": 0.02,
}  # fmt: skip
TRITON = DecodeOptions(kernels="triton")


@pytest.fixture(scope="module")
def wide() -> StudentModel:
    """Two layers of Mamba-Codestral-7B's shape."""
    return make_model(**CODESTRAL).to("cuda", torch.bfloat16)


def make_prompts(count: int) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(0)
    return [
        tuple(torch.randint(3, 300, (5 + 7 * n % 90,), generator=generator).tolist())
        for n in range(count)
    ]


@pytest.mark.parametrize("state_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mixer_step_at_real_size_is_as_close_as_pytorch(
    dtype: torch.dtype, state_dtype: torch.dtype
) -> None:
    mixer = make_model(**CODESTRAL).to("cuda").backbone.layers[0].mixer
    config, rows = mixer.config, 48
    torch.manual_seed(1)
    projected = torch.randn(rows, sum(mixer.splits), device="cuda")
    window = torch.randn(rows, config.conv_kernel - 1, mixer.splits[1], device="cuda")
    shape = (rows, config.num_heads, config.head_dim, config.state_size)
    state = torch.randn(shape, device="cuda").to(state_dtype)
    projected, window = projected.to(dtype), window.to(dtype)
    steps = torch.arange(rows, dtype=torch.int32, device="cuda")
    with torch.no_grad():
        expected_state = state.double()
        wide = (projected.double(), window.double(), expected_state)
        expected = mix_in_torch(mixer.double(), *wide, steps)
        mixer.to(dtype)
        own = state.clone()
        found = mix_in_triton(mixer, projected, window, own, steps)
    limit = 1e-5 if dtype == state_dtype == torch.float32 else 2e-2
    assert (found.double() - expected).norm() / expected.norm() < limit
    assert (own.double() - expected_state).norm() / expected_state.norm() < limit


@pytest.mark.parametrize("rules", [{"temperature": 0.8, "top_p": 0.95}, {"top_k": 50}], ids=str)
def test_choices_at_real_size_are_those_of_pytorch(rules: dict[str, float]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(64, 32_768, device="cuda") * 4
    penalties = torch.ones_like(logits)
    penalties[:, ::7] = 1.1
    sampling = Sampling(repetition_penalty=1.1, **rules)
    seeds = torch.arange(64, device="cuda")
    expected = choose_tokens(logits.clone(), sampling, seeds, seeds, penalties)
    found = choose_in_triton(logits, sampling, seeds, seeds, penalties)
    # Sums over the vocabulary round differently; a draw at an edge may fall on its other side.
    assert (found == expected).sum() >= 63


def test_a_replayed_graph_is_the_step(wide: StudentModel) -> None:
    jobs = make_jobs(make_prompts(20), limit=30)
    graph = decode(Decoder(wide, 8, sampling=SAMPLED, options=TRITON), jobs)
    eager = DecodeOptions(kernels="triton", use_graph=False)
    assert decode(Decoder(wide, 8, sampling=SAMPLED, options=eager), jobs) == graph


@pytest.mark.parametrize("num_slots", [1, 5, 64])
def test_a_text_depends_on_no_slot_and_no_neighbour(wide: StudentModel, num_slots: int) -> None:
    jobs = make_jobs(make_prompts(20), limit=30)
    decoder = Decoder(wide, num_slots, sampling=SAMPLED, options=TRITON)
    assert decoder.rows_agree()
    together = decode(decoder, jobs)
    assert decode(decoder, jobs[::-1]) == together
    assert decode(decoder, jobs[7:8])[7] == together[7]


@pytest.mark.parametrize("kernels", ["torch", "triton"])
def test_greedy_texts_are_those_of_transformers(kernels: str) -> None:
    model = make_model(n_groups=8).to("cuda")
    options = DecodeOptions(kernels=kernels)
    prompts = make_prompts(6)
    found = decode(
        Decoder(model, 4, sampling=Sampling(temperature=0), options=options), make_jobs(prompts)
    )
    for number, prompt in enumerate(prompts):
        ids = torch.tensor([prompt], device="cuda")
        output = model.generate(ids, max_new_tokens=24, do_sample=False)[0, len(prompt) :].tolist()
        assert list(found[number].tokens) == [token for token in output if token != 2]


def test_memory_is_that_of_the_slots(wide: StudentModel) -> None:
    def measure(**options: Any) -> int:
        before = torch.cuda.memory_allocated()
        decoder = Decoder(wide, 64, options=DecodeOptions(use_graph=False, **options))
        held = torch.cuda.memory_allocated() - before
        assert abs(held - decoder.num_bytes) < 1 << 20
        return held

    assert measure(state_dtype="float32") > 1.9 * measure(state_dtype="bfloat16")
