"""Which source files only show results: editing them renames no version.

A version is named by the code that made it (:func:`pipeline.hashing.code_version`). Everything in a
package counts unless it is listed here, so a new file counts by itself. What is listed must not be
imported, or named, by anything that counts: ``tests/contracts/test_presentation.py`` holds that.

Cards are not listed: they lie in the version's folder, so the code that writes them is part of it.
"""

from __future__ import annotations

PRESENTATION = frozenset(
    {
        # Command lines; trainer/sft.py, and pipeline/cli.py with it, hold what trainer/run.py uses.
        "promptcot/__main__.py",
        "promptcot/commands.py",
        "curriculum/__main__.py",
        "curriculum/build.py",
        "curriculum/demo_sources/__main__.py",
        "evaluation/__main__.py",
        "evaluation/benchmark_commands.py",
        # What commands say about finished versions.
        "curriculum/checking.py",
        "curriculum/decontaminating.py",
        "curriculum/diff.py",
        "curriculum/explain.py",
        "curriculum/inspect_data.py",
        "curriculum/inspect_page.py",
        "curriculum/inspect_plots.py",
        "curriculum/locate.py",
        "curriculum/row_diff.py",
        "curriculum/showing.py",
        "curriculum/templates/inspect.html.j2",
        # Moving and deleting finished versions.
        "curriculum/collecting.py",
        "curriculum/transfer.py",
        # Money and time, spent and estimated; a pilot's log names its own code.
        "promptcot/capacity.py",
        "promptcot/capacity_view.py",
        "promptcot/costs.py",
        "promptcot/estimate.py",
        "promptcot/estimate_view.py",
        "promptcot/extrapolate.py",
        "promptcot/pilot.py",
        # Throughput: its measurements name their own code, and no answer depends on them.
        "evaluation/throughput_commands.py",
        "evaluation/throughput/__init__.py",
        "evaluation/throughput/attention.py",
        "evaluation/throughput/curves.py",
        "evaluation/throughput/fitting.py",
        "evaluation/throughput/measure.py",
        "evaluation/throughput/memory.py",
        "evaluation/throughput/plan.py",
        "evaluation/throughput/plot.py",
        "evaluation/throughput/qwen2.py",
        "evaluation/throughput/records.py",
        "evaluation/throughput/run.py",
        "evaluation/throughput/runners.py",
        "evaluation/throughput/shapes.py",
        "evaluation/throughput/tasks.py",
        "evaluation/throughput/timing.py",
        "evaluation/throughput/transformer.py",
        "evaluation/throughput/view.py",
        "evaluation/throughput/vllm_engine.py",
        "evaluation/throughput/vllm_worker.py",
        # Reports.
        "promptcot/report.py",
        "promptcot/report_data.py",
        "promptcot/report_samples.py",
        "promptcot/report_view.py",
        "promptcot/templates/capacity.html.j2",
        "promptcot/templates/capacity.md.j2",
        "promptcot/templates/synthesis_report.html.j2",
        "evaluation/ablation_plan.py",
        "evaluation/ablation_results.py",
        "evaluation/ablation_run.py",
        "evaluation/ablation_view.py",
        "evaluation/compare.py",
        "evaluation/comparison_view.py",
        "evaluation/item_scores.py",
        "evaluation/paired.py",
        "evaluation/paper_results.py",
        "evaluation/plots.py",
        "evaluation/plots_scores.py",
        "evaluation/report.py",
        "evaluation/report_commands.py",
        "evaluation/report_data.py",
        "evaluation/report_honesty.py",
        "evaluation/report_markdown.py",
        "evaluation/report_paper.py",
        "evaluation/report_rows.py",
        "evaluation/report_scores.py",
        "evaluation/report_view.py",
        "evaluation/templates/paper.html.j2",
        "evaluation/templates/report.html.j2",
    }
)
"""Paths from the folder that holds the packages."""
