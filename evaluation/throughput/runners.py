"""The two models on a device, each as batches whose next step can be timed at any position."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from evaluation.throughput import qwen2, transformer
from evaluation.throughput.attention import choose_route, synchronise
from evaluation.throughput.shapes import Subject
from evaluation.throughput.timing import Step, capture
from pipeline.errors import ConfigError
from pipeline.settings.recipe import Recipe
from pipeline.settings.throughput import ThroughputSettings, TransformerShape

if TYPE_CHECKING:
    from evaluation.decoding.plan import DecodingPlan


class Session(Protocol):
    """A batch of sequences with their caches allocated."""

    @property
    def cache_bytes(self) -> int:
        """Held by the caches of all sequences."""

    def step_at(self, position: int) -> tuple[Step, str]:
        """The step that reads the token after ``position`` others, warmed up, and its route.

        Contents of the caches are random; they do not change what a step costs.
        """

    def close(self) -> None:
        """Free the batch's memory."""


class Runner(Protocol):
    """A model on its device."""

    subject: Subject
    device: torch.device
    weight_bytes: int
    weights: str
    """``random``, or the folder's name."""

    def open(self, batch: int, tokens: int) -> Session:
        """Allocate caches for ``batch`` sequences of up to ``tokens`` tokens."""

    def time_prefill(self, tokens: int) -> float:
        """Milliseconds to read one prompt of ``tokens`` tokens (median of three)."""


class MambaRunner:
    """The student in our decode loop.

    Args:
        recipe: Shape, weights, state dtype's choices.
        subject: What to open, with the dtype of its state.
        device: Where.
    """

    def __init__(self, recipe: Recipe, subject: Subject, device: torch.device) -> None:
        from evaluation.decoding.choice import Sampling
        from evaluation.decoding.loop import DecodeOptions
        from evaluation.decoding.plan import DecodingPlan

        settings = recipe.settings.throughput
        self.subject, self.device = subject, device
        self.weights = _name_weights(settings.mamba_from)
        plan = DecodingPlan(
            device=device.type,
            weights_dtype=settings.dtype,
            state_dtype=subject.state_dtype,
            kernels=choose_kernels(settings, device),
        )
        self.model = _make_student(recipe, plan)
        self.weight_bytes = sum(p.numel() * p.element_size() for p in self.model.parameters())
        self._options = DecodeOptions(state_dtype=plan.state_dtype, kernels=plan.kernels)
        self._sampling = Sampling(temperature=0.0)
        self._generator = torch.Generator(device=device).manual_seed(settings.seed)

    def open(self, batch: int, tokens: int) -> MambaSession:
        """Slots for ``batch`` sequences; their length does not matter."""
        from evaluation.decoding.loop import Decoder

        decoder = Decoder(self.model, batch, sampling=self._sampling, options=self._options)
        return MambaSession(decoder, self._generator)

    def time_prefill(self, tokens: int) -> float:
        """As :class:`Runner` says."""
        from evaluation.decoding.loop import Decoder

        decoder = Decoder(self.model, 1, sampling=self._sampling, options=self._options)
        vocabulary = self.model.config.vocab_size
        # Another prompt each time: the loop keeps the state of the last one.
        numbers = iter(range(1, vocabulary))

        def read() -> None:
            decoder.fill(0, [next(numbers)] + [3] * (tokens - 1), seed=0)

        return _time_prefill(read, self.device)


class MambaSession:
    """Slots of the decode loop."""

    def __init__(self, decoder: Any, generator: torch.Generator) -> None:
        self.decoder = decoder
        self._generator = generator

    @property
    def cache_bytes(self) -> int:
        """As :class:`Session` says; on a CPU the loop rounds its rows up to eight."""
        held: int = self.decoder.states.num_bytes
        return held

    def step_at(self, position: int) -> tuple[Step, str]:
        """As :class:`Session` says."""
        with torch.inference_mode():
            for held in (*self.decoder.states.states, *self.decoder.states.windows):
                held.normal_(generator=self._generator)
        self.decoder.positions.fill_(position)
        return self.decoder.step, "decode loop"

    def close(self) -> None:
        """As :class:`Session` says; whoever still holds a step holds no states."""
        for held in (self.decoder.states.states, self.decoder.states.windows):
            held.clear()
        self.decoder = None
        _free()


