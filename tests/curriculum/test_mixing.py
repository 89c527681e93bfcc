"""The mix of a phase: what shares, weights, caps, repeats, replay and orders do to the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.cross_phase import Repeats
from curriculum.features import DOMAINS, Features, Rows, join_features, pack_ids
from curriculum.licences import check_licences
from curriculum.mixing import REASONS, Choice, Pool, choose, describe_refusal, make_copy_id
from pipeline.errors import ConfigError, LicenceRefused
from pipeline.settings.phases import PhaseSettings


def make_features(*counts: int, seed: int = 0, first_source: int = 0) -> Features:
    """So many rows of each source, with random content."""
    random, n = np.random.default_rng(seed), sum(counts)
    return Features(
        source=np.repeat(np.arange(len(counts)) + first_source, counts).astype(np.uint8),
        row_id=random.integers(0, 2**64, (n, 2), np.uint64),
        question=random.integers(0, 2**64, n, np.uint64),
        trace=random.integers(0, 2**64, n, np.uint64),
        num_prompt_tokens=random.integers(1, 50, n).astype(np.uint32),
        num_completion_tokens=random.integers(1, 500, n).astype(np.uint32),
        is_verified=np.zeros(n, np.bool_),
        domain=random.integers(0, len(DOMAINS), n).astype(np.uint8),
        licence=np.zeros(n, np.uint16),
        difficulty_rank=random.choice([10, 30, 60], n).astype(np.float32),
        licences=("mit",),
    )


def phase(*sources: dict[str, Any], **values: Any) -> PhaseSettings:
    named = [{"source": f"s{place}", **entry} for place, entry in enumerate(sources)]
    return PhaseSettings.model_validate({"max_tokens": 16384, "sources": named, **values})


def take(features: Features, wanted: PhaseSettings, **pool: Any) -> Choice:
    candidates = np.flatnonzero(features.source < len(wanted.sources))
    return choose(Pool(features=features, candidates=candidates, **pool), wanted, seed=7, phase="1")


def tokens_of(features: Features, rows: Rows) -> int:
    return int(features.num_tokens[rows].sum())


sizes = st.lists(st.integers(1, 60), min_size=1, max_size=4)


@given(sizes, st.data())
@settings(max_examples=60, deadline=None)
def test_every_row_is_chosen_or_refused_and_shares_hold(counts: list[int], data: Any) -> None:
    features = make_features(*counts)
    shares = [data.draw(st.floats(0.05, 3.5)) for _ in counts]
    unit = data.draw(st.sampled_from(["rows", "tokens"]))
    order = data.draw(st.sampled_from(["shuffled", "as-is", "difficulty", "length"]))
    wanted = phase(*({"share": s} for s in shares), mix_by=unit, order=order)
    try:
        choice = take(features, wanted)
    except ConfigError as error:
        # Only what rounding would undo is refused.
        assert "rounds to" in str(error)
        return
    assert set(choice.rows) | set(choice.refused) == set(range(sum(counts)))
    assert not set(choice.rows) & set(choice.refused)
    pairs = set(zip(choice.rows.tolist(), choice.copies.tolist(), strict=True))
    assert len(pairs) == len(choice.rows)
    assert all(copy == 0 or (row, copy - 1) in pairs for row, copy in pairs)
    for place, share in enumerate(shares):
        whole = np.flatnonzero(features.source == place)
        mine = choice.rows[features.source[choice.rows] == place]
        if unit == "rows":
            assert abs(len(mine) - share * len(whole)) <= 0.5 + 1e-6
        else:
            slack = int(features.num_tokens[whole].max()) / 2
            wanted_tokens = share * tokens_of(features, whole)
            assert abs(tokens_of(features, mine) - wanted_tokens) <= slack + 1e-3
        assert choice.mix[place].rows == len(mine)
        assert choice.mix[place].tokens == tokens_of(features, mine)


@given(st.integers(2, 200), st.floats(0.01, 4), st.floats(0.01, 4))
@settings(max_examples=60, deadline=None)
def test_a_larger_share_holds_all_rows_of_a_smaller_one(n: int, a: float, b: float) -> None:
    features = make_features(n)
    small, large = sorted((a, b))
    chosen = []
    for share in (small, large):
        try:
            choice = take(features, phase({"share": share}))
        except ConfigError:
            return
        chosen.append(set(zip(choice.rows.tolist(), choice.copies.tolist(), strict=True)))
    assert chosen[0] <= chosen[1]


@given(st.lists(st.integers(20, 300), min_size=2, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_weights_set_the_proportions_and_always_show(counts: list[int], data: Any) -> None:
    features = make_features(*counts)
    weights = [data.draw(st.floats(0.1, 5)) for _ in counts]
    unit = data.draw(st.sampled_from(["rows", "tokens"]))
    wanted = phase(*({"weight": w} for w in weights), mix_by=unit)
    plain = take(features, phase(*({} for _ in weights)))
    try:
        choice = take(features, wanted)
    except ConfigError as error:
        assert "round to no effect" in str(error) or "rounds to no rows" in str(error)
        return
    if len(choice.rows) == len(plain.rows):
        # Nothing was left out: then the weights are the sources' own proportions.
        amounts = counts if unit == "rows" else [m.tokens for m in plain.mix]
        ratios = [a / w for a, w in zip(amounts, weights, strict=True)]
        assert max(ratios) == pytest.approx(min(ratios))
    # The scarcest source is taken whole, the others in proportion, to the nearest row.
    amounts = [m.rows if unit == "rows" else m.tokens for m in choice.mix]
    scale = min(
        (counts[k] if unit == "rows" else plain.mix[k].tokens) / w for k, w in enumerate(weights)
    )
    slack = 0.5 if unit == "rows" else int(features.num_tokens.max()) / 2
    for amount, weight in zip(amounts, weights, strict=True):
        assert abs(amount - scale * weight) <= slack + 1e-3


def test_any_change_of_a_weight_by_a_row_changes_the_rows() -> None:
    features = make_features(100, 1000)
    counts = [
        [m.rows for m in take(features, phase({"weight": 100}, {"weight": w})).mix]
        for w in range(400, 420)
    ]
    assert counts == [[100, w] for w in range(400, 420)]


def test_weights_that_round_away_are_refused_and_natural_ones_are_not() -> None:
    features = make_features(100, 100)
    with pytest.raises(ConfigError, match="round to no effect"):
        take(features, phase({"weight": 1.0}, {"weight": 1.001}))
    assert len(take(features, phase({"weight": 1.0}, {"weight": 1.0})).rows) == 200
    with pytest.raises(ConfigError, match=r"weight 1e-05 of source 's1' rounds to no rows"):
        take(features, phase({"weight": 1.0}, {"weight": 1e-5}))
    for share, outcome in ((0.001, "no rows"), (0.999, "1 times all rows"), (2.001, "2 times")):
        with pytest.raises(ConfigError, match=f"rounds to {outcome}"):
            take(features, phase({"share": share}, {}))


def test_repeats_reach_a_size_with_ids_of_their_own() -> None:
    features = make_features(10, 90)
    entries = [{"weight": 1, "max_repeats": 5}, {"weight": 1}]
    choice = take(features, phase(*entries, size=90))
    assert [m.rows for m in choice.mix] == [45, 45]
    assert choice.mix[0].copies == 35
    repeated = choice.rows < 10
    assert set(np.bincount(choice.rows[repeated])) == {4, 5}
    ids = [
        make_copy_id(features.hex_id(row), copy)
        for row, copy in zip(choice.rows, choice.copies, strict=True)
    ]
    assert len(set(ids)) == 90
    # Copies are spread, not beside their originals.
    assert (np.diff(choice.rows) == 0).sum() < 10
    with pytest.raises(ConfigError, match=r"needs 100 of source 's0', which can give 50"):
        take(features, phase(*entries, size=200))


def test_caps_are_never_passed() -> None:
    features = make_features(50, 50)
    choice = take(features, phase({"cap_rows": 20, "share": 3}, {"cap_tokens": 3000}))
    assert choice.mix[0].rows == 20
    left = 3000 - choice.mix[1].tokens
    assert 0 <= left < int(features.num_tokens.max())
    repeated = take(features, phase({"cap_rows": 120, "share": 3}, {}))
    assert (repeated.mix[0].rows, repeated.mix[0].copies) == (120, 70)
    weighed = take(features, phase({"weight": 1, "cap_rows": 10}, {"weight": 2}))
    assert [m.rows for m in weighed.mix] == [10, 20]
    with pytest.raises(ConfigError, match="cap_tokens 1 of source 's1' is less than"):
        take(features, phase({}, {"cap_tokens": 1}))


def test_domains_filter_the_phase_and_one_source() -> None:
    features = make_features(60, 60)
    maths = take(features, phase({}, {}, domains=["math"]))
    assert set(features.domain[maths.rows]) == {DOMAINS.index("math")}
    assert {REASONS[code] for code in maths.reasons} == {"domain_not_taken"}
    wanted = phase({}, {"domains": ["code"]})
    mixed = take(features, wanted)
    assert mixed.mix[0].rows == 60
    second = mixed.rows[features.source[mixed.rows] == 1]
    assert set(features.domain[second]) == {DOMAINS.index("code")}
    assert describe_refusal(wanted, 1, int(mixed.reasons[0])) == "domains taken: code"


@pytest.mark.parametrize("unit", ["rows", "tokens"])
@pytest.mark.parametrize("ratio", [0.1, 0.3])
def test_replay_is_that_part_of_the_whole(unit: str, ratio: float) -> None:
    features = make_features(200, 400)
    other = np.flatnonzero(features.source == 1)
    wanted = phase({}, mix_by=unit, replay={"ratio": ratio})
    choice = take(features, wanted, replayable=other)
    replayed = choice.rows[features.source[choice.rows] == 1]
    assert choice.num_replayed == len(replayed) == len(set(replayed))
    if unit == "rows":
        assert len(replayed) / len(choice.rows) == pytest.approx(ratio, abs=0.003)
    else:
        part = tokens_of(features, replayed) / tokens_of(features, choice.rows)
        assert part == pytest.approx(ratio, abs=0.01)
    assert not len(choice.refused)
    none = take(features, phase({}, replay={"ratio": 0}), replayable=other)
    assert len(none.rows) == 200
    own = np.sort(choice.rows[features.source[choice.rows] == 0])
    assert own.tolist() == sorted(none.rows)


def test_replay_refuses_what_it_cannot_give() -> None:
    features = make_features(200, 20)
    other = np.flatnonzero(features.source == 1)
    with pytest.raises(ConfigError, match=r"wants 200 rows of phase 1, which has 20"):
        take(features, phase({}, replay={"ratio": 0.5}), replayable=other)
    with pytest.raises(ConfigError, match="rounds to no rows"):
        take(features, phase({}, replay={"ratio": 0.001}), replayable=other)


def test_replay_takes_no_row_twice() -> None:
    features = make_features(100)
    wanted = phase({"share": 0.5}, replay={"ratio": 0.4})
    choice = take(features, wanted, replayable=np.arange(100))
    assert len(choice.rows) == len(set(choice.rows)) == 83
    assert sorted([*choice.rows, *choice.refused]) == list(range(100))


def test_questions_of_another_phase_are_left_out() -> None:
    features = make_features(30)
    wanted = phase({}, distinct_from=["2"])
    taken = Repeats(
        rows=np.array([3, 5]), kept=np.array([7, 8]), jaccard=np.array([1, 0.9], np.float32)
    )
    choice = take(features, wanted, taken=taken)
    assert choice.refused.tolist() == [3, 5]
    assert [REASONS[code] for code in choice.reasons] == ["in_other_phase", "near_in_other_phase"]


def test_orders() -> None:
    features = make_features(80, 80)
    ranks = {}
    for order in ("shuffled", "as-is", "difficulty", "length"):
        rows = take(features, phase({}, {}, order=order)).rows
        assert sorted(rows) == list(range(160))
        ranks[order] = rows
    assert ranks["as-is"].tolist() == list(range(160))
    assert (np.diff(features.difficulty_rank[ranks["difficulty"]]) >= 0).all()
    assert (np.diff(features.num_tokens[ranks["length"]]) >= 0).all()
    # Rows of one difficulty are shuffled, sources with them.
    first = features.source[ranks["difficulty"]][:20]
    assert 0 < first.sum() < 20
    assert 0 < features.source[ranks["shuffled"]][:20].sum() < 20


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_a_rows_lot_depends_on_nothing_but_itself(n: int, m: int, seed: int) -> None:
    first, second = make_features(n, seed=1), make_features(m, seed=2)
    joined = join_features([first, second])
    alone, together = (
        choose(
            Pool(features=f, candidates=np.arange(len(f))), phase({}), seed=seed, phase="1"
        ).rows.tolist()
        for f in (first, joined)
    )
    assert [row for row in together if row < n] == alone


def test_ids_sort_as_their_bytes_do() -> None:
    ids = [bytes([a, *range(14), b]) for a in (0, 127, 255) for b in (0, 1, 255)]
    packed = pack_ids(b"".join(ids))
    assert packed.tolist() == sorted(packed.tolist())
    features = make_features(len(ids))
    object.__setattr__(features, "row_id", packed)
    assert [features.hex_id(n) for n in range(len(ids))] == [i.hex() for i in ids]


def test_joined_features_keep_their_licences() -> None:
    first, second = make_features(2), make_features(2, first_source=1)
    object.__setattr__(second, "licences", ("apache-2.0", "mit"))
    object.__setattr__(second, "licence", np.array([1, 0], np.uint16))
    joined = join_features([first, second])
    assert [joined.licences[c] for c in joined.licence] == ["mit", "mit", "mit", "apache-2.0"]
    rows = np.arange(4)
    check_licences(joined, rows, phase({}, {}), phase="1")
    check_licences(joined, rows[:3], phase({}, {}, allowed_licences=["MIT"]), phase="1")
    with pytest.raises(LicenceRefused, match=r"1 rows 'apache-2\.0' \(s1\)"):
        check_licences(joined, rows, phase({}, {}, allowed_licences=["mit"]), phase="1")


def test_variants_change_what_they_name_and_rename_nothing() -> None:
    wanted = phase(
        {"weight": 1}, {"weight": 2}, replay={"ratio": 0.1},
        variants={
            "no-s1": {"without": ["s1"]},
            "no-replay": {"replay": {"ratio": 0}},
            "maths": {"domains": ["math"], "sources": [{"source": "s0"}]},
        },
    )  # fmt: skip
    base = wanted.resolve()
    assert base == phase({"weight": 1}, {"weight": 2}, replay={"ratio": 0.1})
    # An only source has nothing to be weighed against: it is taken whole.
    assert [(s.source, s.weight) for s in wanted.resolve("no-s1").sources] == [("s0", None)]
    assert wanted.resolve("no-replay").replay.ratio == 0  # type: ignore[union-attr]
    assert wanted.resolve("no-replay").sources == base.sources
    assert wanted.resolve("maths").domains == ("math",)
    with pytest.raises(ConfigError, match=r"no variant 'nope' \(the phase has: maths, no-replay"):
        wanted.resolve("nope")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sources": [{"source": "a", "weight": 1}, {"source": "b"}]}, "every source"),
        ({"sources": [{"source": "a"}], "size": 5}, "needs|divided by weights"),
        ({"sources": [{"source": "a", "weight": 2}]}, "only source changes nothing"),
        ({"sources": [{"source": "a", "weight": 2, "share": 0.5}]}, "not both"),
        ({"sources": [{"source": "a"}, {"source": "a"}]}, "each source once"),
        ({"sources": [], "variants": {"x": {"without": ["q"]}}}, "no source 'q'"),
        ({"sources": [], "variants": {"A b": {}}}, "lower-case"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PhaseSettings.model_validate({"max_tokens": 64, **values})
