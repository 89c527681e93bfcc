"""Draw what ``python -m flows.status`` shows of a run as a PNG: ``picture_status.py RUN OUT.png``.

Rich writes an SVG, headless Chromium (``chromium`` on the PATH) turns it into pixels.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console

from flows.status_source import open_source
from flows.status_view import render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=120, help="columns")
    parser.add_argument("--name", default="runs/demo", help="the folder's name in the picture")
    options = parser.parse_args()
    console = Console(record=True, width=options.width, file=io.StringIO(), force_terminal=True)
    state = open_source(options.run).read() | {"folder": options.name}
    console.print(render(state, options.width))
    svg = console.export_svg(title=f"python -m flows.status {options.name}")
    # Fonts come from this machine; the page asks no other one.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert size is not None
    width, height = (round(float(side)) for side in size.groups())
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "status.html"
        page.write_text(f"<body style='margin:0'>{svg}</body>", encoding="utf-8")
        subprocess.run(
            [
                *("chromium", "--headless", "--no-sandbox", "--hide-scrollbars"),
                f"--window-size={width},{height}",
                f"--screenshot={options.out.resolve()}",
                page.as_uri(),
            ],
            check=True,
            capture_output=True,
        )
    # A terminal has few colours; all of them would treble the file.
    Image.open(options.out).quantize(64).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
