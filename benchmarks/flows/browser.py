"""Headless Chromium as a camera: open a page, wait until it says something, click, take a picture.

Needs ``chromium`` on the PATH and ``websockets``, which comes with Prefect.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from websockets.sync.client import ClientConnection, connect

WIDTH, HEIGHT = 1280, 800
"""What a laptop's window shows at once; what lies lower is below the fold."""
_START_S, _POLL_S = 30.0, 0.25
_COLOURS = 96
"""A page in one theme has few colours; all of them would treble the file."""


class Browser:
    """One page of a headless Chromium.

    Args:
        connection: To the page's debugger.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Do one command of the DevTools protocol and return what it answers."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._connection.send(json.dumps(message))
        while True:
            answer = json.loads(self._connection.recv(timeout=60))
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])

    def run(self, script: str) -> Any:
        """Evaluate JavaScript in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    def text(self) -> str:
        """What a person reads on the page."""
        return str(self.run("document.body.innerText"))

    def open(self, url: str, *, until: str, timeout_s: float = 60.0) -> None:
        """Open an address and wait until the page holds a text.

        Raises:
            TimeoutError: It does not.
        """
        self.call("Page.navigate", url=url)
        self.wait_for(until, timeout_s=timeout_s)

    def wait_for(self, text: str, *, timeout_s: float = 60.0) -> None:
        """Wait until the page holds a text.

        Raises:
            TimeoutError: It does not.
        """
        end = time.monotonic() + timeout_s
        while text not in self.text():
            if time.monotonic() > end:
                raise TimeoutError(f"the page does not say {text!r} but: {self.text()[:500]}")
            time.sleep(_POLL_S)

    def click(self, text: str, *, nth: int = 0) -> None:
        """Press the mouse on the ``nth`` visible thing that says exactly this, -1 for the last.

        Raises:
            RuntimeError: There is none.
        """
        found = self.run(
            "(() => {const said = [...document.querySelectorAll('body *')].filter(e => "
            f"e.textContent.trim() === {json.dumps(text)} && "
            "![...e.children].some(c => c.textContent.trim() === e.textContent.trim()))"
            ".filter(e => {const r = e.getBoundingClientRect(); return r.width && r.height});"
            f"const e = said.at({nth}); if (!e) return null;"
            # A long form ends below the window.
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]})()"
        )
        if not found:
            raise RuntimeError(f"nothing on the page says {text!r}: {self.text()[:500]}")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=found[0],
                y=found[1],
                button="left",
                clickCount=1,
            )

    def resize(self, width: int, height: int) -> None:
        """Set the window's size, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def picture(self, path: Path, *, settle_s: float = 2.0) -> None:
        """Save what the window shows as a small PNG, after animations have ended."""
        time.sleep(settle_s)
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        image = Image.open(io.BytesIO(data)).convert("RGB")
        image.quantize(_COLOURS).save(path, optimize=True)


@contextmanager
def open_browser(*, width: int = WIDTH, height: int = HEIGHT) -> Iterator[Browser]:
    """Start Chromium with an empty profile; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="browser-") as profile:
        command = [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"),
        ]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                address = _page_address(Path(profile))
                with connect(address, max_size=None) as connection:
                    browser = Browser(connection)
                    browser.call("Page.enable")
                    browser.resize(width, height)
                    yield browser
            finally:
                process.terminate()
                process.wait()


def _page_address(profile: Path) -> str:
    """The debugger of the one page that a new browser shows."""
    end = time.monotonic() + _START_S
    while True:
        try:
            port = (profile / "DevToolsActivePort").read_text(encoding="utf-8").split()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=5) as answer:
                pages = [page for page in json.load(answer) if page["type"] == "page"]
            return str(pages[0]["webSocketDebuggerUrl"])
        except (FileNotFoundError, IndexError, urllib.error.URLError):
            if time.monotonic() > end:
                raise
            time.sleep(_POLL_S)
