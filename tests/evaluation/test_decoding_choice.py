"""Tokens are chosen by transformers' rules, from the right distribution, each row by itself."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
from transformers import (  # noqa: E402
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from evaluation.decoding.choice import (  # noqa: E402
    Sampling,
    choose_tokens,
    penalise,
    weigh_tokens,
)
from evaluation.decoding.random_numbers import draw_uniform  # noqa: E402

VOCABULARY = 1000


def make_logits(rows: int, scale: float, seed: int = 0, size: int = VOCABULARY) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * scale


def choose(logits: torch.Tensor, sampling: Sampling, seeds: torch.Tensor) -> torch.Tensor:
    return choose_tokens(logits.clone(), sampling, seeds, torch.zeros_like(seeds), None)


def test_random_numbers_are_those_of_splitmix64() -> None:
    # The first outputs of the reference implementation for seed 0 and for seed 1234567.
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    seeds, positions = torch.zeros(3, dtype=torch.int64), torch.arange(3)
    found = draw_uniform(seeds, positions)
    assert found.tolist() == [((number >> 40) + 0.5) / 2**24 for number in expected]
    first = draw_uniform(torch.tensor([1234567]), torch.tensor([0]))
    assert first.item() == ((6457827717110365317 >> 40) + 0.5) / 2**24


def test_random_numbers_are_uniform_along_seeds_and_positions() -> None:
    numbers = torch.arange(20_000)
    for seeds, positions in ((numbers, torch.zeros_like(numbers)), (numbers * 0 + 7, numbers)):
        found = draw_uniform(seeds, positions)
        counts = torch.histc(found, 20, 0, 1)
        # Chi-squared of 19 degrees of freedom: 43.8 has a chance of 0.1 %.
        assert (((counts - 1000) ** 2) / 1000).sum() < 43.8
        assert found.min() > 0 and found.max() < 1


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 0.99])
def test_the_nucleus_is_that_of_transformers(scale: float, top_p: float) -> None:
    # Most rows of small scales have nuclei wider than the first candidates.
    logits = make_logits(8, scale, size=5000)
    expected = TopPLogitsWarper(top_p)(None, logits / 0.8).isfinite()
    sampling = Sampling(temperature=0.8, top_p=top_p)
    assert torch.equal(weigh_tokens(logits.clone(), sampling) > 0, expected)


def test_ties_at_the_edge_of_the_nucleus_stay_together() -> None:
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, -5.0], [0.0] * 5])
    kept = weigh_tokens(logits, Sampling(top_p=0.6)) > 0
    assert kept.tolist() == [[True, True, True, True, False], [True] * 5]


def test_top_k_is_that_of_transformers_and_comes_before_top_p() -> None:
    logits = make_logits(8, 2.0)
    both = TopPLogitsWarper(0.9)(None, TopKLogitsWarper(7)(None, logits.clone())).isfinite()
    kept = weigh_tokens(logits.clone(), Sampling(top_k=7, top_p=0.9)) > 0
    assert torch.equal(kept, both)
    assert kept.sum(-1).max() <= 7
    everything = weigh_tokens(logits.clone(), Sampling(top_k=10 * VOCABULARY)) > 0
    assert everything.all()


def test_the_penalty_is_that_of_transformers() -> None:
    logits, seen = make_logits(4, 2.0), torch.randint(0, VOCABULARY, (4, 60))
    expected = RepetitionPenaltyLogitsProcessor(1.3)(seen, logits.clone())
    penalties = torch.ones_like(logits).scatter_(1, seen, 1.3)
    found = logits.clone()
    penalise(found, penalties)
    assert torch.equal(found, expected)


def test_draws_follow_the_distribution() -> None:
    logits = make_logits(1, 1.5, size=300)
    expected = torch.softmax(logits[0] / 0.7, -1).double()
    draws = choose(
        logits.expand(20_000, -1), Sampling(temperature=0.7), torch.arange(20_000)
    ).bincount(minlength=300)
    likely = expected * 20_000 > 5
    chi = (((draws - expected * 20_000) ** 2) / (expected * 20_000))[likely].sum()
    degrees = int(likely.sum())
    assert chi < degrees + 4 * (2 * degrees) ** 0.5


def test_nothing_outside_the_rules_is_ever_drawn() -> None:
    logits = make_logits(1, 1.0)
    sampling = Sampling(temperature=1.2, top_p=0.7, top_k=400)
    allowed = weigh_tokens(logits.clone(), sampling)[0] > 0
    draws = choose(logits.expand(4000, -1), sampling, torch.arange(4000))
    assert allowed[draws].all()
    assert len(draws.unique()) > 0.5 * int(allowed.sum())


def test_only_one_token_with_weight_is_always_drawn() -> None:
    for token in (0, 127, 128, 500, VOCABULARY - 1):
        logits = torch.full((500, VOCABULARY), -torch.inf)
        logits[:, token] = 3.0
        assert (choose(logits, Sampling(), torch.arange(500)) == token).all()


def test_a_row_does_not_see_its_neighbours() -> None:
    logits, seeds = make_logits(16, 2.0), torch.arange(16) + 5
    sampling = Sampling(temperature=0.8, top_p=0.95)
    together = choose(logits, sampling, seeds)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(choose(logits[order], sampling, seeds[order]), together[order])
    alone = torch.cat([choose(logits[n : n + 1], sampling, seeds[n : n + 1]) for n in range(16)])
    assert torch.equal(alone, together)


def test_greedy_is_the_likeliest() -> None:
    logits = make_logits(8, 1.0)
    chosen = choose(logits, Sampling(temperature=0), torch.arange(8))
    assert torch.equal(chosen, logits.argmax(-1))


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -1}, {"repetition_penalty": 0.9}],
)
def test_impossible_rules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Sampling(**wrong)
