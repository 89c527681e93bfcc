r"""Equivalent rewritings and near misses of gold answers, for ``math_grading.py``.

Each function turns a gold answer into texts as a model would put them into its box: the ``RIGHT``
ones mean the same, the ``WRONG`` ones do not. Forms of sympy come from latex2sympy, not from the
grader's own parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from typing import Any

from pipeline.benchmark_items import MathGold

_INTEGER = re.compile(r"-?\d+")
_DECIMAL = re.compile(r"-?\d*\.\d+")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_BRACKETED = re.compile(r"([\(\[])(.+)([\)\]])")
_BASE = re.compile(r"(\d+)_\{?(\d+)\}?")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?")
_WORD = re.compile(r"\\text\{\s*\(?([A-Za-z]+)\)?\s*\}")
_UNIT_TEXT = re.compile(r"\s*\\(?:text|mbox)\{\s*([a-z]+)\s*\}(\^\d)?$")
_LETTER_NAME = re.compile(r"\s*([A-Za-z](?:\([a-z]\))?)\s*=(.+)")

Rewriting = Callable[[MathGold], Iterator[str]]


def bare(gold: MathGold) -> str:
    """The gold text without dollar signs and the full stop."""
    return gold.text.replace("\\$", "\0").replace("$", "").replace("\0", "\\$").strip().rstrip(".")


def parts_of(gold: MathGold) -> list[str]:
    """Several answers, or none."""
    if gold.parts:
        return list(gold.parts)
    text = bare(gold)
    if re.fullmatch(r"-?\d+(?:\s*,\s*-?\d+)+", text) and not re.fullmatch(
        r"\d{1,3}(,\d{3})+", text
    ):
        return [part.strip() for part in text.split(",")]
    return []


def read_fraction(text: str) -> Fraction | None:
    """The value of an integer, a decimal or a plain fraction."""
    if _INTEGER.fullmatch(text) or _DECIMAL.fullmatch(text):
        return Fraction(text)
    if match := _FRACTION.fullmatch(text):
        return Fraction(int(match[1] + match[2]), int(match[3])) if int(match[3]) else None
    return None


def terminates(value: Fraction) -> bool:
    """Whether a fraction is a finite decimal."""
    below = value.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    return below == 1


def write_decimal(value: Fraction) -> str:
    """A finite decimal, exactly."""
    places = 0
    while (value * 10**places).denominator != 1:
        places += 1
    digits = f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}d}"
    shown = digits[:-places] + "." + digits[-places:] if places else digits
    return ("-" if value < 0 else "") + shown


def split_bracket(text: str) -> tuple[str, list[str], str] | None:
    """Brackets and items of a tuple or an interval that is the whole text."""
    text = text.replace("\\left", "").replace("\\right", "").strip()
    match = _BRACKETED.fullmatch(text)
    if match is None:
        return None
    items, depth, start, inside = [], 0, 0, match[2]
    for place, sign in enumerate(inside):
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            return None
        if sign == "," and depth == 0:
            items.append(inside[start:place].strip())
            start = place + 1
    items.append(inside[start:].strip())
    return (match[1], items, match[3]) if len(items) > 1 else None


def is_plain(gold: MathGold) -> bool:
    """Whether the answer is one number or expression, without words, names and brackets."""
    text = bare(gold)
    return not parts_of(gold) and not re.search(
        r"[=_%,<>]|\\text|\\mbox|\\in\b|\\cup|\\pm|\\geq|\\circ|\\begin|\\\{|\\\$|[A-Za-z]\(", text
    )


def number_of(gold: MathGold) -> Fraction | None:
    """The value of a plain number."""
    return read_fraction(bare(gold)) if is_plain(gold) else None


# Equivalent


def as_it_is(gold: MathGold) -> Iterator[str]:
    yield gold.text


def latex_spelling(gold: MathGold) -> Iterator[str]:
    text = bare(gold)
    yield f"${text}$"
    yield f"\\displaystyle {text} \\,."
    if "\\frac{" in text:
        yield text.replace("\\frac{", "\\dfrac{")
        yield text.replace("\\frac{", "\\tfrac {")
    if "(" in text and "\\left" not in text and ")" in text and "[" not in text:
        yield text.replace("(", "\\left(").replace(")", "\\right)")
    if "\\cdot" in text:
        yield text.replace("\\cdot", "\\times")
    if "-" in text and "\\text" not in text:
        yield text.replace("-", " - ")
    if "\\pi" in text and text.endswith("\\pi"):
        yield text.replace("\\pi", "π")
    if "\\infty" in text:
        yield text.replace("\\infty", "∞").replace("\\cup", "∪")


def fraction_forms(gold: MathGold) -> Iterator[str]:
    text = bare(gold)
    if (match := _FRACTION.fullmatch(text)) is not None and not parts_of(gold):
        yield f"{match[1]}{match[2]}/{match[3]}"
        yield f"\\frac{{{match[1]}{match[2]}}}{{{match[3]}}}"
        yield f"{match[1]}\\frac{{{int(match[2]) * 3}}}{{{int(match[3]) * 3}}}"
        if len(match[2]) == len(match[3]) == 1:
            yield f"{match[1]}\\frac{match[2]}{match[3]}"
    value = number_of(gold)
    if value is not None and value.denominator == 1:
        yield f"\\frac{{{2 * value.numerator}}}{{2}}"
    if value is not None and value.denominator > 1 and abs(value) > 1:
        whole, rest = divmod(abs(value.numerator), value.denominator)
        sign = "-" if value < 0 else ""
        yield f"{sign}{whole}\\frac{{{rest}}}{{{value.denominator}}}"
        yield f"{sign}{whole} {rest}/{value.denominator}"


def decimal_forms(gold: MathGold) -> Iterator[str]:
    value = number_of(gold)
    if value is None or not terminates(value):
        return
    yield write_decimal(value)
    yield write_decimal(value) + ("0" if value.denominator != 1 else ".0")
    if value.denominator != 1:
        yield f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def grouped_digits(gold: MathGold) -> Iterator[str]:
    value = number_of(gold)
    if value is not None and value.denominator == 1 and abs(value) >= 1000:
        for separator in (",", "{,}", ",\\!", "\\,"):
            yield f"{value.numerator:,}".replace(",", separator)


def leading_zeros(gold: MathGold) -> Iterator[str]:
    if gold.kind == "integer":
        yield f"{int(gold.text):03d}"
        yield f"0{gold.text}"


def named(gold: MathGold) -> Iterator[str]:
    text = bare(gold)
    if is_plain(gold) and not re.search(r"[a-z]", re.sub(r"\\[a-z]+", "", text)):
        yield f"x = {text}"
        yield f"AB = {text}"
        yield f"m + n = {text}"
    if (match := _LETTER_NAME.fullmatch(text)) and not parts_of(gold):
        yield match[2].strip()
        yield f"{match[2].strip()} = {match[1]}" if "=" not in match[2] else match[2]
        yield f"{match[1]}={match[2]} + 0"


def units(gold: MathGold) -> Iterator[str]:
    text = bare(gold)
    if is_plain(gold) and not gold.unit and read_fraction(text) is not None:
        yield f"{text} \\text{{ units}}"
        yield f"{text}\\text{{ cm}}^2"
        yield f"{text}^\\circ"
    if _DEGREES.search(text) and not parts_of(gold) and "(" not in text:
        number = _DEGREES.sub("", text)
        yield from (number, f"{number} \\text{{ degrees}}", f"{number}°", f"{number}^{{\\circ}}")
    if (match := _UNIT_TEXT.search(text)) and match.start():
        yield text[: match.start()]
        yield f"{text[: match.start()]} {match[1]}{match[2] or ''}"
    if text.startswith("\\$"):
        yield from (text[2:], text[2:] + "\\text{ dollars}")
    if gold.unit and gold.unit != "%":
        unit = gold.unit.strip("$").replace("^{\\circ}", "")
        if unit and "=" not in text:
            yield from (
                f"{text} \\text{{ {unit}}}",
                f"{text} {unit}",
                f"{text}\\,\\mathrm{{{unit}}}",
            )


def percents(gold: MathGold) -> Iterator[str]:
    text = bare(gold)
    value = number_of(gold)
    if text.endswith("%") or gold.unit == "%":
        number = read_fraction(text.rstrip("%").rstrip("\\ "))
        assert number is not None
        yield from (f"{write_decimal(number)}\\%", f"{write_decimal(number)} %")
        yield from (write_decimal(number), write_decimal(number / 100))
        yield f"{write_decimal(number)} \\text{{ percent}}"
    elif value is not None and 0 < value < 1 and terminates(value) and not gold.unit:
        yield f"{write_decimal(value * 100)}\\%"
    elif value is not None and value > 1 and not gold.unit:
        yield f"{text}\\%"


def orders(gold: MathGold) -> Iterator[str]:
    parts = parts_of(gold)
    if len(parts) > 1 and all("=" not in part or part[0] not in "xyz" for part in parts):
        yield ", ".join(parts)
        yield ", ".join(reversed(parts))
        yield ",".join([*parts[1:], parts[0]])
        yield ", ".join(parts[:-1]) + " \\text{ and } " + parts[-1]
        yield " \\text{ or } ".join(parts)
        yield "\\{" + "; ".join(reversed(parts)) + "\\}"
        yield "}$ and $\\boxed{".join(parts)


def plus_minus(gold: MathGold) -> Iterator[str]:
    text = bare(gold)
    if "\\pm" in text and not text.startswith("\\{"):
        upper, lower = text.replace("\\pm", "+"), text.replace("\\pm", "-")
        yield f"{upper}, {lower}"
        yield f"{lower} \\text{{ and }} {upper}"
    parts = parts_of(gold)
    if (len(parts) == 2 and parts[0] == "-" + parts[1]) or (
        len(parts) == 2 and parts[1] == "-" + parts[0]
    ):
        yield "\\pm " + parts[0].lstrip("-")


def intervals(gold: MathGold) -> Iterator[str]:
    text = re.sub(r"^x\s*\\in\s*", "", bare(gold))
    found = split_bracket(text)
    is_interval = found is not None and (
        "\\infty" in text or found[0] + found[2] in {"(]", "[)", "[]"}
    )
    if not is_interval and gold.kind != "interval":
        return
    if found is None or len(found[1]) != 2 or "\\cup" in text:
        return
    low, high = found[1]
    left, right = ("<" if found[0] == "(" else "\\le"), ("<" if found[2] == ")" else "\\leq")
    yield f"x \\in {text}"
    if "\\infty" in low:
        yield f"x {right} {high}"
    elif "\\infty" in high:
        yield f"x {'>' if left == '<' else chr(92) + 'ge'} {low}"
    else:
        yield f"{low} {left} x {right} {high}"
        falling = {"<": ">", "\\le": "\\geq", "\\leq": "\\geq"}
        yield f"{high} {falling[right]} t {falling[left]} {low}"
        yield f"{found[0]}{low}, {high}{found[2]} \\cup {found[0]}{low}, {high}{found[2]}"


def tuples(gold: MathGold) -> Iterator[str]:
    found = split_bracket(bare(gold))
    if found is None or gold.parts or found[0] + found[2] != "()" or "\\infty" in gold.text:
        return
    yield f"\\left( {' , '.join(found[1])} \\right)"
    names = "abcdefghijklmnopqrstuvwxyz"[: len(found[1])]
    if len(found[1]) <= 4:
        yield f"({','.join(names)}) = ({','.join(found[1])})"
        yield ", ".join(f"{name} = {item}" for name, item in zip(names, found[1], strict=True))


def words(gold: MathGold) -> Iterator[str]:
    if match := _WORD.fullmatch(bare(gold)):
        yield from (
            match[1],
            f"\\text{{{match[1]}}}",
            f"\\textbf{{{match[1]}}}",
            f"\\mathrm{{{match[1]}}}",
        )
        if "(" in gold.text:
            yield from (f"({match[1]})", f"\\textbf{{({match[1]})}}\\ 12", f"\\text{{{match[1]}.}}")
        else:
            yield from (match[1].lower(), match[1].upper())


def matrices(gold: MathGold) -> Iterator[str]:
    text = bare(gold)
    if "pmatrix" not in text:
        return
    yield text.replace("pmatrix", "bmatrix")
    yield text.replace("/", " / ").replace("\\\\", "\\\\\n")
    entries = re.findall(r"-?\d+(?:/\d+)?", text)
    if "&" not in text:
        yield f"({', '.join(entries)})"
        yield f"\\langle {', '.join(entries)} \\rangle"
        yield "\\left(\\begin{array}{c}" + " \\\\ ".join(entries) + "\\end{array}\\right)"


def bases(gold: MathGold) -> Iterator[str]:
    if match := _BASE.fullmatch(bare(gold)):
        yield from (f"{match[1]}_{{{match[2]}}}", match[1], f"({match[1]})_{match[2]}")
        yield f"{match[1]}_{{\\text{{{match[2]}}}}}"


@cache
def to_sympy(text: str) -> Any:
    """latex2sympy's reading of an expression, or none."""
    import sympy
    from math_verify import parse

    found = parse(f"\\boxed{{{text}}}", parsing_timeout=None)
    if not found or not isinstance(found[0], sympy.Expr) or found[0].has(sympy.Float):
        return None
    return found[0]