class TransformerRunner:
    """The opponent in its static-cache loop.

    Args:
        recipe: Shape and weights.
        subject: What to open.
        device: Where.
    """

    def __init__(self, recipe: Recipe, subject: Subject, device: torch.device) -> None:
        settings = recipe.settings.throughput
        self.subject, self.device = subject, device
        self.weights = _name_weights(settings.transformer_from)
        dtype = getattr(torch, settings.dtype)
        if settings.transformer_from is None:
            self.model = transformer.make_random(
                settings.transformer, device=device, dtype=dtype, seed=settings.seed
            )
        else:
            folder = recipe.file(settings.transformer_from)
            self.model = qwen2.load(folder, device=device, dtype=dtype)
            _check_shape(self.model.shape, settings.transformer, folder)
        self.weight_bytes = self.model.weight_bytes
        self._settings = settings
        self._generator = torch.Generator(device=device).manual_seed(settings.seed)

    def open(self, batch: int, tokens: int) -> TransformerSession:
        """A cache of ``batch`` times ``tokens`` tokens."""
        model = self.model
        cache = transformer.KeyValueCache(model.shape, batch, tokens, model.embeddings)
        cache.fill(self._generator)
        return TransformerSession(model, cache, self._settings)

    def time_prefill(self, tokens: int) -> float:
        """As :class:`Runner` says."""
        model = self.model
        cache = transformer.KeyValueCache(model.shape, 1, tokens, model.embeddings)
        ids = torch.full((1, tokens), 3, device=self.device)

        def read() -> None:
            model.prefill(ids, cache)

        return _time_prefill(read, self.device)


class TransformerSession:
    """A filled cache and the last tokens of its sequences."""

    def __init__(
        self,
        model: transformer.StaticTransformer,
        cache: transformer.KeyValueCache,
        settings: ThroughputSettings,
    ) -> None:
        self.model, self._warmup = model, settings.warmup_steps
        self.cache: transformer.KeyValueCache | None = cache
        self.ids = torch.zeros(cache.batch, dtype=torch.int64, device=model.device)
        self._step: Step | None = None

    @property
    def cache_bytes(self) -> int:
        """As :class:`Session` says."""
        return self.cache.num_bytes if self.cache is not None else 0

    def step_at(self, position: int) -> tuple[Step, str]:
        """As :class:`Session` says; the route is that of the attention."""
        cache, model = self.cache, self.model
        assert cache is not None  # open
        self._step = None
        _free()
        end, shape = position + 1, model.shape
        keys, values = cache.layers[0][0, :, :, :end], cache.layers[0][1, :, :, :end]
        groups = shape.num_attention_heads // shape.num_key_value_heads
        queries = keys.new_ones(cache.batch, shape.num_key_value_heads, groups, shape.head_dim)
        name, attend = choose_route(queries, keys, values)
        ids: Tensor = self.ids

        def step() -> None:
            ids.copy_(model.step(ids, cache, position, attend))

        self._step = capture(step, model.device, self._warmup)
        return self._step, name

    def close(self) -> None:
        """As :class:`Session` says."""
        self._step = self.cache = None
        _free()


def open_runner(recipe: Recipe, subject: Subject, device: torch.device) -> Runner:
    """A model of the comparison on a device, in evaluation mode.

    Raises:
        ConfigError: Weights that do not fit the recipe, or kernels that are missing.
        SourceError: Weights that cannot be read.
    """
    if subject.kind == "mamba2":
        return MambaRunner(recipe, subject, device)
    return TransformerRunner(recipe, subject, device)


def load_code(subject: Subject) -> None:
    """Import what a model runs on, so that it is no part of the memory measured later."""
    if subject.kind == "mamba2":
        import_module("evaluation.decoding.loop")
        import_module("trainer.model.student")


def choose_kernels(settings: ThroughputSettings, device: torch.device) -> str:
    """``torch`` or ``triton``."""
    if settings.kernels != "auto":
        return settings.kernels
    return "triton" if device.type == "cuda" else "torch"


def _make_student(recipe: Recipe, plan: DecodingPlan) -> Any:
    """Random weights made on the device, or those of a folder."""
    from evaluation.checkpoints import load_student
    from trainer.model import build_config
    from trainer.model.student import StudentModel

    settings = recipe.settings.throughput
    if settings.mamba_from is not None:
        return load_student(recipe.file(settings.mamba_from), plan).requires_grad_(False)
    dtype, before = getattr(torch, plan.weights_dtype), torch.get_default_dtype()
    torch.manual_seed(settings.seed)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(plan.device):
            model = StudentModel(build_config(recipe.settings.model))
    finally:
        torch.set_default_dtype(before)
    return model.to(dtype).eval().requires_grad_(False)


def _check_shape(found: TransformerShape, wanted: TransformerShape, folder: Path) -> None:
    for name in TransformerShape.model_fields:
        if name != "name" and getattr(found, name) != getattr(wanted, name):
            raise ConfigError(
                f"throughput.transformer.{name} is {getattr(wanted, name)} in the recipe but "
                f"{getattr(found, name)} in {folder}",
                hint="write the weights' shape into [throughput.transformer]",
            )


def _name_weights(folder: str | None) -> str:
    return "random" if folder is None else Path(folder).name


def _time_prefill(read: Callable[[], None], device: torch.device) -> float:
    times = []
    for _ in range(4):
        synchronise(device)
        began = time.perf_counter()
        read()
        synchronise(device)
        times.append((time.perf_counter() - began) * 1000)
    return sorted(times[1:])[1]  # the first one compiles


def _free() -> None:
    """Give a GPU's memory back; a CPU's goes back by itself."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
