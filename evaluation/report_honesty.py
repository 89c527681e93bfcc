"""What a run's numbers can and cannot show, in plain words.

A report that flatters is worse than none: relaxed gates, toy models, wide intervals and parts that
do not belong together are each said beside the numbers they concern.
"""

from __future__ import annotations

from itertools import pairwise

from evaluation.report_data import RunFacts, Score
from pipeline.settings.recipe import Recipe
from promptcot.limits import teacher_limits
from promptcot.stage_names import SEED_STAGES, STAGES

WIDE_INTERVAL = 0.2
"""An interval this wide (20 points) is called wide: it tells neighbours on no table apart."""
_SMALL_STUDENT = 1_000_000_000
"""Parameters below which the report calls the student tiny."""


def judge_interval(score: Score) -> str:
    """What the interval is worth, in words; empty when it is narrow."""
    low, high = score.interval
    items = f"with {score.num_items} items"
    if score.avg_at_k == 0:
        return f"no answer was correct; {items} a true rate of up to {high:.0%} is possible"
    if score.avg_at_k == 1:
        return f"every answer was correct; {items} a true rate down to {low:.0%} is possible"
    if high - low >= WIDE_INTERVAL:
        return f"wide interval: {items} it spans {100 * (high - low):.0f} points"
    return ""


def describe_limits(recipe: Recipe, facts: RunFacts) -> list[str]:
    """What this run can and cannot show, in plain words."""
    limits = teacher_limits(recipe.settings) if facts.synthesis else []
    for phase, training in facts.training.items():
        record = training.record
        if record.num_parameters < _SMALL_STUDENT:
            start = " and starts from random weights" if record.init.kind == "random" else ""
            limits.append(
                f"The student of phase {phase} has {record.num_parameters:,} parameters{start}, "
                f"and saw {record.tokens_seen:,} tokens. Its loss shows that training works; its "
                "scores say nothing about the method."
            )
            break
    return limits


def describe_mismatches(facts: RunFacts) -> list[str]:
    """Parts that were made from another version than the newest one shown beside them."""
    notes = []
    chain = [
        (stage, facts.synthesis[stage])
        for stage in (*SEED_STAGES, *STAGES)
        if stage in facts.synthesis
    ]
    pairs = list(pairwise(chain))
    pairs += [
        (chain[-1], (f"phase {phase} dataset", found.version))
        for phase, found in facts.phases.items()
        if chain
    ]
    for (name, version), (next_name, following) in pairs:
        siblings = {path.name for path in version.folder.parent.iterdir()} - {version.name}
        used = {ref.version for ref in following.manifest.inputs}
        if version.name not in used and used & siblings:
            notes.append(_mismatch(next_name, name, min(used & siblings), version.name))
    for phase, training in facts.training.items():
        dataset = facts.phases.get(phase)
        used_version = training.record.dataset_version
        if dataset is not None and dataset.version.name != used_version:
            notes.append(
                _mismatch(
                    f"SFT phase {phase}",
                    f"phase {phase} dataset",
                    used_version,
                    dataset.version.name,
                )
            )
    return notes


def _mismatch(later: str, earlier: str, used: str, newest: str) -> str:
    return (
        f"{later} was made from version {used} of {earlier}; the newest, shown here, is {newest}. "
        f"Run it again to bring it up to date."
    )
