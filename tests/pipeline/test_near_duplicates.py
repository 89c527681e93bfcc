"""Planted near-duplicates are found, what is merely similar stays, and the earliest row survives."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.matching import tokenize
from pipeline.near_duplicates import (
    GramSets,
    NearDuplicate,
    choose_bands,
    find_near_duplicates,
    find_near_rows,
    sketch_texts,
)

WORDS = ["".join(chr(97 + (i // 26**k) % 26) for k in range(3)) + "on" for i in range(4000)]


def run(texts: list[str], threshold: float = 0.7, ngram: int = 3) -> list[NearDuplicate]:
    return find_near_duplicates(lambda: texts, threshold=threshold, ngram=ngram)


def grams(text: str, n: int = 3) -> set[tuple[str, ...]]:
    words = tokenize(text)
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))} if words else set()


def jaccard(a: str, b: str) -> float:
    one, other = grams(a), grams(b)
    return len(one & other) / len(one | other)


def plant(rng: random.Random, changes: int, length: int = 120) -> tuple[str, str]:
    """A text and its copy with one run of words replaced; each change costs one 3-gram."""
    words = rng.choices(WORDS, k=length)
    copy = list(words)
    start = rng.randrange(length - changes) if changes < length else 0
    copy[start : start + changes] = rng.choices(WORDS, k=changes)
    return " ".join(words), " ".join(copy)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.85])
def test_recall_and_precision_on_planted_pairs(threshold: float) -> None:
    rng = random.Random(5)
    texts: list[str] = []
    near = far = 0
    for _ in range(600):
        texts += plant(rng, rng.randrange(1, 70))
    removed = {pair.removed: pair for pair in run(texts, threshold)}
    found_near = 0
    for row in range(1, len(texts), 2):
        similarity = jaccard(texts[row - 1], texts[row])
        if similarity >= threshold + 0.1:
            near += 1
            found_near += row in removed
        elif similarity <= threshold - 0.2:
            far += 1
            assert row not in removed
    assert near >= 15 and far >= 15
    assert found_near / near >= 0.99
    for row, pair in removed.items():
        assert pair.kept == row - 1
        assert pair.jaccard == pytest.approx(jaccard(texts[row], texts[pair.kept]), abs=0.001)


def test_numbers_and_notation() -> None:
    text = "A train leaves at $x = \\frac{3}{4}$ and arrives after 17 hours in the town of Ulm."
    same = "a train  leaves at x = \\dfrac{3}{4} and arrives after 17 hours in the town of Ulm"
    other = text.replace("17", "18").replace("{3}", "{5}")
    assert run([text, same, other], threshold=0.9) == [NearDuplicate(1, 0, 1.0)]


def test_chains_do_not_remove_what_is_unlike_the_row_that_stays() -> None:
    words = WORDS[:60]
    texts = [" ".join([*WORDS[1000 : 1000 + shift], *words[shift:]]) for shift in range(0, 60, 6)]
    pairs = run(texts, threshold=0.7)
    assert len(pairs) < len(texts) - 2
    for pair in pairs:
        assert jaccard(texts[pair.removed], texts[pair.kept]) >= 0.7


def test_texts_without_words_are_no_duplicates_and_short_ones_are_compared() -> None:
    assert run(["", "", "  ", "Find x", "", "find $x$", "Find y"]) == [NearDuplicate(5, 3, 1.0)]
    assert run([]) == []


def test_one_family_of_many_takes_linear_work() -> None:
    texts = [
        f"{'the same long phrase opens every one of these texts ' * 3} {i}" for i in range(5000)
    ]
    pairs = run(texts)
    assert [pair.removed for pair in pairs] == list(range(1, 5000))
    assert {pair.kept for pair in pairs} == {0}


LETTERS = st.text(alphabet="abc 1", min_size=0, max_size=14)


@given(st.lists(LETTERS, max_size=14), st.sampled_from([0.4, 0.7, 1.0]))
@settings(deadline=None, max_examples=60)
def test_what_stays_is_unlike_and_what_goes_is_like_an_earlier_row_that_stays(
    texts: list[str], threshold: float
) -> None:
    spaced = [" ".join(text) for text in texts]
    pairs = run(spaced, threshold)
    gone = {pair.removed for pair in pairs}
    assert len(gone) == len(pairs)
    assert pairs == run(spaced, threshold)
    for pair in pairs:
        assert pair.kept < pair.removed and pair.kept not in gone
        assert jaccard(spaced[pair.kept], spaced[pair.removed]) >= threshold
    stay = [text for row, text in enumerate(spaced) if row not in gone and tokenize(text)]
    # Equal sets always meet in every band.
    assert len({frozenset(grams(text)) for text in stay}) == len(stay)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9, 1.0])
def test_bands_find_pairs_at_the_threshold(threshold: float) -> None:
    bands, size = choose_bands(threshold)
    assert bands * size <= 128
    assert 1 - (1 - threshold**size) ** bands >= 0.995


def sketch_readers(texts: list[str]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    stored = sketch_texts(texts)

    def read_bands(first: int, last: int) -> Any:
        return stored.bands[:, first:last]

    def read_grams(rows: Any) -> GramSets:
        assert np.all(np.diff(rows) > 0)
        pieces = [stored.grams.values[slice(*stored.grams.offsets[row : row + 2])] for row in rows]
        sizes = np.cumsum([0, *(len(piece) for piece in pieces)])
        return GramSets(np.concatenate(pieces), sizes)

    return read_bands, read_grams


@pytest.mark.parametrize("memory", [1, 1 << 14, 1 << 28])
def test_stored_sketches_give_the_same_in_any_memory(memory: int) -> None:
    rng = random.Random(3)
    texts: list[str] = []
    for _ in range(150):
        texts += plant(rng, rng.randrange(1, 40))
    texts += ["", "Find x", "", *texts[:20]]
    texts += [f"{'the same long phrase opens all of these texts ' * 3} {i}" for i in range(80)]
    order = np.array(rng.sample(range(len(texts)), len(texts) - 5))
    found = find_near_rows(order, *sketch_readers(texts), threshold=0.8, memory=memory)
    ordered = [texts[row] for row in order]
    expected = [(order[p.removed], order[p.kept]) for p in run(ordered, threshold=0.8)]
    assert list(zip(found.removed, found.kept, strict=True)) == expected
    assert len(expected) > 100
    for removed, kept, likeness in zip(found.removed, found.kept, found.jaccard, strict=True):
        assert likeness == pytest.approx(jaccard(texts[removed], texts[kept]))


def test_more_candidates_than_fit_are_taken_in_rounds() -> None:
    rng = random.Random(2)
    stock = " ".join(rng.choices(WORDS, k=40))
    texts = [f"{stock} {' '.join(rng.choices(WORDS, k=rng.randrange(9)))}" for _ in range(1500)]
    order = np.arange(len(texts))
    small, large = (
        find_near_rows(order, *sketch_readers(texts), threshold=0.9, memory=memory)
        for memory in (1, 1 << 28)
    )
    assert small.removed.tolist() == large.removed.tolist()
    assert small.kept.tolist() == large.kept.tolist()
    assert 100 < len(small.removed) < 1400


def test_no_rows_and_rows_without_likeness() -> None:
    for texts in ([], ["", ""], ["one two three", "four five six"]):
        order = np.arange(len(texts))
        found = find_near_rows(order, *sketch_readers(texts), threshold=0.8)
        assert len(found.removed) == 0


@given(st.lists(LETTERS, max_size=14))
@settings(deadline=None, max_examples=60)
def test_stored_grams_are_as_many_as_the_texts_have(texts: list[str]) -> None:
    spaced = [" ".join(text) for text in texts]
    stored = sketch_texts(spaced).grams
    assert len(stored) == len(texts)
    for row, text in enumerate(spaced):
        own = stored.values[stored.offsets[row] : stored.offsets[row + 1]]
        assert len(set(own.tolist())) == len(grams(text))
