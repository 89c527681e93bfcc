"""Settings of the concept bank and of the combinations drawn from it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.records import Domain
from pipeline.settings.addresses import ServerAddress, VariableName
from pipeline.settings.base import Settings, execution_only

MATH_LEVELS = ("AMC12", "HMMT-Nov", "HMMT-Feb", "AIME", "USAJMO", "USAMO", "USOJMO", "USOMO")
"""The eight levels the original samples from uniformly."""
CODE_LEVELS = ("CF-1200", "CF-1600", "CF-2000", "CF-2400")
"""Ours: Codeforces-style rating bands, for the code domain that 1.0 does not have."""

Form = Literal["free", "constrained"]
"""How a teacher is asked to write. ``free``: marked sections, for any capable model, reasoning ones
included. ``constrained``: short headings that the engine enforces while it generates, which even a
135M model keeps; where the engine cannot enforce a form, ``free`` is used and the run says so."""

SeedField = Literal[
    "id", "problem", "solution", "answer", "rationale", "concepts", "level", "domain"
]
"""What a column of a seed file can hold."""


class SeedSourceSettings(Settings):
    """One ``[[synthesis.seeds]]`` entry: a file of problems (or of concept lists)."""

    name: str = Field(min_length=1)
    path: str = execution_only(...)
    """JSON (a list), JSONL (both also ``.gz``) or Parquet, relative to the recipe. Its content is
    part of the version's name."""
    columns: dict[SeedField, str] = Field(default_factory=dict)
    """Our field → the file's column; an empty text means that the file has none. Fields left out
    are looked for under their usual names, and the run says which column it took."""
    levels: dict[str, str] = Field(default_factory=dict)
    """The file's level (numbers as text: ``"5"``) → the level it is called here; others stay."""
    domain: Domain | None = None
    """Domain of all rows, where no column tells."""
    level: str | None = None
    """Level of rows that have none. Without it the teacher that names the concepts is asked for
    one of ``combinations.math_levels`` or ``code_levels``, and says "unknown" where none fits."""
    licence: str = ""
    max_rows: int = Field(0, ge=0)
    """Take only so many rows from the start; 0 takes all."""


class ConceptSettings(Settings):
    """Concepts of seed problems, as a teacher names them."""

    teacher: str = "default"
    form: Form = "free"
    per_seed: int = Field(5, ge=2)
    """K of the original's prompt."""
    temperature: float = Field(0.6, ge=0)
    max_tokens: int = Field(1024, ge=16)
    attempts: int = Field(2, ge=1)
    """The first asks for JSON, every further one for plain lines."""
    max_concept_chars: int = Field(120, ge=8)
    merge_similarity: float = Field(0.7, gt=0, le=1)
    """Jaccard similarity of two names' character trigrams from which they are one concept, if
    they also agree word for word but for linking words and slips of spelling; 1 merges names that
    differ in case, plural, hyphens or articles only."""


class EncoderSettings(Settings):
    """What turns a concept's name into a vector."""

    kind: Literal["ngrams", "sentence_transformers", "http"] = "ngrams"
    """``ngrams``: hashed character n-grams, no model; ``http``: an OpenAI-compatible
    ``/embeddings`` endpoint such as vLLM's."""
    model: str = ""
    """``sentence_transformers``: a folder, or a hub id with its commit (``owner/name@commit``);
    ``http``: the server's model name."""
    base_url: ServerAddress = execution_only("http://127.0.0.1:8000/v1")
    api_key_env: VariableName = execution_only("PROMPTCOT_API_KEY")
    """``http`` only: environment variable that holds the key, when the server wants one."""
    batch_size: int = execution_only(512, ge=1)

    @model_validator(mode="after")
    def _named_model(self) -> EncoderSettings:
        if self.kind != "ngrams" and not self.model:
            raise ValueError(f"encoder.kind = {self.kind!r} needs encoder.model")
        return self


class CombinationSettings(Settings):
    """Which concepts and level each problem is made from."""

    num_combinations: int = Field(256_000, ge=1)
    size: int = Field(5, ge=2)
    """Concepts in one combination."""
    sampler: Literal["original", "balanced"] = "original"
    """``original``: PromptCoT 1.0's distribution, computed right. ``balanced``: scaled association
    and pressure towards concepts that were used less than their share."""
    temperature: float = Field(0.2, gt=0)
    """Of the softmax over association plus cosine similarity."""
    association: Literal["pmi", "log_co_occurrence"] = "pmi"
    """``balanced`` only: how two concepts' shared seeds count; the average pair scores 1."""
    coverage: float = Field(1.0, ge=0)
    """``balanced`` only: what a concept's score gains when it was used half as often as its share;
    0 switches the pressure off, and with it the guarantee that every concept is used."""
    encoder: EncoderSettings = EncoderSettings()
    math_share: float = Field(1.0, ge=0, le=1)
    """Share of combinations from the maths bank; the rest is code."""
    math_levels: tuple[str, ...] = MATH_LEVELS
    code_levels: tuple[str, ...] = CODE_LEVELS
