"""Values that leave the sandbox as text are equal exactly when Python says they are."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, OrderedDict, namedtuple
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evaluation.code_grading_compare import parse_result, same_value
from promptcot.verification.plain_values import Opaque, decode, digest_of, encode

numbers = st.integers(-3, 3) | st.booleans() | st.sampled_from((0.5, 1.0, -0.0, 2.0**70, 2**70))
hashable = st.recursive(
    numbers | st.none() | st.sampled_from(("", "1", "ä", "\ud800")),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
values = st.recursive(
    hashable | st.binary(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.sets(hashable, max_size=3)
        | st.dictionaries(hashable, inner, max_size=3)
    ),
    max_leaves=6,
)


@given(values, values)
@example([1, True, 1.0], [1.0, 1, True])
@example({1: 2}, {True: 2.0})
@example((1, 2), [1, 2])
@example({1, 2}, frozenset({2.0, True}))
@example(2**70, 2.0**70)
@example({(1, (2.0,)): [0]}, {(1.0, (2,)): [False]})
@example({frozenset({1})}, {frozenset({1.0})})
def test_equality_is_pythons(first: Any, second: Any) -> None:
    one, other = parse_result(encode(first)), parse_result(encode(second))
    assert same_value(one, other) is (first == second)
    assert (digest_of(one) == digest_of(other)) is (first == second)


@given(values)
def test_values_come_back_as_they_were(value: Any) -> None:
    found = decode(encode(value))
    assert found == value
    assert type(found) is type(value)


def test_subclasses_become_their_base_and_the_rest_equals_nothing() -> None:
    pair = namedtuple("pair", "a b")
    colour = IntEnum("colour", "red")
    given_values = [pair(1, 2), Counter("aab"), OrderedDict(a=1), colour.red, np.float64(0.5)]
    found = decode(encode(given_values))
    assert found == [(1, 2), {"a": 2, "b": 1}, {"a": 1}, 1, 0.5]
    assert [type(value) for value in found] == [tuple, dict, dict, int, float]
    assert decode(encode([np.int64(3), np.bool_(True)])) == [3, True]
    assert list(decode(encode(iter("ab")))) == ["a", "b"]
    assert decode(encode(range(3))) == range(3)
    assert decode(encode({"a": 1}.keys())) == {"a"}
    unknown = decode(encode(object()))
    assert isinstance(unknown, Opaque)
    assert unknown != unknown
    tree = parse_result(encode(object()))
    assert not same_value(tree, tree)


def test_integers_of_any_length_come_back() -> None:
    for value in (10**4299, 10**10000, -(10**10000), [10**5000, 1.5]):
        assert decode(encode(value)) == value


def test_a_value_without_an_end_is_an_error() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(RecursionError):
        encode(endless)
    # In a process of its own: a million items first.
    program = (
        "import itertools; from promptcot.verification.plain_values import encode\n"
        "try: encode(itertools.count())\n"
        "except MemoryError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "refused\n"
