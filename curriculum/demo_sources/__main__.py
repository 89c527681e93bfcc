"""Write the bundled demo sources again: ``python -m curriculum.demo_sources [FOLDER]``.

The same code gives the same bytes; a test holds the bundled files against it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline import cli

app = cli.make_app("demo_sources", "Write the bundled demo sources.")


@app.command()
def write(
    folder: Annotated[
        Path | None, typer.Argument(help="Where to; by default the package's data folder.")
    ] = None,
) -> None:
    """Write all demo source files.

    Example: python -m curriculum.demo_sources /tmp/sources
    """
    from curriculum.demo_sources.files import BUNDLED, write_sources
    from pipeline import console

    for path in write_sources(folder or BUNDLED):
        console.say(f"wrote {path} ({path.stat().st_size:,} bytes)")


if __name__ == "__main__":
    cli.run_app(app, "python -m curriculum.demo_sources")
