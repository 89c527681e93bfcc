"""Look at a run folder while it runs: ``python -m flows.status RUN``.

In: the run folder's event log (``logs/events.jsonl``), or the address of a folder that is served.
Out: a live view in the terminal, JSON, or metrics for Prometheus. Nothing is written into the run
folder. Neither Prefect nor PyTorch is imported, and the folder's commands need not run under them.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import cli

if TYPE_CHECKING:
    from flows.status_source import Source

app = cli.make_app(
    "status",
    "Look at a run folder while it runs, and after.\n\nExample: python -m flows.status runs/demo",
)

_REFRESH_S = 1.0
_TEXTFILE_S = 15.0
_ENDED = ("finished", "failed", "interrupted", "killed")


@app.command()
def status(
    run: Annotated[str, typer.Argument(help="Run folder, or http://HOST:PORT of a served one.")],
    once: Annotated[bool, typer.Option("--once", help="Show it once; do not follow it.")] = False,
    serve: Annotated[
        str | None,
        typer.Option("--serve", help="Serve /metrics and /status.json, e.g. at 127.0.0.1:9464."),
    ] = None,
    expose: Annotated[
        bool, typer.Option("--expose", help="Let --serve be reached from other machines.")
    ] = False,
    textfile: Annotated[
        Path | None,
        typer.Option("--textfile", help="Keep metrics in this file, for node_exporter."),
    ] = None,
    as_json: cli.JsonOption = False,
) -> None:
    """Look at a run folder while it runs, and after.

    Example: python -m flows.status runs/demo
    """
    from flows.status_source import open_source
    from flows.status_view import render
    from pipeline import console

    if as_json:
        console.use_json_output()
    source = open_source(run)
    state = source.read()
    if textfile is not None:
        _write_textfile(textfile, state)
    if as_json:
        console.print_json(state)
    elif serve is not None and not once:
        _serve(source, _check_address(serve, is_exposed=expose), textfile)
    elif once or not console.screen().is_terminal:
        console.show(render(state, console.screen().width))
    else:
        _follow(source, textfile)


def _follow(source: Source, textfile: Path | None) -> None:
    """Redraw until the run has ended, or Ctrl-C."""
    from rich.live import Live

    from flows.status_view import render
    from pipeline import console

    due, screen = 0.0, console.screen()
    try:
        with Live(console=screen, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                state = source.read()
                live.update(render(state, screen.width, screen.height), refresh=True)
                now = time.monotonic()
                if textfile is not None and now >= due:
                    _write_textfile(textfile, state)
                    due = now + _TEXTFILE_S
                if (state["run"] or {}).get("state") in _ENDED:
                    return
                time.sleep(_REFRESH_S)
    except KeyboardInterrupt:
        # To stop looking interrupts nothing.
        return


def _check_address(text: str, *, is_exposed: bool) -> tuple[str, int]:
    """Where to serve; other machines are let in only where that was asked for."""
    from flows.status_server import parse_address
    from pipeline.errors import ConfigError
    from pipeline.keys import is_loopback

    host, port = parse_address(text)
    if not is_exposed and not is_loopback(host):
        raise ConfigError(
            f"--serve {text} can be reached from other machines, and there is no password",
            hint=f"add --expose if whoever reaches {host} may read what runs here, or serve at "
            f"127.0.0.1:{port} (an SSH tunnel leads there)",
        )
    return host, port


def _serve(source: Source, address: tuple[str, int], textfile: Path | None) -> None:
    from flows.status_server import open_server
    from pipeline import console
    from pipeline.keys import is_loopback

    server = open_server(source, *address)
    host, port = str(server.server_address[0]), server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, name="status-server", daemon=True)
    thread.start()
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    console.say(f"serving {url}/metrics and {url}/status.json; Ctrl-C ends it")
    if not is_loopback(host):
        console.warn("whoever reaches this address can read what runs here; there is no password")
    try:
        while True:
            time.sleep(_TEXTFILE_S)
            if textfile is not None:
                _write_textfile(textfile, source.read())
    except KeyboardInterrupt:
        return
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _write_textfile(path: Path, state: dict[str, Any]) -> None:
    from flows.openmetrics import write_metrics
    from pipeline.store import write_text

    write_text(path, write_metrics(state, is_open=False))


if __name__ == "__main__":
    cli.run_app(app, "python -m flows.status")
