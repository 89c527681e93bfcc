"""What a statement asks, and whether it asks one thing that has an answer: a finder per defect.

As in :mod:`promptcot.statement_outside`, each exception is there because a real problem needed it,
and literals without which a pattern cannot match spare most texts the search.
"""

from __future__ import annotations

import re

from pipeline.records import Domain
from promptcot.statement_text import (
    Wording,
    first_match,
    fold,
    split_sentences,
    strip_code,
    strip_formulas,
    strip_quotes,
)

_I = re.IGNORECASE
_ANSWERS = (
    Wording(
        r"(?:^|\n|[.?!]\s)[ \t*_#]*(?:final\s+|correct\s+)?(?:answer|solution|hint)"
        r"[*_]*\s*[:=][*_]*[ \t]*\S",
        "answer,solution,hint",
        ":,=",
    ),
    Wording(
        r"[(\[]\s*(?:the\s+)?(?:final\s+)?(?:answer|ans|solution|hint)\s*(?::|=|is)",
        "(ans,( ans,(the,( the,(final,( final,(sol,( sol,(hint,( hint,"
        "[ans,[ ans,[the,[ the,[final,[ final,[sol,[ sol,[hint,[ hint",
        "ans,solution,hint",
    ),
    Wording(
        r"\b(?:the|final|correct|our|so\s+the)\s+(?:final\s+|correct\s+)?(?:answer|solution)\s+is"
        r"\s*:?\s*(?:\*\*|\\boxed|\\\(|\$)?\s*[-−]?(?:\d|\\d?frac|\\sqrt|\\boxed|x\s*=)",
        "answer is,solution is",
    ),
    Wording(
        r"(?-i:\\boxed\s*\{\s*(?!\\phantom|\\hspace|\\quad|\\text|~|\}|\s|\\,|\?|_))",
        "\\boxed",
    ),
)
_WORKED = Wording(r"\A\W*step\s*1\b", "step 1,step1")
_LABELLED_CODE = Wording(
    r"(?:^|\n)[ \t*_#]*(?:solution|hint)[*_]*\s*:[*_]*\s", "solution,hint", ":"
)
_SUPPOSED = re.compile(
    r"^(?:if|when|after|suppose|assume|whenever)\b|answer\s+is\s+\d+[\s-]*digit", _I
)
"""A story about somebody's answer, or about its length."""


def find_answer(text: str, domain: Domain) -> str | None:
    """The answer or a hint inside the statement.

    Tasks in code explain their examples ("the answer is 3"), so only labelled answers count there.
    """
    text = strip_code(text)
    if domain == "code":
        match = _LABELLED_CODE.search(text)
        return f"holds: {match[0].strip()}" if match else None
    if (match := _WORKED.search(text)) is not None:
        return f"holds: {match[0]}"
    if not any(wording.may_match(text) for wording in _ANSWERS):
        return None
    for sentence in split_sentences(text):
        found = first_match(_ANSWERS, sentence)
        if found and not _SUPPOSED.search(sentence):
            return f"holds: {found}"
    return None


_ASK_VERBS = (
    r"(?:find|compute|determine|calculate|evaluate|solve|simplify|express|factor|expand|convert"
    r"|write|give|state|list|name|estimate|approximate|rationalize|round|graph|plot|sketch|identify"
    r"|describe|order|arrange|complete|fill|choose|select|count|maximi[sz]e|minimi[sz]e|decide"
    r"|characteri[sz]e|construct|prove|show|explain|verify|perform|multiply|divide|add|subtract"
    r"|reduce|enter|read|print|output|return|implement|sort|simulate|what|how|which|who)"
)
_WORD = re.compile(r"\w+")
_ORDERS = frozenset(
    _WORD.findall(
        "find compute determine calculate evaluate solve simplify express factor expand convert "
        "write give state list name estimate approximate rationalize round identify describe count "
        "maximise maximize minimise minimize which characterise characterize construct decide "
        "complete enter rewrite derive multiply divide add subtract reduce fill choose prove show "
        "what",
    )
)
_QUESTION = re.compile(
    rf"\?|\b(?:{'|'.join(sorted(_ORDERS))}|how\s+(?:many|much|long|far|old|often|fast|large|big|tall"
    r"|high|deep|wide|likely))\b|_{2,}|\\underline|\(A\).{1,400}\(B\)|(?:\bis|\bare|\bequals|=)[\s$:.]*\Z",
    re.IGNORECASE | re.DOTALL,
)
_PROGRAM_ORDERS = frozenset(
    _WORD.findall(
        "write print output return read implement compute find determine count calculate sort "
        "simulate check decide construct design help report tell answer process solve",
    )
)
_PROGRAM = re.compile(rf"\?|\b(?:{'|'.join(sorted(_PROGRAM_ORDERS))})\b", _I)


