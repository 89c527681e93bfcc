"""A recipe's judges as one panel: all asked at the same time, and one rule for what they decide.

Shared by the judging of a run's problems and by the scoring of the judges on labelled ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from pipeline.errors import WorkPending
from pipeline.hashing import derive_seed
from pipeline.records import Problem, Rating
from pipeline.settings.judging import JudgeSettings, JudgingSettings
from promptcot.engines.protocol import Answer, Request
from promptcot.forms import judge_form
from promptcot.judge_prompts import load_prompt
from promptcot.parsing import Defect
from promptcot.ratings import (
    CRITERIA,
    VERDICT_ORDER,
    Ratings,
    describe_ratings,
    holds_ratings,
    parse_ratings,
    worst_of,
)
from promptcot.run_context import SynthesisRun, count_tokens

__all__ = ["Opinion", "Panel", "Vote", "combine", "decide", "refuse", "wanted_verdict"]


@dataclass(frozen=True, slots=True)
class Vote:
    """One reply of one judge."""

    judge: str
    """The judge's label."""
    model: str
    number: int
    """Which of the judge's votes, from 0."""
    ratings: Ratings | Defect
    prompt_hash: str
    seed: int


@dataclass(frozen=True, slots=True)
class Opinion:
    """All votes on one problem, in the order of the judges, and why it is not kept."""

    votes: tuple[Vote, ...]
    defect: Defect | None

    def of(self, judge: str) -> tuple[Vote, ...]:
        """One judge's votes."""
        return tuple(vote for vote in self.votes if vote.judge == judge)


class Panel:
    """The judges of a run, with their prompts read and checked.

    Args:
        run: The run whose recipe names the judges.
        label: What the ledger calls the requests; also part of their seeds.

    Raises:
        ConfigError: A judge's template is missing, lacks a place or has an unknown one.
    """

    def __init__(self, run: SynthesisRun, label: str) -> None:
        self._run = run
        self._label = label
        self.settings: JudgingSettings = run.settings.judging
        self._prompts = {
            (judge.label, form): load_prompt(judge, run.recipe, form)
            for judge in self.settings.judges
            for form in ("free", "constrained")
        }

    def ask(
        self, problems: Sequence[Problem], *, sequential: bool
    ) -> tuple[list[Opinion], dict[str, int]]:
        """Every judge's votes on every problem, and the tokens they took.

        A problem that holds lines in the form of ratings is never shown: a judge that quotes it
        would seem to say them.

        Args:
            problems: What to judge.
            sequential: Ask a judge only about problems that no earlier judge has refused.
        """
        votes: list[list[Vote]] = [[] for _ in problems]
        hidden = {i for i, problem in enumerate(problems) if _imitates_judge(problem)}
        shown = [i for i in range(len(problems)) if i not in hidden]
        answers: list[Answer] = []
        if sequential:
            for judge in self.settings.judges:
                open_ones = [i for i in shown if not _is_lost(votes[i], self.settings)]
                answers += self._ask_judge(judge, problems, open_ones, votes=votes)
        else:
            replies = self._ask_together(problems, shown, votes)
            answers = [answer for judge_answers in replies for answer in judge_answers]
        opinions = [
            Opinion(tuple(own), _IMITATION if i in hidden else decide(own, self.settings))
            for i, own in enumerate(votes)
        ]
        return opinions, count_tokens(answers)

    def _ask_together(
        self, problems: Sequence[Problem], shown: Sequence[int], votes: list[list[Vote]]
    ) -> list[list[Answer]]:
        """One thread per judge, so that two teachers work at the same time."""
        judges = self.settings.judges
        apart: list[list[list[Vote]]] = [[[] for _ in problems] for _ in judges]
        with ThreadPoolExecutor(len(judges), thread_name_prefix=self._label) as pool:
            futures = [
                pool.submit(self._ask_judge, judge, problems, shown, votes=own)
                for judge, own in zip(judges, apart, strict=True)
            ]
            wait(futures)
        failures = [error for future in futures if (error := future.exception()) is not None]
        if failures:
            # Answers that come later are no failure, so a real one is told first.
            raise min(failures, key=lambda error: isinstance(error, WorkPending))
        for own in apart:
            for target, given in zip(votes, own, strict=True):
                target += given
        return [future.result() for future in futures]

    def _ask_judge(
        self,
        judge: JudgeSettings,
        problems: Sequence[Problem],
        chosen: Sequence[int],
        *,
        votes: list[list[Vote]],
    ) -> list[Answer]:
        """Add one judge's votes on the chosen problems."""
        asked = [(i, number) for i in chosen for number in range(judge.votes)]
        if not asked:
            return []
        teacher = self._run.teacher(judge.teacher)
        form = self._run.resolve_form(self.settings.form, judge.teacher)
        prompt = self._prompts[judge.label, form]
        # All votes on a problem are asked by the same words.
        messages = {i: prompt.render(problems[i]) for i in chosen}
        # The verdict follows from the ratings: where the form is enforced, none is asked for.
        constraint = judge_form(tuple(CRITERIA)) if form == "constrained" else None
        requests = [
            Request(
                messages=messages[i],
                temperature=self.settings.temperature,
                top_p=1.0,
                max_tokens=self.settings.max_tokens,
                seed=self._seed(judge, problems[i], number),
                constraint=constraint,
            )
            for i, number in asked
        ]
        answers = teacher.answer_all(requests, self._label)
        for (i, number), request, answer in zip(asked, requests, answers, strict=True):
            votes[i].append(
                Vote(
                    judge=judge.label,
                    model=teacher.capabilities.model,
                    number=number,
                    ratings=parse_ratings(answer.text, answer.finish_reason, answer.detail),
                    prompt_hash=request.prompt_hash,
                    seed=request.seed,
                )
            )
        return answers

    def _seed(self, judge: JudgeSettings, problem: Problem, number: int) -> int:
        """By the judge's name, so that another judge beside it changes nothing."""
        return derive_seed(self._run.root_seed, self._label, problem.id, judge.label, str(number))


