"""``prefect deployment run NAME``: which deployment a bare name means, and where that is on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from flows import bare_name_plugin
from flows.bare_name_plugin import find_full_name, is_name_command


@dataclass
class FakeClient:
    """The three questions that resolving a name asks of Prefect's client."""

    deployed: dict[str, list[str]] = field(default_factory=dict)
    api_url: str = "http://127.0.0.1:4200/api/"

    async def read_flows(self) -> list[Any]:
        return [SimpleNamespace(id=name, name=name) for name in self.deployed]

    async def read_deployments(self, flow_filter: Any = None) -> list[Any]:
        wanted = flow_filter.name.any_ if flow_filter else list(self.deployed)
        return [
            SimpleNamespace(name=name, flow_id=flow)
            for flow, names in self.deployed.items()
            if flow in wanted
            for name in names
        ]


def resolve(deployed: dict[str, list[str]], name: str) -> str:
    return asyncio.run(find_full_name(FakeClient(deployed), name))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["cluster"], "synth/cluster"),
        (["cluster", "local"], "synth/local"),
        (["cluster", "synth"], "synth/synth"),
    ],
)
def test_a_bare_name_means_the_only_or_the_local_deployment(names: list[str], found: str) -> None:
    assert resolve({"synth": names, "other": ["local"]}, "synth") == found


def test_an_ambiguous_name_lists_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        resolve({"synth": ["a", "b"]}, "synth")
    assert end.value.code == 1
    assert "synth/a, synth/b" in capsys.readouterr().err


def test_an_unknown_name_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        resolve({"synth": ["local"]}, "sinth")
    message = capsys.readouterr().err
    assert "'sinth'" in message
    assert "synth/local" in message


def test_without_any_deployment_it_says_how_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        resolve({}, "synth")
    assert "python -m flows.deployments" in capsys.readouterr().err


def test_names_with_a_slash_go_to_prefect_unchanged() -> None:
    asked: list[str] = []

    async def stock(client: Any, name: str) -> Any:
        asked.append(name)
        return SimpleNamespace(status=None)

    asyncio.run(bare_name_plugin._with_bare_names(stock)(FakeClient(), "a/b"))
    assert asked == ["a/b"]


def test_no_server_is_one_sentence_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    async def stock(client: Any, name: str) -> Any:
        raise httpx.ConnectError("refused")

    with pytest.raises(SystemExit):
        asyncio.run(bare_name_plugin._with_bare_names(stock)(FakeClient(), "a/b"))
    assert "http://127.0.0.1:4200/api" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pool", "start"),
    [(None, "python -m flows.deployments"), ("gpus", "prefect worker start --pool gpus")],
)
def test_a_deployment_that_nobody_serves_is_said(
    pool: str | None, start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def stock(client: Any, name: str) -> Any:
        return SimpleNamespace(status=SimpleNamespace(value="NOT_READY"), work_pool_name=pool)

    asyncio.run(bare_name_plugin._with_bare_names(stock)(FakeClient(), "a/b"))
    said = " ".join(capsys.readouterr().out.split())
    assert "nothing serves a/b" in said and start in said


@pytest.mark.parametrize(
    "argv",
    [
        ["/venv/bin/prefect", "deployment", "run", "synth"],
        ["prefect", "--profile", "x", "deployment", "run", "synth", "--watch"],
        ["prefect", "deployments", "inspect", "synth"],
        ["/lib/prefect/__main__.py", "deployment", "run", "synth"],
    ],
)
def test_it_is_on_for_the_two_commands(argv: list[str]) -> None:
    assert is_name_command(argv, {})


@pytest.mark.parametrize(
    ("argv", "environ"),
    [
        (["prefect", "deployment", "ls"], {}),
        (["prefect", "worker", "start"], {}),
        (["prefect", "server", "start"], {}),
        (["prefect", "flow-run", "execute"], {}),
        (["pytest", "deployment", "run"], {}),
        ([], {}),
        (["prefect", "deployment", "run", "synth"], {"PREFECT__FLOW_RUN_ID": "1"}),
    ],
)
def test_it_is_off_everywhere_else(argv: list[str], environ: dict[str, str]) -> None:
    assert not is_name_command(argv, environ)


def test_the_hook_leaves_prefect_alone_outside_its_command() -> None:
    from prefect.client.orchestration import PrefectClient

    stock = PrefectClient.read_deployment_by_name
    bare_name_plugin.setup_environment(ctx=None)
    assert PrefectClient.read_deployment_by_name is stock


def test_a_changed_prefect_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.client import orchestration

    monkeypatch.setattr("sys.argv", ["prefect", "deployment", "run", "synth"])
    monkeypatch.setattr(orchestration, "PrefectClient", type("PrefectClient", (), {}))
    bare_name_plugin.setup_environment(ctx=None)
    assert not hasattr(orchestration.PrefectClient, "read_deployment_by_name")
