"""A real local server that speaks the OpenAI protocol, and a run of synthesis to read from."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai_server import LocalServer
from scripted_synthesis import make_recipe

from pipeline.manifest import Version
from promptcot.synthesis import synthesize_all


@pytest.fixture(scope="session")
def openai_server() -> Iterator[LocalServer]:
    program = Path(__file__).with_name("openai_server.py")
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout is not None
        yield LocalServer(f"http://127.0.0.1:{int(p.stdout.readline())}/v1")
        p.kill()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Version]]:
    """A run folder with every stage, and the versions; tests leave its versions as they are."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder / "out", synthesize_all(make_recipe(folder), folder / "out")
