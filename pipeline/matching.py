"""Texts as token sequences for matching: notation is levelled, numbers and operators are kept.

Only for comparing: stripping LaTeX raises accidental hits, which is why matches are scored by
coverage and by numbers, never by a single shared n-gram.
"""

from __future__ import annotations

import re
import unicodedata

_FIGURE = re.compile(
    r"\[asy\].*?(\[/asy\]|\Z)|\\begin\{(tikzpicture|asy)\}.*?\\end\{\2\}", re.DOTALL
)
_DROPPED_MACROS = re.compile(
    r"\\(left|right|bigg?[lr]?|[dt]?frac|displaystyle|text(bf|it|rm)?|math(rm|bf|bb|cal|it|sf)|"
    r"mbox|operatorname|quad|qquad|begin|end|hspace|vspace|limits|nolimits|[,;:! ])(?![a-zA-Z])",
    re.IGNORECASE,
)
_SYMBOLS = (
    (re.compile(r"\\(leq?|leqslant)(?![a-z])|≤"), " <= ", ("\\le", "≤")),
    (re.compile(r"\\(geq?|geqslant)(?![a-z])|≥"), " >= ", ("\\ge", "≥")),
    (re.compile(r"\\(neq?)(?![a-z])|≠"), " != ", ("\\ne", "≠")),
    (re.compile(r"\\(cdot|times)(?![a-z])|[×·]"), " * ", ("\\cdot", "\\times", "×", "·")),
    (re.compile(r"\\div(?![a-z])|÷"), " / ", ("\\div", "÷")),
    (re.compile(r"\\[cl]?dots(?![a-z])|…|\.\.\."), " ", ("dots", "…", "...")),
    (
        re.compile(r"\^?\s*\{?\\(circ|degree)(?![a-z])\s*\}?|°"),
        " degrees ",
        ("\\circ", "\\degree", "°"),
    ),
    (
        re.compile(r"(?<=\d),(?=\d{3}(?!\d))|(?<=\d)\\,(?=\d{3}(?!\d))|(?<=\d)\{,\}(?=\d{3})"),
        "",
        (",",),
    ),
    (re.compile(r"−|–"), "-", ("−", "–")),
)
"""Pattern, what stands for it, and texts without which it cannot match: looking for these first
makes levelling twice as fast."""
_TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+|<=|>=|!=|[-+*/^=<>%!]")
_SENTENCE_END = re.compile(r"[.?!](?=\s|$)|\n\n")


def cut_figures(text: str) -> str:
    """The text without drawing code, which dominates any similarity it takes part in."""
    return _FIGURE.sub(" ", text) if "[asy]" in text or "\\begin{" in text else text


def figures_of(text: str) -> list[str]:
    """The drawing code that :func:`cut_figures` cuts."""
    return [match[0] for match in _FIGURE.finditer(text)]


def tokenize(text: str) -> list[str]:
    """Words, numbers and operators of a text, lower case, LaTeX levelled."""
    text = unicodedata.normalize("NFKC", cut_figures(text)).lower()
    for pattern, replacement, needed in _SYMBOLS:
        if any(part in text for part in needed):
            text = pattern.sub(replacement, text)
    if "\\" in text:
        text = _DROPPED_MACROS.sub(" ", text)
    return _TOKEN.findall(text)


_UP_TO_TWENTY = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_TENS = "thirty forty fifty sixty seventy eighty ninety hundred"
NUMBER_WORDS = {
    **{word: str(value) for value, word in enumerate(_UP_TO_TWENTY.split(), start=2)},
    **{word: str(10 * value) for value, word in enumerate(_TENS.split(), start=3)},
    "thousand": "1000",
}
"""Written numbers as digits; "one" is left out because it is mostly a pronoun."""


def numbers_of(tokens: list[str]) -> list[str]:
    """The numbers among tokens, written ones as digits, sorted."""
    return sorted(
        NUMBER_WORDS.get(token, token)
        for token in tokens
        if token[0].isdigit() or token in NUMBER_WORDS
    )


_MARKED = re.compile(r"\b[A-Z]{2,}\b|[\"“]([A-Za-z]+)[\"”]|``([A-Za-z]+)''")
_MACRO = re.compile(r"\\[A-Za-z]+")


def marked_words(text: str) -> frozenset[str]:
    """Words that a text sets in capitals or in quotes, lower case."""
    plain = _MACRO.sub(" ", cut_figures(text))
    return frozenset(
        (match[1] or match[2] or match[0]).lower() for match in _MARKED.finditer(plain)
    )


def sentences_of(text: str) -> list[str]:
    """The sentences of a text that hold words or numbers."""
    pieces = _SENTENCE_END.split(cut_figures(text))
    return [piece for piece in pieces if piece and _TOKEN.search(piece)]


def last_sentence(text: str) -> list[str]:
    """Tokens of a text's last sentence that has any."""
    for piece in reversed(_SENTENCE_END.split(cut_figures(text))):
        tokens = tokenize(piece or "")
        if tokens:
            return tokens
    return []


def count_words(text: str) -> int:
    """Words as a reader counts them, figures left out."""
    return len(cut_figures(text).split())
