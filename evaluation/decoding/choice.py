"""Choosing the next token of every slot: penalty, temperature, top-k, top-p, one draw.

A row's choice depends on its logits, seed and position alone. Rules and their order are those of
transformers: repetition penalty, temperature, top-k, top-p. The draw inverts the distribution
function over the vocabulary in its order, so it needs no sort and one random number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.decoding.random_numbers import draw_uniform

if TYPE_CHECKING:
    from torch import Tensor

_PIECE = 128
"""Tokens whose probabilities are summed before the draw looks among them."""
_CANDIDATES = 64
"""A nucleus of 0.95 is rarely wider; rows where it is are looked at again."""
_BIN_BITS = 16
"""Bits of a float32 that are dropped for its bin: bins are 0.8 % wide, and 1.0 is in the last."""
_NUM_BINS = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen; the same for all sequences of a decoder."""

    temperature: float = 1.0
    """0: the likeliest token."""
    top_p: float = 1.0
    """1: off."""
    top_k: int = 0
    """0: off."""
    repetition_penalty: float = 1.0
    """Over prompt and generated tokens alike; 1: off."""

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError(f"no sampling is possible with {self}")
        if self.repetition_penalty < 1:
            raise ValueError(f"repetition_penalty is at least 1, not {self.repetition_penalty}")

    @property
    def is_greedy(self) -> bool:
        """Whether no random number is needed."""
        return self.temperature == 0


def choose_tokens(
    logits: Tensor, sampling: Sampling, seeds: Tensor, positions: Tensor, penalties: Tensor | None
) -> Tensor:
    """(rows,) int64 chosen tokens.

    Args:
        logits: (rows, vocabulary) float32; overwritten.
        sampling: The rules.
        seeds: (rows,) int64, of each row's random stream.
        positions: (rows,) int64, tokens generated before.
        penalties: (rows, vocabulary) float32: the repetition penalty at tokens of prompt and
            answer, else 1; none without a penalty.
    """
    if penalties is not None:
        penalise(logits, penalties)
    if sampling.is_greedy:
        return logits.argmax(-1)
    weights = weigh_tokens(logits, sampling)
    return _draw(weights, draw_uniform(seeds, positions))


def penalise(logits: Tensor, penalties: Tensor) -> None:
    """Divide positive scores by their penalties and multiply negative ones, in place.

    Of penalties from 1 on that is the smaller of both, which needs no comparison of signs.
    """
    import torch

    torch.minimum(logits * penalties, logits.div_(penalties), out=logits)


def weigh_tokens(logits: Tensor, sampling: Sampling) -> Tensor:
    """Weights (rows, vocabulary), proportional to probabilities; zero where a rule excludes.

    Args:
        logits: (rows, vocabulary) float32 after the penalty; overwritten.
        sampling: The rules; temperature is not 0.
    """
    # The largest weight is 1; equal logits stay equal, so that ties stay ties.
    logits -= logits.amax(-1, keepdim=True)
    logits /= sampling.temperature
    weights: Tensor = logits.exp_()
    if 0 < sampling.top_k < weights.shape[-1]:
        least = weights.topk(sampling.top_k, sorted=True).values[:, -1:]
        weights.masked_fill_(weights < least, 0)
    if sampling.top_p < 1:
        least = find_nucleus(weights, sampling.top_p)
        weights.masked_fill_(weights < least, 0)
    return weights


def find_nucleus(weights: Tensor, top_p: float) -> Tensor:
    """(rows, 1) smallest weight of the fewest likeliest tokens that hold ``top_p`` of all weight.

    Args:
        weights: (rows, vocabulary), not negative.
        top_p: Between 0 and 1.
    """
    wanted = weights.sum(-1).double()[:, None] * top_p
    if weights.is_cuda:
        # No branch may depend on the values inside a captured graph.
        return _least_within(weights.sort(-1, descending=True).values, wanted)[0]
    candidates = min(_CANDIDATES, weights.shape[-1])
    least, is_within = _least_within(weights.topk(candidates, sorted=True).values, wanted)
    rows = (~is_within[:, 0]).nonzero()[:, 0]
    if len(rows):
        least[rows] = _least_of_bins(weights[rows], wanted[rows])
    return least


def _least_of_bins(weights: Tensor, wanted: Tensor) -> Tensor:
    """As :func:`_least_within` for any width of the nucleus, without a sort of all weights.

    Weights are summed by bins of their leading bits; only those of one bin are then sorted.
    """
    import torch

    rows = len(weights)
    bins = weights.view(torch.int32) >> _BIN_BITS
    own = bins + torch.arange(rows, device=weights.device, dtype=torch.int32)[:, None] * _NUM_BINS
    sums = torch.bincount(own.flatten(), weights.flatten(), minlength=rows * _NUM_BINS)
    sums = sums.view(rows, _NUM_BINS).double().flip(-1)  # the largest weights first
    reached = sums.cumsum(-1)
    place = (reached < wanted).sum(-1, keepdim=True).clamp(max=_NUM_BINS - 1)
    before = (reached - sums).gather(-1, place)
    inside = bins == (_NUM_BINS - 1 - place)
    count = inside.sum(-1, keepdim=True)
    ordered = weights.masked_fill(~inside, 0).topk(max(1, int(count.amax())), sorted=True).values
    within = (before + ordered.double().cumsum(-1) < wanted).sum(-1, keepdim=True)
    # Sums of bins and of weights round differently: at the end of a bin its last weight stands.
    return ordered.gather(-1, within.minimum(count - 1).clamp(min=0))


def _least_within(ordered: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The weight at which the sum of ``ordered``, largest first, reaches ``wanted``, and if so."""
    reached = ordered.double().cumsum(-1)
    place = (reached < wanted).sum(-1, keepdim=True)
    is_within = place < ordered.shape[-1]
    return ordered.gather(-1, place.clamp(max=ordered.shape[-1] - 1)), is_within


def _draw(weights: Tensor, uniform: Tensor) -> Tensor:
    """The token at which the sum of weights passes ``uniform`` of their total.

    Sums are taken in two steps, pieces and then tokens of one piece: a running sum over the whole
    vocabulary would cost more than everything else here.
    """
    from torch.nn.functional import pad

    rows, size = weights.shape
    if size % _PIECE:
        weights = pad(weights, (0, -size % _PIECE))
    pieces = weights.view(rows, -1, _PIECE)
    sums = pieces.sum(-1).double().cumsum(-1)
    target = uniform[:, None] * sums[:, -1:]
    piece = _first_above(sums, target)
    before = sums.gather(1, piece - 1 + (piece == 0).long()).masked_fill(piece == 0, 0.0)
    inside = pieces.gather(1, piece[..., None].expand(-1, -1, _PIECE))[:, 0].double()
    token = piece * _PIECE + _first_above(inside.cumsum(-1), target - before)
    return token[:, 0]


def _first_above(sums: Tensor, target: Tensor) -> Tensor:
    """(rows, 1) first place whose running sum exceeds the target; never one of no weight.

    The target may round to the last sum or beyond: it is then the last place with weight.
    """
    last = (sums < sums[:, -1:]).sum(-1, keepdim=True)
    return (sums <= target).sum(-1, keepdim=True).minimum(last)
