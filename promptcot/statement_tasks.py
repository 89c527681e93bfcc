"""What a statement asks, what it lacks and whom it talks to: one finder per defect.

The patterns are held against a corpus of written replies and against thousands of real contest
problems; each exception below is there because a real problem needed it.
"""

from __future__ import annotations

import re

from pipeline.records import Domain
from promptcot.statement_text import (
    first_match,
    split_sentences,
    strip_code,
    strip_formulas,
    strip_quotes,
)

_I = re.IGNORECASE
_DRAWN = r"(?:figure|diagram|picture|image|illustration|drawing|sketch|photo(?:graph)?)"
_SHOWN = r"(?:shown|depicted|illustrated|pictured|drawn|displayed|seen)"
_PLACE = r"(?:below|above|(?:at|on|to|in)\s+(?:the\s+)?(?:right|left|margin))"
_DRAWN_INLINE = re.compile(r"\\begin\{(?:array|tabular|[a-z]*matrix)|^[^|\n]*\|.*\|", re.MULTILINE)
_IMAGES = (
    re.compile(r"\[asy\]|!\[[^\]]*\]\(|<im(?:age|g)\b|\\includegraphics|\\begin\{tikzpicture", _I),
    re.compile(r"\[(?:image|figure|diagram|picture|graph)[^\]]{0,60}\]", _I),
)
_MISSING = (
    re.compile(
        rf"\b(?:{_DRAWN}|graph|chart)s?\s+(?:{_PLACE}|(?:is|are)\s+{_SHOWN}\b|{_SHOWN}\b"
        r"|provided\b|attached\b)",
        _I,
    ),
    re.compile(
        rf"\b(?:following|accompanying|adjacent|attached|adjoining)\s+(?:{_DRAWN}|chart)s?\b", _I
    ),
    re.compile(rf"\b{_SHOWN}\s+(?:in|on|by)\s+(?:the|this|our)\s+(?:{_DRAWN}|graph|chart)\b", _I),
    re.compile(r"\b(?:in|see|from|to|refer to)\s+the\s+(?:figure|diagram|illustration)\b", _I),
    re.compile(r"\b(?:figure|fig\.|diagram)\s*\d", _I),
    re.compile(
        r"\bas\s+(?:pictured|depicted|illustrated)\b(?!\s+by)|\bas\s+(?:shown|drawn)\s*(?=[.,;])",
        _I,
    ),
)
_SHOWN_BELOW = re.compile(
    rf"\b{_SHOWN}\s+{_PLACE}\b|\b{_SHOWN}\s+(?:in|by|on)\s+the\s+(?:following\s+)?tables?\b"
    r"|\b(?:table|list|data|passage|text)s?\s+(?:below|above|shown|provided|attached)\b"
    r"|\bfollowing\s+(?:table|graph)s?\b",
    _I,
)
_GIVEN_INLINE = re.compile(
    r"\\begin\{(?:array|tabular|[a-z]*matrix|align|cases)|\$\$|\\\[|```|^.*\|.*\|.*$|\n.*\n.*\n|:\s*\S",
    re.MULTILINE,
)
_OTHER_PROBLEM = re.compile(
    r"\b(?:from|in|of|to|using|see|as\s+in)\s+the\s+(?:previous|preceding|above|last|earlier)\s+"
    r"(?:problem|part|exercise|question|example)\b(?!\s+of)"
    r"|\b(?:previous|preceding)\s+(?:problem|part|exercise)\b(?!\s+of)"
    r"|\b(?:problem|exercise|question|theorem|lemma|example|section|chapter)\s+"
    r"(?:above|\d+(?:\.\d+)+)(?=[\s,.;])",
    _I,
)
_EARLIER_TASK = re.compile(r"\b(?:see|as\s+in|from)\s+the\s+(?:previous|preceding)\s+problem\b", _I)


def find_reference(text: str, domain: Domain) -> str | None:
    """Something that the statement relies on and does not hold: a figure, a table, other text."""
    if (found := first_match(_IMAGES, text)) is not None:
        return f"holds an image: {found}"
    if (found := first_match(_MISSING, text)) is not None and not _DRAWN_INLINE.search(text):
        return f"refers to something not given: {found}"
    if (match := _SHOWN_BELOW.search(text)) is not None and not _GIVEN_INLINE.search(text):
        return f"refers to something not given: {match[0]}"
    pattern = _EARLIER_TASK if domain == "code" else _OTHER_PROBLEM
    match = pattern.search(text)
    return f"refers to something not given: {match[0]}" if match else None


