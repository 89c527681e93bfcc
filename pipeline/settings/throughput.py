"""``[throughput]`` of a recipe: generated tokens a second under a memory budget."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipeline.settings.base import Settings

Dtype = Literal["bfloat16", "float32"]


class TransformerShape(Settings):
    """A decoder with grouped-query attention; defaults are Qwen2.5-7B's."""

    name: str = "Qwen2.5-7B"
    hidden_size: int = Field(3584, ge=8)
    num_hidden_layers: int = Field(28, ge=1)
    num_attention_heads: int = Field(28, ge=1)
    num_key_value_heads: int = Field(4, ge=1)
    head_dim: int = Field(128, ge=2)
    intermediate_size: int = Field(18_944, ge=1)
    vocab_size: int = Field(152_064, ge=2)
    tie_word_embeddings: bool = False
    rope_theta: float = Field(1_000_000.0, gt=0)
    rms_norm_eps: float = Field(1e-6, gt=0)

    @model_validator(mode="after")
    def _whole_groups(self) -> TransformerShape:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads = {self.num_attention_heads} is no multiple of "
                f"num_key_value_heads = {self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim = {self.head_dim} is odd: positions rotate pairs")
        return self


PRESETS = {
    "qwen2.5-7b": TransformerShape(),
    "qwen2.5-1.5b": TransformerShape(
        name="Qwen2.5-1.5B",
        hidden_size=1536,
        num_attention_heads=12,
        num_key_value_heads=2,
        intermediate_size=8960,
        vocab_size=151_936,
        tie_word_embeddings=True,
    ),
    "tiny": TransformerShape(
        name="tiny Transformer",
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=352,
        vocab_size=32_768,
        tie_word_embeddings=True,
        rope_theta=10_000.0,
    ),
}
"""Shapes a recipe may name instead of writing them out."""


class ThroughputSettings(Settings):
    """What is compared, and how long it is measured.

    The Mamba-2 is the recipe's ``[model]``. A GB is 2^30 bytes, as a card of 24 GB has them.
    """

    budgets_gb: tuple[float, ...] = (24.0, 72.0)
    """Memory of the cards that are imitated."""
    utilisation: float = Field(0.9, gt=0, le=1)
    """Share of a budget that may be used, everything included; vLLM's default."""
    lengths: tuple[int, ...] = (1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)
    """Generated tokens of a sequence."""
    prompt_tokens: int = Field(256, ge=1)
    """Read before the generation; they fill the cache too."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """``transformers``: in this process, our decode loops on weights in transformers' format;
    ``vllm``: its own process, see ``vllm_python``."""
    transformer: TransformerShape = TransformerShape()
    """A table, or the name of a preset: ``qwen2.5-7b``, ``qwen2.5-1.5b``, ``tiny``."""
    mamba_from: str | None = None
    """Folder of Mamba-2 weights; none: random ones, and the results say so."""
    transformer_from: str | None = None
    """Folder of Qwen2 weights; none: random ones, and the results say so."""
    dtype: Dtype = "bfloat16"
    """Of weights, and of the Transformer's cache."""
    state_dtypes: tuple[Dtype, ...] = ("bfloat16",)
    """Of the recurrent state; the first is the one that the tables compare."""
    kernels: Literal["auto", "torch", "triton"] = "auto"
    """Of the Mamba-2's step: ``auto`` is ``triton`` on a GPU and ``torch`` on a CPU."""
    assumed_overhead_gb: float = Field(2.0, ge=0)
    """Beside weights and caches; only for the plan of ``--dry-run``: a run measures it."""
    max_batch: int = Field(1024, ge=1)
    """Most sequences at once."""
    steps: int = Field(32, ge=2)
    """Decode steps timed at each position."""
    warmup_steps: int = Field(4, ge=1)
    walk_steps: int = Field(2048, ge=0)
    """Consecutive tokens that the Mamba-2 really generates at the smallest budget's batch: its last
    steps must cost what its first ones did. 0 leaves this out."""
    flat_tolerance: float = Field(0.05, gt=0, lt=1)
    """How much more a Mamba-2's token may cost at the longest length than at the shortest."""
    num_threads: int = Field(0, ge=0)
    """CPU threads; 0 leaves PyTorch's default."""
    vllm_python: str = ""
    """Interpreter that can import vLLM; empty: this one."""
    vllm_timeout_s: float = Field(1800.0, gt=0)
    """For one model under one budget."""
    seed: int = 0

    @field_validator("transformer", mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value not in PRESETS:
            raise ValueError(f"unknown preset {value!r}, use one of {', '.join(PRESETS)}")
        return PRESETS[value]

    @model_validator(mode="after")
    def _ordered(self) -> ThroughputSettings:
        for name in ("budgets_gb", "lengths", "state_dtypes"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} must hold at least one value, each once")
        if min(self.budgets_gb) <= 0 or min(self.lengths) < 2:
            raise ValueError("budgets must be positive and lengths at least 2 tokens")
        if list(self.lengths) != sorted(self.lengths):
            raise ValueError("lengths must ascend")
        return self
