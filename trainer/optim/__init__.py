"""AdamW under each precision policy, with the parameters that weight decay may shrink."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.settings.training import TrainingSettings


def list_decayed(model: Any) -> list[str]:
    """Names of the parameters that weight decay may shrink: matrices and convolutions.

    Vectors stay: norms and biases as usual, and ``A_log``, ``D`` and ``dt_bias``, which mamba-ssm
    marks as not to be decayed. The stock trainer decides by name and would decay two of them.
    """
    return [name for name, parameter in model.named_parameters() if parameter.ndim >= 2]


def group_parameters(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: what decays, and what does not. Tied weights are listed once."""
    decayed = set(list_decayed(model))
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for n, p in named if n in decayed], "weight_decay": weight_decay},
        {"params": [p for n, p in named if n not in decayed], "weight_decay": 0.0},
    ]


def build_optimizer(
    training: TrainingSettings, model: Any, masters: Mapping[str, Any] | None = None
) -> Any:
    """The optimiser of ``training.precision`` for a model that is where it will be trained.

    Args:
        training: Rates, betas, decay and the precision policy.
        model: Its weights are float32 (``float32``, ``bf16_autocast``) or bf16 (the others).
        masters: ``host_master`` only: float32 weights by parameter name, on the CPU. Without them
            the bf16 weights are the start.
    """
    import torch

    groups = group_parameters(model, training.weight_decay)
    options: dict[str, Any] = {
        "lr": training.learning_rate,
        "betas": (training.adam_beta1, training.adam_beta2),
        "eps": training.adam_epsilon,
    }
    if training.precision == "host_master":
        from trainer.optim.host_master import HostMasterAdamW

        named = dict(model.named_parameters())
        given = {named[name]: value for name, value in (masters or {}).items() if name in named}
        return HostMasterAdamW(groups, masters=given, **options)
    if training.precision == "stochastic":
        from trainer.optim.stochastic import StochasticAdamW

        return StochasticAdamW(groups, seed=training.seed, **options)
    on_gpu = any(p.is_cuda for group in groups for p in group["params"])
    return torch.optim.AdamW(groups, fused=on_gpu, **options)
