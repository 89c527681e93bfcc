"""The opponent: a Qwen2 decoder with a preallocated cache, one token of every sequence a step.

The mathematics is that of transformers' ``Qwen2ForCausalLM`` (greedy texts are equal, tested), laid
out as serving engines do: queries, keys and values in one product, gate and up in another, keys and
values written in place, attention over what is filled only, so that a step can be a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

from evaluation.throughput.attention import Attend
from pipeline.settings.throughput import TransformerShape

INIT_STD = 0.02
"""Of random weights, as transformers makes them."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One block's weights."""

    norm: Tensor
    """(hidden,)."""
    qkv: Tensor
    """((query heads + 2 key heads) * head_dim, hidden)."""
    qkv_bias: Tensor
    out: Tensor
    """(hidden, query heads * head_dim)."""
    mlp_norm: Tensor
    gate_up: Tensor
    """(2 * intermediate, hidden): gate, then up."""
    down: Tensor
    """(hidden, intermediate)."""


class KeyValueCache:
    """Keys and values of a batch, all sequences equally long.

    Args:
        shape: The model's.
        batch: Sequences.
        tokens: Room of each.
        like: A tensor whose dtype and device they have.
    """

    def __init__(self, shape: TransformerShape, batch: int, tokens: int, like: Tensor) -> None:
        size = (2, batch, shape.num_key_value_heads, tokens, shape.head_dim)
        self.layers = [like.new_empty(size) for _ in range(shape.num_hidden_layers)]
        """Each (keys and values, batch, key heads, tokens, head_dim)."""
        self.batch, self.tokens = batch, tokens

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        return sum(layer.numel() * layer.element_size() for layer in self.layers)

    def fill(self, generator: torch.Generator) -> None:
        """Random contents at every position."""
        for layer in self.layers:
            layer.normal_(generator=generator)


