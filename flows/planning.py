"""``dry_run``: what a run would do, checked as far as it can be without doing it.

In: the steps of a flow and its recipe. Out: a line a step in the run's log and the artifact
``plan``; nothing is written into the output folder.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import State, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed

from flows.artifacts import publish_config
from flows.engine_logs import quiet_engine_logs
from flows.failures import fail
from flows.preflight import check_files, check_whole_loop
from flows.running import explain
from flows.steps import REPORT, Step, stay_offline
from pipeline.errors import PipelineError
from pipeline.settings.recipe import Recipe
from promptcot.stage_names import BANK, STAGES


def plan_steps(steps: Sequence[Step], recipe: Recipe, out: Path) -> State[Any]:
    """The body of a flow with ``dry_run``.

    Args:
        steps: What would run, in order; those that the recipe does not have are left out.
        recipe: The recipe, changes included.
        out: Run folder.

    Returns:
        The flow run's final state; what would be refused is refused here too.
    """
    quiet_engine_logs()
    logger = get_run_logger()
    steps = [step for step in steps if step.is_wanted(recipe)]
    logger.info("dry run of recipe %s, output folder %s", recipe.name, out)
    try:
        (check_whole_loop if REPORT in steps else check_files)(recipe)
        stay_offline(recipe)
        lines = [(step.title, plan_step(step, recipe, out)) for step in steps]
    except PipelineError as exc:
        return fail(explain(exc))
    for title, line in lines:
        logger.info("%s: %s", title, line)
    create_markdown_artifact(
        key="plan",
        markdown=describe_plan(lines, out),
        description=f"What {len(lines)} steps would do",
    )
    publish_config(recipe, out)
    logger.info("nothing was written; to do it, run again without dry_run")
    return Completed(
        message=f"dry run: {len(lines)} steps checked and planned, nothing was written"
    )


def describe_plan(lines: Sequence[tuple[str, str]], out: Path) -> str:
    """The plan as a table."""
    rows = [f"| {title} | {line.replace('|', '/')} |" for title, line in lines]
    head = f"Output folder `{out}`. Nothing was written."
    return "\n".join([head, "", "| step | would |", "| --- | --- |", *rows])


def plan_step(step: Step, recipe: Recipe, out: Path) -> str:
    """What one step would do, in one line.

    Raises:
        PipelineError: What the step itself would refuse before it starts.
    """
    kind = step.key.partition("-")[0]
    if step.key in (BANK, *STAGES):
        return _plan_stage(step, recipe)
    planner = _PLANNERS.get(kind)
    return planner(step, recipe, out) if planner else f"write the {step.title}"


def _plan_stage(step: Step, recipe: Recipe) -> str:
    from promptcot.estimate import bound_stages

    bounds = bound_stages(recipe, [step.key])
    requests = sum(bound.requests for bound in bounds)
    tokens, usd = sum(bound.tokens for bound in bounds), sum(bound.usd for bound in bounds)
    line = f"take at most {bounds[0].rows:,} rows"
    if requests:
        line += f", ask at most {requests:,} times for {tokens:,} tokens"
    return line + (f", {usd:,.2f} USD" if usd else "")


def _plan_refinement(step: Step, recipe: Recipe, out: Path) -> str:
    from promptcot.estimate import bound_stages

    refinement = recipe.settings.synthesis.refinement
    requests = sum(bound.requests for bound in bound_stages(recipe, ["refine"]))
    return (
        f"draw {refinement.rationales_per_problem} rationales of each problem "
        f"(all rounds: at most {requests:,} requests)"
    )


def _plan_dataset(step: Step, recipe: Recipe, out: Path) -> str:
    from curriculum.planning import awaits_synthesis, make_plan

    phase = step.key.partition("-")[2]
    if awaits_synthesis(recipe, phase, out):
        return "read the verified traces, once synthesis has made them"
    stage = make_plan(recipe, phase, out, may_synthesize=False).stage
    folder = stage.root / stage.version
    state = "reuse" if folder.is_dir() else "build"
    return f"{state} version {stage.version} from {len(stage.inputs)} inputs"


def _plan_training(step: Step, recipe: Recipe, out: Path) -> str:
    from trainer.plan import plan_phase

    plan = plan_phase(recipe, step.key.partition("-")[2], out, None)
    fits = "fits" if plan["fits"] else "does not fit: " + "; ".join(plan["remedies"])
    line = (
        f"train {plan['num_parameters']:,} parameters on {plan['device']} "
        f"({plan['memory_gib']:g} GiB a device, {fits})"
    )
    if plan["missing"]:
        return f"{line}; still missing: {len(plan['missing'])} (made by the steps before)"
    if plan["finished"]:
        return f"reuse the checkpoint {plan['key']}"
    return f"{line}, {plan['num_steps']:,} steps on {plan['num_rows']:,} rows"


def _plan_evaluation(step: Step, recipe: Recipe, out: Path) -> str:
    from evaluation.run import load_benchmarks, plan_batches

    items = load_benchmarks(recipe)
    answers = sum(len(batch.rows) for batch in plan_batches(items, recipe))
    names = ", ".join(f"{name} {len(rows):,}" for name, rows in items.items())
    return (
        f"sample {answers:,} answers of at most {recipe.settings.evaluation.max_new_tokens:,} "
        f"tokens from each checkpoint ({names})"
    )


_PLANNERS: dict[str, Callable[[Step, Recipe, Path], str]] = {
    "refined": _plan_refinement,
    "data": _plan_dataset,
    "sft": _plan_training,
    "evaluation": _plan_evaluation,
}
