"""Settings of triples (the generator's training set) and of PromptCoT 2.0's rationale loop."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.settings.addresses import EngineArguments, ServerAddress, VariableName
from pipeline.settings.base import Settings, execution_only
from pipeline.settings.concepts import Form


class TripleSettings(Settings):
    """Rationales reverse-engineered from seed problems: what a generator is fine-tuned on."""

    teacher: str = "default"
    form: Form = "free"
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(2048, ge=16)
    attempts: int = Field(1, ge=1)
    num_examples: int = Field(1, ge=0)
    """Seeds with a rationale of their own shown as few-shot examples, chosen by shared concepts."""
    check_problems: bool = True
    """Refuse seed problems that the problems stage would refuse (figures, proofs, several parts):
    a generator learns to write what it is shown."""
    include_accepted: bool = False
    """Also take the problems that the judges accepted, with the rationale they were made with:
    1.0's rejection-sampling fine-tuning of the generator. Needs the stage ``judged``."""


class ScorerSettings(Settings):
    """The model whose probabilities score rationales."""

    engine: Literal["transformers", "http", "vllm"] = "transformers"
    """``http``: a vLLM server's prompt log-probabilities."""
    model: str = "smollm2-135m-instruct"
    """The embedded model's name, a folder relative to the recipe or a hub id with its commit
    (``owner/name@commit``); ``vllm`` takes a folder or any name it knows, ``http`` the server's."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """``transformers`` only: of the weights; bfloat16 for large models on a GPU."""
    base_url: ServerAddress = execution_only("http://127.0.0.1:8000/v1")
    api_key_env: VariableName = execution_only("PROMPTCOT_API_KEY")
    batch_tokens: int = Field(4096, ge=64)
    """``transformers`` only: tokens scored together, padding included (by a cautious guess of 2.5
    characters a token). Padding moves the last digits of a score, so it is part of the version."""
    max_concurrency: int = execution_only(64, ge=1)
    """``http`` only: requests in flight."""
    timeout_s: float = execution_only(600.0, gt=0)
    outage_s: float = execution_only(600.0, ge=0)
    first_contact_s: float = execution_only(30.0, ge=0)
    """``http`` only, both: as for teachers."""
    engine_args: EngineArguments = Field(default_factory=dict)


class FitSettings(Settings):
    """The M-step: fine-tune the scoring model on the selected triples (TRL)."""

    enabled: bool = False
    learning_rate: float = Field(5e-6, gt=0)
    epochs: float = Field(1.0, gt=0)
    documents_per_step: int = Field(64, ge=1)
    micro_batch: int = execution_only(1, ge=1)
    max_length: int = Field(4096, ge=64)


class RefinementSettings(Settings):
    """``refine``: draw rationales, score ``log p(x|z,c) + log p(z|c)``, keep the best (2.0)."""

    teacher: str = "default"
    """Draws the rationales: the posterior q(z | c, x)."""
    form: Form = "free"
    scorer: ScorerSettings = ScorerSettings()
    """The problem model p(z, x | c)."""
    fit: FitSettings = FitSettings()
    rounds: int = Field(1, ge=1)
    rationales_per_problem: int = Field(8, ge=2)
    max_problems: int = Field(0, ge=0)
    """Take only so many seeds, drawn by seed; 0 takes all that have a problem."""
    num_examples: int = Field(2, ge=0)
    """Few-shot examples: in round 1 seeds with a rationale of their own, afterwards the best
    rationales of the former round, of other seeds."""
    check_problems: bool = True
    """As for triples."""
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(2048, ge=16)
    normalisation: Literal["sum", "per_token"] = "sum"
    """``sum``: the objective as published; ``per_token``: mean per token of each of its two terms,
    which does not favour short rationales."""
