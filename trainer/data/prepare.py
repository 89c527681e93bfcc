"""From a dataset version to the rows of a run, or to the figures of a dry run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, TooManyRejected
from pipeline.manifest import Version
from pipeline.settings.training import PhaseTraining, TrainingSettings
from trainer.data.collator import Collator
from trainer.data.dataset import PackedRows
from trainer.data.report import Counts, count_run
from trainer.data.schedule import Schedule, make_schedule
from trainer.data.settings import DataSettings, data_settings
from trainer.data.token_files import TokenFiles
from trainer.data.tokens import tokenise

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PhaseData:
    """Everything that training needs of a phase's data."""

    dataset: PackedRows
    """All rows of the run, epoch after epoch."""
    counts: Counts
    collate: Collator

    @property
    def rows_per_step(self) -> int:
        """Rows of every optimiser step: accumulation x micro-batch x processes."""
        return self.dataset.schedule.rows_per_step

    @property
    def num_steps(self) -> int:
        """Optimiser steps of the run."""
        return self.dataset.schedule.num_steps


def prepare_data(
    version: Version,
    *,
    phase: PhaseTraining,
    training: TrainingSettings,
    cache: Path,
    num_workers: int,
) -> PhaseData:
    """:func:`prepare_rows` for a recipe's phase and the processes that torchrun started."""
    settings = data_settings(phase, training)
    return prepare_rows(version, settings, cache=cache, num_workers=num_workers)


def prepare_rows(
    version: Version, settings: DataSettings, *, cache: Path, num_workers: int
) -> PhaseData:
    """Tokenise what is not yet tokenised, and lay out the rows of the run.

    May be called by all processes of a run at once: one tokenises, the others wait for it.

    Args:
        version: The dataset, from :func:`trainer.data.versions.open_dataset`.
        settings: Length, duration, packing, order; see
            :func:`trainer.data.settings.data_settings`.
        cache: Folder of token files; see :mod:`trainer.data.tokens`.
        num_workers: Processes that tokenise.

    Raises:
        TooManyRejected: No row is left.
        ConfigError: ``max_row_tokens`` is less than the longest document.
        SourceError: The dataset was made with another tokenizer, or is not in the training schema.
        StoreError: The disk is full; finished work is kept.
    """
    tokens = tokenise(version, cache, num_workers=num_workers, encoded_rows=settings.encoded_rows)
    files = TokenFiles(tokens.paths)
    kept, rejected = choose_documents(files.lengths, files.num_prompt, settings)
    rejected.update(tokens.rejected)
    schedule, counts = _lay_out(version, files, kept, rejected=rejected, settings=settings)
    return PhaseData(PackedRows(files, kept, schedule), counts, Collator(settings.pad_multiple))


def plan_data(version: Version, settings: DataSettings) -> Counts:
    """The figures of :func:`prepare_rows` from the version's own token counts, for a dry run.

    Nothing is tokenised or written. Rows that the chat format has no form for are the one thing
    that only tokenising finds; curriculum.build lets none of them pass.

    Raises:
        TooManyRejected: No row is left.
        ConfigError: ``max_row_tokens`` is less than the longest document.
    """
    told = _read_told_counts(version)
    kept, rejected = choose_documents(told.lengths, told.num_prompt, settings)
    return _lay_out(version, told, kept, rejected=rejected, settings=settings)[1]


@dataclass(frozen=True, slots=True)
class ToldCounts:
    """Token counts as a version's rows tell them."""

    lengths: Int64s
    num_prompt: Int64s


def _read_told_counts(version: Version) -> ToldCounts:
    prompts, completions = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for path in version.shard_paths():
        table = pq.read_table(path, columns=["num_prompt_tokens", "num_completion_tokens"])
        prompts.append(table["num_prompt_tokens"].to_numpy())
        completions.append(table["num_completion_tokens"].to_numpy())
    num_prompt = np.concatenate(prompts)
    return ToldCounts(num_prompt + np.concatenate(completions), num_prompt)


def choose_documents(
    lengths: Int64s, num_prompt: Int64s, settings: DataSettings
) -> tuple[Int64s, Counter[str]]:
    """Numbers of the documents to train on, and how many are left out for which reason.

    Over-long documents are left out whole: a cut one would teach the model to stop nowhere. A
    document whose only labelled token is the closing ``</s>`` would teach it to say nothing.
    """
    labelled = lengths - num_prompt
    reasons = {
        "all_labels_masked": labelled < 1,
        "no_answer_tokens": labelled == 1,
        "over_max_length": lengths > settings.max_length,
    }
    is_kept = np.ones(len(lengths), bool)
    rejected: Counter[str] = Counter()
    for reason, applies in reasons.items():
        if count := int((applies & is_kept).sum()):
            rejected[reason] = count
        is_kept &= ~applies
    return np.flatnonzero(is_kept), rejected


def _lay_out(
    version: Version,
    documents: TokenFiles | ToldCounts,
    kept: Int64s,
    *,
    rejected: Counter[str],
    settings: DataSettings,
) -> tuple[Schedule, Counts]:
    require_documents(version, kept, rejected, settings)
    lengths, num_prompt = documents.lengths[kept], documents.num_prompt[kept]
    _require_room(lengths, settings)
    schedule = make_schedule(lengths, kept, settings)
    counts = count_run(lengths, num_prompt, schedule, settings)
    counts.rejected = rejected
    return schedule, counts


def require_documents(
    version: Version, kept: Int64s, rejected: Counter[str], settings: DataSettings
) -> None:
    """Refuse to train on nothing.

    Raises:
        TooManyRejected: No row is left.
    """
    if len(kept):
        return
    reasons = ", ".join(f"{name} ({n})" for name, n in sorted(rejected.items()))
    raise TooManyRejected(
        f"no row of dataset {version.name} can be trained on with max_length "
        f"{settings.max_length}; rejected: {reasons or 'the dataset is empty'}",
        hint="raise training.phases.N.max_length, or build the dataset with shorter rows",
    )


def _require_room(lengths: Int64s, settings: DataSettings) -> None:
    longest = int(lengths.max())
    if settings.packing != "off" and longest > settings.max_row_tokens:
        raise ConfigError(
            f"training.max_row_tokens = {settings.max_row_tokens}, but {longest} tokens of the "
            "longest document must fit into one row: documents are never cut",
            hint=f"raise training.max_row_tokens to at least {longest}, or lower "
            f"training.phases.N.max_length to {settings.max_row_tokens} to leave out longer ones",
        )