class StaticTransformer:
    """Weights and the steps of greedy decoding.

    Args:
        shape: The model's.
        tensors: ``embeddings``, ``norm``, ``head`` and a list ``layers``.
        compiles: Fuse elementwise operations by ``torch.compile``.
    """

    def __init__(
        self, shape: TransformerShape, tensors: dict[str, Any], *, compiles: bool = False
    ) -> None:
        self.shape = shape
        self.embeddings: Tensor = tensors["embeddings"]
        self.norm: Tensor = tensors["norm"]
        self.head: Tensor = tensors["head"]
        self.layers: list[Layer] = tensors["layers"]
        self._rotate: Callable[..., Tensor] = rotate
        self._gated: Callable[[Tensor], Tensor] = gated
        if compiles:
            self._rotate = torch.compile(rotate, dynamic=True)
            self._gated = torch.compile(gated, dynamic=True)
        self._angles: tuple[Tensor, Tensor] | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embeddings.device

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights, a tied head counted once."""
        held = [self.embeddings, self.norm]
        held += [] if self.head is self.embeddings else [self.head]
        for layer in self.layers:
            held += [getattr(layer, name) for name in Layer.__dataclass_fields__]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    @torch.no_grad()
    def prefill(self, ids: Tensor, cache: KeyValueCache, *, at: int = 0) -> Tensor:
        """Read a prompt into the first rows of an empty cache.

        Args:
            ids: (rows, tokens).
            cache: Filled from position 0 on.
            at: First row of the cache to fill.

        Returns:
            (rows,) the likeliest next tokens.
        """
        rows, length = ids.shape
        cos, sin = (part[:length] for part in self._positions(cache.tokens))
        hidden = self.embeddings[ids]
        for layer, held in zip(self.layers, cache.layers, strict=True):
            q, k, v = self._project(layer, hidden, cos, sin)
            held[0, at : at + rows, :, :length], held[1, at : at + rows, :, :length] = k, v
            mixed = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            hidden = self._finish(layer, hidden, mixed.transpose(1, 2).flatten(2))
        return self._choose(hidden[:, -1])

    @torch.no_grad()
    def step(
        self,
        ids: Tensor,
        cache: KeyValueCache,
        position: int,
        attend: Attend = scaled_dot_product_attention,
    ) -> Tensor:
        """Read one token of every sequence at ``position``.

        Args:
            ids: (batch,).
            cache: Filled up to the position.
            position: Tokens read before.
            attend: Route of the attention.

        Returns:
            (batch,) the likeliest next tokens.
        """
        shape = self.shape
        end = position + 1
        cos, sin = (part[position:end] for part in self._positions(cache.tokens))
        hidden = self.embeddings[ids][:, None]
        for layer, held in zip(self.layers, cache.layers, strict=True):
            q, k, v = self._project(layer, hidden, cos, sin)
            held[0, :, :, position:end], held[1, :, :, position:end] = k, v
            grouped = q.view(len(ids), shape.num_key_value_heads, -1, shape.head_dim)
            mixed = attend(grouped, held[0, :, :, :end], held[1, :, :, :end])
            hidden = self._finish(layer, hidden, mixed.reshape(len(ids), 1, -1))
        return self._choose(hidden[:, -1])

    @torch.no_grad()
    def generate(self, ids: Tensor, max_new_tokens: int) -> Tensor:
        """Greedy continuation (batch, max_new_tokens) of equally long prompts."""
        length = ids.shape[1]
        cache = KeyValueCache(self.shape, len(ids), length + max_new_tokens, self.embeddings)
        chosen = [self.prefill(ids, cache)]
        for position in range(length, length + max_new_tokens - 1):
            chosen.append(self.step(chosen[-1], cache, position))
        return torch.stack(chosen, dim=1)

    def _project(
        self, layer: Layer, hidden: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values: (batch, heads, length, head_dim) each."""
        shape = self.shape
        normed = rms_norm(hidden, (shape.hidden_size,), layer.norm, shape.rms_norm_eps)
        heads = linear(normed, layer.qkv, layer.qkv_bias)
        heads = torch.unflatten(heads, -1, (-1, shape.head_dim)).transpose(1, 2)
        split = shape.num_attention_heads + shape.num_key_value_heads
        rotated = self._rotate(heads[:, :split], cos, sin)
        sizes = [shape.num_attention_heads, shape.num_key_value_heads]
        queries, keys = torch.split(rotated, sizes, 1)
        return queries, keys, heads[:, split:]

    def _finish(self, layer: Layer, hidden: Tensor, mixed: Tensor) -> Tensor:
        """Output projection, MLP and both residual additions."""
        hidden = hidden + linear(mixed, layer.out)
        size, eps = (self.shape.hidden_size,), self.shape.rms_norm_eps
        normed = rms_norm(hidden, size, layer.mlp_norm, eps)
        return hidden + linear(self._gated(linear(normed, layer.gate_up)), layer.down)

    def _choose(self, hidden: Tensor) -> Tensor:
        normed = rms_norm(hidden, (self.shape.hidden_size,), self.norm, self.shape.rms_norm_eps)
        return linear(normed, self.head).argmax(dim=-1)

    def _positions(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines (at least tokens, head_dim) of every position."""
        if self._angles is None or len(self._angles[0]) < tokens:
            size, device = self.shape.head_dim, self.device
            exponents = torch.arange(0, size, 2, device=device, dtype=torch.float32) / size
            rates = self.shape.rope_theta**-exponents
            angles = torch.arange(tokens, device=device, dtype=torch.float32)[:, None] * rates
            angles = torch.cat([angles, angles], dim=-1)
            dtype = self.embeddings.dtype
            self._angles = angles.cos().to(dtype), angles.sin().to(dtype)
        return self._angles


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions of (batch, heads, length, head_dim)."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat([-second, first], dim=-1) * sin


def gated(gate_up: Tensor) -> Tensor:
    """``silu(gate) * up`` of the two halves."""
    gate, up = gate_up.chunk(2, dim=-1)
    return silu(gate) * up


def make_random(
    shape: TransformerShape, *, device: torch.device, dtype: torch.dtype, seed: int
) -> StaticTransformer:
    """Random weights made on the device."""
    generator = torch.Generator(device=device).manual_seed(seed)

    def draw(*size: int) -> Tensor:
        empty = torch.empty(size, device=device, dtype=dtype)
        return empty.normal_(std=INIT_STD, generator=generator)

    def ones() -> Tensor:
        return torch.ones(hidden, device=device, dtype=dtype)

    hidden, inner = shape.hidden_size, shape.intermediate_size
    queries = shape.num_attention_heads * shape.head_dim
    width = queries + 2 * shape.num_key_value_heads * shape.head_dim
    embeddings = draw(shape.vocab_size, hidden)
    tensors = {
        "embeddings": embeddings,
        "norm": ones(),
        "head": embeddings if shape.tie_word_embeddings else draw(shape.vocab_size, hidden),
        "layers": [
            Layer(
                norm=ones(),
                qkv=draw(width, hidden),
                qkv_bias=torch.zeros(width, device=device, dtype=dtype),
                out=draw(hidden, queries),
                mlp_norm=ones(),
                gate_up=draw(2 * inner, hidden),
                down=draw(hidden, inner),
            )
            for _ in range(shape.num_hidden_layers)
        ],
    }
    return StaticTransformer(shape, tensors, compiles=device.type == "cuda")
