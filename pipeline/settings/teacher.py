"""Settings of a teacher: which engine answers, which model, within which limits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.settings.base import Settings, execution_only


class TeacherSettings(Settings):
    """One entry of ``[teachers.NAME]``."""

    engine: Literal["embedded", "http", "vllm", "scripted"] = "embedded"
    """``embedded``: OpenVINO in this process; ``http``: an OpenAI-compatible server; ``vllm``: vLLM
    in this process; ``scripted``: answers from a file, for tests."""
    model: str = "smollm2-135m-instruct"
    """Model name as the engine knows it; for ``vllm`` a hub id or folder."""
    base_url: str = execution_only("http://127.0.0.1:8000/v1", pattern=r"^https?://\S+$")
    """``http`` only: the server's root, with ``/v1``."""
    api_key_env: str = execution_only("PROMPTCOT_API_KEY")
    """``http`` only: environment variable that holds the key, when the server wants one."""
    group_size: int = Field(32, ge=1)
    """Requests an in-process engine answers together. It changes sampled text, so it is part of
    the version's name."""
    num_threads: int = Field(2, ge=1)
    """CPU threads of the embedded engine."""
    kv_cache_gib: int = execution_only(1, ge=1)
    """``embedded`` only: memory for attention caches, GiB."""
    max_concurrency: int = execution_only(64, ge=1)
    """``http`` only: requests in flight."""
    timeout_s: float = execution_only(600.0, gt=0)
    """Longest wait for one answer, seconds."""
    max_retries: int = execution_only(5, ge=0)
    """Retries after a network error or a 429/5xx reply."""
    constraints: tuple[Literal["regex", "json_schema"], ...] = ("regex", "json_schema")
    """``http`` only: forms the server can enforce; empty for servers without structured outputs."""
    engine_args: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """``vllm`` only: keyword arguments of ``vllm.LLM``, e.g. ``tensor_parallel_size``."""
    script: str | None = None
    """``scripted`` only: JSONL file of replies, relative to the recipe."""