def sympy_forms(gold: MathGold) -> Iterator[str]:
    import sympy

    text = bare(gold)
    # latex2sympy writes capital letters small.
    if not is_plain(gold) or re.search(r"[!A-Z]|\\binom|\\lfloor|\\lceil|\\log", text):
        return
    value = to_sympy(text)
    if value is None or value.is_Integer:
        return
    forms = [sympy.expand(value), sympy.factor(value), sympy.together(value), sympy.radsimp(value)]
    forms += [value + sympy.Symbol("q") - sympy.Symbol("q"), sympy.nsimplify(value)]
    for form in dict.fromkeys(forms):
        yield sympy.latex(form)
    yield str(sympy.expand(value))
    yield f"{text} + 0"
    yield f"-(-({text}))"


RIGHT: dict[str, Rewriting] = {
    "itself": as_it_is,
    "LaTeX spelling": latex_spelling,
    "fractions": fraction_forms,
    "decimals": decimal_forms,
    "grouped digits": grouped_digits,
    "leading zeros": leading_zeros,
    "names": named,
    "units": units,
    "percent": percents,
    "order of several": orders,
    "plus-minus": plus_minus,
    "intervals": intervals,
    "tuples": tuples,
    "words": words,
    "matrices": matrices,
    "bases": bases,
    "sympy's forms": sympy_forms,
}


