"""The literals that spare texts a search: a text in which a pattern matches always holds them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptcot import statement_outside, statement_tasks
from promptcot.statement_text import Wording


def collect() -> dict[str, Wording]:
    found: dict[str, Wording] = {}
    for module in (statement_outside, statement_tasks):
        for name, value in vars(module).items():
            entries = value if isinstance(value, tuple) else (value,)
            for number, entry in enumerate(entries):
                if isinstance(entry, Wording):
                    found[f"{name}-{number}"] = entry
    return found


WORDINGS = collect()


# The strategies are hypothesis's own and draw from nothing else. It compares the state of the global
# generator before and after a draw, so any other thread that used it meanwhile would fail the test.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.parametrize("name", WORDINGS)
@settings(max_examples=30)
@given(st.data())
def test_what_matches_is_searched(name: str, data: st.DataObject) -> None:
    wording = WORDINGS[name]
    text = data.draw(st.from_regex(wording.pattern))
    assert wording.search(text) is not None
