"""Programming problems of the demo: statement, reasoning and a Python program on stdin/stdout.

Fold problems (read numbers, keep or change some, combine them) are put together from hand-written
parts; the others stand alone. A test runs every program on its example.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CodeExample:
    """A problem with worked reasoning, a program, and one checked input/output pair."""

    statement: str
    thinking: str
    program: str
    example_input: str
    example_output: str
    difficulty: str = "EASY"

    @property
    def question(self) -> str:
        """The statement with its example."""
        return (
            f"{self.statement}\n\nExample input\n{self.example_input}\n\n"
            f"Example output\n{self.example_output}"
        )

    @property
    def response(self) -> str:
        """The assistant's turn as the sources write it."""
        return (
            f"<think>\n{self.thinking}\n</think>\n\nThis program reads the input and prints the "
            f"result.\n\n```python\n{self.program}\n```"
        )


@dataclass(frozen=True, slots=True)
class _Pick:
    """Which numbers of the list count."""

    words: str
    reason: str
    code: str
    keeps: Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class _Fold:
    """What is printed of them."""

    words: str
    reason: str
    code: str
    combine: Callable[[list[int]], int]


_PICKS = (
    _Pick("that are even", "A number is even when x % 2 == 0.", "x % 2 == 0", lambda x: x % 2 == 0),
    _Pick("that are odd", "A number is odd when x % 2 != 0.", "x % 2 != 0", lambda x: x % 2 != 0),
    _Pick("that are negative", "A number is negative when x < 0.", "x < 0", lambda x: x < 0),
    _Pick(
        "that are divisible by 3",
        "Divisibility by 3 means x % 3 == 0.",
        "x % 3 == 0",
        lambda x: x % 3 == 0,
    ),
    _Pick("that are greater than 10", "The test is x > 10.", "x > 10", lambda x: x > 10),
    _Pick(
        "that end in the digit 5",
        "The last digit is abs(x) % 10.",
        "abs(x) % 10 == 5",
        lambda x: abs(x) % 10 == 5,
    ),
)
_FOLDS = (
    _Fold("the sum of those", "Adding nothing gives 0, which is what sum does.", "sum(kept)", sum),
    _Fold("how many there are of those", "The count is the list's length.", "len(kept)", len),
    _Fold(
        "the largest of those, or 0 if there is none",
        "max needs a default for an empty list.",
        "max(kept, default=0)",
        lambda kept: max(kept, default=0),
    ),
    _Fold(
        "the sum of the squares of those",
        "Square each one and add the squares.",
        "sum(x * x for x in kept)",
        lambda kept: sum(x * x for x in kept),
    ),
)
_SAMPLE = [12, -5, 7, 15, 0, -9, 4, 25]


def _fold_example(pick: _Pick, fold: _Fold) -> CodeExample:
    kept = [x for x in _SAMPLE if pick.keeps(x)]
    output = str(fold.combine(kept))
    return CodeExample(
        statement=(
            "The first line holds n. The second line holds n integers. Look at the integers "
            f"{pick.words} and print {fold.words}."
        ),
        thinking=(
            f"Read n, then the list. {pick.reason} Keep the numbers that pass. {fold.reason} "
            f"On the example the kept numbers are {', '.join(map(str, kept))}, so the output "
            f"is {output}. One pass over the list is enough."
        ),
        program=(
            "n = int(input())\nnumbers = list(map(int, input().split()))\n"
            f"kept = [x for x in numbers if {pick.code}]\nprint({fold.code})"
        ),
        example_input=f"{len(_SAMPLE)}\n{' '.join(map(str, _SAMPLE))}",
        example_output=output,
    )


