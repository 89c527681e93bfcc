"""Log-probabilities of given texts under a served model: what scoring of rationales stands on.

Each text is tokenised once, as a whole, and every token is placed at the character where it
starts. A piece of the text then has the tokens that *start* inside it. So a token that straddles
the boundary between a prompt and its continuation counts to the prompt, and the sums of adjacent
pieces always add up to the sum of the whole.

Token texts come from the server and are matched against the text from left to right; a tokenizer
that does not give the text back (that normalises it) is refused instead of scored wrongly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import TeacherError
from pipeline.settings.refinement import ScorerSettings
from promptcot.engines.failures import first_failure
from promptcot.engines.openai_format import NotACompletion, excerpt
from promptcot.engines.servers import scorer_servers


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of a scored text."""

    text_offset: int
    """Character at which it starts."""
    logprob: float
    """Natural logarithm of its probability given all before it."""


def sum_logprobs(
    tokens: Sequence[TokenLogprob], start: int, end: int | None = None
) -> tuple[float, int]:
    """Sum over the tokens that start in ``[start, end)``, and how many they are."""
    inside = [
        token.logprob
        for token in tokens
        if token.text_offset >= start and (end is None or token.text_offset < end)
    ]
    return sum(inside), len(inside)


async def score_http(
    settings: ScorerSettings, texts: Sequence[str], *, has_answered: bool = False
) -> list[list[TokenLogprob] | None]:
    """Score texts with a vLLM server (``prompt_logprobs``); lists are in the texts' order.

    A text that the server refuses, because it is longer than the context, has None.

    The text's very first token has nothing before it, hence no entry, unless the tokenizer puts a
    start token there.

    Args:
        settings: Where and what to ask.
        texts: What to score.
        has_answered: Whether the server did so before; then its absence is an outage.

    Raises:
        TeacherError: The server refuses all texts, or gives no prompt log-probabilities.
        TeacherUnreachable: It does not answer.
    """
    from promptcot.engines.http_client import HttpClient

    client = HttpClient(scorer_servers(settings, has_answered=has_answered))
    slots = asyncio.Semaphore(settings.max_concurrency)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_score_one(client, slots, settings.model, text)) for text in texts
            ]
    except ExceptionGroup as failures:
        raise first_failure(failures) from None
    finally:
        await client.close()
    return [task.result() for task in tasks]


async def _score_one(
    client: Any, slots: asyncio.Semaphore, model: str, text: str
) -> list[TokenLogprob] | None:
    from promptcot.engines.http_client import RequestFailed, RequestRefused

    body = {
        "model": model,
        "prompt": text,
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": 0,
    }
    async with slots:
        try:
            scored: list[TokenLogprob] = await client.post(
                "completions", body, partial(_read_reply, text=text)
            )
        except RequestRefused:
            return None
        except RequestFailed as exc:
            raise TeacherError(
                f"a text of {len(text)} characters cannot be scored: {exc}",
                hint="run the same command again when the server is well; scores so far are kept",
            ) from exc
    return scored


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore")

    logprob: float
    decoded_token: str | None = None


class _Choice(BaseModel):
    model_config = ConfigDict(extra="ignore")

    prompt_logprobs: list[dict[str, _Entry] | None]


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore")

    choices: list[_Choice] = Field(min_length=1)


def _read_reply(content: bytes, text: str) -> list[TokenLogprob]:
    try:
        reply = _Reply.model_validate_json(content)
    except ValidationError as exc:
        raise NotACompletion(
            f"no prompt log-probabilities (only vLLM's server gives them); it sent "
            f"{excerpt(content)}"
        ) from exc
    pairs: list[tuple[str, float] | None] = []
    for entries in reply.choices[0].prompt_logprobs:
        # With 0 alternatives asked for there is one entry: the prompt's own token.
        entry = next(iter(entries.values())) if entries else None
        pairs.append((entry.decoded_token or "", entry.logprob) if entry is not None else None)
    return place_tokens(text, pairs)


def place_tokens(text: str, tokens: Sequence[tuple[str, float] | None]) -> list[TokenLogprob]:
    """Find each token's place in ``text``.

    Args:
        text: What was scored.
        tokens: Text and log-probability of each; None for the first, which has neither.

    Raises:
        TeacherError: The tokens do not give the text back.
    """
    known = [token for token in tokens[1:] if token is not None]
    if len(known) < len(tokens) - 1:
        raise TeacherError(
            "a token in the middle of a text has no log-probability",
            hint="score with a vLLM server of version 0.32 or later",
        )
    whole = "".join(piece for piece, _ in known)
    # SentencePiece puts a space before a text that begins with a word.
    num_added = 1 if whole == f" {text}" else 0
    if not text.endswith(whole[num_added:]):
        raise _misplaced(text, whole)
    # What precedes is the first token; a start token has no characters.
    position = len(text) - len(whole) + num_added
    placed = []
    for piece, logprob in known:
        placed.append(TokenLogprob(position, logprob))
        # A token that holds only the first bytes of a character is empty here; the one that
        # completes it carries the character, and both start where it starts.
        position += len(piece) - num_added
        num_added = 0
    return placed


def _misplaced(text: str, whole: str) -> TeacherError:
    return TeacherError(
        f"the scorer's tokens do not give their text back: they end in {whole[-40:]!r}, the text "
        f"in {text[-40:]!r} ({len(whole)} and {len(text)} characters)",
        hint="score with a model whose tokenizer keeps text as it is",
    )
