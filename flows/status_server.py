"""Serve a run's state to Prometheus (``/metrics``) and to other machines (``/status.json``)."""

from __future__ import annotations

import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from flows.openmetrics import CONTENT_TYPE, write_metrics
from flows.status_source import Source
from pipeline.errors import ConfigError, SourceError

_MAX_PORT = 65_535
_HOME = "metrics for Prometheus: /metrics\nthe state as JSON: /status.json\n"


def parse_address(text: str) -> tuple[str, int]:
    """``HOST:PORT``, or a port alone on this machine's loopback.

    Raises:
        ConfigError: It is neither.
    """
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        raise ConfigError(
            f"--serve {text!r} is no address", hint="write HOST:PORT, e.g. --serve 127.0.0.1:9464"
        )
    return host.strip("[]") or "127.0.0.1", int(port)


def open_server(source: Source, host: str, port: int) -> ThreadingHTTPServer:
    """A server that is bound and not yet serving; port 0 takes a free one.

    Raises:
        ConfigError: The address cannot be used.
    """

    class Handler(_Handler):
        pass

    Handler.source = source
    try:
        return ThreadingHTTPServer((host, port), Handler)
    except OSError as exc:
        raise ConfigError(
            f"cannot serve at {host}:{port}: {exc.strerror or exc}",
            hint="choose another port, or stop what uses this one",
        ) from exc


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; there is nothing to change here."""

    source: Source
    server_version = "promptcot-status"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.partition("?")[0]
        try:
            if path == "/metrics":
                self._reply(HTTPStatus.OK, write_metrics(self.source.read()), CONTENT_TYPE)
            elif path == "/status.json":
                text = json.dumps(self.source.read(), ensure_ascii=False)
                self._reply(HTTPStatus.OK, text, "application/json; charset=utf-8")
            elif path == "/":
                self._reply(HTTPStatus.OK, _HOME, "text/plain; charset=utf-8")
            else:
                self._reply(HTTPStatus.NOT_FOUND, _HOME, "text/plain; charset=utf-8")
        except SourceError as exc:
            text = f"{exc}\nremedy: {exc.hint}\n"
            self._reply(HTTPStatus.SERVICE_UNAVAILABLE, text, "text/plain; charset=utf-8")

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes every few seconds are no news."""

    def _reply(self, status: HTTPStatus, text: str, kind: str) -> None:
        body = text.encode("utf-8", "backslashreplace")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
