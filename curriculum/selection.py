"""From all prepared rows to the rows of a phase: length, duplicates, mix, licences, order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curriculum.cross_phase import Repeats, find_repeats
from curriculum.dedupe import Duplicates, NearSearch, find_duplicates
from curriculum.features import Features, Rows
from curriculum.licences import check_licences
from curriculum.loading import Corpus, load_corpus
from curriculum.mixing import Choice, Pool, choose
from curriculum.near_questions import StoredQuestions, make_search
from curriculum.prepared import PreparedSource
from curriculum.reworded import JudgedPair
from pipeline.errors import ConfigError
from pipeline.settings.curriculum import CurriculumSettings
from pipeline.settings.phases import PhaseSettings
from pipeline.settings.recipe import RecipeSettings

MEASURE = "measure"
OVER_MAX_TOKENS = "over_max_tokens"


@dataclass(frozen=True, slots=True)
class Reworded:
    """Rows that a teacher took for a benchmark's item, ascending, and the item of each."""

    rows: Rows
    pairs: tuple[JudgedPair, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A phase's rows in output order, and what became of the other prepared rows."""

    settings: PhaseSettings
    corpus: Corpus
    """The rows of the phase's own sources, then of those that only phases it refers to have."""
    num_own: int
    """Rows of the phase's own sources: all before this number."""
    reworded: Reworded
    """Rows that a teacher took for a benchmark's item."""
    over: Rows
    """Ascending rows over the phase's length limit."""
    duplicates: Duplicates
    taken: Repeats
    """Rows whose question a phase holds that this one is distinct from."""
    choice: Choice

    @property
    def num_rows(self) -> int:
        """Rows of the phase, copies and replayed ones counted."""
        return len(self.choice.rows)


def select_rows(
    recipe: RecipeSettings,
    prepared: dict[str, PreparedSource],
    *,
    phase: str,
    variant: str | None = None,
    reworded: Mapping[str, Sequence[JudgedPair]] | None = None,
) -> Selection:
    """Choose and order a phase's rows.

    Args:
        recipe: Phases, limits and seed.
        prepared: By name, the sources of this phase and of those it refers to.
        phase: The phase to choose for.
        variant: An ablation of it.
        reworded: By source, rows that a teacher took for a benchmark's item.

    Raises:
        LicenceRefused: A chosen row's licence is not among the phase's.
        ConfigError: A share or weight leaves nothing or has no effect.
    """
    curriculum = recipe.curriculum
    settings = curriculum.phases[phase].resolve(variant)
    others = {
        name: select_rows(recipe, prepared, phase=name, reworded=reworded)
        for name in referred_phases(settings)
    }
    own = [prepared[entry.source] for entry in settings.sources]
    corpus = load_corpus(_with_sources_of(others, own))
    features = corpus.features
    chosen = {name: _translate(other, corpus) for name, other in others.items()}
    search = make_search(StoredQuestions(corpus), curriculum) if curriculum.deduplicate else None
    num_own = int(np.searchsorted(features.source, len(own)))
    out = _find_reworded(corpus, num_own, reworded or {})
    is_clean = ~np.isin(np.arange(num_own), out.rows)
    tokens = features.num_tokens[:num_own]
    fitting = np.flatnonzero((tokens <= settings.max_tokens) & is_clean)
    duplicates = _deduplicate(curriculum, features, fitting, search)
    candidates = np.setdiff1d(fitting, duplicates.removed, assume_unique=True)
    distinct = [chosen[name] for name in settings.distinct_from]
    taken = find_repeats(features, candidates, distinct, search)
    pool = Pool(
        features=features,
        candidates=candidates,
        replayable=chosen[settings.replay.phase] if settings.replay else np.zeros(0, np.int64),
        taken=taken,
        find_near=search,
    )
    choice = choose(pool, settings, seed=recipe.seed, phase=phase)
    check_licences(features, choice.rows, settings, phase=phase)
    return Selection(
        settings=settings,
        corpus=corpus,
        num_own=num_own,
        reworded=out,
        over=np.flatnonzero((tokens > settings.max_tokens) & is_clean),
        duplicates=duplicates,
        taken=taken,
        choice=choice,
    )


def _find_reworded(
    corpus: Corpus, num_own: int, reworded: Mapping[str, Sequence[JudgedPair]]
) -> Reworded:
    starts = {
        (source.name, index): int(corpus.starts[number]) for number, source, index in corpus.parts()
    }
    numbered = [
        (starts[source.name, pair.part] + pair.row, pair)
        for source in corpus.sources
        for pair in reworded.get(source.name, ())
    ]
    own = [entry for entry in numbered if entry[0] < num_own]
    return Reworded(np.array([row for row, _ in own], np.int64), tuple(pair for _, pair in own))


def referred_phases(settings: PhaseSettings) -> list[str]:
    """Phases whose choice this one depends on."""
    replayed = [settings.replay.phase] if settings.replay else []
    return sorted({*settings.distinct_from, *replayed})


def require_no_circle(
    curriculum: CurriculumSettings, phase: str, settings: PhaseSettings, above: tuple[str, ...] = ()
) -> None:
    """Hold phases to referring to each other in one direction.

    Raises:
        ConfigError: A phase depends on itself.
    """
    for name in referred_phases(settings):
        if name in (*above, phase):
            raise ConfigError(
                f"phase {phase} and phase {name} refer to each other (replay, distinct_from)",
                hint="drop one of the two references",
            )
        require_no_circle(curriculum, name, curriculum.phases[name], (*above, phase))


def _with_sources_of(
    others: Mapping[str, Selection], own: list[PreparedSource]
) -> list[PreparedSource]:
    """A phase's own sources, then those that only the phases it refers to have."""
    sources = list(own)
    for other in others.values():
        sources += [source for source in other.corpus.sources if source not in sources]
    return sources


def _deduplicate(
    curriculum: CurriculumSettings, features: Features, rows: Rows, search: NearSearch | None
) -> Duplicates:
    if not curriculum.deduplicate:
        nothing = np.zeros(0, np.int64)
        return Duplicates(
            removed=nothing,
            kept=nothing,
            reasons=np.zeros(0, np.uint8),
            jaccard=np.zeros(0, np.float32),
        )
    return find_duplicates(features, rows, curriculum.traces_per_question, find_near=search)


def _translate(other: Selection, corpus: Corpus) -> Rows:
    """The rows that another phase chose, as numbers of this phase's corpus, each once."""
    chosen = np.unique(other.choice.rows)
    theirs = _source_starts(other.corpus.features, len(other.corpus.sources))
    ours = _source_starts(corpus.features, len(corpus.sources))
    place = [corpus.sources.index(source) for source in other.corpus.sources]
    source = other.corpus.features.source[chosen]
    rows: Rows = chosen - theirs[source] + ours[np.array(place)][source]
    return np.sort(rows)


def _source_starts(features: Features, num_sources: int) -> npt.NDArray[np.int64]:
    starts: npt.NDArray[np.int64] = np.searchsorted(features.source, np.arange(num_sources))
    return starts
