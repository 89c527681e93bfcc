"""What is masked, where, and what is left alone."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import console, redaction
from pipeline.errors import ConfigError, TeacherError
from pipeline.events import EventLog, describe_error, emit, recording
from pipeline.keys import authorization, child_environment, read_key, server_environment
from pipeline.redaction import MASK, MaskedErrors, mask_error, mask_message, mask_reply
from pipeline.settings.events import EventSettings
from pipeline.settings.recipe import load_recipe

KEY = "sk-planted/Key+0123456789"


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A key in a variable whose name tells nothing."""
    monkeypatch.setenv("TEACHER_ACCESS", KEY)
    assert read_key("TEACHER_ACCESS") == KEY
    yield KEY
    redaction._values.discard(KEY)
    redaction._variables.discard("TEACHER_ACCESS")


def test_a_key_is_masked_in_every_spelling(key: str) -> None:
    in_json = json.dumps({"Authorization": f"Bearer {key}"}).replace("/", "\\/")
    for text in (f"Bearer {key}.", in_json, "https://h/v1?q=sk-planted%2FKey%2B0123456789&x=1"):
        masked = mask_message(text)
        assert MASK in masked
        assert "planted" not in masked
    assert mask_reply(f"the key is {key}") == f"the key is {MASK}"
    assert mask_message("an ordinary sentence: sk-planted") == "an ordinary sentence: sk-planted"


def test_variables_that_are_called_like_secrets_are_masked_in_messages_but_not_in_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "private.pem"
    file.touch()
    monkeypatch.setenv("SOME_HUB_TOKEN", "mathematics")
    monkeypatch.setenv("SSL_KEY", str(file))
    monkeypatch.setenv("BUILD_KEY", "20251126")
    monkeypatch.setenv("EMPTY_KEY", "EMPTY")
    text = f"mathematics, {file}, 20251126, EMPTY"
    assert mask_message(text) == f"{MASK}, {file}, 20251126, EMPTY"
    assert mask_reply(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://me:pw@host/v1 is down", "https://…@host/v1 is down"),
        ("https://me:p/w@host/v1 is down", "https://…@host/v1 is down"),
        (
            "http://h:80/v1/a@b and hf://datasets/o/n@c",
            "http://h:80/v1/a@b and hf://datasets/o/n@c",
        ),
        ("GET http://h/v1?api_key=abc&n=1", "GET http://h/v1?api_key=…&n=1"),
        ("s3://b/x?X-Amz-Signature=0a1b", "s3://b/x?X-Amz-Signature=…"),
        ("http://h/v1?page=2&monkey=3", "http://h/v1?page=2&monkey=3"),
        ("write to me@example.org", "write to me@example.org"),
    ],
)
def test_addresses_lose_logins_and_secret_parameters(text: str, masked: str) -> None:
    assert mask_message(text) == masked


def test_errors_logs_events_and_the_console_hold_no_key(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TeacherError) as caught, recording(tmp_path, EventSettings(), "test"):
        emit("news", detail={"words": [f"said {key}"]})
        console.say(f"said {key}")
        console.warn(f"said {key}")
        console.heading(f"said {key}")
        console.table("t", ["a"], [[f"said {key}"]])
        console.print_json({"said": key})
        console.show_error(f"said {key}", f"do not say {key}")
        raise TeacherError(f"HTTP 500: {key}", hint=f"unset {key}")
    assert str(caught.value) == f"HTTP 500: {MASK}"
    assert caught.value.hint == f"unset {MASK}"
    captured = capsys.readouterr()
    assert captured.out.count(MASK) == 5
    assert captured.err.count(MASK) == 2
    log = EventLog(tmp_path, EventSettings()).path.read_text(encoding="utf-8")
    assert log.count(MASK) == 3
    assert "planted" not in captured.out + captured.err + log
    # Cut after it was masked: half a key would pass.
    long = describe_error(ValueError("x" * 1990 + key))
    assert "planted" not in long["error"]


def test_records_of_any_logger_are_masked_with_their_tracebacks(key: str) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("some.library")
    logger.addHandler(handler)
    try:
        try:
            try:
                raise ValueError(f"illegal header {key}")
            except ValueError as exc:
                raise RuntimeError("no answer") from exc
        except RuntimeError:
            logger.exception("sent %s to %d servers", key, 3)
    finally:
        logger.removeHandler(handler)
    written = stream.getvalue()
    assert f"sent {MASK} to 3 servers" in written
    assert f"ValueError: illegal header {MASK}" in written
    assert "RuntimeError: no answer" in written
    assert "planted" not in written


