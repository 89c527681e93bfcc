"""Scores from a causal language model in this process, on a GPU where there is one."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from pipeline import console
from pipeline.errors import ConfigError, SourceError, TeacherError
from pipeline.hashing import content_hash, file_sha256
from pipeline.settings.recipe import Recipe
from pipeline.settings.refinement import ScorerSettings
from promptcot.engines import embedded
from promptcot.engines.prompt_logprobs import TokenLogprob

_CHARS_PER_TOKEN = 2.5
"""Cautious guess by which texts are cut into groups before any tokenizer is loaded."""
_INSTALL = 'pip install "promptcot-mamba[train,embedded]"'


class TransformersScorer:
    """A hub model, a model folder or the embedded one.

    Raises:
        ConfigError: A hub id without a commit.
        SourceError: A folder without a model.
        TeacherError: The embedded model is not installed.
    """

    def __init__(
        self, settings: ScorerSettings, recipe: Recipe, *, folder: Path | None = None
    ) -> None:
        self._settings = settings
        self._model: Any = None
        self._tokenizer: Any = None
        self._source = (
            resolve_model(settings.model, recipe) if folder is None else (str(folder), {})
        )
        self._name = _identify(settings.model if folder is None else "", *self._source)

    @property
    def identity(self) -> str:
        """Weights and precision."""
        return f"transformers:{self._name}:{self._settings.precision}"

    def group(self, texts: Sequence[str]) -> list[list[int]]:
        """Neighbours in length, as many as fit into ``batch_tokens``."""
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), texts[i], i))
        groups: list[list[int]] = []
        for place in order:
            tokens = len(texts[place]) / _CHARS_PER_TOKEN
            if groups and (len(groups[-1]) + 1) * tokens <= self._settings.batch_tokens:
                groups[-1].append(place)
            else:
                groups.append([place])
        return groups

    def score(self, texts: Sequence[str]) -> list[list[TokenLogprob] | None]:
        """One padded forward pass."""
        import torch

        model, tokenizer = self._load()
        # With a start token where the model has one, as TRL trains and vLLM's server reads. A
        # special token stands at character 0, so none counts to a rationale or a problem.
        encoded = tokenizer(list(texts), return_offsets_mapping=True)
        limit = getattr(model.config, "max_position_embeddings", None)
        kept = [
            place
            for place, ids in enumerate(encoded["input_ids"])
            if len(ids) > 1 and (limit is None or len(ids) <= limit)
        ]
        scored: list[list[TokenLogprob] | None] = [None] * len(texts)
        if not kept:
            return scored
        longest = max(len(encoded["input_ids"][place]) for place in kept)
        ids = torch.zeros(len(kept), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, place in enumerate(kept):
            tokens = torch.tensor(encoded["input_ids"][place])
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        with torch.inference_mode():
            logits = model(
                input_ids=ids.to(model.device), attention_mask=mask.to(model.device)
            ).logits
            for row, place in enumerate(kept):
                offsets = encoded["offset_mapping"][place]
                found = _pick(logits[row], ids[row, : len(offsets)].to(logits.device))
                starts = [start for start, _ in offsets[1:]]
                scored[place] = list(map(TokenLogprob, starts, found))
        return scored

    def close(self) -> None:
        """Free the model."""
        self._model = self._tokenizer = None

    def _load(self) -> tuple[Any, Any]:
        if self._model is None:
            self._model, self._tokenizer = load_model(
                *self._source, precision=self._settings.precision
            )
            self._model.eval()
            console.say(f"scoring model loaded: {self._name}")
        return self._model, self._tokenizer


def _pick(logits: Any, ids: Any) -> list[float]:
    """Log-probability of each token but the first; one text at a time keeps memory low."""
    import torch

    rows = torch.log_softmax(logits[: len(ids) - 1].float(), dim=-1)
    picked: list[float] = rows.gather(1, ids[1:, None])[:, 0].tolist()
    return picked


def resolve_model(name: str, recipe: Recipe) -> tuple[str, dict[str, str]]:
    """What ``from_pretrained`` gets: a folder, or a hub id with its commit.

    Raises:
        ConfigError: A hub id without a commit.
        TeacherError: The embedded model is not installed.
    """
    if name == embedded.MODEL:
        path = embedded.find_weights()
        return str(path.parent), {"gguf_file": path.name}
    folder = recipe.file(name)
    if folder.is_dir():
        return str(folder), {}
    hub_id, _, revision = name.partition("@")
    if not revision or hub_id.count("/") != 1:
        raise ConfigError(
            f"scoring model {name!r} is neither a folder nor a hub id with a commit",
            hint="set synthesis.refinement.scorer.model to a folder relative to the recipe, to "
            f'"owner/name@commit", or to "{embedded.MODEL}"',
        )
    return hub_id, {"revision": revision}


def _identify(name: str, source: str, options: dict[str, str]) -> str:
    """A name of the weights that is the same on every machine."""
    if "gguf_file" in options:
        return f"{name}@{file_sha256(Path(source) / options['gguf_file'])[:12]}"
    if "revision" in options:
        return name
    return identify_folder(Path(source))


def identify_folder(folder: Path) -> str:
    """A model folder by its content.

    Raises:
        SourceError: It holds no model.
    """
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("config.json")])
    if len(files) < 2:
        raise SourceError(
            f"{folder} holds no model (config.json and *.safetensors)",
            hint="point the scoring model at a transformers model folder",
        )
    hashes = {path.name: file_sha256(path) for path in files}
    return f"folder@{content_hash(hashes)}"


def load_model(source: str, options: dict[str, str], *, precision: str) -> tuple[Any, Any]:
    """Model and tokenizer.

    Raises:
        TeacherError: A package is missing, or the model cannot be loaded.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        if "gguf_file" in options:
            import gguf  # noqa: F401
    except ImportError as exc:
        raise TeacherError(
            f"scoring in this process needs {exc.name}", hint=f"run: {_INSTALL}"
        ) from exc
    with _quiet(transformers_logging):
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
            model = AutoModelForCausalLM.from_pretrained(
                source, dtype=getattr(torch, precision), trust_remote_code=False, **options
            )
        except (OSError, ValueError) as exc:
            raise TeacherError(
                f"the scoring model {source} cannot be loaded: {str(exc).splitlines()[0]}",
                hint="give a causal language model in the format of transformers",
            ) from exc
    if "gguf_file" in options:
        # The weights are plain numbers now; the marks of what they were would forbid to train and
        # save them.
        model.is_quantized, model.hf_quantizer = False, None
        model.config.__dict__.pop("quantization_config", None)
    if not tokenizer.is_fast:
        raise TeacherError(
            f"the tokenizer of {source} does not tell where its tokens stand in the text",
            hint="score with a model that has a fast tokenizer, or with engine = http or vllm",
        )
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Keep progress bars of the library out of ours."""
    level, had_bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(logging.ERROR)
    library.disable_progress_bar()
    try:
        # The bar over GGUF tensors knows no switch.
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        library.set_verbosity(level)
        if had_bars:
            library.enable_progress_bar()
