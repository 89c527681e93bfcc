"""The common body of all flows: resolve the recipe, run its steps as tasks, publish artifacts.

No postponed annotations here: Prefect evaluates the signatures of tasks and flows in a served
process, where postponed ones fail.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import State, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.tasks import Task, exponential_backoff

from flows import artifacts
from flows.engine_logs import quiet_engine_logs
from flows.failures import clear_earlier_attempts, compose, fail, resume_command
from flows.live_page import LivePage
from flows.preflight import check_files
from flows.run_report import describe_report
from flows.secret_blocks import provide_secrets
from flows.steps import Outcome, Step, run_recorded, stay_offline
from flows.summary import describe_line, describe_pace, summarize
from flows.unread_output import survive_unread_output
from pipeline.claims import claiming
from pipeline.errors import PipelineError, TeacherUnreachable
from pipeline.events import listening, recording
from pipeline.manifest import load_version
from pipeline.permissions import keep_others_from_writing
from pipeline.redaction import MaskedErrors
from pipeline.run_folder import prepare_run_folder
from pipeline.settings.recipe import Recipe


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ending:
    """How the steps of a run went."""

    outcomes: list[Outcome]
    """Of those that were done."""
    told: dict[str, Any]
    """What the run's events add up to (``flows.run_state.RunState.as_json``)."""
    failure: str = ""
    """Why the step after them was not."""


@MaskedErrors()
def run_steps(
    steps: Sequence[Step],
    recipe: Recipe,
    out: Path,
    *,
    changes: Sequence[str],
    next_command: str,
) -> State[Any]:
    """The body of a flow.

    Args:
        steps: What to run, in order; those that the recipe does not have are left out.
        recipe: The recipe, changes included.
        out: Run folder.
        changes: ``section.key=value`` texts, for the log.
        next_command: What comes after this run; empty at the end.

    Returns:
        The flow run's final state; a failure is one sentence, without a traceback.
    """
    survive_unread_output()
    keep_others_from_writing()
    quiet_engine_logs()
    try:
        provide_secrets(recipe)
        check_files(recipe)
    except PipelineError as exc:
        return fail(explain(exc))
    steps = [step for step in steps if step.is_wanted(recipe)]
    get_run_logger().info(_describe_start(recipe, out, changes))
    stay_offline(recipe)
    try:
        ending = _run_all(steps, recipe, out)
        if ending.failure:
            return fail(ending.failure, out)
        _publish_results(steps, recipe, out, ending, next_command)
    except PipelineError as exc:
        return fail(compose("", explain(exc), resume_command()), out)
    last = ending.outcomes[-1]
    get_run_logger().info(
        f"written: {last.path}" + (f"; next: {next_command}" if next_command else "")
    )
    return Completed(message=f"{steps[-1].title}: {last.line}")


def _run_all(steps: Sequence[Step], recipe: Recipe, out: Path) -> _Ending:
    """Run the steps until one fails."""
    num_before = clear_earlier_attempts()
    artifacts.publish_config(recipe, out)
    outcomes: list[Outcome] = []
    before: list[State[Any]] = []
    command = resume_command()
    with (
        claiming(out, [step.claim for step in steps]),
        LivePage(steps, num_before, out) as page,
        listening(page),
        recording(out, recipe.settings.events, _what(steps), command=command) as record,
    ):
        prepare_run_folder(recipe, out)
        for step in steps:
            # Waiting for the step before draws the arrow between them on the run's page.
            state = run_step(step, recipe, out, return_state=True, wait_for=before)
            if not state.is_completed():
                place = f"{step.title}, at {page.stopped_at}" if page.stopped_at else step.title
                failure = compose(place, _reason(state), command)
                record.fail(failure)
                return _Ending(outcomes=outcomes, told=page.state(), failure=failure)
            outcome: Outcome = state.result()
            for line in _describe_step(step, outcome, recipe, out, told=page.state()):
                get_run_logger().info(line)
            artifacts.publish_outcome(step, outcome)
            outcomes.append(outcome)
            before = [state]
    return _Ending(outcomes=outcomes, told=page.state())


def _publish_results(
    steps: Sequence[Step], recipe: Recipe, out: Path, ending: _Ending, next_command: str
) -> None:
    """What the run as a whole came to."""
    shown: list[dict[str, Any]] = []
    if stages := {key for step in steps for key in step.stages}:
        summary = summarize(recipe, out)
        shown = [stage for stage in summary["stages"] if stage["key"] in stages]
        artifacts.publish_counts(summary, stages)
    elif steps[-1].key.startswith("refined-"):
        # Rounds of refinement fill no stage of the report.
        last, rounds = ending.outcomes[-1].path, out / "synthesis" / "refinement" / "rounds.json"
        artifacts.publish_rounds(load_version(last), steps[-1].title, rounds)
    if phases := [key.removeprefix("training-") for key in stages if key.startswith("training-")]:
        artifacts.publish_losses(recipe, out, phases)
    artifacts.publish_report(*describe_report(recipe, out, shown, ending.told, next_command))


def _what(steps: Sequence[Step]) -> str:
    return f"flow {flow_run.flow_name or steps[-1].key}"


def _describe_start(recipe: Recipe, out: Path, changes: Sequence[str]) -> str:
    """The first line of a run's log: which settings are in force, and where everything goes."""
    settings = recipe.settings
    teachers = ", ".join(
        f"{name} {teacher.engine}" + (f" {teacher.model}" if teacher.engine != "scripted" else "")
        for name, teacher in settings.teachers.items()
    )
    changed = f", changed {', '.join(changes)}" if changes else ""
    return (
        f"recipe {recipe.name} ({_near(recipe.path)}), seed {settings.seed}, teachers {teachers}"
        f"{changed}; all settings: artifact resolved-config and {out / 'recipe.json'}; "
        f"output folder {out.resolve()}"
    )


def _near(path: Path) -> Path:
    """A path as a person in the current folder would write it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _describe_step(
    step: Step, outcome: Outcome, recipe: Recipe, out: Path, *, told: dict[str, Any]
) -> list[str]:
    """One line for each of a step's stages, with counts and rates; else one for the step."""
    stages = [
        stage
        for stage in (summarize(recipe, out)["stages"] if step.stages else [])
        if stage["key"] in step.stages
    ]
    if not stages:
        return [f"{step.title}: {outcome.line}; {describe_pace(None, step.key, told)}"]
    return [
        f"{describe_line(stage)}; {describe_pace(stage, step.key, told)}"
        if stage is stages[-1]
        else describe_line(stage)
        for stage in stages
    ]


def _reason(state: State[Any]) -> str:
    error = state.result(raise_on_failure=False)
    if isinstance(error, PipelineError):
        return explain(error)
    return state.message or f"ended as {state.name}"
