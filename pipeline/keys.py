"""Keys of servers: read from the environment, and kept from processes that need none.

A key is the value of an environment variable that a setting names (``api_key_env``). Whoever runs
flows can keep it in a Prefect block instead (``secret_blocks``), which is read into that variable.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from pipeline import console, redaction
from pipeline.errors import ConfigError

_HUB = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}
"""Trainings read models from there, whoever else was given that key."""
_PLAIN = {
    *(
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "TERM",
        "COLUMNS",
        "NO_COLOR",
        "LANG",
        "LANGUAGE",
    ),
    *("TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("DO_NOT_TRACK", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY"),
    "NO_PROXY",
}
_PLAIN_PREFIXES = ("LC_", "PREFECT_", "PYTHON", "XDG_", "DYLD_")
_told: set[str] = set()


def read_key(variable: str) -> str | None:
    """The key in an environment variable, which is masked everywhere from now on.

    Raises:
        ConfigError: It holds blanks or characters that no header can carry.
    """
    key = os.environ.get(variable)
    if not key:
        return None
    redaction.declare([variable])
    if not all("!" <= character <= "~" for character in key):
        # The HTTP library would refuse the header with a message that quotes it.
        raise ConfigError(
            f"the key in the environment variable {variable} holds a blank, a line end or a "
            "character that is not ASCII",
            hint=f"set {variable} to the key alone, without quotes or a line end",
        )
    return key


def authorization(variable: str, address: str) -> dict[str, str]:
    """The header with the key of a server, if it wants one.

    Raises:
        ConfigError: The variable holds what cannot be a key.
    """
    key = read_key(variable)
    if key is None:
        return {}
    parts = urlsplit(address)
    if parts.scheme == "http" and not is_loopback(parts.hostname or "") and address not in _told:
        _told.add(address)
        console.warn(
            f"the key in {variable} goes to {parts.netloc} unencrypted (http), as do prompts and "
            "replies; use https beyond a network that you trust"
        )
    return {"Authorization": f"Bearer {key}"}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def child_environment() -> dict[str, str]:
    """This process's variables without the keys of teachers, for a child that asks none."""
    withheld = redaction.declared() - _HUB
    return {name: value for name, value in os.environ.items() if name not in withheld}


def server_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """For a server that only serves: listed variables of this process, and further ones.

    A list of what it gets, not of what it must not get: keys have any name.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _PLAIN or name.startswith(_PLAIN_PREFIXES)
    }
    return {**kept, **extra}