def find_no_question(text: str, domain: Domain) -> str | None:
    """A statement that tells and does not ask."""
    if "?" in text:
        return None
    orders, pattern = (_PROGRAM_ORDERS, _PROGRAM) if domain == "code" else (_ORDERS, _QUESTION)
    # Most statements hold one of the words, which is quicker to see than to search for all.
    if not orders.isdisjoint(_WORD.findall(fold(text))):
        return None
    return None if pattern.search(text) else "no question and no instruction"


_LETTERED = re.compile(
    r"(?:^|(?<=[\n.;:?!])|(?<=[\n.;:?!][ \t]))[ \t]{0,4}[*_]{0,3}(?:part[ \t]{0,2})?"
    r"(?:\((?P<a>[a-e]|i{1,3}|iv|v|[1-5])\)|(?P<b>[a-e]|i{1,3}|iv|v|[1-5])[).])[*_]{0,3}\s",
    _I,
)
_PART = Wording(r"\bpart\s*\(?(?:a|1|i)\)?\b\s*[:.)]", "part")
_PART_TWO = re.compile(r"\bpart\s*\(?(?:b|2|ii)\)?\b", _I)
_ANOTHER = Wording(
    r"(?:^|[.?!;]\s+)(?:also|additionally|furthermore|moreover|in\s+addition|next|finally|secondly"
    r"|bonus)\b[:,]?\s+(?:find|determine|compute|calculate|evaluate|prove|show|what|how|is|are)\b",
    "also,additionally,furthermore,moreover,in addition,next,finally,secondly,bonus",
)
_RESTATES = re.compile(r"(?:that\s+is|in\s+other\s+words|i\.e\.|equivalently)\b", _I)
_ASKS_FLATLY = re.compile(
    r"\A(?:(?:and|so|then|now|also|next)\b,?\s+)?"
    r"(?:(?:if|given|when|assuming|after|suppose)\b[^?]*,\s+)?"
    r"(?:how\s+(?:many|much)|what\s+(?:is|are)\s+the)\b",
    _I,
)
_TELLS = re.compile(
    r"\b(?:mr|mrs|ms|dr|st|vs|no|jr|sr|etc|[a-z]\.[a-z])\.\Z"
    r"|\b(?:depends?|matters?|(?:un)?known|irrelevant|unclear)\b",
    _I,
)
"""An abbreviation at which a sentence was cut, or a statement about how many there are."""
_LETTERS = ("abcde", ("i", "ii", "iii", "iv", "v"))
_NUMBERS = ("12345",)
_FIRST_TWO = (("a", "b"), ("i", "ii"), ("1", "2"))
_STEPS = re.compile(
    r"\b(?:steps?|operations?|moves?|algorithm|procedure|process|rules?|actions?)\b", _I
)


def find_parts(text: str, domain: Domain) -> str | None:
    """Several things asked at once: lettered parts that ask, or a second question."""
    prose = strip_code(text)
    # Tasks in code, and problems about a procedure, number its steps.
    if _may_have_parts(prose):
        is_numbered_list = domain == "code" or _STEPS.search(prose) is not None
        if (count := _count_asking_parts(prose, is_numbered_list=is_numbered_list)) > 1:
            return f"{count} parts that ask"
    if _PART.search(prose) and _PART_TWO.search(prose):
        return "lettered parts"
    if domain != "math":
        return None
    if _may_ask_twice(text) and (count := _count_questions(text)) > 1:
        return f"{count} questions"
    if (match := _ANOTHER.search(prose)) is not None and _QUESTION.search(prose[: match.start()]):
        return f"asks again: {match[0].strip(' .?!;')}"
    return None


def _may_have_parts(text: str) -> bool:
    """Whether the labels of a first and a second part stand anywhere in a text."""
    folded = fold(text)
    return any(
        all(f"{label})" in folded or f"{label}." in folded for label in labels)
        for labels in _FIRST_TWO
    )


def _may_ask_twice(text: str) -> bool:
    """Whether there are two question marks, or words of a question beside one."""
    if (num_marks := text.count("?")) > 1:
        return True
    folded = fold(text)
    asks = folded.count("how m") + folded.count("what is the") + folded.count("what are the")
    if num_marks == 0 or asks != 1:
        return asks > 1
    start = max(map(folded.find, ("how m", "what is the", "what are the")))
    mark = folded.index("?")
    return mark < start or "." in folded[start:mark]


