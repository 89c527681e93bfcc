"""Which accepted rows a phase takes, and in which order.

Pure functions over flat arrays (:mod:`curriculum.features`): the same rows, settings and seed give
the same choice, whoever computed the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from curriculum.cross_phase import Repeats, find_repeats
from curriculum.dedupe import NearSearch
from curriculum.drawing import Supply, draw_amount, draw_sources
from curriculum.features import DOMAINS, Features, Mask, Rows
from curriculum.ordering import arrange, draw_lots
from pipeline.errors import ConfigError
from pipeline.settings.phases import PhaseSettings

STAGE = "mix"
REASONS = ("not_drawn", "domain_not_taken", "in_other_phase", "near_in_other_phase")
"""Why a candidate is not in the phase; ``Choice.reasons`` holds positions here."""
NOT_DRAWN, DOMAIN_NOT_TAKEN, IN_OTHER_PHASE, NEAR_IN_OTHER_PHASE = range(len(REASONS))


def _no_rows() -> Rows:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The rows a phase can choose from: those that the length gate and deduplication left."""

    features: Features
    candidates: Rows
    """Ascending row numbers, of the phase's own sources: ``features.source`` is the place in
    ``settings.sources``."""
    replayable: Rows = field(default_factory=_no_rows)
    """Ascending row numbers that the replayed phase chose, each once. Sources that only that phase
    has are numbered after this one's."""
    taken: Repeats = field(default_factory=Repeats.none)
    """Candidates whose question is held by a phase that this one must be distinct from."""
    find_near: NearSearch | None = None
    """Finds rows to replay whose question the phase holds in nearly the same words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceMix:
    """What a phase took of one source; for the manifest."""

    source: str
    available: int
    """Candidates left by the filters."""
    rows: int
    """Rows taken, copies counted."""
    copies: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A phase's rows in output order, and what became of the other candidates."""

    rows: Rows
    copies: npt.NDArray[np.uint16]
    """Beside ``rows``: 0 for a row's first occurrence, then 1, 2 and so on; see
    :func:`make_copy_id`. Copies count among the rows that come in."""
    refused: Rows
    """Ascending candidates that are not in ``rows``."""
    reasons: npt.NDArray[np.uint8]
    """Beside ``refused``."""
    mix: tuple[SourceMix, ...]
    """In the order of the phase's sources."""
    num_replayed: int
    """How many of ``rows`` come from the replayed phase. They count among the rows that come in;
    what was not drawn of that phase does not, and is not among ``refused``."""


def choose(pool: Pool, settings: PhaseSettings, *, seed: int, phase: str) -> Choice:
    """Filter, draw, replay and order a phase's rows.

    Args:
        pool: What there is.
        settings: The phase, resolved: a variant's changes are in it.
        seed: The recipe's seed.
        phase: Its name; a variant draws with its phase's, so that equal parts get equal rows.

    Raises:
        ConfigError: A setting leaves nothing or rounds to no effect, or rows are too few for it.
    """
    features = pool.features
    verdicts = _filter(pool, settings)
    free = pool.candidates[verdicts == NOT_DRAWN]
    supplies = []
    for place, entry in enumerate(settings.sources):
        mine = free[features.source[free] == place]
        mine = _shuffle(features, mine, seed=seed, purpose=f"draw-phase-{phase}")
        supplies.append(Supply(entry=entry, rows=mine, tokens=features.num_tokens[mine]))
    draws = draw_sources(supplies, settings, phase)
    parts, mix = [], []
    for supply, draw in zip(supplies, draws, strict=True):
        rows, copies = draw.expand(supply.rows)
        parts.append((rows, copies))
        mix.append(
            SourceMix(
                source=supply.entry.source,
                available=len(supply.rows),
                rows=len(rows),
                copies=int((copies > 0).sum()),
                tokens=draw.amount(supply.tokens),
            )
        )
    replayed = _replay(pool, [rows for rows, _ in parts], settings, seed=seed, phase=phase)
    parts.append((replayed, np.zeros(len(replayed), np.int64)))
    rows, copies = (np.concatenate(column) for column in zip(*parts, strict=True))
    lots = draw_lots(features, rows, seed=seed, purpose=f"order-phase-{phase}", copies=copies)
    places = arrange(features, rows, copies=copies, order=settings.order, lots=lots)
    left_out = ~np.isin(pool.candidates, rows)
    return Choice(
        rows=rows[places],
        copies=copies[places].astype(np.uint16),
        refused=pool.candidates[left_out],
        reasons=verdicts[left_out],
        mix=tuple(mix),
        num_replayed=len(replayed),
    )


