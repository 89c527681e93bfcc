"""The student model: Mamba-2 on transformers' configuration, parameter names and file format.

It differs from ``Mamba2ForCausalLM`` in what training needs: documents of one row never influence
each other, padding on either side changes nothing, all logits are never held at once, and what the
forward pass does not know is refused instead of dropped. Files are the same both ways.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, Mamba2Config, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from pipeline.errors import ConfigError
from trainer.model.backbone import Backbone, refuse_unknown
from trainer.model.cache import StateCache
from trainer.model.documents import label_documents
from trainer.model.loss import sum_token_loss
from trainer.model.mixer import Mixer
from trainer.model.operations import load_operations

ACTIVATIONS = {"none": 0, "all": 1, "every_second": 2}
"""Policies of recomputing, and every how many blocks they do it."""


@dataclass
class StudentOutput(ModelOutput):  # type: ignore[misc]
    """What :meth:`StudentModel.forward` returns."""

    loss: Tensor | None = None
    """Scalar: the sum over labelled tokens divided by ``num_items_in_batch`` or their number."""
    logits: Tensor | None = None
    """(batch, kept, vocabulary)."""
    cache_params: StateCache | None = None
    num_correct: Tensor | None = None
    """Scalar int64: labelled tokens that the model ranks first."""


class StudentModel(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """Mamba-2 with a language-modelling head.

    Args:
        config: A ``Mamba2Config``.
        backend: ``torch`` (any device), ``triton`` or ``split``: what computes the mixer. Passes
            with a cache run on PyTorch with every backend.
        activation: ``none``, ``all`` or ``every_second``: which blocks are computed again in
            backward instead of kept.

    Raises:
        ConfigError: An unknown backend or activation, missing kernels, or an activation function
            other than SiLU.
    """

    config_class = Mamba2Config
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = False
    """transformers' switch would override :meth:`set_activation`."""
    accepts_loss_kwargs = True
    _no_split_modules = ("Block",)
    _tied_weights_keys = {"lm_head.weight": "backbone.embeddings.weight"}  # noqa: RUF012
    _is_stateful = True

    def __init__(self, config: Any, *, backend: str = "torch", activation: str = "none") -> None:
        super().__init__(config)
        if config.hidden_act not in ("silu", "swish"):
            raise ConfigError(
                f"hidden_act = {config.hidden_act!r}: the mixer's kernels compute SiLU only",
                hint="use a Mamba-2 with hidden_act = silu",
            )
        self.backend = backend
        self.backbone = Backbone(config, load_operations(backend))
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()
        self.set_activation(activation)

    def set_activation(self, activation: str) -> None:
        """Choose which blocks are computed again in backward: ``none``, ``all``, ``every_second``.

        Raises:
            ConfigError: Another word.
        """
        if activation not in ACTIVATIONS:
            raise ConfigError(
                f"unknown activation policy {activation!r}",
                hint=f"use one of {', '.join(ACTIVATIONS)}",
            )
        every = ACTIVATIONS[activation]
        layers: list[Any] = list(self.backbone.layers)
        for number, layer in enumerate(layers):
            layer.recomputes = bool(every) and number % every == 0
            layer.mixer.keeps_states = layer.recomputes
        self.activation = activation

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        seq_idx: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        logits_to_keep: int = 0,
        cache_params: StateCache | None = None,
        use_cache: bool | None = False,
        return_logits: bool | None = None,
        **unused: Any,
    ) -> StudentOutput:
        """Loss, or logits, of rows of documents.

        Args:
            input_ids: (batch, length).
            attention_mask: (batch, length), 0 at padding, on either side. With a cache it may also
                have columns for the tokens before.
            seq_idx: (batch, length) int: another number is another document.
            position_ids: (batch, length): a 0 starts a document. What is given must agree.
            labels: (batch, length), -100 where there is none; shifted here.
            num_items_in_batch: What the summed loss is divided by; labelled tokens by default.
            logits_to_keep: Logits of the last tokens only; 0 is all. With a cache, 1 means each
                row's last token that is not padding.
            cache_params: What decoding remembers; it is updated in place.
            use_cache: Start a cache.
            return_logits: Whether to compute logits; by default only when there are no labels.
            unused: Only none, false, or ``return_dict``.

        Raises:
            ValueError: Descriptions of documents that do not agree or do not go with a cache.
            TypeError: An unknown argument.
        """
        refuse_unknown(unused)
        cached = cache_params is not None or bool(use_cache)
        if cached and labels is not None:
            raise ValueError("a pass with a cache computes no loss: give labels or use_cache")
        outputs = self.backbone(
            input_ids,
            attention_mask,
            seq_idx=seq_idx,
            position_ids=position_ids,
            cache_params=cache_params,
            use_cache=use_cache,
        )
        hidden = outputs.last_hidden_state
        answer = StudentOutput(cache_params=outputs.cache_params)
        if labels is not None:
            sums = sum_token_loss(hidden, self.lm_head.weight, labels, outputs.documents)
            items = sums.num_tokens if num_items_in_batch is None else num_items_in_batch
            # Rows without labels are a loss of 0, not 0 / 0.
            items = items.clamp(min=1) if isinstance(items, Tensor) else max(1, items)
            answer.loss, answer.num_correct = sums.total / items, sums.num_correct
        if return_logits or (return_logits is None and labels is None):
            answer.logits = self._score(hidden, outputs.last, logits_to_keep)
        return answer

    def _score(self, hidden: Tensor, last: Tensor | None, keep: int) -> Tensor:
        """Logits of the last ``keep`` tokens (0: of all), at least float32 as in transformers."""
        if last is not None and keep == 1:
            hidden = hidden[torch.arange(len(hidden), device=hidden.device), last, None]
        hidden = hidden[:, -keep:]
        logits: Tensor = self.lm_head(hidden.to(self.lm_head.weight.dtype))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Random weights as transformers' Mamba-2 makes them (S4D-real decay rates)."""
        super()._init_weights(module)
        if isinstance(module, Mixer):
            _init_mixer(module)

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *, is_first_iteration: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """What ``generate`` passes to :meth:`forward` at each step."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, **kwargs
        )
        # ``generate`` derives positions from the mask, which says the same.
        positions, mask = inputs.pop("position_ids", None), inputs.get("attention_mask")
        if inputs.get("use_cache") and not is_first_iteration:
            inputs["attention_mask"] = None
        elif positions is not None and positions.shape == input_ids.shape:
            _refuse_packing(input_ids, positions, mask)
        return inputs

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *_: Any
    ) -> None:
        if generation_config.use_cache is not False and model_kwargs.get("cache_params") is None:
            model_kwargs["cache_params"] = StateCache(self.config.num_hidden_layers)

    def save_pretrained(
        self, save_directory: str | Path, is_main_process: bool = True, **options: Any
    ) -> None:
        """Write the model so that transformers and vLLM read it as their own Mamba-2."""
        super().save_pretrained(save_directory, is_main_process=is_main_process, **options)
        self.config.architectures = ["Mamba2ForCausalLM"]
        if is_main_process:
            self.config.save_pretrained(save_directory)


def _refuse_packing(input_ids: Tensor, positions: Tensor, mask: Tensor | None) -> None:
    if mask is None:
        mask = torch.ones_like(input_ids)
    told = label_documents(input_ids, position_ids=positions, attention_mask=mask)
    plain = label_documents(input_ids, attention_mask=mask)
    same = told is plain or (told is not None and plain is not None and torch.equal(told, plain))
    if not same:
        raise ValueError("generate reads one document a row: position_ids must not restart")


def _init_mixer(mixer: Mixer) -> None:
    config = mixer.config
    device = mixer.A_log.device
    init.copy_(mixer.A_log, torch.log(torch.arange(1, config.num_heads + 1, device=device).float()))
    init.ones_(mixer.D)
    low, high = math.log(config.time_step_min), math.log(config.time_step_max)
    step = torch.exp(torch.rand(config.num_heads, device=device) * (high - low) + low)
    step = step.clamp(min=config.time_step_floor)
    # The inverse of softplus, so that the first step sizes are these.
    init.copy_(mixer.dt_bias, step + torch.log(-torch.expm1(-step)))
    init.kaiming_uniform_(mixer.conv1d.weight, a=math.sqrt(5))
    if mixer.conv1d.bias is not None:
        init.zeros_(mixer.conv1d.bias)
    init.kaiming_uniform_(mixer.out_proj.weight, a=math.sqrt(5))
    if config.rescale_prenorm_residual:
        mixer.out_proj.weight /= math.sqrt(config.num_hidden_layers)
