"""What judges said about all problems of a stage, kept and refused, as counts that can be summed.

Keys are paths like ``verdicts/<judge>/<verdict>``: batches are counted apart, added by
:func:`pipeline.stages.run_stage`, and summarised once at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.records import Rating
from pipeline.settings.judging import JudgingSettings
from promptcot.agreement import Agreement, cohen_kappa, each_pair, fleiss_kappa
from promptcot.panel import Opinion, Vote
from promptcot.parsing import Defect
from promptcot.ratings import CRITERIA

VERDICTS = (Rating.PERFECT, Rating.ACCEPTABLE, Rating.BAD)
"""Order of the categories in tables."""


def count_opinions(opinions: Iterable[Opinion], settings: JudgingSettings) -> dict[str, int]:
    """Figures of a batch: verdicts, ratings, defects, pairs of judges, and profiles of votes."""
    counts: Counter[str] = Counter()
    labels = [judge.label for judge in settings.judges]
    num_votes = sum(judge.votes for judge in settings.judges)
    for opinion in opinions:
        for vote in opinion.votes:
            counts.update(_outcomes(vote))
        for first, second in each_pair(labels):
            verdicts = [_first_verdict(opinion.of(label)) for label in (first, second)]
            if None not in verdicts:
                counts[f"pair/{first}/{second}/{verdicts[0]}/{verdicts[1]}"] += 1
        for judge in settings.judges:
            _count_profile(counts, f"own/{judge.label}", opinion.of(judge.label), judge.votes)
        _count_profile(counts, "panel", opinion.votes, num_votes)
    return dict(counts)


def _outcomes(vote: Vote) -> list[str]:
    if isinstance(vote.ratings, Defect):
        return [f"unreadable/{vote.judge}/{vote.ratings.reason}"]
    given = [f"ratings/{vote.judge}/{name}/{r}" for name, r in vote.ratings.by_field.items()]
    return [f"verdicts/{vote.judge}/{vote.ratings.verdict}", *given]


def _first_verdict(votes: Sequence[Vote]) -> Rating | None:
    """The verdict of a judge's first vote: one reply against one, however many are asked."""
    if not votes or isinstance(votes[0].ratings, Defect):
        return None
    return votes[0].ratings.verdict


def _count_profile(counts: Counter[str], path: str, votes: Sequence[Vote], size: int) -> None:
    """How many votes gave each verdict, for problems with all votes readable."""
    verdicts = [vote.ratings.verdict for vote in votes if not isinstance(vote.ratings, Defect)]
    if size > 1 and len(verdicts) == size:
        profile = ",".join(str(verdicts.count(verdict)) for verdict in VERDICTS)
        counts[f"{path}/{profile}"] += 1


def summarise_opinions(counts: Mapping[str, int], settings: JudgingSettings) -> dict[str, Any]:
    """From summed counts to what the manifest and the report show."""
    labels = [judge.label for judge in settings.judges]
    judges = []
    words: dict[str, str] = {}
    for judge in settings.judges:
        own: dict[str, Any] = {
            "judge": judge.label,
            "teacher": judge.teacher,
            "votes_per_problem": judge.votes,
            "verdicts": {str(v): counts.get(f"verdicts/{judge.label}/{v}", 0) for v in VERDICTS},
            "unreadable": _below(counts, f"unreadable/{judge.label}/"),
            "ratings": {
                field: {
                    str(v): counts.get(f"ratings/{judge.label}/{field}/{v}", 0) for v in VERDICTS
                }
                for field in CRITERIA.values()
            },
        }
        if judge.votes > 1:
            own_votes = _fleiss(counts, f"own/{judge.label}/")
            own["own_votes"] = own_votes.as_json()
            words[f"{judge.label} with itself"] = own_votes.describe()
        judges.append(own)
    summary: dict[str, Any] = {"judges": judges, "pairs": []}
    for first, second in each_pair(labels):
        table, found = _pair(counts, first, second)
        summary["pairs"].append({"judges": [first, second], "table": table, **found.as_json()})
        words[f"{first} with {second}"] = found.describe()
    if sum(judge.votes for judge in settings.judges) > 1:
        together = _fleiss(counts, "panel/")
        summary["all_votes"] = together.as_json()
        words["all votes"] = together.describe()
    summary["in_words"] = words
    if settings.sequential and len(labels) > 1:
        summary["note"] = (
            "Judges were asked one after the other: agreement covers only problems that the "
            "earlier judges had not refused."
        )
    return summary


def _pair(counts: Mapping[str, int], first: str, second: str) -> tuple[list[list[int]], Agreement]:
    """Problems by the two judges' first verdicts, and Cohen's κ of that table."""
    table = [[counts.get(f"pair/{first}/{second}/{a}/{b}", 0) for b in VERDICTS] for a in VERDICTS]
    return table, cohen_kappa(table)


def _fleiss(counts: Mapping[str, int], prefix: str) -> Agreement:
    return fleiss_kappa(
        {tuple(map(int, key.split(","))): n for key, n in _below(counts, prefix).items()}
    )


def _below(counts: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {
        key.removeprefix(prefix): count
        for key, count in sorted(counts.items())
        if key.startswith(prefix)
    }
