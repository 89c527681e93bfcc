"""open-thoughts/OpenThoughts2-1M: two-turn conversations on maths, code and more.

``source`` is null on most rows, so the domain is inferred. ``question`` can differ from the user's
turn (an instruction in front, a newline behind): duplicates are found on the question, training
uses the turn. ``id`` is no key: nothing says that it is unique.
"""

from __future__ import annotations

import re
from typing import Any

from curriculum.candidates import Candidate, make_row_id, refuse
from curriculum.sources.parts import Columns, RawRow
from pipeline.records import Domain, Provenance, Rejected
from pipeline.settings.sources import SourceSettings

REQUIRED = ("conversations", "question", "source", "id")
COLUMNS: Columns = {
    "conversations": "turns",
    "question": "text",
    "source": "text",
    "id": "integer",
}

_USER_ROLES = frozenset({"user", "human"})
_ASSISTANT_ROLES = frozenset({"assistant", "gpt"})

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

_CODE_HINT = re.compile(
    r"```|\b(python|javascript|java|c\+\+|sql|html|css|php|ruby|rust|golang|typescript|bash|"
    r"function|method|class|script|program|algorithm|code|api|stdin|standard input|compile)\b",
    re.IGNORECASE,
)
_MATH_HINT = re.compile(
    r"\\boxed|\\frac|\\sqrt|\\sum|\\angle|\$[^$]+\$|\b(find|compute|calculate|evaluate|determine|"
    r"prove|solve|how many|how much|what is the (value|sum|product|remainder|area|probability|"
    r"number)|remainder|probability|triangle|integers?|equation|perimeter)\b",
    re.IGNORECASE,
)


def infer_domain(source: str | None, question: str, answer: str) -> Domain:
    """Domain of a row: by its source where there is one, otherwise by what the texts hold.

    A boxed answer means maths and a fenced program means code; both beat words in the question,
    because a word problem may speak of programs and a programming task of triangles.
    """
    if source in _SOURCE_DOMAINS:
        return _SOURCE_DOMAINS[source]
    if "\\boxed" in answer:
        return "math"
    if re.search(r"```[a-zA-Z+#]+", answer):
        return "code"
    if "\\boxed" in question:
        return "math"
    code, maths = len(_CODE_HINT.findall(question)), len(_MATH_HINT.findall(question))
    if code == maths == 0:
        return "other"
    return "code" if code > maths else "math"


def parse_row(raw: RawRow, source: SourceSettings) -> Candidate | Rejected:
    """Understand one row; anything but one user and one assistant turn is refused by name."""
    row = raw.values
    turns = row["conversations"] or []
    texts = [_text_of(turn, "value") for turn in turns]
    row_id = make_row_id("default", row["question"], *texts)
    if len(turns) != 2:
        return refuse(row_id, "parse", "not_two_turns", f"{len(turns)} turns")
    roles = [_text_of(turn, "from") for turn in turns]
    if roles[0] not in _USER_ROLES or roles[1] not in _ASSISTANT_ROLES:
        return refuse(row_id, "parse", "unexpected_roles", f"roles {roles}")
    user, response = texts
    answer = (response or "").rpartition("</think>")[2]
    domain = infer_domain(row["source"], row["question"] or user or "", answer)
    return Candidate(
        row_id=row_id,
        source=source.name,
        source_revision=raw.revision,
        source_id="" if row["id"] is None else str(row["id"]),
        question=row["question"],
        user_text=user,
        response=response,
        licence=source.licence,
        domain=domain,
        difficulty=None,
        provenance=Provenance(
            source_dataset=row["source"], source_file=raw.file, source_position=raw.position
        ),
        code_rule="lenient" if domain == "code" else "none",
    )


def _text_of(turn: Any, key: str) -> str | None:
    """One text of a turn; JSONL may hold anything here."""
    value = turn.get(key) if isinstance(turn, dict) else None
    return value if isinstance(value, str) else None