# Wrong


def other_digit(gold: MathGold) -> Iterator[str]:
    text = re.sub(r"\\angle[^=]*=", "", bare(gold))  # names have digits too
    digits = [m.start() for m in re.finditer(r"\d", text)]
    for place in {digits[0], digits[-1]} if digits else ():
        if re.search(r"[=]\s*$", text[:place]) and text[place] == "0":
            continue  # 4 = 0 on the right of an equation
        yield text[:place] + str((int(text[place]) + 1) % 9 + 1) + text[place + 1 :]


def other_sign(gold: MathGold) -> Iterator[str]:
    if is_plain(gold) and bare(gold).strip("0.") != "":
        yield f"-({bare(gold)})"
        yield bare(gold)[1:] if bare(gold).startswith("-") else f"-{bare(gold)}"
    found = split_bracket(bare(gold))
    if found is not None and not gold.parts and not re.search(r"\\infty|^0$", found[1][0]):
        first = found[1][0]
        flipped = first[1:] if first.startswith("-") else f"-{first}"
        yield f"{found[0]}{','.join([flipped, *found[1][1:]])}{found[2]}"


def off_by_a_little(gold: MathGold) -> Iterator[str]:
    if is_plain(gold) and not gold.tolerance:
        yield f"{bare(gold)} + 1"
        yield f"2({bare(gold)})" if bare(gold) != "0" else "2"
        yield f"{bare(gold)} + \\frac{{1}}{{1000000007}}"


