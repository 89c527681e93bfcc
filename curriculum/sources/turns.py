"""Conversations of one user and one assistant turn, in the spellings that datasets use."""

from __future__ import annotations

from typing import Any, NamedTuple

from curriculum.texts import Text, to_text

_USER = frozenset({"user", "human"})
_ASSISTANT = frozenset({"assistant", "gpt", "model"})


class Exchange(NamedTuple):
    """What the two turns say, the response as it came, or the name of why they are none."""

    user: str | None
    response: Text | None
    problem: str = ""
    detail: str = ""


def read_turns(turns: Any) -> Exchange:
    """The user's and the assistant's turn; a system prompt in front is dropped."""
    turns = turns if isinstance(turns, list) else []
    roles = [to_text(text_of(turn, "from", "role")) for turn in turns]
    texts = [text_of(turn, "value", "content") for turn in turns]
    if roles[:1] == ["system"]:
        roles, texts = roles[1:], texts[1:]
    asked, response = (*texts, None, None)[:2]
    user = to_text(asked)
    if len(roles) != 2:
        return Exchange(user, response, "not_two_turns", f"{len(roles)} turns")
    if roles[0] not in _USER or roles[1] not in _ASSISTANT:
        return Exchange(user, response, "unexpected_roles", f"roles {roles}")
    return Exchange(user, response)


def text_of(turn: Any, *keys: str) -> Text | None:
    """One text of a turn; JSON may hold anything here."""
    for key in keys:
        value = turn.get(key) if isinstance(turn, dict) else None
        if isinstance(value, str | memoryview):
            return value
    return None