_SINGLES = (
    CodeExample(
        "Read a word and print it backwards.",
        "A string can be reversed by the slice [::-1]. Strip the newline first, otherwise it would "
        "come out in front. On the example lemon becomes nomel.",
        "word = input().strip()\nprint(word[::-1])",
        "lemon",
        "nomel",
    ),
    CodeExample(
        "Read a word. Print YES if it reads the same from both ends and NO otherwise.",
        "Compare the word with its reverse. The example level equals its reverse, so print YES.",
        "word = input().strip()\nprint('YES' if word == word[::-1] else 'NO')",
        "level",
        "YES",
    ),
    CodeExample(
        "Read an integer n and print its factorial.",
        "Multiply 1 up to n. For n = 0 the product is empty and equals 1. Python integers do not "
        "overflow. On the example 5! = 120.",
        "n = int(input())\nresult = 1\nfor k in range(2, n + 1):\n    result *= k\nprint(result)",
        "5",
        "120",
    ),
    CodeExample(
        "Read n and print the n-th Fibonacci number, where F(1) = F(2) = 1.",
        "Keep two neighbours a and b and move on n - 1 times. Starting with 1, 1 the sequence is "
        "1, 1, 2, 3, 5, 8, 13, so F(7) = 13.",
        "n = int(input())\na, b = 1, 1\nfor _ in range(n - 1):\n    a, b = b, a + b\nprint(a)",
        "7",
        "13",
    ),
    CodeExample(
        "Read an integer n > 1. Print PRIME if it is prime and COMPOSITE otherwise.",
        "Test divisors up to the square root: if n = a * b then one factor is at most sqrt(n). "
        "On the example 91 = 7 * 13, so it is composite.",
        "n = int(input())\nis_prime = all(n % d for d in range(2, int(n**0.5) + 1))\n"
        "print('PRIME' if is_prime else 'COMPOSITE')",
        "91",
        "COMPOSITE",
        "MEDIUM",
    ),
    CodeExample(
        "Two integers stand on one line. Print their greatest common divisor.",
        "Euclid: replace (a, b) by (b, a % b) until b is 0. On the example 84, 36 goes to 36, 12 "
        "and then 12, 0. The answer is 12.",
        "a, b = map(int, input().split())\nwhile b:\n    a, b = b, a % b\nprint(abs(a))",
        "84 36",
        "12",
    ),
    CodeExample(
        "Read a line of words. Print the longest word; of several, the first one.",
        "max with key=len returns the first of equal maxima. In the example the lengths are 3, 5 "
        "and 5, so the first word with 5 letters wins.",
        "words = input().split()\nprint(max(words, key=len))",
        "one three seven",
        "three",
    ),
    CodeExample(
        "Read a line of words and print how many different words it has. Case matters.",
        "A set keeps each word once, so its size is the answer. In the example the words are red, "
        "blue and red: two different ones.",
        "words = input().split()\nprint(len(set(words)))",
        "red blue red",
        "2",
    ),
    CodeExample(
        "The first line holds n, the second n integers. Print them in increasing order.",
        "Sort the list and join the numbers with spaces. The sort compares integers, not strings, "
        "so 10 comes after 9.",
        "n = int(input())\nnumbers = sorted(map(int, input().split()))\nprint(*numbers)",
        "4\n10 9 3 7",
        "3 7 9 10",
    ),
    CodeExample(
        "Read a string of brackets ( and ). Print BALANCED if they match and BROKEN otherwise.",
        "Walk from left to right with a depth. An opening bracket adds 1, a closing one takes 1 "
        "away. The depth may never be negative and must end at 0. The example ends at 0.",
        "depth, ok = 0, True\nfor c in input().strip():\n    depth += 1 if c == '(' else -1\n"
        "    ok = ok and depth >= 0\nprint('BALANCED' if ok and depth == 0 else 'BROKEN')",
        "(()())",
        "BALANCED",
        "MEDIUM",
    ),
    CodeExample(
        "The first line holds n, the second n integers. Print the largest sum of a run of "
        "neighbouring numbers that is not empty.",
        "Kadane: the best run that ends here is x alone or x after the best run before it. Keep "
        "the overall best. In the example 4, -1, 2 gives 5.",
        "n = int(input())\nnumbers = list(map(int, input().split()))\nbest = here = numbers[0]\n"
        "for x in numbers[1:]:\n    here = max(x, here + x)\n    best = max(best, here)\n"
        "print(best)",
        "5\n-2 4 -1 2 -6",
        "5",
        "HARD",
    ),
    CodeExample(
        "Coins of 1, 5 and 10 units exist. Read an amount and print the fewest coins that make it.",
        "Each coin divides the next larger one, so the greedy choice is best: take tens, then "
        "fives, then ones. For 28 that is 2 + 1 + 3 = 6 coins.",
        "n = int(input())\ncoins = 0\nfor value in (10, 5, 1):\n    coins += n // value\n"
        "    n %= value\nprint(coins)",
        "28",
        "6",
        "MEDIUM",
    ),
    CodeExample(
        "Stairs have n steps and you climb one or two at a time. Print the number of ways to the "
        "top.",
        "The last move is one step or two, so ways(n) = ways(n - 1) + ways(n - 2) with ways(0) = "
        "ways(1) = 1. For n = 5 the values are 1, 1, 2, 3, 5, 8.",
        "n = int(input())\na, b = 1, 1\nfor _ in range(n):\n    a, b = b, a + b\nprint(a)",
        "5",
        "8",
        "MEDIUM",
    ),
    CodeExample(
        "Read an integer n and print its binary form without a prefix.",
        "format(n, 'b') gives the binary digits. For 13 = 8 + 4 + 1 they are 1101.",
        "n = int(input())\nprint(format(n, 'b'))",
        "13",
        "1101",
    ),
    CodeExample(
        "Read a line and print it with every run of the same letter replaced by the letter and "
        "the run's length.",
        "itertools.groupby yields the runs. For each run print its letter and its length. The "
        "example aabbb has a run of 2 and a run of 3.",
        "from itertools import groupby\n\nruns = groupby(input().strip())\n"
        "print(''.join(f'{c}{len(list(g))}' for c, g in runs))",
        "aabbb",
        "a2b3",
        "MEDIUM",
    ),
    CodeExample(
        "Read two dates as day numbers a and b on one line and print how many Mondays lie "
        "in [a, b], if day 1 is a Monday.",
        "Day d is a Monday when (d - 1) % 7 == 0. Up to day d there are (d + 6) // 7 Mondays. "
        "Subtract those before a. For 1 and 15 these are days 1, 8 and 15.",
        "a, b = map(int, input().split())\nprint((b + 6) // 7 - (a + 5) // 7)",
        "1 15",
        "3",
        "MEDIUM",
    ),
)


def make_code_examples() -> list[CodeExample]:
    """All problems: the single ones first, then every pick with every fold."""
    return [*_SINGLES, *(_fold_example(pick, fold) for fold in _FOLDS for pick in _PICKS)]