def rounded(gold: MathGold) -> Iterator[str]:
    value = number_of(gold)
    if value is not None and not terminates(value):
        yield from (f"{float(value):.2f}", f"{float(value):.4f}", f"{float(value):.12f}")
        return
    found = to_sympy(bare(gold)) if value is None and is_plain(gold) else None
    if found is not None and found.is_real and found.is_rational is False:
        yield from (f"{float(found):.3f}", f"{float(found):.10f}")


def other_order(gold: MathGold) -> Iterator[str]:
    found = split_bracket(bare(gold))
    if found is not None and not gold.parts and "\\infty" not in gold.text:
        if found[1] != found[1][::-1]:
            yield f"{found[0]}{','.join(found[1][::-1])}{found[2]}"
    elif gold.parts and all((split_bracket(part) or ("", [], ""))[1] for part in gold.parts):
        flipped = [split_bracket(part) for part in gold.parts]
        texts = [f"({','.join(found[1][::-1])})" for found in flipped if found]
        if {_squeeze(text) for text in texts} != {_squeeze(part) for part in gold.parts}:
            yield ",".join(texts)


def _squeeze(text: str) -> str:
    return re.sub(r"\\left|\\right|\s", "", text)


def one_missing(gold: MathGold) -> Iterator[str]:
    parts = list(dict.fromkeys(parts_of(gold)))
    if len(parts) > 1 and "\\angle" not in gold.text:  # both angles are 90
        yield ", ".join(parts[1:])
        yield ", ".join(parts[:-1])
        yield parts[0]
    if "\\pm" in gold.text and not gold.text.startswith("\\{"):
        yield bare(gold).replace("\\pm", "+")