def test_exceptions_that_leave_a_block_are_masked_with_all_that_led_to_them(key: str) -> None:
    @MaskedErrors()
    def ask() -> None:
        try:
            raise OSError(5, f"cannot send {key}")
        except OSError as exc:
            raise ExceptionGroup(f"asked with {key}", [KeyError(key)]) from exc

    with pytest.raises(ExceptionGroup) as caught:
        ask()
    assert caught.value.exceptions[0].args == (MASK,)
    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.args == (5, f"cannot send {MASK}")
    plain = ValueError("kept", 3)
    mask_error(plain)
    assert plain.args == ("kept", 3)


def test_a_key_that_no_header_can_carry_is_refused_without_being_quoted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEACHER_ACCESS", KEY + "\n")
    with pytest.raises(ConfigError, match="TEACHER_ACCESS") as caught:
        authorization("TEACHER_ACCESS", "https://host/v1")
    assert "planted" not in str(caught.value) + caught.value.hint
    monkeypatch.delenv("TEACHER_ACCESS")
    assert authorization("TEACHER_ACCESS", "https://host/v1") == {}


def test_a_key_that_leaves_the_machine_unencrypted_is_told_once(
    key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for address in ("http://127.0.0.1:8000/v1", "https://far/v1", *["http://far:8000/v1"] * 2):
        assert authorization("TEACHER_ACCESS", address) == {"Authorization": f"Bearer {key}"}
    told = capsys.readouterr().out
    assert told.count("unencrypted") == 1
    assert "far:8000" in told and "planted" not in told


def test_children_get_no_keys_of_teachers_and_servers_only_what_is_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_TEACHER", KEY)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_hub")
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_NAME", "runs")
    load_recipe("demo", ["teachers.default.api_key_env=MY_TEACHER"])
    child = child_environment()
    assert "MY_TEACHER" not in child
    assert child["HF_TOKEN"] == "hf_of_the_hub" and child["PATH"] == os.environ["PATH"]
    server = server_environment({"DO_NOT_TRACK": "1"})
    assert not {"MY_TEACHER", "HF_TOKEN"} & set(server)
    assert server["PREFECT_SERVER_DATABASE_NAME"] == "runs" and server["DO_NOT_TRACK"] == "1"
    assert server["PATH"] == os.environ["PATH"]
    redaction._variables.discard("MY_TEACHER")
    redaction._values.discard(KEY)


@pytest.mark.parametrize(
    ("override", "setting", "remedy"),
    [
        ('teachers.default.base_urls=["https://me:{}@h/v1"]', "base_urls.0", "PROMPTCOT_API_KEY"),
        ('teachers.default.base_urls=["https://h/v1?api_key={}"]', "base_urls.0", "api_key_env"),
        ("teachers.default.replicas=https://me:{}@h/list", "replicas", "without"),
        ("synthesis.combinations.encoder.base_url=https://a:{}@h/v1", "base_url", "api_key_env"),
        ("synthesis.refinement.scorer.base_url=https://h/v1?k={}", "base_url", "api_key_env"),
        ("teachers.default.api_key_env={}", "api_key_env", "PROMPTCOT_API_KEY"),
        ("teachers.default.api_key={}", "teachers.default.api_key", "api_key_env"),
        ('teachers.default.engine_args={{hf_token="{}"}}', "engine_args", "HF_TOKEN"),
        (
            'curriculum.sources=[{{name="s", kind="synthesized", hub_endpoint="https://a:{}@h"}}]',
            "hub",
            "HF_TOKEN",
        ),
    ],
)
def test_a_secret_in_a_recipe_is_refused_by_name_and_never_quoted(
    override: str, setting: str, remedy: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("demo", [override.format("hf-0123456789abcdef")])
    assert setting in str(caught.value)
    assert remedy in str(caught.value) + caught.value.hint
    assert "0123456789" not in str(caught.value) + caught.value.hint
    # Nor by what led to it: pydantic's own error quotes every value.
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_ordinary_addresses_and_arguments_are_taken() -> None:
    overrides = [
        'teachers.default.base_urls=["http://[::1]:8000/v1", "https://host/team/v1"]',
        "teachers.default.replicas=http://head:8265/api/serve/applications/?job=a",
        "teachers.default.engine_args={tensor_parallel_size=2, max_num_batched_tokens=8192}",
    ]
    settings = load_recipe("demo", overrides).settings.teachers["default"]
    assert settings.base_urls[1] == "https://host/team/v1"
