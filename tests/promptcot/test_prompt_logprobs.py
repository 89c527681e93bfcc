"""Prompt log-probabilities: tokens at their characters, sums that add up, a server's replies."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_server import LocalServer

from pipeline.errors import TeacherError, TeacherUnreachable
from pipeline.settings.refinement import ScorerSettings
from promptcot.engines.prompt_logprobs import (
    TokenLogprob,
    place_tokens,
    score_http,
    sum_logprobs,
)


def score(server: LocalServer, texts: list[str], model: str) -> list[list[TokenLogprob] | None]:
    settings = ScorerSettings(engine="http", model=model, base_url=server.base_url)
    return asyncio.run(score_http(settings, texts))


def test_a_server_scores_texts_in_order(openai_server: LocalServer) -> None:
    first, second = score(openai_server, ["one two three", "alpha beta"], "words")
    # The first token has nothing before it.
    assert first == [TokenLogprob(3, -4.0), TokenLogprob(7, -6.0)]
    assert second == [TokenLogprob(5, -5.0)]


def test_a_text_beyond_the_context_has_no_score(openai_server: LocalServer) -> None:
    scores = score(openai_server, ["one two", "much " * 200, "a b"], "words")
    assert [s is None for s in scores] == [False, True, False]


def test_a_server_without_prompt_logprobs_is_named(openai_server: LocalServer) -> None:
    with pytest.raises(TeacherError, match="no prompt log-probabilities") as caught:
        score(openai_server, ["one two"] * 3, "no-logprobs")
    assert openai_server.base_url in str(caught.value)


def test_a_scorer_that_is_not_there_is_called_by_its_setting() -> None:
    settings = ScorerSettings(engine="http", base_url="http://127.0.0.1:9/v1", first_contact_s=0)
    with pytest.raises(TeacherUnreachable) as caught:
        asyncio.run(score_http(settings, ["one two"]))
    assert "synthesis.refinement.scorer.base_url" in str(caught.value)
    assert "teachers" not in str(caught.value) + caught.value.hint


def test_start_tokens_split_characters_and_added_spaces() -> None:
    # A start token: the text's own first token has a probability and stands at 0.
    tokens = [None, ("Hi", -1.0), (" you", -2.0)]
    assert [t.text_offset for t in place_tokens("Hi you", tokens)] == [0, 2]
    # SentencePiece puts a space before the first word.
    tokens = [None, (" Hi", -1.0), (" you", -2.0)]
    assert [t.text_offset for t in place_tokens("Hi you", tokens)] == [0, 2]
    # Two tokens for one character: both start where it starts.
    tokens = [None, ("", -1.0), ("é", -2.0), ("s", -3.0)]
    assert [t.text_offset for t in place_tokens("aés", tokens)] == [1, 1, 2]


def test_a_tokenizer_that_changes_the_text_is_refused() -> None:
    with pytest.raises(TeacherError, match="do not give their text back"):
        place_tokens("Straße", [None, ("strasse", -1.0)])
    with pytest.raises(TeacherError, match="in the middle"):
        place_tokens("a b c", [None, None, (" c", -1.0)])


def test_a_token_across_the_boundary_counts_to_the_prompt() -> None:
    tokens = place_tokens("Problem: x=1", [None, ("blem", -1.0), (": x", -2.0), ("=1", -4.0)])
    boundary = len("Problem: ")
    assert sum_logprobs(tokens, boundary) == (-4.0, 1)
    assert sum_logprobs(tokens, 0, boundary) == (-3.0, 2)


@given(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=4), min_size=2),
    st.data(),
)
def test_adjacent_pieces_add_up_to_the_whole(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    tokens = [None, *((piece, -float(i)) for i, piece in enumerate(pieces[1:], start=1))]
    placed = place_tokens(text, tokens)
    assert all(
        text.startswith(piece, token.text_offset)
        for piece, token in zip(pieces[1:], placed, strict=True)
    )
    middle = data.draw(st.integers(0, len(text)))
    left, num_left = sum_logprobs(placed, 0, middle)
    right, num_right = sum_logprobs(placed, middle)
    assert num_left + num_right == len(pieces) - 1
    assert math.isclose(left + right, -sum(range(1, len(pieces))))
