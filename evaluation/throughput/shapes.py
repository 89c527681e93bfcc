"""Parameters and bytes of the two models, by calculation: nothing is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.settings.recipe import RecipeSettings
from pipeline.settings.throughput import TransformerShape
from pipeline.settings.training import ModelSettings
from pipeline.student import VOCAB_SIZE

DTYPE_BYTES = {"bfloat16": 2, "float32": 4}
GB = 1 << 30
"""A card of 24 GB holds 24 times this."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What one of the two models takes."""

    name: str
    kind: str
    """``mamba2`` or ``transformer``."""
    num_parameters: int
    weight_bytes: int
    read_bytes: int
    """Weights that every step reads: all but a table of embeddings of its own."""
    sequence_bytes: int
    """Held for a sequence, whatever its length."""
    token_bytes: int
    """Held for each token of a sequence."""
    state_dtype: str
    """Of the recurrent state or the cache."""

    def cache_bytes(self, tokens: int) -> int:
        """Of one sequence that has ``tokens`` tokens."""
        return self.sequence_bytes + tokens * self.token_bytes

    def moved_bytes(self, batch: int, tokens: float) -> float:
        """Least that a step reads and writes for a batch of sequences of ``tokens`` tokens.

        A state is read and written, keys and values are read.
        """
        return self.read_bytes + batch * (2 * self.sequence_bytes + tokens * self.token_bytes)


def describe_mamba(model: ModelSettings, *, dtype: str, state_dtype: str) -> Subject:
    """The recipe's Mamba-2. Its convolution remembers its last inputs in the weights' dtype."""
    inner = model.hidden_size * model.expand
    channels = inner + 2 * model.n_groups * model.state_size
    num_parameters = count_mamba_parameters(model)
    state = inner * model.state_size * DTYPE_BYTES[state_dtype]
    looked_up = 0 if model.tie_word_embeddings else VOCAB_SIZE * model.hidden_size
    window = channels * (model.conv_kernel - 1) * DTYPE_BYTES[dtype]
    return Subject(
        name="Mamba-2",
        kind="mamba2",
        num_parameters=num_parameters,
        weight_bytes=num_parameters * DTYPE_BYTES[dtype],
        read_bytes=(num_parameters - looked_up) * DTYPE_BYTES[dtype],
        sequence_bytes=model.num_hidden_layers * (state + window),
        token_bytes=0,
        state_dtype=state_dtype,
    )


def count_mamba_parameters(model: ModelSettings) -> int:
    """As ``trainer.model.count_parameters`` counts them, without PyTorch."""
    hidden, inner = model.hidden_size, model.hidden_size * model.expand
    heads = inner // model.head_dim
    channels = inner + 2 * model.n_groups * model.state_size
    projections = hidden * (inner + channels + heads) + inner * hidden
    small = channels * (model.conv_kernel + 1) + 3 * heads + inner + hidden
    embeddings = VOCAB_SIZE * hidden * (1 if model.tie_word_embeddings else 2)
    return model.num_hidden_layers * (projections + small) + embeddings + hidden


def describe_transformer(shape: TransformerShape, *, dtype: str) -> Subject:
    """The opponent: keys and values of every token in the weights' dtype."""
    num_parameters = count_transformer_parameters(shape)
    size = DTYPE_BYTES[dtype]
    keys = shape.num_key_value_heads * shape.head_dim
    looked_up = 0 if shape.tie_word_embeddings else shape.vocab_size * shape.hidden_size
    return Subject(
        name=shape.name,
        kind="transformer",
        num_parameters=num_parameters,
        weight_bytes=num_parameters * size,
        read_bytes=(num_parameters - looked_up) * size,
        sequence_bytes=0,
        token_bytes=2 * shape.num_hidden_layers * keys * size,
        state_dtype=dtype,
    )


def count_transformer_parameters(shape: TransformerShape) -> int:
    """Of transformers' ``Qwen2ForCausalLM``: biases at queries, keys and values only."""
    hidden = shape.hidden_size
    queries = shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    attention = (hidden + 1) * (queries + 2 * keys) + queries * hidden
    block = attention + 3 * hidden * shape.intermediate_size + 2 * hidden
    embeddings = shape.vocab_size * hidden * (1 if shape.tie_word_embeddings else 2)
    return shape.num_hidden_layers * block + embeddings + hidden


def describe_subjects(settings: RecipeSettings) -> list[Subject]:
    """The Mamba-2 once for each dtype of its state, then the Transformer."""
    chosen = settings.throughput
    mambas = [
        describe_mamba(settings.model, dtype=chosen.dtype, state_dtype=state_dtype)
        for state_dtype in chosen.state_dtypes
    ]
    return [*mambas, describe_transformer(chosen.transformer, dtype=chosen.dtype)]
