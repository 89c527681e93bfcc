"""The M-step of refinement: fine-tune the scoring model on the triples that a round kept (TRL).

Output: ``<out>/synthesis/generator/round-N``, a model folder for ``transformers``; it is also the
generator that ``synthesis.problems.mode = "generator"`` can be served with.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.errors import ConfigError, TeacherError, TooManyRejected
from pipeline.hashing import code_version, content_hash, derive_seed
from pipeline.manifest import Version
from pipeline.records import Triple
from pipeline.settings.base import determining
from pipeline.store import exclusive_lock, write_json
from promptcot.run_context import SynthesisRun
from promptcot.scoring import ScoreBook, open_scorer
from promptcot.scoring_transformers import load_model, resolve_model
from promptcot.triple_text import join_triple

_FIT = "fit.json"
"""Written last into a finished folder."""


def fit_generator(run: SynthesisRun, version: Version, number: int, *, start: Path | None) -> Path:
    """Fine-tune on a round's triples; return the model's folder, reused if it is there.

    Args:
        run: The run.
        version: The round's triples.
        number: The round.
        start: The former round's model; the recipe's scoring model if there is none.

    Raises:
        ConfigError: The scoring model is not one that can be trained here.
        TeacherError: A package is missing.
        TooManyRejected: No triple is short enough.
    """
    settings = run.settings.refinement
    if settings.scorer.engine != "transformers":
        raise ConfigError(
            f"the M-step trains in this process, and the scorer's engine is "
            f"{settings.scorer.engine!r}",
            hint='set synthesis.refinement.scorer.engine = "transformers", or '
            "synthesis.refinement.fit.enabled = false",
        )
    scorer = open_scorer(settings.scorer, run.recipe, folder=start)
    key = content_hash(
        {
            "triples": version.name,
            "start": scorer.identity,
            "fit": determining(settings.fit),
            "seed": run.root_seed,
            "code": code_version("pipeline", "promptcot"),
        }
    )
    target = run.folder("generator") / f"round-{number}"
    with exclusive_lock(target.parent / f".lock-round-{number}", f"training of round {number}"):
        if _read_key(target) == key:
            return target
        staging = target.parent / f".staging-round-{number}"
        shutil.rmtree(staging, ignore_errors=True)
        source = (str(start), {}) if start else resolve_model(settings.scorer.model, run.recipe)
        figures = _train(run, version, source, staging)
        write_json(staging / "model" / _FIT, {"key": key, "version": version.name, **figures})
        shutil.rmtree(target, ignore_errors=True)
        (staging / "model").replace(target)
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _read_key(folder: Path) -> str:
    path = folder / _FIT
    return str(json.loads(path.read_text(encoding="utf-8"))["key"]) if path.is_file() else ""


def _train(
    run: SynthesisRun, version: Version, source: tuple[str, dict[str, str]], staging: Path
) -> dict[str, Any]:
    """Completion-only SFT on whole triples; longer ones are left out, never cut."""
    try:
        from datasets import Dataset
        from transformers import PrinterCallback
        from trl import SFTTrainer
    except ImportError as exc:
        raise TeacherError(
            f"the M-step needs {exc.name}",
            hint='run: pip install "promptcot-mamba[train,embedded]"',
        ) from exc
    settings = run.settings.refinement
    model, tokenizer = load_model(*source, precision=settings.scorer.precision)
    rows = [
        {"prompt": row["prompt"], "completion": row["completion"]}
        for row in version.rows(["prompt", "completion"])
        # One token more than the text: TRL closes each completion with the end-of-text token.
        if len(tokenizer(row["prompt"] + row["completion"])["input_ids"]) < settings.fit.max_length
    ]
    if not rows:
        raise TooManyRejected(
            f"no triple of {version.name} has fewer than {settings.fit.max_length} tokens",
            hint="raise synthesis.refinement.fit.max_length",
        )
    with _quiet():
        trainer = SFTTrainer(
            model=model,
            args=build_config(run, staging / "steps"),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        console.say(f"fine-tuning the scoring model on {len(rows)} triples")
        trainer.train()
        trainer.save_model(str(staging / "model"))
    (staging / "model" / "training_args.bin").unlink(missing_ok=True)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "num_rows": len(rows),
        "num_left_out": version.manifest.rows_out - len(rows),
        "num_steps": trainer.state.global_step,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def build_config(run: SynthesisRun, folder: Path) -> Any:
    """TRL's configuration: AdamW, constant rate, loss on the completion alone."""
    import torch
    from trl import SFTConfig

    fit, has_gpu = run.settings.refinement.fit, torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=fit.micro_batch,
        gradient_accumulation_steps=max(1, fit.documents_per_step // fit.micro_batch),
        num_train_epochs=fit.epochs,
        learning_rate=fit.learning_rate,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused" if has_gpu else "adamw_torch",
        bf16=has_gpu and run.settings.refinement.scorer.precision == "bfloat16",
        gradient_checkpointing=has_gpu,
        completion_only_loss=True,
        max_length=fit.max_length,
        packing=False,
        seed=derive_seed(run.root_seed, "fit"),
        use_cpu=not has_gpu,
        dataloader_pin_memory=has_gpu,
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )


def score_version(run: SynthesisRun, version: Version, folder: Path) -> float:
    """Mean objective of a round's triples under the model that was trained on them."""
    settings = run.settings.refinement
    total, count = 0.0, 0
    stream = run.stream(version, Triple, key=lambda row: row.source_id)
    with ScoreBook(open_scorer(settings.scorer, run.recipe, folder=folder), run.out) as book:
        for batch in stream:
            texts = [
                join_triple(
                    row.concepts,
                    row.level,
                    row.domain,
                    rationale=row.rationale,
                    problem=row.problem,
                )
                for row in batch.rows
            ]
            for score in book.score_all(texts):
                if score is not None:
                    total += score.objective(settings.normalisation)
                    count += 1
    return round(total / max(1, count), 6)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the libraries say that the user can do nothing about."""
    import datasets
    from transformers.utils import logging

    verbosity, are_disabled = logging.get_verbosity(), datasets.are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(trl|transformers)\b")
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            logging.enable_progress_bar()
            if not are_disabled:
                datasets.enable_progress_bars()
