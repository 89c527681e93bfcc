"""The OpenAI wire format, for servers and for batch files: bodies out, completions in.

A body's keys always come in the same order and messages go out as the stages wrote them, constant
part first, so that a server's prefix cache finds what it knows.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.records import FinishReason
from pipeline.redaction import mask_bytes, mask_message, mask_reply
from promptcot.engines.protocol import Answer, Constraint, Request

_FINISH_REASONS: dict[str | None, FinishReason] = {"stop": "stop", "length": "length"}
_CUT_OFF = {None, "abort", "error"}
"""The server ended the answer itself, e.g. because it was stopped: not an answer."""
_EXCERPT_CHARS = 200


class NotACompletion(Exception):
    """What came is no completion, or one that the server broke off."""


class _Reply(BaseModel):
    """Parts of a server's reply that we read; everything else is ignored."""

    model_config = ConfigDict(extra="ignore")


class _Message(_Reply):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    """Older servers' name of ``reasoning``."""


class _Choice(_Reply):
    message: _Message | None = None
    text: str | None = None
    """Of ``/completions``, which has no message."""
    finish_reason: str | None = None


class _TokenCounts(_Reply):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(_Reply):
    choices: list[_Choice] = Field(min_length=1)
    usage: _TokenCounts | None = None


def request_path(request: Request) -> str:
    """Where a request goes, below the server's ``/v1``."""
    return "completions" if request.template == "none" else "chat/completions"


def request_body(model: str, request: Request) -> dict[str, Any]:
    """The JSON of one completion request."""
    body: dict[str, Any] = {"model": model}
    if request.template == "none":
        body["prompt"] = "".join(m.content for m in request.messages)
    else:
        body["messages"] = [{"role": m.role, "content": m.content} for m in request.messages]
    body["temperature"] = request.temperature
    body["top_p"] = request.top_p
    # Extensions of vLLM's; a server that does not know them never sees them switched off.
    if request.top_k:
        body["top_k"] = request.top_k
    if request.min_p:
        body["min_p"] = request.min_p
    if request.repetition_penalty != 1:
        body["repetition_penalty"] = request.repetition_penalty
    body["max_tokens"] = request.max_tokens
    body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    if request.constraint is not None:
        body.update(_constraint_fields(request.constraint))
    return body


def _constraint_fields(constraint: Constraint) -> dict[str, Any]:
    """How a constraint is asked for: the one place that knows the dialects.

    JSON schemas go the OpenAI way, which vLLM understands too. Regular expressions are an
    extension of vLLM's: ``structured_outputs`` (its older name ``guided_regex`` is gone).
    """
    if constraint.kind == "regex":
        return {"structured_outputs": {"regex": constraint.value}}
    schema = {"name": "answer", "schema": json.loads(constraint.value), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def read_completion(content: bytes) -> Answer:
    """The answer inside a reply's body.

    Raises:
        NotACompletion: It holds none; the message says what is wrong and quotes what came.
    """
    try:
        completion = _Completion.model_validate_json(content)
    except ValidationError as exc:
        problem = exc.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise NotACompletion(
            f"no completion ({f'{where}: ' if where else ''}{problem['msg']}); "
            f"it sent {excerpt(content)}"
        ) from exc
    choice = completion.choices[0]
    if choice.message is None and choice.text is None:
        raise NotACompletion(f"no completion (choices.0: no text); it sent {excerpt(content)}")
    if choice.finish_reason in _CUT_OFF:
        raise NotACompletion(f"a completion that it broke off ({choice.finish_reason})")
    counts = completion.usage or _TokenCounts()
    reason: FinishReason = _FINISH_REASONS.get(choice.finish_reason, "error")
    return Answer(
        # A server, or a proxy before it, may send back what it was sent; answers are kept.
        text=mask_reply(
            choice.text or "" if choice.message is None else _full_text(choice.message)
        ),
        finish_reason=reason,
        num_prompt_tokens=counts.prompt_tokens,
        num_completion_tokens=counts.completion_tokens,
        detail=mask_message(f"the server ended it with {choice.finish_reason!r}")
        if reason == "error"
        else "",
    )


def _full_text(message: _Message) -> str:
    """The text as the model wrote it; servers with a reasoning parser split the thinking off."""
    thinking = message.reasoning or message.reasoning_content
    if not thinking:
        return message.content or ""
    if message.content is None:
        return f"<think>\n{thinking}"
    return f"<think>\n{thinking.strip()}\n</think>\n\n{message.content.strip()}"


def read_error(content: bytes) -> str:
    """The message inside an error reply, in any of the shapes that servers use."""
    try:
        value = json.loads(content)
    except ValueError:
        return excerpt(content)
    return error_message(value) or excerpt(content)


def error_message(value: Any) -> str:
    """The message inside an error object without keys that it quotes, or nothing."""
    error = value.get("error") or value if isinstance(value, dict) else value
    message = error.get("message", error.get("detail")) if isinstance(error, dict) else error
    return mask_message(str(message)) if message else ""


def excerpt(content: bytes) -> str:
    """The beginning of a body, for a message; keys in it are masked."""
    # Four bytes are the longest character: enough for the excerpt without decoding megabytes.
    # Masked before it is cut: half a key would not be recognised.
    start = mask_bytes(content)[: 4 * _EXCERPT_CHARS].decode("utf-8", "replace")
    text = mask_message(" ".join(start.split()))
    return f"{text[:_EXCERPT_CHARS]!r}" if text else "an empty body"
