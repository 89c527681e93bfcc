"""Commands end with the documented exit code and one message that a person can act on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer

from pipeline import cli, console
from pipeline.errors import ConfigError, GateRefused


def make_app(error: BaseException | None) -> typer.Typer:
    app = cli.make_app("toy", "A toy.")

    @app.command()
    def go(recipe: cli.RecipeOption = "demo", json_output: cli.JsonOption = False) -> None:
        """Go."""
        if error is not None:
            raise error
        if json_output:
            console.use_json_output()
            console.say("for people")
            console.print_json({"recipe": recipe})

    return app


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (ConfigError("bad key", hint="fix it"), 2, ["error: bad key", "remedy: fix it"]),
        (GateRefused("too many", hint="relax"), 3, ["error: too many", "remedy: relax"]),
        (KeyboardInterrupt(), 130, ["interrupted", "continue with: python -m toy --recipe x"]),
        (RuntimeError("oops"), 1, ["RuntimeError: oops", "bug of ours"]),
    ],
)
def test_failures_have_their_exit_code_and_remedy(
    error: BaseException, code: int, expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.exit_code_of(make_app(error), "python -m toy", ["--recipe", "x"]) == code
    output = capsys.readouterr().err
    for text in expected:
        assert text in output


def test_unknown_option_is_the_users_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.exit_code_of(make_app(None), "python -m toy", ["--nope"]) == 2
    assert "--nope" in capsys.readouterr().err


def test_json_output_is_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert cli.exit_code_of(make_app(None), "python -m toy", ["--json"]) == 0
    finally:
        console.reset()
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"recipe": "demo"}
    assert "for people" in captured.err


def test_progress_without_a_terminal_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console.reset()
    with console.progress("outer", total=2) as advance:
        with console.progress("inner", total=1) as inner:
            inner(1)
        advance(2)
    assert "outer: 2/2 rows" in capsys.readouterr().out
    console.reset()


COMMANDS = [
    "promptcot",
    "curriculum",
    "curriculum.build",
    "trainer.sft",
    "evaluation",
    "flows.deployments",
    "flows.status",
    "flows.whole_loop",
]


@pytest.mark.parametrize("module", COMMANDS)
def test_help_is_quick_and_loads_nothing_heavy(module: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['x', '--help']\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    assert stop.code in (0, None), stop.code\n"
        "heavy = {'torch', 'transformers', 'trl', 'prefect', 'datasets', 'vllm', 'matplotlib',\n"
        "         'math_verify', 'openvino_genai', 'pyarrow'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "HEAVY []" in done.stdout
    assert "Usage" in done.stdout
    assert "python -m" in done.stdout, "help shows an example"
