"""One compiled look at long texts tells what looking for each thing alone would tell."""

from __future__ import annotations

from curriculum_rows import prepared_row
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curriculum.candidates import PreparedRow
from curriculum.languages import find_foreign_language
from curriculum.measure import Measured, measure_rows
from curriculum.normalize import find_chat_mark, normalize_row, normalize_text
from curriculum.surveys import UNKNOWN, survey
from curriculum.texts import Trace, to_utf8
from pipeline.records import Rejected
from pipeline.student import assistant_turn

_PIECES = (
    *("<think>\n", "\n</think>\n\n"),
    *(
        "<think>",
        "</think>",
        "```",
        "<|im_end|>",
        "<｜User｜>",
        "<thinking>",
        "<answer>",
        "</answer>",
    ),
    *(
        "\n",
        " \n",
        "\t\n",
        "\f\n",
        "\u00a0\n",
        "\r\n",
        "\x00",
        " ",
        "a",
        "< ",
        "``",
        "é",
        "e\u0301",
    ),
    *(
        "<",
        "|im_end|>",
        "\u00ad",
        "\u200b",
        "\u2212",
        "\u2126",
        "π",
        "Ж",
        "字",
        "😀",
        "x" * 70,
        "\u2028",
        "\ud800",
    ),
)
texts = st.lists(st.sampled_from(_PIECES), max_size=12).map("".join)


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=5))
def test_places_are_those_of_looking_for_each(some: list[str]) -> None:
    for text, seen in zip(some, survey(some), strict=True):
        if find_chat_mark(text):
            assert seen.may_hold_marks
        if not seen.is_plain:
            continue
        assert normalize_text(text) == text.strip()
        assert seen.opening == text.encode().find(b"<think>")
        assert seen.closing == text.encode().find(b"</think>")
        assert seen.fence == text.encode().find(b"```")
        assert seen.num_chars == len(text)
        assert seen.has_more_tags == (text.count("<think>") > 1 or text.count("</think>") > 1)


def test_no_character_is_called_plain_that_normalising_changes() -> None:
    characters = [chr(code) for code in range(0x11000) if not 0xD800 <= code < 0xE000]
    some = [f"a{character}\nb{character}c {character}" for character in characters]
    seen = survey(some)
    assert all(
        normalize_text(text) == text.strip()
        for text, one in zip(some, seen, strict=True)
        if one.is_plain
    )
    assert sum(one.is_plain for one in seen) > 1000, "mathematics and punctuation are plain"


@settings(max_examples=300, deadline=None)
@given(texts)
@example("<thinking>a ``` b</thinking>c")
@example("<think>a</think>b <\u200b|im_end|>")
def test_a_row_is_levelled_the_same_whether_it_was_surveyed(response: str) -> None:
    base = prepared_row(question="What is one and one?", thinking="", answer="").candidate
    candidate = base._replace(response=to_utf8(response))
    (seen,) = survey([response])
    with_it, without = (normalize_row(candidate, 10_000, one) for one in (seen, UNKNOWN))
    if isinstance(with_it, PreparedRow) and isinstance(without, PreparedRow):
        assert with_it.may_fence_thinking >= ("```" in with_it.thinking)
        assert with_it.may_hold_scripts or not _holds_scripts(with_it.thinking)
        _check_trace(with_it, without.trace)
        without = without._replace(
            may_fence_thinking=with_it.may_fence_thinking,
            may_hold_scripts=with_it.may_hold_scripts,
        )
    assert with_it == without
    assert isinstance(with_it, PreparedRow | Rejected)


def _check_trace(row: PreparedRow, wanted: Trace) -> None:
    """What stands in shared memory is what cutting strings gives."""
    found = row.trace
    for chars in (1, 3, 50):
        assert found.head(chars) == wanted.thinking[:chars]
        assert found.tail(chars) == wanted.thinking[-chars:]
    assert found.thinking_utf8 == wanted.thinking.encode()
    assert found.answer_utf8 == wanted.answer.encode()
    assert found.num_thinking_chars == len(wanted.thinking)
    for trace in (found, wanted):
        (measured,) = measure_rows([row._replace(trace=trace)])
        assert isinstance(measured, Measured)
        turn = assistant_turn(wanted.thinking, wanted.answer)
        assert b"".join(measured.completion).decode() == turn
    assert found == wanted


def _holds_scripts(text: str) -> bool:
    return find_foreign_language(text, 0) is not None


def test_what_is_missing_is_unknown() -> None:
    assert survey([None, "", "\ud800"]) == [UNKNOWN] * 3
