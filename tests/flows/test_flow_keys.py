"""No run of a flow leaves a key behind: not in files, not on its page, not in the server's database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from echo_teacher import echoing_teacher
from flow_runs import read_run, run_flow
from key_search import find_key, layers
from own_server import OwnServer

from flows.steps import Outcome, Step
from pipeline import redaction
from pipeline.redaction import MASK

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
    pytest.mark.timeout(300),
]

LOCKED = "teachers.default.model=locked"
PLANTED = "sk-Qz7/pL+9vXe2RkT4mNw8Yb1Hc"


@pytest.fixture
def secret_block(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A key that only a Prefect block holds; what the flows make of it is undone."""
    from prefect.blocks.system import Secret

    # Set first, so that leaving the test takes away what the flow will set.
    monkeypatch.setenv("PROMPTCOT_API_KEY", "")
    monkeypatch.delenv("PROMPTCOT_API_KEY")
    Secret(value=PLANTED).save("teacher-key", overwrite=True)
    yield "teacher-key"
    redaction._values.discard(PLANTED)


@pytest.mark.timeout(120)
def test_no_run_leaves_a_key_behind(
    tmp_path: Path,
    scripted_recipe: Path,
    secret_block: str,
    prefect_server: OwnServer,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from prefect import flow, get_run_logger
    from prefect.logging.handlers import APILogHandler

    from evaluation.run import evaluate_checkpoint
    from flows.build_curriculum import build_curriculum
    from flows.running import run_step
    from flows.synth_promptcot import synth_promptcot
    from pipeline.settings.recipe import load_recipe

    @flow
    def tell_it(recipe: Any, out: Path) -> Any:
        get_run_logger().warning("sent with %s", PLANTED)

        def fail(recipe: Any, out: Path) -> Outcome:
            raise ValueError(f"illegal header {PLANTED}")

        step = Step(key="bug", title="bug", stages=(), run=fail)
        return run_step(step, recipe, out, return_state=True)

    out = tmp_path / "out"
    with echoing_teacher(tmp_path / "script.jsonl") as url:
        overrides = [
            "teachers.default.engine=http",
            f'teachers.default.base_urls=["{url}"]',
            f'secret_blocks={{PROMPTCOT_API_KEY="{secret_block}"}}',
            "evaluation.engine=default",
            "evaluation.prompt_format=chat",
        ]
        parameters = {"recipe": str(scripted_recipe), "out": str(out), "overrides": overrides}
        made = run_flow(synth_promptcot, **parameters)
        assert made.is_completed(), made.message
        built = run_flow(build_curriculum, phase=1, **parameters)
        assert built.is_completed(), built.message
        recipe = load_recipe(str(scripted_recipe), overrides)
        evaluate_checkpoint(recipe, None, out, "teacher")
        other = {"out": str(tmp_path / "other"), "overrides": [*overrides, LOCKED]}
        locked = run_flow(synth_promptcot, **parameters | other)
    assert locked.is_failed()
    assert f"unknown key: Bearer {MASK}" in locked.message
    bug = run_flow(tell_it, recipe=recipe, out=out)
    assert f"illegal header {MASK}" in read_run(bug)[1][0].state.message

    console = tmp_path / "console.txt"
    console.write_text("".join(capfd.readouterr()), encoding="utf-8")
    APILogHandler().flush()
    database = prefect_server.database
    places = [console, *database.parent.glob(f"{database.name}*")]
    # What the teacher sent back has arrived in each of them, and the key in none.
    for place in (out, tmp_path / "other", places):
        files = place if isinstance(place, list) else [p for p in place.rglob("*") if p.is_file()]
        assert any(MASK.encode() in part for p in files for part in layers(p.read_bytes()))
    assert find_key(PLANTED, out, tmp_path / "other", *places) == []
    assert any(
        "sent with" in part.decode("latin-1") for p in places[1:] for part in [p.read_bytes()]
    )
