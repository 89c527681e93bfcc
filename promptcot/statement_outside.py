"""What a statement reaches for outside itself: figures, other problems, judges, readers.

The patterns are held against a corpus of written replies and against thousands of real contest
problems; each exception below is there because a real problem needed it. Beside each pattern stand
the literals without which it is not searched for.
"""

from __future__ import annotations

import re

from pipeline.records import Domain
from promptcot.statement_text import Wording, first_match, strip_code, strip_quotes

_DRAWN = r"(?:figure|diagram|picture|image|illustration|drawing|sketch|photo(?:graph)?)"
_SHOWN = r"(?:shown|depicted|illustrated|pictured|drawn|displayed|seen)"
_PLACE = r"(?:below|above|(?:at|on|to|in)\s+(?:the\s+)?(?:right|left|margin)\b(?!\s+of\b))"
_AT_REST = (
    r"(?:shown|depicted|illustrated|pictured"
    r"|(?:drawn|displayed|seen)(?!\s+(?:by|on|in|with|from|through|using|between|for|as|so|at)\b))"
)
"""Shown to the reader; a graph drawn on ten vertices, an image seen through a lens are not."""
_DRAWN_THERE = (
    r"(?:drawn|seen)\s+(?:below|above)\b"
    r"(?!\s+(?:the|an?|its|each|every|this|that|(?-i:[A-Z]{1,3}))\b|\s*(?:\$|\\\())"
)
"""A circle drawn below the line, or to the right, is part of a construction."""
_FIGURES = "figure,diagram,picture,image,illustration,drawing,sketch,photo,graph,chart"
_SHOWING = "shown,depicted,illustrated,pictured,drawn,displayed,seen"
_DRAWN_INLINE = re.compile(r"\\begin\{(?:array|tabular|[a-z]*matrix)|^[^|\n]*\|.*\|", re.MULTILINE)
_IMAGES = (
    Wording(
        r"\[asy\]|!\[[^\]]*\]\(|<im(?:age|g)\b|\\includegraphics|\\begin\{tikzpicture",
        "[asy],![,<im,includegraphics,tikzpicture",
    ),
    Wording(
        r"\[(?:image|figure|diagram|picture|graph)[^\]]{0,60}\]",
        "[image,[figure,[diagram,[picture,[graph",
    ),
)
_MISSING = (
    Wording(
        rf"\b(?:{_DRAWN}|graph|chart)s?\s+(?:{_PLACE}|(?:(?:is|are)\s+)?{_AT_REST}\b"
        r"|provided\b|attached\b)",
        _FIGURES,
        f"{_SHOWING},below,above,right,left,margin,provided,attached",
    ),
    Wording(
        rf"\b(?:following|accompanying|adjacent|attached|adjoining)\s+(?:{_DRAWN}|chart)s?\b",
        "following,accompanying,adjacent,attached,adjoining",
        _FIGURES,
    ),
    Wording(
        rf"\b{_SHOWN}\s+(?:in|on|by)\s+(?:the|this|our)\s+(?:{_DRAWN}|graph|chart)\b",
        _SHOWING,
        _FIGURES,
    ),
    Wording(
        r"\b(?:in|see|from|to|refer to)\s+the\s+(?:figure|diagram|illustration)\b",
        "the figure,the diagram,the illustration",
    ),
    Wording(
        # A skater may go round a figure 8.
        r"\b(?<!\ba\s)(?:figure|fig\.|diagram)\s*\d",
        "figure,fig.,diagram",
    ),
    Wording(
        r"\bas\s+(?:pictured|depicted|illustrated)\b(?!\s+by)|\bas\s+(?:shown|drawn)\s*(?=[.,;])",
        "as pictured,as depicted,as illustrated,as shown,as drawn",
    ),
)
_SHOWN_BELOW = Wording(
    rf"\b(?:shown|depicted|illustrated|pictured|displayed)\s+{_PLACE}\b|\b{_DRAWN_THERE}"
    rf"|\b{_SHOWN}\s+(?:in|by|on)\s+the\s+(?:following\s+)?tables?\b"
    r"|\b(?:table|list|data|passage|text)s?\s+(?:below|above|shown|provided|attached)\b"
    r"|\bfollowing\s+(?:table|graph)s?\b",
    f"{_SHOWING},below,above,provided,attached,following",
    "below,above,right,left,margin,table,graph,list,data,passage,text",
)
_GIVEN_INLINE = re.compile(
    r"\\begin\{(?:array|tabular|[a-z]*matrix|align|cases)|\$\$|\\\[|```|^.*\|.*\|.*$|\n.*\n.*\n|:\s*\S",
    re.MULTILINE,
)
_OTHER_PROBLEM = Wording(
    r"\b(?:from|in|of|to|using|see|as\s+in)\s+the\s+(?:previous|preceding|above|last|earlier)\s+"
    r"(?:problem|part|exercise|question|example)\b(?!\s+of)"
    r"|\b(?:previous|preceding)\s+(?:problem|part|exercise)\b(?!\s+of)"
    r"|\b(?:problem|exercise|question|theorem|lemma|example|section|chapter)\s+"
    r"(?:above|\d+(?:\.\d+)+)(?=[\s,.;])",
    "problem,part,exercise,question,example,theorem,lemma,section,chapter",
)
_EARLIER_TASK = Wording(
    r"\b(?:see|as\s+in|from)\s+the\s+(?:previous|preceding)\s+problem\b",
    "the previous problem,the preceding problem",
)


