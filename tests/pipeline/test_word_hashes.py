"""The compiled word hashes are those of the words that the patterns find, whatever the text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.matching import tokenize
from pipeline.word_hashes import hash_texts, hash_tokens, hash_words

FRAGMENTS = [
    *"abqxAZ 1239.,;:!%^*/+-<>=_{}[]()$\\\n\t",
    *"éßİıſKⅧ²½①٣々中가ʰ≤≥≠×·÷°−–…\u0338\u0307\u2009\u00a0\x1c\x85\ud800𝔸",
    *("...", "..", "  ", "123", "1,234", "1234", "{,}", "\\,", "\\!", "\\ ", "<=", "!=", "quad"),
    *(
        "[asy]",
        "[/asy]",
        "\\begin{asy}",
        "\\end{asy}",
        "\\begin{tikzpicture}",
        "\\end{tikzpicture}",
    ),
    *(
        f"\\{name}"
        for name in [
            "le",
            "leq",
            "leqslant",
            "ge",
            "geq",
            "ne",
            "neq",
            "cdot",
            "times",
            "div",
            "dots",
            "ldots",
        ]
    ),
    *(
        f"\\{name}"
        for name in [
            "circ",
            "degree",
            "frac",
            "dfrac",
            "left",
            "right",
            "bigl",
            "biggr",
            "text",
            "textbf",
        ]
    ),
    *(
        f"\\{name}"
        for name in ["begin", "end", "quad", "limits", "alpha", "dısplaystyle", "mathbb", "hspace"]
    ),
]
TEXTS = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), max_size=9).map("".join),
    st.text(max_size=40),
)


@given(st.lists(TEXTS, max_size=20))
@settings(deadline=None, max_examples=100)
def test_the_same_words_as_the_patterns(texts: list[str]) -> None:
    words = hash_words(texts)
    assert len(words) == len(texts)
    for row, text in enumerate(texts):
        tokens = tokenize(text)
        assert np.array_equal(words.of(row), hash_tokens(tokens)), text
        kinds = words.kinds[words.offsets[row] : words.offsets[row + 1]].tolist()
        expected = [1 if t[0].isdecimal() else 0 if t[0].isalnum() else 2 for t in tokens]
        assert kinds == expected, text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x^{\\circ}", ["x", "degrees"]),
        ("x^ \\dots\\circ", ["x", "degrees"]),
        ("x^\\alpha", ["x", "^", "alpha"]),
        ("\\lequ \\leq 5", ["lequ", "<=", "5"]),
        ("12,345,678.50 and 1,23", ["12345678.50", "and", "1", "23"]),
        ("5\\,000 5\\,00 3{,}141", ["5000", "5", "00", "3141"]),
        ("n\\!! 3!=6 \\!x", ["n", "!", "3", "!=", "6", "!", "x"]),
        ("\\dfrac{1}{2} 1...2 1..2", ["1", "2", "1", "2", "1", "2"]),
        ("Ⅷ≤½°", ["viii", "<=", "1", "2", "degrees"]),
        ("a[asy]draw((0,0));[/asy]b", ["a", "b"]),
    ],
)
def test_notation(text: str, words: list[str]) -> None:
    assert tokenize(text) == words
    assert hash_words([text]).hashes.tolist() == hash_tokens(words).tolist()


def test_many_texts_are_worked_on_in_groups() -> None:
    texts = [f"word{i % 7} and {i} more " * 4000 for i in range(40)]
    texts[17] = "ısplay \\dısplaystyle x"
    words = hash_words(texts)
    for row in (0, 16, 17, 18, 39):
        assert np.array_equal(words.of(row), hash_tokens(tokenize(texts[row])))
    assert len(hash_words([])) == 0


def test_some_texts_are_taken_in_any_order() -> None:
    texts = ["one two 3", "", "a <= b", "four"]
    places = [3, 0, 1, 0]
    taken, expected = hash_words(texts).take(places), hash_words([texts[n] for n in places])
    assert np.array_equal(taken.hashes, expected.hashes)
    assert np.array_equal(taken.kinds, expected.kinds)
    assert np.array_equal(taken.offsets, expected.offsets)
    assert len(hash_words(texts).take([])) == 0


def test_whole_texts() -> None:
    hashes = hash_texts(["a", "b", "a", "", "\ud800"])
    assert hashes[0] == hashes[2] and len(set(hashes.tolist())) == 4
