"""Find checkpoints and load them as something that answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.decoding.plan import DecodingPlan
from pipeline.errors import SourceError
from pipeline.hashing import content_hash, file_sha256
from pipeline.records import Message
from pipeline.settings.recipe import Recipe
from pipeline.student import VOCAB_SIZE

_CONFIG = "config.json"
_WEIGHTS = "*.safetensors"
_TOKENIZER_FILES = ("*token*.json", "*.jinja", "*.model", "vocab.*", "merges.txt")


def find_checkpoints(recipe: Recipe, out: Path) -> list[Path]:
    """The recipe's checkpoints that have been trained so far.

    Raises:
        SourceError: There is none.
    """
    folders = [out / "checkpoints" / name for name in recipe.settings.evaluation.checkpoints]
    found = [folder for folder in folders if (folder / _CONFIG).is_file()]
    if not found:
        names = ", ".join(recipe.settings.evaluation.checkpoints)
        raise SourceError(
            f"no checkpoint under {out / 'checkpoints'} (looked for {names})",
            hint="train first (python -m trainer.sft --phase 1), or pass --checkpoint FOLDER",
        )
    return found


def choose_checkpoints(recipe: Recipe, out: Path, given: Path | None) -> list[Path | None]:
    """What a run evaluates; all are looked at before the first one is run for long.

    Args:
        recipe: Its ``[evaluation]`` says what answers.
        out: The run folder.
        given: The user's choice.

    Returns:
        The given folder, or the recipe's that have been trained; none for a teacher's own model.

    Raises:
        SourceError: There is none, or one holds no model.
    """
    if given is None and not recipe.settings.evaluation.is_local:
        return [None]
    chosen = [given] if given is not None else find_checkpoints(recipe, out)
    for folder in chosen:
        hash_checkpoint(folder)
    return list(chosen)


def hash_checkpoint(folder: Path, *, with_tokenizer: bool = False) -> str:
    """Content hash of a checkpoint's configuration and weights.

    Args:
        folder: The checkpoint.
        with_tokenizer: Whether its own tokenizer is used, and so is part of what it is.

    Raises:
        SourceError: The folder is missing or holds no model.
    """
    weights = sorted(folder.glob(_WEIGHTS))
    if not folder.is_dir():
        raise SourceError(f"checkpoint folder not found: {folder}", hint="check the path")
    if not weights or not (folder / _CONFIG).is_file():
        raise SourceError(
            f"{folder} holds no model (wants {_CONFIG} and {_WEIGHTS})",
            hint="pass a folder written by python -m trainer.sft or by save_pretrained",
        )
    files = [folder / _CONFIG, *weights]
    if with_tokenizer:
        files += [path for name in _TOKENIZER_FILES for path in sorted(folder.glob(name))]
    return content_hash({path.name: file_sha256(path) for path in files})


def load_student(folder: Path, plan: DecodingPlan) -> Any:
    """The checkpoint's Mamba-2, ready to decode.

    Args:
        folder: The checkpoint.
        plan: Device and precision.

    Raises:
        SourceError: The weights or the configuration are damaged, do not fit each other, or are
            those of another architecture or vocabulary.
    """
    import torch
    from safetensors import SafetensorError
    from transformers.utils import logging

    from trainer.model.student import StudentModel

    class Student(StudentModel):
        """Decay rates and skips stay float32: rounding them changes how long a state lasts."""

        _keep_in_fp32_modules_strict = frozenset({"A_log", "D", "dt_bias"})

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    _check_architecture(folder)
    try:
        model, report = Student.from_pretrained(
            folder,
            dtype=getattr(torch, plan.weights_dtype),
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as exc:
        raise _unusable(folder, str(exc).strip().splitlines()[0]) from exc
    missing = sorted(str(name) for name in report["missing_keys"])
    if missing:
        raise _unusable(folder, f"{len(missing)} weights are missing, e.g. {missing[0]}")
    if model.config.vocab_size != VOCAB_SIZE:
        raise _unusable(
            folder, f"its vocabulary has {model.config.vocab_size:,} tokens, not {VOCAB_SIZE:,}"
        )
    if not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
        raise _unusable(folder, "some weights are NaN or infinite")
    return model.eval().to(plan.device)


@dataclass(frozen=True, slots=True)
class LoadedTransformer:
    """A causal model of transformers with its tokenizer."""

    model: Any
    tokenizer: Any
    folder: Path
    end_ids: frozenset[int]
    pad_id: int
    context: int
    """Tokens of prompt and answer together."""

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt in the model's chat format, open for its turn."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return str(text)

    def encode(self, text: str) -> list[int]:
        """Ids of a rendered prompt; the template has written the start token."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids without control tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def load_transformer(folder: Path, plan: DecodingPlan) -> LoadedTransformer:
    """A causal model and its tokenizer from local files, ready to generate.

    Args:
        folder: The checkpoint.
        plan: Device and precision.

    Raises:
        SourceError: Weights or tokenizer cannot be read, or there is no chat template.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, plan.weights_dtype),
            local_files_only=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as exc:
        raise _unusable(folder, str(exc).strip().splitlines()[0]) from exc
    if not tokenizer.chat_template:
        raise _unusable(
            folder, "its tokenizer has no chat template", "add chat_template.jinja to the folder"
        )
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    end_ids = frozenset(int(token) for token in ends if token is not None)
    # Its authors' sampling (Qwen's files carry a repetition penalty) would fill what we leave open.
    model.generation_config = GenerationConfig()
    pad_id = tokenizer.pad_token_id
    # Of a multimodal model, what its language part is made of; recurrent models name no limit.
    shape = model.config.get_text_config()
    return LoadedTransformer(
        model=model.eval().to(plan.device),
        tokenizer=tokenizer,
        folder=folder,
        end_ids=end_ids,
        pad_id=int(pad_id if pad_id is not None else min(end_ids, default=0)),
        context=int(getattr(shape, "max_position_embeddings", sys.maxsize)),
    )


def _check_architecture(folder: Path) -> None:
    try:
        found = json.loads((folder / _CONFIG).read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError) as exc:
        raise _unusable(folder, str(exc).splitlines()[0]) from exc
    if found != "mamba2":
        raise _unusable(
            folder,
            f"it is a {found!r} model, not mamba2",
            hint='set evaluation.engine = "transformer" for other models, or pass another '
            "--checkpoint",
        )


def _unusable(
    folder: Path, reason: str, hint: str = "train it again, or pass another --checkpoint"
) -> SourceError:
    return SourceError(f"the checkpoint {folder} cannot be loaded: {reason}", hint=hint)
