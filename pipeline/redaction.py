"""Secrets stay in the process: one place that knows their values and masks them in every text.

Known are the values of variables that settings name (:func:`declare`, :func:`register`) and of all
environment variables that are called like a secret (``…_KEY``, ``…_TOKEN``, ``…_SECRET``,
``…_PASSWORD``). Errors mask their sentences when they are made; events, the console and every
record of ``logging`` mask theirs, and replies are masked before they are stored. Of addresses,
logins and parameters that are called like a secret are masked, whatever their value.

Values of fewer than eight characters are no secrets (``EMPTY`` is what local servers are given),
and masking them would damage other words. Where a text is cut, it is masked before: half a key
would pass.
"""

from __future__ import annotations

import json
import logging
import os
import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import ContextDecorator, suppress
from functools import cache, lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

MASK = "[secret]"
"""What stands in a value's place; it has no character that JSON or a URL would escape in text."""
SHORTEST = 8
"""Characters below which a value is taken for a placeholder."""

_SECRET_NAME = re.compile(
    r"(?:^|[_-])(?:api[_-]?key|key|token|secret|passw(?:or)?d|auth[_-]?string)$", re.IGNORECASE
)
# A password with a slash is no valid login, but typed all the same; a port is no password.
_LOGIN = re.compile(r"://(?:[^/?#@\s]+|[^/?#@\s:]+:(?!\d+[/?#])[^@\s\"']+)@")
_PARAMETER = re.compile(
    r"([?&](?:[\w-]*[_-])?(?:api-?key|key|token|secret|passw(?:or)?d|sig|signature|credential)=)"
    r"[^&\s\"'#]+",
    re.IGNORECASE,
)
_values: set[str] = set()
_variables: set[str] = set()


def declare(variables: Iterable[str]) -> None:
    """Tell which environment variables hold keys of servers, and mask all logs from now on."""
    _variables.update(variables)
    for variable in _variables:
        register(os.environ.get(variable))
    _mask_logs()


def declared() -> frozenset[str]:
    """Names of the variables that were declared."""
    return frozenset(_variables)


def register(value: str | None) -> None:
    """Have a value masked from now on, also when its variable is gone."""
    if value and len(value.strip()) >= SHORTEST:
        _values.add(value.strip())


@cache
def is_secret_name(name: str) -> bool:
    """Whether a variable or parameter is called like a secret."""
    return _SECRET_NAME.search(name) is not None


def mask_reply(text: str) -> str:
    """A server's words without the keys that it can have been sent; nothing else is changed.

    Data must not depend on what else is in the environment, so only declared keys count here.
    """
    return _replace(text, _values)


def mask_bytes(content: bytes) -> bytes:
    """The same for a body that is not read as text yet."""
    for value in _values:
        for spelling in _spell(value):
            content = content.replace(spelling.encode(), MASK.encode())
    return content


def mask_values(text: str) -> str:
    """A text without any secret value that this process knows."""
    return _replace(text, _known())


def mask_message(text: str) -> str:
    """The same, and without logins and secret parameters of addresses."""
    return _mask(text, _known())


def _known() -> set[str]:
    return _values | set(_environment_values())


def _mask(text: str, values: set[str]) -> str:
    text = _replace(text, values)
    if "://" in text:
        text = _LOGIN.sub("://…@", text)
    if "=" in text:
        text = _PARAMETER.sub(r"\1…", text)
    return text


def mask_fields(value: Any) -> Any:
    """A JSON-ready value with every text in it masked as a message."""
    return _mask_fields(value, _known())


def _mask_fields(value: Any, values: set[str]) -> Any:
    if isinstance(value, str):
        return _mask(value, values)
    if isinstance(value, dict):
        return {key: _mask_fields(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mask_fields(item, values) for item in value]
    return value


def mask_error(error: BaseException) -> None:
    """Mask the words of an exception and of all that led to it, in place."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        masked = tuple(mask_message(a) if isinstance(a, str) else a for a in found.args)
        if masked != found.args:
            found.args = masked
        waiting += [found.__cause__, found.__context__]
        if isinstance(found, BaseExceptionGroup):
            waiting += found.exceptions


class MaskedErrors(ContextDecorator):
    """Exceptions that leave the block hold no secret, for a caller that stores their words."""

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            mask_error(error)


def has_login(address: str) -> bool:
    """Whether an address holds a login, or a parameter that is called like a secret."""
    return bool(_LOGIN.search(address) or _PARAMETER.search(address))


def _replace(text: str, values: Iterable[str]) -> str:
    # Longest first: a value may begin with another one.
    for value in sorted(values, key=len, reverse=True):
        for spelling in _spell(value):
            text = text.replace(spelling, MASK)
    return text


@cache
def _spell(value: str) -> tuple[str, ...]:
    """How a value reads in plain text, in JSON (two ways) and in an address."""
    in_json = json.dumps(value)[1:-1]
    spellings = (value, in_json, in_json.replace("/", "\\/"), quote(value, safe=""))
    return tuple(dict.fromkeys(spellings))


def _environment_values() -> Iterator[str]:
    for name in _secret_names(tuple(os.environ)):
        value = os.environ.get(name, "")
        if len(value) >= SHORTEST and not value.isdigit():
            # SSL_KEY=/etc/ssl/private.key names a file.
            is_path = value.startswith(("/", "~", ".")) and Path(value).expanduser().exists()
            if not is_path:
                yield value


@lru_cache(maxsize=8)
def _secret_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those called like secrets; they change rarely, and every event asks."""
    return tuple(filter(is_secret_name, names))


def _mask_logs() -> None:
    """Have every log record of this process made without secrets, whoever handles it."""
    make = logging.getLogRecordFactory()
    if getattr(make, "masks_secrets", False):
        return

    def make_masked(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        # A record whose arguments do not fit its text is logging's own to report.
        with suppress(TypeError, ValueError, KeyError):
            text = record.getMessage()
            masked = mask_message(text)
            if masked != text:
                record.msg, record.args = masked, ()
        if record.exc_info and record.exc_info[1] is not None:
            text = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
            masked = mask_message(text)
            if masked != text:
                # Formatters take this where it is set, and format the exception where it is not.
                record.exc_text = masked
                mask_error(record.exc_info[1])
        return record

    make_masked.masks_secrets = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_masked)
