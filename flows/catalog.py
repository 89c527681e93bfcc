"""What is deployed, where, and which recipe keys its knobs turn: the one table.

Everything else about deployments follows from here: the served ones (``flows.deployments``), the
files for work pools (``flows.manifests``), tags and names of runs, and what a parameter of the form
changes in the recipe (``flows.parameters``). Nothing here imports Prefect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipeline.errors import ConfigError

Target = Literal["local", "process", "kubernetes"]
"""Where runs happen, and the name of the deployments there."""
POOLS: dict[Target, str] = {
    "process": "promptcot-process",
    "kubernetes": "promptcot-kubernetes",
}
"""Work pools by target; ``local`` is served and has none."""
PROJECT_TAG = "promptcot"
AS_RECIPE = "recipe"
"""Choice of a drop-down that leaves the recipe as it is."""

_DOMAINS = 'synthesis.domains=["{value}"]'
_SHARE_MATH = "synthesis.combinations.math_share={math_share}"
_NUM_COMBINATIONS = "synthesis.combinations.num_combinations={value}"
_WRITERS = tuple(
    f"synthesis.{stage}.teacher={{toml}}" for stage in ("concepts", "problems", "solutions")
)
_SAMPLES = "evaluation.samples_per_item={value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one run asks a cluster for, unless its deployment's job variables say otherwise."""

    gpus: int
    cpus: int
    memory_gib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """One flow, as it is deployed everywhere."""

    name: str
    """The flow's and, with ``/local``, ``/process`` or ``/kubernetes``, the deployment's name."""
    function: str
    """In the module of the same name in ``flows/``."""
    stage: str
    """Of the tag ``stage:…``."""
    description: str
    """Of the deployment's page and of ``--dry-run``."""
    resources: Resources
    knobs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Parameter to the overrides it stands for, with the places ``{value}``, ``{toml}`` (the value
    as TOML), ``{phase}`` and ``{math_share}``."""

    @property
    def entrypoint(self) -> str:
        """The flow as Prefect loads it, from the repository's root."""
        return f"flows/{self.function}.py:{self.function}"

    @property
    def tags(self) -> list[str]:
        """Tags that every run of the flow carries."""
        return [PROJECT_TAG, f"stage:{self.stage}"]


CATALOG = (
    CatalogEntry(
        name="synth-promptcot",
        function="synth_promptcot",
        stage="synthesis",
        description="Concept combinations to problems with verified solutions.",
        resources=Resources(gpus=0, cpus=8, memory_gib=32),
        knobs={
            "seed": ("seed={value}",),
            "domain": (_DOMAINS, _SHARE_MATH),
            "rows": (_NUM_COMBINATIONS,),
            "teacher": _WRITERS,
        },
    ),
    CatalogEntry(
        name="refine-rationales",
        function="refine_rationales",
        stage="synthesis",
        description="PromptCoT 2.0's loop: rationales of seed problems, scored, the best kept.",
        resources=Resources(gpus=1, cpus=8, memory_gib=64),
        knobs={
            "seed": ("seed={value}",),
            "rounds": ("synthesis.refinement.rounds={value}",),
            "teacher": ("synthesis.refinement.teacher={toml}",),
        },
    ),
    CatalogEntry(
        name="build-curriculum",
        function="build_curriculum",
        stage="curriculum",
        description="Sources to one phase's dataset version with its data card.",
        resources=Resources(gpus=0, cpus=16, memory_gib=64),
        knobs={
            "seed": ("seed={value}",),
            "domain": ('curriculum.phases.{phase}.domains=["{value}"]',),
        },
    ),
    CatalogEntry(
        name="train-sft",
        function="train_sft",
        stage="training",
        description="Supervised fine-tuning of the student on one phase.",
        resources=Resources(gpus=8, cpus=32, memory_gib=256),
        knobs={"seed": ("training.seed={value}",)},
    ),
    CatalogEntry(
        name="evaluate",
        function="evaluate",
        stage="evaluation",
        description="Answers of checkpoints to the recipe's benchmarks, graded.",
        resources=Resources(gpus=1, cpus=16, memory_gib=64),
        knobs={"seed": ("evaluation.seed={value}",), "samples": (_SAMPLES,)},
    ),
    CatalogEntry(
        name="reproduce",
        function="reproduce",
        stage="all",
        description="The whole loop, from concepts to the report.",
        resources=Resources(gpus=8, cpus=32, memory_gib=256),
        knobs={
            "seed": ("seed={value}", "training.seed={value}", "evaluation.seed={value}"),
            "domain": (_DOMAINS, _SHARE_MATH),
            "rows": (_NUM_COMBINATIONS,),
            "teacher": _WRITERS,
        },
    ),
)


def find_entry(name: str) -> CatalogEntry:
    """The flow of a name.

    Raises:
        ConfigError: There is none.
    """
    for entry in CATALOG:
        if entry.name == name:
            return entry
    known = ", ".join(entry.name for entry in CATALOG)
    raise ConfigError(f"no flow named {name!r}", hint=f"use one of: {known}")