def one_too_many(gold: MathGold) -> Iterator[str]:
    if "\\text" in gold.text or ("=" in gold.text and not gold.parts) or "\\in" in gold.text:
        return
    if split_bracket(bare(gold)) and not gold.parts:
        return
    yield f"{', '.join(gold.parts) or bare(gold)}, 999983"
    yield f"{', '.join(gold.parts) or bare(gold)} \\text{{ or }} 999983"
    yield f"{'}$ and $' + chr(92) + 'boxed{'}".join([*(gold.parts or [bare(gold)]), "999983"])


def other_bracket(gold: MathGold) -> Iterator[str]:
    text = bare(gold)
    found = split_bracket(text)
    if found is None or gold.parts or len(found[1]) != 2:
        return
    swap = {"(": "[", "[": "(", ")": "]", "]": ")"}
    if "\\infty" not in found[1][0]:
        yield f"{swap[found[0]]}{found[1][0]},{found[1][1]}{found[2]}"
    if "\\infty" not in found[1][1]:
        yield f"{found[0]}{found[1][0]},{found[1][1]}{swap[found[2]]}"


def other_unit(gold: MathGold) -> Iterator[str]:
    text = bare(gold)
    if gold.unit and "=" not in text:
        yield f"{text} \\text{{ apples}}"
        yield f"{text} \\text{{ m}}"
    if match := _UNIT_TEXT.search(text):
        yield f"{text[: match.start()]}\\text{{ dollars}}"
    if text.startswith("\\$"):
        yield f"{text[2:]}\\text{{ cents}}"
    if _DEGREES.search(text) and "(" not in text and not gold.parts:
        yield f"{_DEGREES.sub('', text)}\\text{{ cm}}"


def misplaced_percent(gold: MathGold) -> Iterator[str]:
    value = number_of(gold)
    if value is not None and 0 < value < 1 and terminates(value) and not gold.unit:
        yield from (f"{write_decimal(value)}\\%", f"{write_decimal(value * 100)}")
    if bare(gold).endswith("%"):
        number = read_fraction(bare(gold).rstrip("%").rstrip("\\ "))
        assert number is not None
        yield from (write_decimal(number * 100), write_decimal(number / 100) + "\\%")


def other_base(gold: MathGold) -> Iterator[str]:
    if match := _BASE.fullmatch(bare(gold)):
        yield f"{match[1]}_{{{int(match[2]) + 1}}}"
        yield str(int(match[1], int(match[2])))


def other_words(gold: MathGold) -> Iterator[str]:
    if _WORD.fullmatch(bare(gold)):
        yield from ("\\text{Zelda}", "\\text{(H)}", "H", "42", "\\text{not } " + bare(gold))


def other_matrix(gold: MathGold) -> Iterator[str]:
    text = bare(gold)
    if "pmatrix" in text:
        body = text.split("}", 1)[1].rsplit("\\end", 1)[0]
        rows = [row.strip() for row in body.split("\\\\")]
        yield "\\begin{pmatrix}" + " \\\\ ".join(rows[::-1]) + "\\end{pmatrix}"
        yield "\\begin{pmatrix}" + " & ".join(rows) + "\\end{pmatrix}"


WRONG: dict[str, Rewriting] = {
    "another digit": other_digit,
    "another sign": other_sign,
    "off by a little": off_by_a_little,
    "rounded": rounded,
    "order in tuples": other_order,
    "one of several missing": one_missing,
    "one too many": one_too_many,
    "another bracket": other_bracket,
    "another unit": other_unit,
    "percent misplaced": misplaced_percent,
    "another base": other_base,
    "other words": other_words,
    "another matrix": other_matrix,
}
