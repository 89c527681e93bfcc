"""The student: a Mamba-2 that keeps documents of one row apart, on any device.

Only names without heavy imports stand here; the model itself is in :mod:`trainer.model.student`.
"""

from __future__ import annotations

from trainer.model.config import build_config, count_parameters
from trainer.model.init import Init, hash_weights, load_model, resolve_init

__all__ = [
    "Init",
    "build_config",
    "count_parameters",
    "hash_weights",
    "load_model",
    "resolve_init",
]