def make_copy_id(row_id: str, copy: int) -> str:
    """The id of a row's copy: unique, and found by the row's own id as its beginning."""
    return row_id if copy == 0 else f"{row_id}-{copy + 1}"


def describe_refusal(settings: PhaseSettings, source: int, reason: int) -> str:
    """The detail of a refused row's record."""
    entry = settings.sources[source]
    if reason == DOMAIN_NOT_TAKEN:
        return f"domains taken: {', '.join(entry.domains or settings.domains)}"
    if reason in (IN_OTHER_PHASE, NEAR_IN_OTHER_PHASE):
        return f"distinct from phase {', '.join(settings.distinct_from)}"
    kind = f"share {entry.share:g}" if entry.weight is None else f"weight {entry.weight:g}"
    caps = {"cap_rows": entry.cap_rows, "cap_tokens": entry.cap_tokens}
    stated = [kind, *(f"{name} {cap}" for name, cap in caps.items() if cap is not None)]
    return f"{', '.join(stated)} of source {entry.source}"


def _shuffle(features: Features, rows: Rows, *, seed: int, purpose: str) -> Rows:
    lots = draw_lots(features, rows, seed=seed, purpose=purpose)
    return rows[np.argsort(lots, kind="stable")]


def _filter(pool: Pool, settings: PhaseSettings) -> npt.NDArray[np.uint8]:
    """A reason per candidate; ``NOT_DRAWN`` for those that may be drawn."""
    features, rows = pool.features, pool.candidates
    verdicts = np.full(len(rows), NOT_DRAWN, np.uint8)
    if settings.distinct_from:
        is_same = pool.taken.jaccard == 1
        verdicts[np.isin(rows, pool.taken.rows[is_same])] = IN_OTHER_PHASE
        verdicts[np.isin(rows, pool.taken.rows[~is_same])] = NEAR_IN_OTHER_PHASE
    verdicts[~_in_domains(features, rows, settings.domains)] = DOMAIN_NOT_TAKEN
    for place, entry in enumerate(settings.sources):
        outside = ~_in_domains(features, rows, entry.domains)
        verdicts[outside & (features.source[rows] == place)] = DOMAIN_NOT_TAKEN
    return verdicts


def _in_domains(features: Features, rows: Rows, domains: Sequence[str]) -> Mask:
    codes = [DOMAINS.index(domain) for domain in domains or DOMAINS]
    mask: Mask = np.isin(features.domain[rows], codes)
    return mask


def _replay(
    pool: Pool, own: Sequence[Rows], settings: PhaseSettings, *, seed: int, phase: str
) -> Rows:
    """Rows of the other phase, so many that they are the stated part of the whole."""
    replay = settings.replay
    if replay is None or replay.ratio == 0:
        return _no_rows()
    features = pool.features
    free = pool.replayable[_in_domains(features, pool.replayable, settings.domains)]
    # The same row, or another trace of a question that the phase (nearly) holds, is no replay.
    repeats = find_repeats(features, free, [np.unique(np.concatenate(own))], pool.find_near)
    free = np.setdiff1d(free, repeats.rows, assume_unique=True)
    free = _shuffle(features, free, seed=seed, purpose=f"replay-phase-{phase}")
    tokens, by_tokens = features.num_tokens, settings.mix_by == "tokens"
    sizes = tokens[free] if by_tokens else np.ones(len(free), np.int64)
    amount = sum(int(tokens[rows].sum()) if by_tokens else len(rows) for rows in own)
    wanted = amount * replay.ratio / (1 - replay.ratio)
    what = f"phase {phase}: replay ratio {replay.ratio:g} wants {wanted:,.0f} {settings.mix_by}"
    if wanted > int(sizes.sum()):
        raise ConfigError(
            f"{what} of phase {replay.phase}, which has {int(sizes.sum()):,} to give",
            hint="lower the ratio, or let that phase take more rows",
        )
    draw = draw_amount(sizes, wanted)
    if draw.is_empty:
        raise ConfigError(
            f"{what} of phase {replay.phase}, which rounds to no rows",
            hint="raise the ratio, or set it to 0 for none",
        )
    return draw.expand(free)[0]
