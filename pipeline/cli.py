"""Shared shape of every ``python -m`` command: options, errors, exit codes, JSON.

Nothing heavy is imported here: ``--help`` of any command answers in under half a second.
"""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_USER, PipelineError
from pipeline.permissions import keep_others_from_writing
from pipeline.redaction import mask_message
from pipeline.telemetry import switch_off_telemetry

RecipeOption = Annotated[
    str,
    typer.Option("--recipe", help="Name of a file in recipes/ or a path to a TOML file."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one recipe value, e.g. --set training.seed=7."),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Output folder (default: runs/RECIPE-NAME)."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show the plan and its cost; write nothing.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to standard output.")
]


def make_app(name: str, help_text: str) -> typer.Typer:
    """A typer application with the project's conventions."""
    return typer.Typer(
        name=name,
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def run_app(app: typer.Typer, command: str, argv: Sequence[str] | None = None) -> None:
    """Run an application and exit with the documented code.

    Args:
        app: The application.
        command: How the user starts it, e.g. ``python -m promptcot``; used in messages.
        argv: Arguments; those of the process by default.
    """
    keep_others_from_writing()
    switch_off_telemetry()
    sys.exit(exit_code_of(app, command, sys.argv[1:] if argv is None else argv))


def exit_code_of(app: typer.Typer, command: str, argv: Sequence[str]) -> int:
    """Run an application and return its exit code, with every failure explained."""
    from pipeline import console

    try:
        code = app(list(argv), prog_name=command, standalone_mode=False)
    except PipelineError as exc:
        message = f"{exc.place}: {exc}" if exc.place else str(exc)
        console.show_error(message, exc.hint, _join(command, argv) if exc.place else None)
        return exc.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except Exception as exc:
        if _is_usage_error(exc):
            exc.show()  # type: ignore[attr-defined]
            return EXIT_USER
        sys.stderr.write(mask_message(traceback.format_exc()))
        console.show_error(
            f"{type(exc).__name__}: {exc}",
            "this is a bug of ours: please report it with the lines above",
        )
        return EXIT_BUG
    # Newer typer turns Ctrl-C into this exit code by itself.
    if code == EXIT_INTERRUPTED:
        console.show_error("interrupted; finished work is kept", then=_join(command, argv))
    return code if isinstance(code, int) else 0


def _join(command: str, argv: Sequence[str]) -> str:
    """What a person types to get the same."""
    return shlex.join([*shlex.split(command), *argv])


def _is_usage_error(exc: Exception) -> bool:
    """Whether typer itself refused the command line (it vendors or imports click by version)."""
    return any(kind.__name__ == "ClickException" for kind in type(exc).__mro__)
