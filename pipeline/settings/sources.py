"""Settings of the curriculum's sources."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.records import Domain
from pipeline.settings.addresses import Link
from pipeline.settings.base import Settings, execution_only

SourceKind = Literal[
    "open_code_reasoning",
    "open_code_reasoning2",
    "open_thoughts2",
    "open_thoughts",
    "open_thoughts_metadata",
    "openr1_math",
    "mixture_of_thoughts",
    "promptcot_release",
    "synthesized",
    "mapping",
]


class QuestionSource(Settings):
    """Where a row whose question is ``-`` finds it."""

    dataset: str
    """As the rows name it: ``taco``, ``apps``, ``code_contests``, ``open-r1/codeforces``, …"""
    split: str
    path: str = execution_only(...)
    """Local Parquet or JSON file. Joined by row, it must be of the revision that rows count in."""
    column: str | None = None
    """Column of the question; by default ``description`` for code_contests, the parts put together
    for open-r1/codeforces, ``question`` for all others."""
    match: Literal["row", "key", "text"] = "row"
    """How rows find their question: by its row number; by ``key``; or, where row numbers changed
    since, by the question whose rarer words the reasoning repeats."""
    key: str = "id"
    """``match = "key"``: the file's column that holds the rows' ``id``."""

    @model_validator(mode="after")
    def _named(self) -> QuestionSource:
        if not self.dataset or not self.split:
            raise ValueError("a question file needs its dataset and split")
        return self


class ColumnMapping(Settings):
    """Where a source of any schema keeps what a row needs.

    A place is a column, or a path into it: ``messages.1.content``, ``messages.-1.content``,
    ``turns.[role=assistant].text`` (the first element whose ``role`` is that). Several places may
    be given with ``|`` between them; the first that holds something is taken.
    """

    turns: str = ""
    """A list of turns, one of the user and one of the assistant, which then need no places of their
    own. Keys ``role`` and ``content``, or ``from`` and ``value``; a system turn is dropped."""
    question: str = ""
    """The problem alone, if it is not the user's turn; duplicates are found on it."""
    user: str = ""
    """The user's turn, if it is not the question."""
    response: str = ""
    """The assistant's whole turn, think tags included …"""
    thinking: str = ""
    """… or the reasoning …"""
    answer: str = ""
    """… and the answer, in places of their own."""
    think_tags: tuple[str, str] | None = None
    """Opening and closing tag of the reasoning in ``response``, where they are of no known
    dialect."""
    answer_tags: tuple[str, str] | None = None
    """Tags around the answer in ``response``; dropped."""
    id: str = ""
    licence: str = ""
    domain: str = ""
    domains: dict[str, Domain] = Field(default_factory=dict)
    """The source's names of domains to ours; names not listed leave the domain to be inferred."""
    difficulty: str = ""
    difficulty_range: tuple[float, float] | None = None
    """Easiest and hardest of ``difficulty``, if it is a number."""
    gold: str = ""
    """The known final answer; maths answers are held against it."""
    verified: str = ""
    """Whether the source itself confirmed the answer."""
    tests: str = ""
    """Tests of a program: lists ``inputs`` and ``outputs``, or objects with ``input`` and
    ``output``; also as JSON text."""
    teacher: str = ""
    dataset: str = ""
    """The dataset that the source took the row from."""
    split: str = ""
    keep: dict[str, str | int | bool] = Field(default_factory=dict)
    """Place to the value that it must have; other rows are refused as ``not_kept``."""

    @model_validator(mode="after")
    def _one_answer(self) -> ColumnMapping:
        if not (self.turns or self.question or self.user):
            raise ValueError("map turns, or question")
        ways = [self.turns or self.response, self.thinking and self.answer]
        if sum(map(bool, ways)) != 1 or (self.turns and self.response):
            raise ValueError("map turns, or response, or thinking and answer")
        return self


class SourceSettings(Settings):
    """One ``[[curriculum.sources]]`` entry: local file(s) or a pinned hub dataset."""

    name: str
    kind: SourceKind
    paths: tuple[str, ...] = execution_only(())
    """Local Parquet or JSON files, relative to the recipe. Their content names the version."""
    hub_id: str | None = None
    revision: str | None = None
    """Commit of the hub dataset; required with ``hub_id``."""
    config: str | None = None
    split: str | None = None
    hub_files: tuple[str, ...] = ()
    """Patterns of the dataset's files; by default ``<config or data>/<split or train>-*.parquet``,
    which is how ``datasets`` uploads them."""
    hub_endpoint: Link | None = execution_only(None)
    """Address of a hub or mirror other than the usual one."""
    licence: str = ""
    """Licence of rows that state none."""
    domain: Domain | None = None
    """Domain of all rows; otherwise the source's own word or what the texts show."""
    teacher: str | None = None
    """Model that wrote the answers, where the rows do not say."""
    code_rule: Literal["strict", "lenient"] | None = None
    """Rules for code rows: ``strict`` asks for a fenced program that parses, outside the reasoning;
    ``lenient`` for closed fences only. By default what fits the kind."""
    mapping: ColumnMapping | None = None
    """``kind = "mapping"``: where its columns are."""
    expected_rows: int | None = execution_only(None)
    """Warn when the source has another number of rows."""
    questions: tuple[QuestionSource, ...] = ()
    min_join_overlap: float = Field(0.0, ge=0, le=1)
    """Least share of a joined question's rarer words that the reasoning must repeat; others are
    refused as joined to the wrong question. 0 does not look."""

    @model_validator(mode="after")
    def _one_origin(self) -> SourceSettings:
        if self.kind == "synthesized":
            if self.hub_id:
                raise ValueError("a synthesized source reads this run's own output: drop hub_id")
        elif bool(self.paths) == bool(self.hub_id):
            raise ValueError("give either paths or hub_id")
        if self.hub_id and not self.revision:
            raise ValueError("hub_id needs a pinned revision (a commit hash)")
        if (self.mapping is not None) != (self.kind == "mapping"):
            raise ValueError('a mapping goes with kind = "mapping", and the kind needs one')
        return self