_LABELLED = re.compile(
    r"(?:^|\n|[.?!]\s)[ \t*_#]*(?:final\s+|correct\s+)?(?:answer|solution|hint)"
    r"[*_]*\s*[:=][*_]*[ \t]*\S",
    _I,
)
_WORKED = re.compile(r"\A\W*step\s*1\b", _I)
_BRACKETED = re.compile(
    r"[(\[]\s*(?:the\s+)?(?:final\s+)?(?:answer|ans|solution|hint)\s*(?::|=|is)", _I
)
_STATED = re.compile(
    r"\b(?:the|final|correct|our|so\s+the)\s+(?:final\s+|correct\s+)?(?:answer|solution)\s+is\s*:?\s*"
    r"(?:\*\*|\\boxed|\\\(|\$)?\s*[-−]?(?:\d|\\d?frac|\\sqrt|\\boxed|x\s*=)",
    _I,
)
_BOXED = re.compile(r"\\boxed\s*\{\s*(?!\\phantom|\\hspace|\\quad|\\text|~|\}|\s|\\,|\?|_|\\,)")
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
        match = re.search(r"(?:^|\n)[ \t*_#]*(?:solution|hint)[*_]*\s*:[*_]*\s", text, _I)
        return f"holds: {match[0].strip()}" if match else None
    patterns = (_LABELLED, _BRACKETED, _STATED, _BOXED)
    if (match := _WORKED.match(text)) is not None:
        return f"holds: {match[0]}"
    for sentence in split_sentences(text):
        found = first_match(patterns, sentence)
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
_QUESTION = re.compile(
    r"\?|\b(?:find|compute|determine|calculate|evaluate|solve|simplify|express|factor|expand"
    r"|convert|write|give|state|list|name|estimate|approximate|rationalize|round|identify|describe"
    r"|count|maximi[sz]e|minimi[sz]e|how\s+many|how\s+much|which|characteri[sz]e|construct|decide"
    r"|complete|enter|rewrite|multiply|divide|add|subtract|reduce|fill|choose|prove|show|what)\b|_{2,}|\\underline|\(A\).{1,400}\(B\)|(?:\bis|\bare|\bequals|=)[\s$:.]*\Z",
    re.IGNORECASE | re.DOTALL,
)
_PROGRAM = re.compile(
    r"\?|\b(?:write|print|output|return|read|implement|compute|find|determine|count|calculate|sort"
    r"|simulate|check|decide|construct|design|help|report|tell|answer|process|solve)\b",
    _I,
)


def find_no_question(text: str, domain: Domain) -> str | None:
    """A statement that tells and does not ask."""
    pattern = _PROGRAM if domain == "code" else _QUESTION
    return None if pattern.search(text) else "no question and no instruction"


_LETTERED = re.compile(
    r"(?:^|(?<=[\n.;:?!])|(?<=[\n.;:?!][ \t]))[ \t]{0,4}[*_]{0,3}(?:part[ \t]{0,2})?"
    r"(?:\((?P<a>[a-e]|i{1,3}|iv|v|[1-5])\)|(?P<b>[a-e]|i{1,3}|iv|v|[1-5])[).])[*_]{0,3}\s",
    _I,
)
_PART = re.compile(r"\bpart\s*\(?(?:a|1|i)\)?\b\s*[:.)]", _I)
_ANOTHER = re.compile(
    r"(?:^|[.?!;]\s+)(?:also|additionally|furthermore|moreover|in\s+addition|next|finally|secondly"
    r"|bonus)\b[:,]?\s+(?:find|determine|compute|calculate|evaluate|prove|show|what|how|is|are)\b",
    _I,
)
_RESTATES = re.compile(r"(?:that\s+is|in\s+other\s+words|i\.e\.|equivalently)\b", _I)
_LETTERS = ("abcde", ("i", "ii", "iii", "iv", "v"))
_NUMBERS = ("12345",)
_STEPS = re.compile(
    r"\b(?:steps?|operations?|moves?|algorithm|procedure|process|rules?|actions?)\b", _I
)