def find_reference(text: str, domain: Domain) -> str | None:
    """Something that the statement relies on and does not hold: a figure, a table, other text."""
    if (found := first_match(_IMAGES, text)) is not None:
        return f"holds an image: {found}"
    if (found := first_match(_MISSING, text)) is not None and not _DRAWN_INLINE.search(text):
        return f"refers to something not given: {found}"
    if (match := _SHOWN_BELOW.search(text)) is not None and not _GIVEN_INLINE.search(text):
        return f"refers to something not given: {match[0]}"
    wording = _EARLIER_TASK if domain == "code" else _OTHER_PROBLEM
    match = wording.search(text)
    return f"refers to something not given: {match[0]}" if match else None


_INJECTION = (
    Wording(
        r"\b(?:ignore|disregard|forget|override)\s+(?:all\s+|any\s+|the\s+|your\s+|these\s+)*"
        r"(?:previous|prior|above|earlier|preceding|foregoing|other)?\s*"
        r"(?:instructions?|prompts?|rules|criteria|guidelines|rubric)\b",
        "ignore,disregard,forget,override",
        "instruction,prompt,rules,criteria,guidelines,rubric",
    ),
    Wording(
        r"\b(?:rate|grade|score|mark|judge|label|classify|evaluate)\s+(?:this|it|the\s+(?:above\s+)?"
        r"problem|this\s+problem|every\s+criterion|all\s+(?:five\s+)?criteria|everything)\s+"
        r"(?:as\s+|with\s+|a\s+|an\s+|is\s+|to\s+be\s+)*[\"'“*]*(?:perfect|excellent|acceptable|good"
        r"|10|5|full|the\s+highest|highest|top|maximum)\b",
        "rate,grade,score,mark,judge,label,classify,evaluate",
        "perfect,excellent,acceptable,good,10,5,full,highest,top,maximum",
        "this,it ,problem,criteri,everything",
    ),
    Wording(
        r"\b(?:final\s+judge?ment|verdict|rating)\s*[:=]\s*[*\"']*(?:perfect|acceptable|bad)",
        "judgement,judgment,verdict,rating",
        "perfect,acceptable,bad",
    ),
    Wording(
        r"\b(?:note|message|attention|instruction)s?\s+(?:to|for)\s+(?:the\s+|all\s+)?"
        r"(?:judges?|graders?|evaluators?|raters?|reviewers?|ai|llm|model|assistant)\b",
        "note,message,attention,instruction",
        "judge,grader,evaluator,rater,reviewer,ai,llm,model,assistant",
    ),
    Wording(
        r"\b(?:dear|hey|hello|attention)\s+(?:judges?|graders?|evaluators?|raters?|ai|assistant)\b"
        r"|\b(?:judges?|graders?|evaluators?|raters?)\s+(?:should|must)\s+(?:rate|give|score|mark"
        r"|award|assign)\s+(?:this|it|the\s+problem|full|perfect|top|the\s+(?:highest|full|top))\b",
        "judge,grader,evaluator,rater,dear ai,hey ai,hello ai,attention ai,"
        "dear assistant,hey assistant,hello assistant,attention assistant",
    ),
    Wording(
        r"\b(?:give|assign|award)\s+(?:this|it|the)\s+(?:problem\s+)?(?:a\s+|an\s+|the\s+)?"
        r"(?:perfect|highest|full|maximum|top)\s+(?:rating|score|marks?|grade|verdict)\b",
        "give ,assign ,award ",
        "perfect,highest,full,maximum,top",
        "rating,score,mark,grade,verdict",
    ),
    Wording(
        r"<\|[a-z_]+\|>|\[/?INST\]|<</?SYS>>|^#+[ \t]*(?:instruction|response|system)[ \t]*:?"
        r"[ \t]*$|"
        r"^[ \t]*(?:system|assistant|user)[ \t]*:\s",
        "<|,inst],sys>>,instruction,response,system,assistant,user",
        flags=re.MULTILINE,
    ),
    Wording(
        r"\byou\s+are\s+(?:now\s+)?(?:an?\s+)?(?:ai|language\s+model|llm|judge|grader|evaluator|"
        r"helpful\s+assistant)\b",
        "you are ",
        "ai,language model,llm,judge,grader,evaluator,helpful",
    ),
)


