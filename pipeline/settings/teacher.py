"""Settings of a teacher: which engine answers, which model, within which limits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.settings.addresses import EngineArguments, Link, ServerAddress, VariableName
from pipeline.settings.base import Settings, execution_only


class TeacherSettings(Settings):
    """One entry of ``[teachers.NAME]``."""

    engine: Literal["embedded", "http", "vllm", "batch_file", "scripted"] = "embedded"
    """``embedded``: OpenVINO in this process; ``http``: an OpenAI-compatible server; ``vllm``: vLLM
    in this process; ``batch_file``: requests are written to files for an offline fleet (``vllm
    run-batch``) and its results are read back; ``scripted``: answers from a file, for tests."""
    model: str = "smollm2-135m-instruct"
    """Model name as the engine knows it; for ``vllm`` a hub id or folder."""
    base_urls: tuple[ServerAddress, ...] = execution_only(
        ("http://127.0.0.1:8000/v1",), min_length=1
    )
    """``http`` only: the servers' roots, with ``/v1``. All must serve the same model; each request
    goes to the healthy one with the fewest in flight."""
    replicas: Link = execution_only("")
    """``http`` only: a file (relative to the recipe) or an ``http(s)://`` address that lists the
    servers instead of ``base_urls``, for a pool whose servers come and go: one root a line, JSON,
    Prometheus' ``http_sd``, or Ray Serve's ``/api/serve/applications/``."""
    replicas_refresh_s: float = execution_only(10.0, ge=1)
    """``http`` only: seconds between two readings of ``replicas``."""
    api_key_env: VariableName = execution_only("PROMPTCOT_API_KEY")
    """``http`` only: environment variable that holds the key, when the server wants one."""
    group_size: int = Field(96, ge=1)
    """``embedded`` only: requests of one batch answered together. A group is stored whole, so a
    smaller one loses less in a kill, but works slower. It changes sampled text, so it is part of
    the version's name."""
    num_threads: int = Field(2, ge=1)
    """CPU threads of the embedded engine."""
    kv_cache_gib: int = execution_only(1, ge=1)
    """``embedded`` only: memory for attention caches, GiB."""
    max_concurrency: int = execution_only(64, ge=1)
    """``http``, ``vllm`` and ``scripted``: requests in flight, over all servers together."""
    timeout_s: float = execution_only(600.0, gt=0)
    """``http`` only: longest wait for one answer, seconds."""
    max_retries: int = execution_only(5, ge=0)
    """Retries of one request that timed out, got a 5xx reply or one that is no completion, or lost
    its connection while another server was there; then it becomes an error answer. A busy server
    (429, 503) and an outage of all servers use up no retry. ``batch_file``: how often a failed
    request is written again."""
    outage_s: float = execution_only(600.0, ge=0)
    """``http`` only: how long all servers together may give no answer before the run stops; the
    restart of a server should fit in."""
    first_contact_s: float = execution_only(30.0, ge=0)
    """``http`` only: the same while no server has replied at all, which mostly is a wrong address;
    raise it for a server that is started together with the run."""
    batch_lines: int = execution_only(50_000, ge=1)
    """``batch_file`` only: most requests in one file; 50,000 is OpenAI's limit."""
    constraints: tuple[Literal["regex", "json_schema"], ...] = ("regex", "json_schema")
    """``http`` and ``batch_file``: forms the servers can enforce; empty for servers without
    structured outputs."""
    engine_args: EngineArguments = Field(default_factory=dict)
    """``vllm`` only: keyword arguments of vLLM's engine, e.g. ``tensor_parallel_size``. Code that
    comes with a model runs only where ``trust_remote_code`` is set here."""
    usd_per_million_prompt_tokens: float = execution_only(0.0, ge=0)
    usd_per_million_completion_tokens: float = execution_only(0.0, ge=0)
    usd_per_hour: float = execution_only(0.0, ge=0)
    """Price of the machines behind this teacher while it works; adds to the token prices."""
    num_gpus: int = execution_only(0, ge=0)
    """GPUs behind this teacher: estimates and the ledger count GPU-hours."""
    script: str | None = None
    """``scripted`` only: JSONL file of replies, relative to the recipe."""
