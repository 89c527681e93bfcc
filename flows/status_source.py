"""Where the state of a run comes from: a folder of this machine, or another machine's endpoint."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any, Protocol

from flows.event_log import LOG_NAME, EventReader
from flows.run_state import RunState
from pipeline.errors import ConfigError, SourceError

_MAX_BYTES = 4_000_000
_TIMEOUT_S = 10.0
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_SSH = re.compile(r"(?P<host>[\w.@-]+):(?P<path>[^\\]+)")


def clean(value: Any) -> Any:
    """Without what would steer a terminal or fit no encoding: some texts are a teacher's."""
    if isinstance(value, str):
        text = value.encode("utf-8", "backslashreplace").decode("utf-8")
        return _CONTROLS.sub(" ", text)
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    return [clean(item) for item in value] if isinstance(value, list) else value


class Source(Protocol):
    """Tells the present state."""

    def read(self) -> dict[str, Any]:
        """The state as JSON; reads only what is new."""


class FolderSource:
    """A run folder of this machine; safe for threads.

    Args:
        out: The folder.

    Raises:
        SourceError: There is no such folder, or it is none of a run.
    """

    def __init__(self, out: Path) -> None:
        if not out.is_dir():
            raise SourceError(
                f"no such folder: {out}",
                hint="pass the run folder, which is the --out of the command that made it",
            )
        if not ((out / "recipe.json").is_file() or (out / "logs" / LOG_NAME).is_file()):
            raise SourceError(
                f"{out} is not a run folder: it has neither recipe.json nor logs/{LOG_NAME}",
                hint="pass the run folder, which is the --out of the command that made it",
            )
        self._out = out
        self._reader = EventReader(out)
        self._state = RunState()
        self._lock = threading.Lock()

    def read(self) -> dict[str, Any]:
        """See :class:`Source`."""
        with self._lock:
            for event in self._reader.read_new():
                self._state.add(event)
            found = self._state.as_json()
        cleaned: dict[str, Any] = clean(
            {"folder": str(self._out.resolve()), "recipe": self._recipe(), **found}
        )
        return cleaned

    def _recipe(self) -> str | None:
        try:
            text = (self._out / "recipe.json").read_text(encoding="utf-8")
            return str(json.loads(text)["recipe"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None


class UrlSource:
    """What ``python -m flows.status RUN --serve …`` serves, here or on another machine.

    Args:
        url: Its address, e.g. ``http://127.0.0.1:9464``.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/").removesuffix("/status.json").removesuffix("/metrics")

    def read(self) -> dict[str, Any]:
        """See :class:`Source`.

        Raises:
            SourceError: Nobody answers there, or not as this command does.
        """
        from http.client import HTTPException
        from urllib.request import Request, urlopen

        address = f"{self._url}/status.json"
        try:
            # Only http and https get here (open_source).
            with urlopen(Request(address), timeout=_TIMEOUT_S) as reply:
                found = json.loads(reply.read(_MAX_BYTES))
        except (OSError, HTTPException) as exc:
            reason = getattr(exc, "reason", None) or exc
            raise SourceError(
                f"no answer from {address}: {reason}",
                hint="start `python -m flows.status RUN --serve 127.0.0.1:9464` there, and reach "
                "it through `ssh -L 9464:127.0.0.1:9464 HOST`",
            ) from exc
        except ValueError as exc:
            raise self._foreign(address) from exc
        if not isinstance(found, dict) or not {"stages", "spending", "num_events"} <= set(found):
            raise self._foreign(address)
        cleaned: dict[str, Any] = clean(found)
        return cleaned

    def _foreign(self, address: str) -> SourceError:
        return SourceError(
            f"{address} answers, but not with a run's state",
            hint="pass the address of `python -m flows.status RUN --serve …`",
        )


def open_source(run: str) -> Source:
    """A run folder, or the ``http(s)://`` address of one that is served.

    Raises:
        SourceError: There is no such folder, or it is none of a run.
        ConfigError: It is spelt as a place on another machine.
    """
    if re.match(r"https?://", run):
        return UrlSource(run)
    found = _SSH.fullmatch(run)
    if found is not None and not Path(run).exists():
        host, path = found["host"], found["path"]
        raise ConfigError(
            f"{run} lies on another machine, whose files and processes cannot be seen from here",
            hint=f"look there with `ssh -t {host} 'cd REPOSITORY && .venv/bin/python -m "
            f"flows.status {path}'`, or serve it there (--serve 127.0.0.1:9464) and pass "
            f"http://127.0.0.1:9464 here, through `ssh -L 9464:127.0.0.1:9464 {host}`",
        )
    return FolderSource(Path(run))