def _count_questions(text: str) -> int:
    sentences = split_sentences(strip_formulas(strip_quotes(text)))
    return sum(
        1
        for sentence in sentences
        if (sentence.endswith("?") or _asks_flatly(sentence)) and not _RESTATES.match(sentence)
    )


def _asks_flatly(sentence: str) -> bool:
    """A question that ends in a full stop."""
    return (
        sentence.endswith(".")
        and _ASKS_FLATLY.match(sentence) is not None
        and _TELLS.search(sentence) is None
        and sentence.count("(") <= sentence.count(")")
    )


def _count_asking_parts(text: str, *, is_numbered_list: bool) -> int:
    """Parts in the order of one series that ask each: conditions (i), (ii) do not."""
    found = list(_LETTERED.finditer(text))
    names = [(m["a"] or m["b"]).lower() for m in found]
    ends = [m.start() for m in found[1:]] + [len(text)]
    series_of = _LETTERS if is_numbered_list else (*_LETTERS, *_NUMBERS)
    for series in series_of:
        places = [i for i, name in enumerate(names) if name in series]
        wanted = list(series)[: len(places)]
        if len(places) < 2 or [names[i] for i in places] != wanted:
            continue
        parts = [text[found[i].end() : ends[i]].strip() for i in places]
        asks = [p for p in parts if re.match(_ASK_VERBS + r"\b", p, _I) or p.endswith("?")]
        if len(asks) > 1:
            return len(asks)
    return 0


_PROOF = re.compile(
    r"(?:^|[,;:]\s*|\b(?:and|then|to|please|you|must|can)\s+)(?:prove|disprove|show|demonstrate"
    r"|verify|establish)\b(?!\s+(?:your|all\s+(?:your\s+)?work|the\s+work))|\bgive\s+a\s+proof\b"
    r"|\b(?:prove|disprove)\b(?:\s+or\s+disprove)?(?:\s*,[^,]{1,60},)?\s+that\b",
    _I,
)
_VALUE = re.compile(
    r"\b(?:find|compute|determine|calculate|evaluate|solve|simplify|express|how\s+many|how\s+much"
    r"|what\s+(?:is|are|was|were)|which)\b",
    _I,
)
_PROOF_VERB = Wording(
    r"\b(?:prove|disprove|show|demonstrate|verify|establish|proof)\b",
    "prove,show,demonstrate,verify,establish,proof",
)


def find_proof(text: str, domain: Domain) -> str | None:
    """A task whose only demand is a proof: there is no answer to compare."""
    if domain != "math" or not _PROOF_VERB.may_match(text):
        return None
    sentences = split_sentences(strip_quotes(text))
    proofs = [(s, match) for s in sentences if (match := _PROOF.search(s)) is not None]
    if not proofs:
        return None
    for sentence in sentences:
        before = _PROOF_VERB.pattern.split(sentence, maxsplit=1)[0]
        after = re.search(
            r"\b(?:and|then)\s+[^.]{0,30}?\b(?:find|determine|compute|calculate)\b", sentence
        )
        is_proof = any(sentence is s for s, _ in proofs)
        asks = _VALUE.search(before if is_proof else sentence)
        if after or asks or (not is_proof and sentence.endswith("?")):
            return None
    return f"wants a proof only: {' '.join(proofs[0][1][0].split())}"


_DANGLING_CHARS = 8
_ENDS_IN_FORMULA = re.compile(r"\$\s*\Z")
_PAIRS = (
    ("\\begin{", re.compile(r"\\begin\{"), re.compile(r"\\end\{")),
    ("\\[", re.compile(r"(?<!\\)\\\["), re.compile(r"(?<!\\)\\\]")),
)
_DANGLING = re.compile(
    r"(?:[,;(\[{\\&]|(?<=[A-Za-z,]\s)(?:and|or|the|a|an|of|with|that|which|is|are|to|by|for|from|if|in|let|such"
    r"|as|at|on|than|its|each|where)|\s[-–—])\s*\Z"
)


def find_unfinished(text: str, domain: Domain) -> str | None:
    """A statement that stops in the middle although the reply claims to be complete."""
    # The longest of the words, its blank and a sign: nothing before can reach the end.
    tail = max(0, len(text.rstrip()) - _DANGLING_CHARS)
    if (match := _DANGLING.search(text, tail)) is not None and not _ENDS_IN_FORMULA.search(text):
        return f"ends with: {text[max(0, match.start() - 20) :].strip()}"
    for literal, opening, closing in _PAIRS:
        if literal in text and len(opening.findall(text)) > len(closing.findall(text)):
            return "a formula that never ends"
    return "a code fence that never ends" if text.count("```") % 2 else None