def find_parts(text: str, domain: Domain) -> str | None:
    """Several things asked at once: lettered parts that ask, or a second question."""
    prose = strip_code(text)
    # Tasks in code, and problems about a procedure, number its steps.
    is_numbered_list = domain == "code" or _STEPS.search(prose) is not None
    if (count := _count_asking_parts(prose, is_numbered_list=is_numbered_list)) > 1:
        return f"{count} parts that ask"
    if _PART.search(prose) and re.search(r"\bpart\s*\(?(?:b|2|ii)\)?\b", prose, _I):
        return "lettered parts"
    if domain != "math":
        return None
    questions = [
        s
        for s in split_sentences(strip_formulas(strip_quotes(text)))
        if s.endswith("?") and not _RESTATES.match(s)
    ]
    if len(questions) > 1:
        return f"{len(questions)} questions"
    if (match := _ANOTHER.search(prose)) is not None and _QUESTION.search(prose[: match.start()]):
        return f"asks again: {match[0].strip(' .?!;')}"
    return None


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
_PROOF_VERB = re.compile(r"\b(?:prove|disprove|show|demonstrate|verify|establish|proof)\b", _I)


def find_proof(text: str, domain: Domain) -> str | None:
    """A task whose only demand is a proof: there is no answer to compare."""
    if domain != "math":
        return None
    sentences = split_sentences(strip_quotes(text))
    proofs = [(s, match) for s in sentences if (match := _PROOF.search(s)) is not None]
    if not proofs:
        return None
    for sentence in sentences:
        before = _PROOF_VERB.split(sentence, maxsplit=1)[0]
        after = re.search(
            r"\b(?:and|then)\s+[^.]{0,30}?\b(?:find|determine|compute|calculate)\b", sentence
        )
        is_proof = any(sentence is s for s, _ in proofs)
        asks = _VALUE.search(before if is_proof else sentence)
        if after or asks or (not is_proof and sentence.endswith("?")):
            return None
    return f"wants a proof only: {' '.join(proofs[0][1][0].split())}"


_INJECTION = (
    re.compile(
        r"\b(?:ignore|disregard|forget|override)\s+(?:all\s+|any\s+|the\s+|your\s+|these\s+)*"
        r"(?:previous|prior|above|earlier|preceding|foregoing|other)?\s*"
        r"(?:instructions?|prompts?|rules|criteria|guidelines|rubric)\b",
        _I,
    ),
    re.compile(
        r"\b(?:rate|grade|score|mark|judge|label|classify|evaluate)\s+(?:this|it|the\s+(?:above\s+)?"
        r"problem|this\s+problem|every\s+criterion|all\s+(?:five\s+)?criteria|everything)\s+"
        r"(?:as\s+|with\s+|a\s+|an\s+|is\s+|to\s+be\s+)*[\"'“*]*(?:perfect|excellent|acceptable|good"
        r"|10|5|full|the\s+highest|highest|top|maximum)\b",
        _I,
    ),
    re.compile(
        r"\b(?:final\s+judge?ment|verdict|rating)\s*[:=]\s*[*\"']*(?:perfect|acceptable|bad)", _I
    ),
    re.compile(
        r"\b(?:note|message|attention|instruction)s?\s+(?:to|for)\s+(?:the\s+|all\s+)?"
        r"(?:judges?|graders?|evaluators?|raters?|reviewers?|ai|llm|model|assistant)\b",
        _I,
    ),
    re.compile(
        r"\b(?:dear|hey|hello|attention)\s+(?:judges?|graders?|evaluators?|raters?|ai|assistant)\b"
        r"|\b(?:judges?|graders?|evaluators?|raters?)\s+(?:should|must)\s+(?:rate|give|score|mark"
        r"|award|assign)\s+(?:this|it|the\s+problem|full|perfect|top|the\s+(?:highest|full|top))\b",
        _I,
    ),
    re.compile(
        r"\b(?:give|assign|award)\s+(?:this|it|the)\s+(?:problem\s+)?(?:a\s+|an\s+|the\s+)?"
        r"(?:perfect|highest|full|maximum|top)\s+(?:rating|score|marks?|grade|verdict)\b",
        _I,
    ),
    re.compile(
        r"<\|[a-z_]+\|>|\[/?INST\]|<</?SYS>>|^#+[ \t]*(?:instruction|response|system)[ \t]*:?"
        r"[ \t]*$|"
        r"^[ \t]*(?:system|assistant|user)[ \t]*:\s",
        re.IGNORECASE | re.MULTILINE,
    ),
    re.compile(
        r"\byou\s+are\s+(?:now\s+)?(?:an?\s+)?(?:ai|language\s+model|llm|judge|grader|evaluator|"
        r"helpful\s+assistant)\b",
        _I,
    ),
)


