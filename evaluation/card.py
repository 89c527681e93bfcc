"""The data card of an evaluation version: what was asked, how, and what came out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.manifest import Manifest


def write_card(manifest: Manifest) -> str:
    """Text of the version's ``README.md``; every figure comes from the manifest."""
    settings = manifest.settings
    lines = [
        "---",
        "configs:",
        "- config_name: default",
        "  data_files: data/*.parquet",
        "---",
        "",
        f"# {manifest.extra['stage']} {manifest.version}",
        "",
        f"{manifest.rows_out:,} graded answers, sampled at temperature {settings['temperature']}, "
        f"top-p {settings['top_p']}, repetition penalty {settings['repetition_penalty']}, at most "
        f"{settings['max_new_tokens']:,} new tokens.",
        "",
        "| benchmark | items × k | avg@k | interval | same problems | pass@k | majority@k "
        "| cut off | answered | tokens |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(f"| {' | '.join(_cells(score))} |" for score in manifest.extra["scores"]),
        "",
        f"Interval: {settings['confidence']:.0%}, over problems like these (clustered bootstrap); "
        "same problems: over other samples of these very ones. Tokens: median, longest.",
        *(
            f"{score['benchmark']}: {score['interval_note']}."
            for score in manifest.extra["scores"]
            if score["interval_note"]
        ),
        "",
        "Inputs:",
        "",
        *(f"- {ref.name}: `{ref.version}`" for ref in manifest.inputs),
        "",
        f"Code: `{manifest.code_version}`. Reasons of all verdicts:",
        "",
        *(
            f"- {score['benchmark']}: `{json.dumps(score['reasons'], sort_keys=True)}`"
            for score in manifest.extra["scores"]
        ),
    ]
    return "\n".join(lines) + "\n"


def _cells(score: Mapping[str, Any]) -> list[str]:
    majority, lengths = score["majority_at_k"], score["token_quantiles"]
    return [
        score["benchmark"],
        f"{score['num_items']} × {score['samples_per_item']}",
        f"{score['avg_at_k']:.1%}",
        _span(score["interval"]),
        _span(score["sampling_interval"]),
        f"{score['pass_at_k']:.1%}",
        "" if majority is None else f"{majority:.1%}",
        f"{score['truncated_rate']:.1%}",
        f"{score['format_rate']:.1%}",
        f"{lengths['p50']:,.0f}, {lengths['max']:,.0f}",
    ]


def _span(interval: Sequence[float]) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}"