_IMITATION = Defect("imitates_judge", "the problem holds lines in the form of ratings")


def _imitates_judge(problem: Problem) -> bool:
    return holds_ratings(problem.statement) or holds_ratings(problem.rationale)


def decide(votes: Sequence[Vote], settings: JudgingSettings) -> Defect | None:
    """Why the votes refuse a problem, or none; one unreadable vote refuses it."""
    readable = []
    for vote in votes:
        if isinstance(vote.ratings, Defect):
            detail = f"{vote.judge}, vote {vote.number + 1}: {vote.ratings.detail}"
            return Defect(vote.ratings.reason, detail)
        readable.append(vote.ratings)
    reason = refuse(readable, settings)
    return None if reason is None else Defect(reason, describe_ratings(readable))


def refuse(votes: Sequence[Ratings], settings: JudgingSettings) -> str | None:
    """Why readable votes refuse a problem, or none.

    ``unanimous``: the worst verdict must reach the minimum. ``lenient``: one vote must be perfect
    and none bad.
    """
    verdict = combine([vote.verdict for vote in votes], settings)
    if VERDICT_ORDER.index(verdict) >= VERDICT_ORDER.index(wanted_verdict(settings)):
        return None
    if settings.aggregation == "lenient" and verdict is not Rating.BAD:
        return "verdict_never_perfect"
    return f"verdict_{verdict}"


def combine(verdicts: Sequence[Rating], settings: JudgingSettings) -> Rating:
    """The verdict of several votes: the worst, or the best of ``lenient`` votes without a bad."""
    worst = worst_of(verdicts)
    if settings.aggregation == "lenient" and worst is not Rating.BAD:
        return max(verdicts, key=VERDICT_ORDER.index)
    return worst


def wanted_verdict(settings: JudgingSettings) -> Rating:
    """The combined verdict from which a problem is kept."""
    if settings.aggregation == "lenient":
        return Rating.PERFECT
    return Rating(settings.minimum_verdict)


def _is_lost(votes: Sequence[Vote], settings: JudgingSettings) -> bool:
    """Whether no further vote could save the problem."""
    lowest = Rating.ACCEPTABLE if settings.aggregation == "lenient" else wanted_verdict(settings)
    return any(
        isinstance(vote.ratings, Defect)
        or VERDICT_ORDER.index(vote.ratings.verdict) < VERDICT_ORDER.index(lowest)
        for vote in votes
    )
