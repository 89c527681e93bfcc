"""From a phase's dataset version to packed rows of token ids, one optimiser step after the other.

In: a version of the curriculum, by path or the newest. Out: :class:`PhaseData`, whose ``dataset``
gives row after row of a whole training run, in an order that only seeds and lengths decide.
Tokens are made once and kept by content (:mod:`trainer.data.tokens`); packing looks at lengths only
(:mod:`trainer.data.schedule`), so a dry run and a resumed run cost next to nothing.
"""

from trainer.data.collator import IGNORED, Collator
from trainer.data.dataset import PackedRows
from trainer.data.prepare import PhaseData, plan_data, prepare_data, prepare_rows
from trainer.data.report import Counts
from trainer.data.settings import DataSettings, data_settings
from trainer.data.versions import open_dataset

__all__ = [
    "IGNORED",
    "Collator",
    "Counts",
    "DataSettings",
    "PackedRows",
    "PhaseData",
    "data_settings",
    "open_dataset",
    "plan_data",
    "prepare_data",
    "prepare_rows",
]
