"""Spellings of one concept become one name; other numbers, negations and words stay apart."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptcot.canonical import canonicalize, clean_name

WORDS = """even odd function functions sum the of and not non-linear linear 2D 3D $n$ color colour
theorem theorm Euler's Euler sub set subset 12 1 2 interval internal analysis Analyses""".split()  # noqa: SIM905
NAMES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
COUNTS = st.dictionaries(NAMES, st.integers(1, 9), min_size=1, max_size=25)


def canonical_names(*names: str, similarity: float = 0.6) -> list[str]:
    aliases = canonicalize(dict.fromkeys(names, 1), similarity)
    return sorted({alias.canonical for alias in aliases.values()})


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("Knowledge Point: modular arithmetic.", "modular arithmetic"),
        ("Knowledge point 3: Modular arithmetic", "Modular arithmetic"),
        ("1. **Vieta\u2019s formulas**", "Vieta's formulas"),
        ("- roots of $x^{2}+1$;", "roots of x^2+1"),
        ("powers x\u00b2 and x\u00b9\u2070", "powers x^2 and x^10"),
        ("sums of $\\frac{1}{n}$", "sums of 1/n"),
        ("fields \\(\\mathbb{Z}_p\\)", "fields Z_p"),
        ("area \\pi r^2", "area pi r^2"),
        ("  Inclusion\u2013exclusion   principle ", "Inclusion-exclusion principle"),
        ("\u201cgreedy algorithms\u201d", "greedy algorithms"),
        ("Understanding of the properties of squares", "properties of squares"),
        ("Familiarity with the concept of symmetry", "symmetry"),
        ("Knowledge of how to add fractions", "Knowledge of how to add fractions"),
        ("Ability to add fractions", "Ability to add fractions"),
        ("2D geometry", "2D geometry"),
        ("3.5 percent", "3.5 percent"),
        ("$ $", ""),
        (" . ", ""),
    ],
)
def test_clean_names(raw: str, name: str) -> None:
    assert clean_name(raw) == name


@pytest.mark.parametrize(
    "names",
    [
        ("Modular arithmetic", "modular arithmetic", "MODULAR ARITHMETIC"),
        ("quadratic equation", "Quadratic equations"),
        ("properties of triangles", "the properties of triangles"),
        ("right-angled triangles", "right angled triangles"),
        ("behaviour of sequences", "behavior of sequences"),
        ("factorisation of polynomials", "factorization of polynomials"),
        ("semicircles and circles", "semi-circles and circles"),
        ("Pythagorean theorem", "Pythagroean theorem"),
        ("permutations and combinations", "permutaitons and combinations"),
        ("Vieta's formulas", "Vieta formulas", "Vieta\u2019s formula"),
        ("similarity of triangles", "similarity in triangles"),
    ],
)
def test_spellings_of_one_concept(names: tuple[str, ...]) -> None:
    assert len(canonical_names(*names)) == 1


@pytest.mark.parametrize(
    "names",
    [
        ("rotations in 2D coordinate geometry", "rotations in 3D coordinate geometry"),
        ("divisibility by 11 of large numbers", "divisibility by 1 of large numbers"),
        ("sums of 1 1 digits", "sums of 11 digits"),
        ("graphs of even functions in the plane", "graphs of odd functions in the plane"),
        ("differentiable functions on intervals", "non-differentiable functions on intervals"),
        ("differentiable functions on an interval", "indifferentiable functions on an interval"),
        ("connected directed graphs", "connected undirected graphs"),
        ("rational numbers in the unit interval", "irrational numbers in the unit interval"),
        ("sums of maximum products", "sums of minimum products"),
        ("exterior angles of polygons", "interior angles of polygons"),
        ("product of the sums of digits", "sum of the products of digits"),
        ("union or intersection of sets", "union and intersection of sets"),
        ("cosine rule in triangles", "sine rule in triangles"),
        ("binomial coefficients identities", "monomial coefficients identities"),
        ("internal angles of triangles", "interval angles of triangles"),
        ("arithmetic mean of a list", "arithmetic means"),
        ("series with positive terms", "series without positive terms"),
        ("functions that are injective", "functions that are not injective"),
    ],
)
def test_other_concepts_stay_apart(names: tuple[str, str]) -> None:
    assert len(canonical_names(*names, similarity=0.1)) == 2


def test_the_most_frequent_spelling_stands_and_the_rule_is_recorded() -> None:
    counts = {"graph theory": 3, "Graph Theory": 3, "$graph$ theory": 1, "graph theroy": 1}
    aliases = canonicalize(counts | {"behaviour of graphs": 1, "behavior of graphs": 4}, 0.5)
    assert {alias.canonical for alias in aliases.values()} == {
        "graph theory",
        "graph theroy",
        "behavior of graphs",
    }
    rules = {name: alias.rule for name, alias in aliases.items()}
    assert rules["graph theory"] == "same"
    assert rules["$graph$ theory"] == "notation"
    assert rules["Graph Theory"] == "spelling"
    assert rules["behaviour of graphs"] == "similar"
    assert 0.5 <= aliases["behaviour of graphs"].similarity < 1


def test_full_similarity_merges_no_similar_names() -> None:
    assert len(canonical_names("behaviour of x", "behavior of x", similarity=1)) == 2


@given(COUNTS, st.sampled_from([0.3, 0.6, 0.9]))
@settings(deadline=None, max_examples=60)
def test_merging_is_idempotent_order_free_and_keeps_numbers(
    counts: dict[str, int], similarity: float
) -> None:
    aliases = canonicalize(counts, similarity)
    backwards = canonicalize(dict(reversed(counts.items())), similarity)
    assert aliases == backwards
    again: dict[str, int] = {}
    for raw, alias in aliases.items():
        again[alias.canonical] = again.get(alias.canonical, 0) + counts[raw]
        assert re.findall(r"\d+", clean_name(raw)) == re.findall(r"\d+", alias.canonical)
        assert ("non" in raw, "not" in raw) == (
            "non" in alias.canonical,
            "not" in alias.canonical,
        )
    settled = canonicalize(again, similarity)
    assert {raw: alias.canonical for raw, alias in settled.items()} == {n: n for n in again}


@given(st.text(max_size=40))
@settings(deadline=None)
def test_cleaning_twice_changes_nothing(raw: str) -> None:
    assert clean_name(clean_name(raw)) == clean_name(raw)
