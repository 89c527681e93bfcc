"""A real local server that speaks the OpenAI protocol."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai_server import LocalServer


@pytest.fixture(scope="session")
def openai_server() -> Iterator[LocalServer]:
    program = Path(__file__).with_name("openai_server.py")
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout is not None
        yield LocalServer(f"http://127.0.0.1:{int(p.stdout.readline())}/v1")
        p.kill()