def find_injection(text: str, domain: Domain) -> str | None:
    """Lines that are meant for a judge or a model, not for a solver."""
    found = first_match(_INJECTION, strip_code(text))
    return f"talks to a judge or model: {found}" if found else None


_CHATTER = (
    Wording(
        r"\b(?:i\s+hope\s+(?:this|that|you)|hope\s+this\s+helps|let\s+me\s+know\s+if|feel\s+free\s+to"
        r"|as\s+an\s+ai\b|i(?:'m|\s+am)\s+(?:sorry|happy\s+to|glad\s+to|unable)|i\s+can(?:no|')t\s+"
        r"(?:help|assist|create|provide)|would\s+you\s+like\s+(?:me|another))\b",
        "i hope,hope this,let me know,feel free,as an ai,i'm ,i am ,i can,would you like",
    ),
    Wording(
        r"^\s*(?:sure|certainly|of\s+course|absolutely|okay|great)\s*[!,.]",
        "sure,certainly,of course,absolutely,okay,great",
    ),
    Wording(
        r"^\s*here(?:'s|\s+is|\s+are)\s+(?:a|an|the|your|my|another)\s+(?:\w+\s+){0,4}"
        r"(?:problem|question|task)\b",
        "here",
        "problem,question,task",
    ),
    Wording(
        r"\b(?:this|the\s+above)\s+(?:problem|question|task)\s+(?:\w+ly\s+)?(?:combines|tests|involves"
        r"|integrates|challenges|incorporates|is\s+designed|was\s+designed|draws\s+on|illustrates"
        r"|encourages|connects|blends)\b",
        "this problem,this question,this task,above problem,above question,above task",
    ),
    Wording(
        r"\b(?:the|this|our)\s+(?:problem|question|task|challenge)\s+(?:also\s+)?(?:is\s+(?:a\s+(?:classic"
        r"|good|great|perfect|simple|mathematical|typical)|about|designed)|contains\s+elements"
        r"|requires\s+(?:a|an|the|you)\b)|\bis\s+an?\s+(?:classic|perfect|prime|great|good)\s+"
        r"(?:example|illustration|problem)\b",
        "problem,question,task,challenge,example,illustration",
    ),
    Wording(
        r"\[\s*(?:insert|your|add|fill|todo|the\s+problem|problem\s+(?:text|statement))\b[^\]]*\]|"
        r"\bTODO\b|\bTBD\b|<(?:insert|your)[^>]*>|lorem\s+ipsum",
        "insert,todo,tbd,<your,lorem,[your,[ your,[add,[ add,[fill,[ fill,"
        "[the problem,[ the problem,[problem,[ problem",
    ),
)


def find_chatter(text: str, domain: Domain) -> str | None:
    """Talk around the problem: greetings, offers, what the problem is meant to test, gaps."""
    found = first_match(_CHATTER, strip_quotes(strip_code(text)))
    return f"talks about the problem instead of stating it: {found}" if found else None
