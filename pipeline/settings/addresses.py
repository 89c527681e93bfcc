"""Types of settings that could be given a secret by mistake: addresses, names, engine arguments.

Settings are saved beside every artifact and shown on run pages, so a secret in them is refused. The
refusals' messages never quote the value (``pipeline.settings.recipe`` knows their kind).
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from pipeline.redaction import has_login, is_secret_name

SECRET = "secret_in_setting"
"""The kind of these errors."""
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_ADDRESS = re.compile(r"https?://\S+")

EngineValue = str | int | float | bool


def check_server(value: str) -> str:
    """A server's root: ``http(s)://``, no login, no parameters.

    Raises:
        PydanticCustomError: It is something else, or holds what may be a key.
    """
    if has_login(value) or urlsplit(value).query or urlsplit(value).fragment:
        raise PydanticCustomError(
            SECRET,
            "a server's address with a login or parameters would be saved with the settings; put "
            "the key into the environment variable that api_key_env names (PROMPTCOT_API_KEY) and "
            "leave the address plain",
        )
    if not _ADDRESS.fullmatch(value) or not urlsplit(value).hostname:
        raise ValueError("should be a server's root, http(s)://HOST:PORT/v1")
    return value


def check_link(value: str) -> str:
    """An address, or a path, without a login or a parameter that is called like a secret.

    Raises:
        PydanticCustomError: It has one.
    """
    if "://" in value and has_login(value):
        raise PydanticCustomError(
            SECRET,
            "an address with a login or a key would be saved with the settings; use one without "
            "(the hub's key is read from the environment variable HF_TOKEN), or a local copy",
        )
    return value


def check_variable(value: str) -> str:
    """The name of an environment variable, in capitals: a key put here by mistake has others.

    Raises:
        PydanticCustomError: It is no such name.
    """
    if not _VARIABLE.fullmatch(value):
        raise PydanticCustomError(
            SECRET,
            "should be the name of an environment variable in capitals, e.g. PROMPTCOT_API_KEY; "
            "the key itself is that variable's value and stands in no recipe",
        )
    return value


def check_engine_args(values: dict[str, EngineValue]) -> dict[str, EngineValue]:
    """Arguments of an engine without a key among them.

    Raises:
        PydanticCustomError: One is called like a secret.
    """
    for name in values:
        if is_secret_name(name):
            raise PydanticCustomError(
                SECRET,
                "{name} would be saved with the settings; leave it out and set the environment "
                "variable that the engine reads, HF_TOKEN for the hub",
                {"name": name},
            )
    return values


ServerAddress = Annotated[str, AfterValidator(check_server)]
"""Root of an OpenAI-compatible server, with ``/v1``; without login or parameters."""
Link = Annotated[str, AfterValidator(check_link)]
"""An address or path that holds no secret."""
VariableName = Annotated[str, AfterValidator(check_variable)]
"""Name of an environment variable, in capitals."""
EngineArguments = Annotated[dict[str, EngineValue], AfterValidator(check_engine_args)]
"""Keyword arguments of vLLM's engine."""
