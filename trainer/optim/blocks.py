"""Eight-bit numbers in blocks: codes even in the logarithm, times their block's largest value.

Rounding is random with the right mean. Rounding to nearest would freeze a running average: with
``beta2 = 0.95`` it moves by at most 5 % a step, which is less than half the distance of two codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 256
"""Elements that share one scale."""


@dataclass(frozen=True, slots=True)
class Codebook:
    """Magnitudes ``ratio ** (k - top)`` for codes k = 1 … top; code 0 is zero."""

    top: int
    decades: float
    """Powers of ten between the smallest and the largest magnitude."""
    signed: bool

    @property
    def ratio(self) -> float:
        """Of two neighbouring magnitudes."""
        return float(10.0 ** (self.decades / (self.top - 1)))


FIRST_MOMENT = Codebook(top=127, decades=6.0, signed=True)
SECOND_MOMENT = Codebook(top=255, decades=10.0, signed=False)


def encode(values: Tensor, dice: Tensor, book: Codebook) -> tuple[Tensor, Tensor]:
    """Codes and scales of flat float32 values.

    Args:
        values: (n,), float32.
        dice: (n,), float32 in [0, 1): decides between the two neighbouring codes.
        book: Which codes.

    Returns:
        Codes (n,), uint8 (signed ones hold the sign in the top bit); scales (ceil(n / BLOCK),),
        float32. A second moment above zero never becomes zero: dividing by it must stay finite.
    """
    size = values.numel()
    rows = pad(values, (0, -size % BLOCK)).view(-1, BLOCK)
    scales = rows.abs().amax(dim=1)
    shares = (rows.abs() / scales.clamp(min=1e-38)[:, None]).view(-1)[:size]
    log_ratio = torch.log(torch.tensor(book.ratio, dtype=torch.float32)).item()
    places = (torch.log(shares.clamp(min=1e-38)) / log_ratio + book.top).clamp(0, book.top)
    lower = places.floor().clamp(max=book.top - 1)
    low = _magnitude(lower, book, log_ratio)
    high = _magnitude(lower + 1, book, log_ratio)
    codes = lower + (dice < (shares - low) / (high - low))
    if not book.signed:
        codes = torch.where(values > 0, codes.clamp(min=1), codes)
    else:
        codes = codes + 128.0 * (values < 0)
    return codes.to(torch.uint8), scales


def decode(codes: Tensor, scales: Tensor, book: Codebook) -> Tensor:
    """Float32 values (n,) of codes (n,) and their blocks' scales."""
    size = codes.numel()
    table = _table(book).to(codes.device)
    values = pad(table[codes.int()], (0, -size % BLOCK)).view(-1, BLOCK) * scales[:, None]
    return values.view(-1)[:size]


def _magnitude(codes: Tensor, book: Codebook, log_ratio: float) -> Tensor:
    return torch.where(codes > 0, torch.exp((codes - book.top) * log_ratio), 0.0)


def _table(book: Codebook) -> Tensor:
    codes = torch.arange(256, dtype=torch.float32)
    if not book.signed:
        return torch.where(codes > 0, book.ratio ** (codes - book.top), 0.0)
    size = codes % 128
    sign = torch.where(codes >= 128, -1.0, 1.0)
    return torch.where(size > 0, sign * book.ratio ** (size - book.top), 0.0)