def find_injection(text: str, domain: Domain) -> str | None:
    """Lines that are meant for a judge or a model, not for a solver."""
    found = first_match(_INJECTION, strip_code(text))
    return f"talks to a judge or model: {found}" if found else None


_CHATTER = (
    re.compile(
        r"\b(?:i\s+hope\s+(?:this|that|you)|hope\s+this\s+helps|let\s+me\s+know\s+if|feel\s+free\s+to"
        r"|as\s+an\s+ai\b|i(?:'m|\s+am)\s+(?:sorry|happy\s+to|glad\s+to|unable)|i\s+can(?:no|')t\s+"
        r"(?:help|assist|create|provide)|would\s+you\s+like\s+(?:me|another))\b",
        _I,
    ),
    re.compile(r"^\s*(?:sure|certainly|of\s+course|absolutely|okay|great)\s*[!,.]", _I),
    re.compile(
        r"^\s*here(?:'s|\s+is|\s+are)\s+(?:a|an|the|your|my|another)\s+(?:\w+\s+){0,4}"
        r"(?:problem|question|task)\b",
        _I,
    ),
    re.compile(
        r"\b(?:this|the\s+above)\s+(?:problem|question|task)\s+(?:\w+ly\s+)?(?:combines|tests|involves"
        r"|integrates|challenges|incorporates|is\s+designed|was\s+designed|draws\s+on|illustrates"
        r"|encourages|connects|blends)\b",
        _I,
    ),
    re.compile(
        r"\b(?:the|this|our)\s+(?:problem|question|task|challenge)\s+(?:also\s+)?(?:is\s+(?:a\s+(?:classic"
        r"|good|great|perfect|simple|mathematical|typical)|about|designed)|contains\s+elements"
        r"|requires\s+(?:a|an|the|you)\b)|\bis\s+an?\s+(?:classic|perfect|prime|great|good)\s+"
        r"(?:example|illustration|problem)\b",
        _I,
    ),
    re.compile(
        r"\[\s*(?:insert|your|add|fill|todo|the\s+problem|problem\s+(?:text|statement))\b[^\]]*\]|"
        r"\bTODO\b|\bTBD\b|<(?:insert|your)[^>]*>|lorem\s+ipsum",
        _I,
    ),
)


def find_chatter(text: str, domain: Domain) -> str | None:
    """Talk around the problem: greetings, offers, what the problem is meant to test, gaps."""
    found = first_match(_CHATTER, strip_quotes(strip_code(text)))
    return f"talks about the problem instead of stating it: {found}" if found else None


_DANGLING = re.compile(
    r"(?:[,;(\[{\\&]|(?<=[A-Za-z,]\s)(?:and|or|the|a|an|of|with|that|which|is|are|to|by|for|from|if|in|let|such"
    r"|as|at|on|than|its|each|where)|\s[-–—])\s*\Z"
)


def find_unfinished(text: str, domain: Domain) -> str | None:
    """A statement that stops in the middle although the reply claims to be complete."""
    if (match := _DANGLING.search(text)) is not None and not re.search(r"\$\s*\Z", text):
        return f"ends with: {text[max(0, match.start() - 20) :].strip()}"
    for opening, closing in ((r"\\begin\{", r"\\end\{"), (r"(?<!\\)\\\[", r"(?<!\\)\\\]")):
        if len(re.findall(opening, text)) > len(re.findall(closing, text)):
            return "a formula that never ends"
    return "a code fence that never ends" if text.count("```") % 2 else None


def is_prose(text: str) -> bool:
    """Whether anything is said outside formulas."""
    return bool(re.search(r"[A-Za-z]{2,}", strip_formulas(text)))
