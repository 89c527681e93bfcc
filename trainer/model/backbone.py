"""The layers of the student, and how their arguments are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.utils import ModelOutput

from trainer.model.cache import StateCache
from trainer.model.decoding import Span, mix_cached
from trainer.model.documents import label_documents
from trainer.model.mixer import Mixer, RMSNormWeight
from trainer.model.operations import Operations, add_norm


@dataclass
class BackboneOutput(ModelOutput):  # type: ignore[misc]
    """What the layers computed."""

    last_hidden_state: Tensor | None = None
    """(batch, length, hidden_size) after the last norm."""
    cache_params: StateCache | None = None
    documents: Tensor | None = None
    """(batch, length) int32 running numbers of documents; none where rows are one document each."""
    last: Tensor | None = None
    """(batch,) index of each row's last real token, after a cached pass with padding."""


class Block(nn.Module):
    """Residual addition, norm and mixer."""

    def __init__(self, config: Any, operations: Operations, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.config = config
        self.operations = operations
        self.norm = RMSNormWeight(config.hidden_size)
        self.mixer = Mixer(config, operations)
        self.recomputes = False
        """Whether the mixer is computed again in backward instead of kept."""

    def forward(
        self,
        hidden: Tensor,
        residual: Tensor | None,
        seq_idx: Tensor | None,
        span: Span | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One layer.

        Args:
            hidden: (batch, length, hidden_size), the layer's before, or the embeddings.
            residual: Sum of all before ``hidden``; none at the first layer.
            seq_idx: (batch, length) int32 numbers of documents, or none.
            span: A pass with a cache.

        Returns:
            This layer's output and the sum of all before it.
        """
        normed, residual = add_and_norm(self, hidden, residual, self.norm, span)
        if span is not None:
            return mix_cached(self.mixer, normed, span, self.layer), residual
        if self.recomputes and self.training and torch.is_grad_enabled():
            return self._mix_twice([normed], residual.detach(), seq_idx), residual
        return self.mixer(normed, seq_idx), residual

    def _mix_twice(self, normed: list[Tensor], total: Tensor, seq_idx: Tensor | None) -> Tensor:
        """The mixer, which keeps nothing but ``total``, and that the norm's backward keeps anyway.

        ``normed`` is taken out of its list by the forward pass, so that it is not kept; the second
        pass makes it again from the sum that it was the norm of.
        """
        dtype, eps = normed[0].dtype, self.config.layer_norm_epsilon

        def mix() -> Tensor:
            if normed:
                given = normed.pop()
            else:
                given = self.operations.normalise(total, self.norm.weight, eps, dtype=dtype)
                given.requires_grad_()
            out: Tensor = self.mixer(given, seq_idx)
            return out

        # Nothing is random here, so no random state is saved.
        out: Tensor = checkpoint(mix, use_reentrant=False, preserve_rng_state=False)
        return out


class Backbone(nn.Module):
    """Embeddings, blocks and the last norm."""

    def __init__(self, config: Any, operations: Operations) -> None:
        super().__init__()
        self.config = config
        self.operations = operations
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            Block(config, operations, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm_f = RMSNormWeight(config.hidden_size)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        seq_idx: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache_params: StateCache | None = None,
        use_cache: bool | None = False,
        **unused: Any,
    ) -> BackboneOutput:
        """Hidden states; see :meth:`StudentModel.forward` for the arguments and errors."""
        refuse_unknown(unused)
        documents, span = None, None
        if cache_params is None and not use_cache:
            documents = label_documents(
                input_ids, seq_idx=seq_idx, position_ids=position_ids, attention_mask=attention_mask
            )
        else:
            if seq_idx is not None or position_ids is not None:
                raise ValueError("with a cache a row is one document: no seq_idx or position_ids")
            if torch.is_grad_enabled():
                raise ValueError("a cache is updated in place: use it under torch.no_grad()")
            cache = cache_params or StateCache(len(self.layers))
            span = Span(cache, attention_mask, input_ids.shape[1])
        hidden, residual = self.embeddings(input_ids), None
        for layer in self.layers:
            hidden, residual = layer(hidden, residual, documents, span=span)
        hidden, _ = add_and_norm(self, hidden, residual, self.norm_f, span)
        if span is None:
            return BackboneOutput(hidden, None, documents)
        span.cache.num_tokens += input_ids.shape[1]
        return BackboneOutput(hidden, span.cache, None, span.last)


def add_and_norm(
    module: Block | Backbone,
    hidden: Tensor,
    residual: Tensor | None,
    norm: RMSNormWeight,
    span: Span | None,
) -> tuple[Tensor, Tensor]:
    """Norm of ``hidden + residual`` in ``hidden``'s dtype, and the sum.

    The residual stream is at least float32 if the configuration says so. Passes with a cache run
    on PyTorch with every backend.
    """
    operation = module.operations.add_norm if span is None else add_norm
    dtype = hidden.dtype
    if module.config.residual_in_fp32:
        dtype = torch.promote_types(dtype, torch.float32)
    eps = module.config.layer_norm_epsilon
    return operation(hidden, residual, norm.weight, eps, residual_dtype=dtype)


_HARMLESS = frozenset({"return_dict"})


def refuse_unknown(arguments: dict[str, Any]) -> None:
    """Stop on arguments that would change the result and are not known.

    Raises:
        TypeError: One of them has a value other than none or false.
    """
    unknown = [
        name
        for name, value in arguments.items()
        if name not in _HARMLESS and value is not None and value is not False
    ]
    if unknown:
        raise TypeError(
            f"the student model does not know {', '.join(unknown)}; documents are told by seq_idx, "
            "position_ids or attention_mask"
        )
