"""The data card of an evaluation version: what was asked, how, and what came out."""

from __future__ import annotations

import json

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
        f"{manifest.rows_out:,} graded answers: {settings['samples_per_item']} samples per item at "
        f"temperature {settings['temperature']}, top-p {settings['top_p']}, repetition penalty "
        f"{settings['repetition_penalty']}, at most {settings['max_new_tokens']:,} new tokens.",
        "",
        "| benchmark | items | avg@k | interval | pass@k | majority@k | cut off | answered |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for score in manifest.extra["scores"]:
        majority = score["majority_at_k"]
        cells = [
            score["benchmark"],
            f"{score['num_items']} × {score['samples_per_item']}",
            f"{score['avg_at_k']:.1%}",
            f"{score['interval'][0]:.1%} to {score['interval'][1]:.1%}",
            f"{score['pass_at_k']:.1%}",
            "" if majority is None else f"{majority:.1%}",
            f"{score['truncated_rate']:.1%}",
            f"{score['format_rate']:.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Intervals: {settings['confidence']:.0%} percentile bootstrap over problems.",
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
