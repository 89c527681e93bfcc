"""open-thoughts/OpenThoughts2-1M: two-turn conversations on maths, code and more.

``source`` is null on most rows, so the domain is inferred. ``question`` can differ from the user's
turn (an instruction in front, a newline behind): duplicates are found on the question, training
uses the turn. ``id`` is no key: nothing says that it is unique.
"""

from __future__ import annotations

from curriculum.candidates import Candidate, Origin, make_row_id, refuse
from curriculum.domains import infer_domain
from curriculum.sources.parts import Columns, RawRow
from curriculum.sources.templates import strip_instructions
from curriculum.sources.turns import read_turns
from curriculum.texts import after_thinking, to_utf8
from pipeline.records import Domain, Rejected
from pipeline.settings.sources import SourceSettings

REQUIRED = ("conversations", "question", "source", "id")
COLUMNS: Columns = {
    "conversations": "exchange",
    "question": "text",
    "source": "text",
    "id": "integer",
}

_SOURCE_DOMAINS: dict[str, Domain] = {
    "evolcodegolf": "code",
    "codefeedback": "code",
    "glaive": "code",
    "magicoder": "code",
    "sharegpt": "code",
    "dolphin": "code",
    "automath": "math",
    "tiger_math": "math",
    "tiger_lab_math": "math",
    "nvidia_math": "math",
}


def find_domain(source: str | None, question: str, answer: str) -> Domain:
    """Domain of a row: by the set it was taken from where that is told, otherwise by its texts."""
    return _SOURCE_DOMAINS.get(source or "") or infer_domain(question, answer)


def parse_row(raw: RawRow, source: SourceSettings) -> Candidate | Rejected:
    """Understand one row; anything but one user and one assistant turn is refused by name."""
    row = raw.values
    exchange = read_turns(row["conversations"])
    user, response = exchange.user, to_utf8(exchange.response)
    row_id = make_row_id("default", row["question"], user, response)
    if exchange.problem:
        return refuse(row_id, "parse", exchange.problem, exchange.detail)
    question = row["question"]
    domain = source.domain or find_domain(
        row["source"], question or user or "", after_thinking(response)
    )
    return Candidate(
        row_id=row_id,
        source=source.name,
        source_revision=raw.revision,
        source_id="" if row["id"] is None else str(row["id"]),
        question=None if question is None else strip_instructions(question),
        user_text=user,
        response=response,
        licence=source.licence,
        domain=domain,
        difficulty=None,
        provenance=Origin(
            source_dataset=row["source"], source_file=raw.file, source_position=raw.position
        ),
        code_rule=(source.code_rule or "lenient") if domain == "code" else "none",
    )
