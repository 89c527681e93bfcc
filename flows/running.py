"""The common body of all flows: resolve the recipe, run its steps as tasks, publish artifacts.

No postponed annotations here: Prefect evaluates the signatures of tasks and flows in a served
process, where postponed ones fail.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import State, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.exceptions import FailedRun
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.tasks import Task, exponential_backoff

from flows import artifacts
from flows.preflight import check_files
from flows.secret_blocks import provide_secrets
from flows.steps import Outcome, Step, run_recorded, stay_offline
from flows.summary import describe_line, summarize
from pipeline.claims import claiming
from pipeline.errors import PipelineError, TeacherUnreachable
from pipeline.events import recording
from pipeline.manifest import load_version
from pipeline.permissions import keep_others_from_writing
from pipeline.redaction import MaskedErrors
from pipeline.run_folder import prepare_run_folder
from pipeline.settings.recipe import Recipe, load_recipe

_ENGINE_LOGGERS = ("prefect.flow_runs", "prefect.engine")


async def is_unreachable(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a further try may help: the teacher did not answer, and finished work is kept."""
    return isinstance(await state.aresult(raise_on_failure=False), TeacherUnreachable)


# Prefect's cache looks at inputs, not at files, and would call a deleted version done: the stages
# themselves know what is finished, and the task only says so.
@task(
    task_run_name="{step.key}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=10),
    retry_condition_fn=is_unreachable,
)
@MaskedErrors()
def run_step(step: Step, recipe: Recipe, out: Path) -> Any:
    """One step of the loop; its state says *Reused* when nothing had to be done."""
    try:
        outcome = run_recorded(step, recipe, out)
    except TeacherUnreachable:
        raise
    except PipelineError as exc:
        return Failed(message=explain(exc))
    name = "Reused" if outcome.reused else "Completed"
    return Completed(name=name, message=outcome.line, data=outcome)


def explain(error: PipelineError) -> str:
    """A failure as one sentence with its remedy."""
    return f"{error} — remedy: {error.hint}"


@MaskedErrors()
def run_steps(
    steps: Sequence[Step],
    recipe: str,
    *,
    out: str,
    overrides: Sequence[str],
    next_run: str,
) -> State[Any]:
    """The body of a flow.

    Args:
        steps: What to run, in order.
        recipe: Name or path of the recipe.
        out: Run folder; ``runs/<recipe name>`` when empty.
        overrides: ``section.key=value`` texts.
        next_run: Flow and own parameters that the last log line suggests; empty at the end.

    Returns:
        The flow run's final state; a failure is one sentence, without a traceback.
    """
    logger = get_run_logger()
    keep_others_from_writing()
    try:
        loaded = load_recipe(recipe, overrides)
        provide_secrets(loaded)
        steps = [step for step in steps if step.is_wanted(loaded)]
        check_files(loaded)
        folder = loaded.out(Path(out) if out else None)
        logger.info("recipe %s (%s), output folder %s", loaded.name, _near(loaded.path), folder)
        stay_offline(loaded)
        artifacts.publish_config(loaded, folder)
        command = f"prefect flow-run retry {flow_run.id}"
        with (
            claiming(folder, [step.claim for step in steps]),
            recording(folder, loaded.settings.events, _what(steps), command=command) as record,
        ):
            prepare_run_folder(loaded, folder)
            outcomes, failure = _run_all(steps, loaded, folder)
            if failure is not None:
                record.fail(failure)
                return _fail(failure)
        if stages := {key for step in steps for key in step.stages}:
            artifacts.publish_counts(summarize(loaded, folder), stages)
        elif steps[-1].key.startswith("refined-"):
            # Rounds of refinement fill no stage of the report.
            last, rounds = outcomes[-1].path, folder / "synthesis" / "refinement" / "rounds.json"
            artifacts.publish_rounds(load_version(last), steps[-1].title, rounds)
    except PipelineError as exc:
        return _fail(explain(exc))
    logger.info("written: %s", outcomes[-1].path)
    if next_run:
        same = [f"-p recipe={recipe}", *([f"-p out={out}"] if out else [])]
        logger.info("next: prefect deployment run %s %s", next_run, " ".join(same))
    return Completed(message=f"{steps[-1].title}: {outcomes[-1].line}")


def _run_all(steps: Sequence[Step], recipe: Recipe, out: Path) -> tuple[list[Outcome], str | None]:
    """Run the steps until one fails; the second value says why."""
    logger = get_run_logger()
    outcomes: list[Outcome] = []
    before: list[State[Any]] = []
    for step in steps:
        # Waiting for the step before draws the arrow between them on the run's page.
        state = run_step(step, recipe, out, return_state=True, wait_for=before)
        if not state.is_completed():
            return outcomes, f"{step.title}: {_reason(state)}"
        outcome: Outcome = state.result()
        for line in _describe_stages(step, recipe, out):
            logger.info(line)
        artifacts.publish_outcome(step, outcome)
        outcomes.append(outcome)
        before = [state]
    return outcomes, None


def _what(steps: Sequence[Step]) -> str:
    return f"flow {flow_run.flow_name or steps[-1].key}"


def _near(path: Path) -> Path:
    """A path as a person in the current folder would write it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _fail(sentence: str) -> State[Any]:
    """End the flow run as failed, with this sentence as its last word."""
    get_run_logger().error(sentence)
    for name in _ENGINE_LOGGERS:
        logging.getLogger(name).addFilter(_is_news)
    return Failed(message=sentence)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record is more than Prefect's own traceback of a failure we returned as a state."""
    kind = record.exc_info[0] if record.exc_info else None
    return not (kind is not None and issubclass(kind, FailedRun))


def _describe_stages(step: Step, recipe: Recipe, out: Path) -> list[str]:
    """One line for each of a step's stages, with its counts."""
    if not step.stages:
        return []
    return [
        describe_line(stage)
        for stage in summarize(recipe, out)["stages"]
        if stage["key"] in step.stages
    ]


def _reason(state: State[Any]) -> str:
    error = state.result(raise_on_failure=False)
    if isinstance(error, PipelineError):
        return explain(error)
    return state.message or f"ended as {state.name}"


def run_label(suffix: str = "") -> str:
    """A flow run's name from its recipe, e.g. ``demo``; ``+1`` counts overrides.

    Args:
        suffix: What distinguishes runs of the same recipe.
    """
    parameters = flow_run.parameters
    label = Path(parameters["recipe"]).stem + (f"-{suffix}" if suffix else "")
    overrides = parameters["overrides"]
    return label + (f"+{len(overrides)}" if overrides else "")
