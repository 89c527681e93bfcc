"""How teachers are to be sampled: what a model's makers publish, or what the recipe says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import ConfigError
from pipeline.settings.solutions import SolutionSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The four values that decide how tokens are drawn; 0 switches the last two off."""

    temperature: float
    top_p: float
    top_k: int = 0
    min_p: float = 0.0

    def as_settings(self) -> dict[str, Any]:
        """As they enter a stage's settings."""
        return asdict(self)

    def __str__(self) -> str:
        parts = [f"temperature {self.temperature:g}", f"top_p {self.top_p:g}"]
        parts += [f"top_k {self.top_k}"] if self.top_k else []
        parts += [f"min_p {self.min_p:g}"] if self.min_p else []
        return ", ".join(parts)


# One expression per family, searched at the start of the model's own name without its organisation,
# in lower case; the first that fits decides. Quantised and finetuned names keep their family's.
_FAMILIES: Mapping[str, tuple[str, Sampling]] = {
    # Model card, "Usage Guidelines": 0.6, 0.95, min_p 0, top_k between 20 and 40;
    # its generation_config.json says 40.
    "QwQ-32B": (r"qwq-32b(?!-preview)", Sampling(temperature=0.6, top_p=0.95, top_k=40)),
    # README, "Usage Recommendations": 0.5 to 0.7, 0.6 recommended; evaluated with top_p 0.95. The
    # distilled models are in the same README.
    "DeepSeek-R1 and its distilled models": (
        r"deepseek-r1",
        Sampling(temperature=0.6, top_p=0.95),
    ),
    # Model cards, "Best Practices" of the non-thinking models. Before the next line: these names
    # are the only ones of the family that do not think.
    "Qwen3-…-Instruct-2507": (
        r"qwen3-[\w.]+(-a\w+)?-instruct-2507",
        Sampling(temperature=0.7, top_p=0.8, top_k=20),
    ),
    # Model cards, "Best Practices" in thinking mode, also of the Thinking-2507 models.
    "Qwen3 (thinking)": (
        r"qwen3-[\d.]+b",
        Sampling(temperature=0.6, top_p=0.95, top_k=20),
    ),
    # README of openai/gpt-oss, "Recommended Sampling Parameters".
    "gpt-oss": (r"gpt-oss-\d+b", Sampling(temperature=1.0, top_p=1.0)),
    # No advice of its own for sampled answers (its report decodes greedily): the documentation of
    # the Qwen2.5 family. The penalty of 1.05 on repetitions that it adds is left out, since it
    # grows with the length of a derivation.
    "Qwen2.5-…-Instruct and Qwen2.5-Math-…-Instruct": (
        r"qwen2\.5-(math-|coder-)?[\d.]+b-instruct",
        Sampling(temperature=0.7, top_p=0.8, top_k=20),
    ),
}


def recommended_sampling(model: str) -> Sampling:
    """What a model's makers recommend.

    Args:
        model: Its name as an engine knows it, e.g. ``Qwen/QwQ-32B`` or a folder of that name.

    Raises:
        ConfigError: Nothing is known about it; the message lists the known families.
    """
    name = model.rstrip("/").rpartition("/")[2].lower()
    for pattern, sampling in _FAMILIES.values():
        if re.match(pattern, name):
            return sampling
    raise ConfigError(
        f'synthesis.solutions.sampling is "recommended", and nothing is known about the model '
        f"{model!r}; known are: {', '.join(_FAMILIES)}",
        hint='set sampling = "explicit" and temperature, top_p, top_k and min_p in the recipe',
    )


def choose_sampling(settings: SolutionSettings, model: str) -> Sampling:
    """The sampling that solutions are asked with.

    Raises:
        ConfigError: The recipe wants the recommended one and none is known.
    """
    if settings.sampling == "recommended":
        return recommended_sampling(model)
    return Sampling(
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        min_p=settings.min_p,
    )
