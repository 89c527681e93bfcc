"""Mathematics families of the demo: each draws small numbers and works the solution out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from random import Random


@dataclass(frozen=True, slots=True)
class MathExample:
    """A problem with its worked reasoning and final answer."""

    question: str
    thinking: str
    answer: str

    @property
    def response(self) -> str:
        """The assistant's turn as the sources write it."""
        return f"<think>\n{self.thinking}\n</think>\n\nThe answer is $\\boxed{{{self.answer}}}$."


_NAMES = ("Ines", "Tomas", "Freya", "Kofi", "Mira", "Anton", "Selma", "Ravi")
_GOODS = ("plums", "marbles", "stamps", "shells", "tickets", "beads")


def shop_total(rng: Random) -> MathExample:
    """Two products, added."""
    name, goods = rng.choice(_NAMES), rng.choice(_GOODS)
    a, b, c, d = rng.randint(3, 9), rng.randint(2, 8), rng.randint(3, 9), rng.randint(2, 8)
    return MathExample(
        f"{name} fills {a} bags with {b} {goods} each and {c} boxes with {d} {goods} each. "
        f"How many {goods} does {name} use?",
        f"The bags hold {a} * {b} = {a * b} {goods}. The boxes hold {c} * {d} = {c * d} {goods}. "
        f"Together that is {a * b} + {c * d} = {a * b + c * d}.",
        str(a * b + c * d),
    )


def power_remainder(rng: Random) -> MathExample:
    """A power's remainder by its cycle."""
    base, modulus, exponent = rng.randint(2, 9), rng.choice((5, 7, 11)), rng.randint(20, 99)
    cycle, value = [], 1
    while True:
        value = value * base % modulus
        cycle.append(value)
        if value in (0, 1):
            break
    length = len(cycle)
    result = pow(base, exponent, modulus)
    shown = ", ".join(map(str, cycle))
    if value == 0:
        reason = f"{base} is a multiple of {modulus}, so every power leaves 0."
    else:
        reason = (
            f"The powers of {base} leave the remainders {shown} and then repeat, "
            f"so the cycle has length {length}. Since {exponent} = {exponent // length} * {length} "
            f"+ {exponent % length}, the remainder is that of {base}^{exponent % length}: {result}."
        )
    return MathExample(
        f"What is the remainder when ${base}^{{{exponent}}}$ is divided by ${modulus}$?",
        f"Work modulo {modulus}. {reason}",
        str(result),
    )


def linear_equation(rng: Random) -> MathExample:
    """Ax + b = cx + d with a whole solution."""
    x, a, c = rng.randint(2, 12), rng.randint(5, 9), rng.randint(2, 4)
    b = rng.randint(1, 20)
    d = a * x + b - c * x
    return MathExample(
        f"Solve the equation ${a}x + {b} = {c}x + {d}$.",
        f"Bring the x terms to one side: {a}x - {c}x = {d} - {b}. So {a - c}x = {d - b}, and "
        f"x = {d - b} / {a - c} = {x}. Check: {a} * {x} + {b} = {a * x + b} and {c} * {x} + {d} = "
        f"{c * x + d}.",
        str(x),
    )


def two_unknowns(rng: Random) -> MathExample:
    """Sum and difference of two numbers."""
    large, small = rng.randint(15, 40), rng.randint(2, 14)
    total, gap = large + small, large - small
    return MathExample(
        f"The sum of two numbers is ${total}$ and their difference is ${gap}$. "
        "Find the larger number.",
        f"Let the numbers be x and y with x + y = {total} and x - y = {gap}. Adding gives "
        f"2x = {total + gap}, so x = {large}. Then y = {total} - {large} = {small}.",
        str(large),
    )


def arithmetic_sequence(rng: Random) -> MathExample:
    """The n-th term."""
    first, step, n = rng.randint(1, 15), rng.randint(2, 9), rng.randint(10, 40)
    term = first + (n - 1) * step
    return MathExample(
        f"A sequence starts ${first}, {first + step}, {first + 2 * step}, \\ldots$ and goes on "
        f"with the same step. Find its term number ${n}$.",
        f"The step is {first + step} - {first} = {step}. Term n is {first} + (n - 1) * {step}. "
        f"For n = {n} this is {first} + {n - 1} * {step} = {first} + {(n - 1) * step} = {term}.",
        str(term),
    )


def geometric_sum(rng: Random) -> MathExample:
    """A short geometric series."""
    first, ratio, n = rng.randint(1, 5), rng.randint(2, 3), rng.randint(4, 6)
    terms = [first * ratio**k for k in range(n)]
    return MathExample(
        f"Compute the sum of the first ${n}$ terms of the geometric sequence with first term "
        f"${first}$ and ratio ${ratio}$.",
        f"The terms are {', '.join(map(str, terms))}. Adding them up gives "
        f"{' + '.join(map(str, terms))} = {sum(terms)}.",
        str(sum(terms)),
    )


def count_multiples(rng: Random) -> MathExample:
    """Inclusion and exclusion with two divisors."""
    limit, a, b = rng.randint(60, 200), rng.choice((3, 4)), rng.choice((5, 7))
    n_a, n_b, n_ab = limit // a, limit // b, limit // (a * b)
    return MathExample(
        f"How many integers from $1$ to ${limit}$ are divisible by ${a}$ or by ${b}$?",
        f"Multiples of {a}: {n_a}. Multiples of {b}: {n_b}. Multiples of both are multiples of "
        f"{a * b}: {n_ab}. By inclusion and exclusion the count is {n_a} + {n_b} - {n_ab} = "
        f"{n_a + n_b - n_ab}.",
        str(n_a + n_b - n_ab),
    )


def choose_team(rng: Random) -> MathExample:
    """A binomial coefficient."""
    n, k = rng.randint(6, 11), rng.randint(2, 3)
    product = math.prod(range(n - k + 1, n + 1))
    steps = " * ".join(str(n - i) for i in range(k))
    return MathExample(
        f"A club has ${n}$ members. In how many ways can a team of ${k}$ members be chosen?",
        f"Order does not matter. Choosing one after the other gives {steps} = {product} lists, and "
        f"each team appears {math.factorial(k)} times. So there are {product} / "
        f"{math.factorial(k)} = {math.comb(n, k)} teams.",
        str(math.comb(n, k)),
    )


def draw_balls(rng: Random) -> MathExample:
    """Both drawn balls are red."""
    red, blue = rng.randint(3, 7), rng.randint(2, 6)
    total = red + blue
    chance = Fraction(red * (red - 1), total * (total - 1))
    shown = f"\\frac{{{chance.numerator}}}{{{chance.denominator}}}"
    return MathExample(
        f"An urn holds ${red}$ red and ${blue}$ blue balls. Two balls are drawn without putting "
        "the first one back. What is the probability that both are red?",
        f"The first ball is red with probability {red}/{total}. Then {red - 1} of {total - 1} "
        f"balls are red. The product is {red * (red - 1)}/{total * (total - 1)}, which reduces to "
        f"{chance.numerator}/{chance.denominator}.",
        shown,
    )


def triangle_area(rng: Random) -> MathExample:
    """Half of base times height."""
    base, height = 2 * rng.randint(3, 15), rng.randint(4, 19)
    area = base * height // 2
    return MathExample(
        f"A triangle has a base of ${base}$ cm and the height on it is ${height}$ cm. Find its "
        "area in square centimetres.",
        f"The area is half of base times height: {base} * {height} / 2 = {base * height} / 2 = "
        f"{area}.",
        str(area),
    )


def right_triangle(rng: Random) -> MathExample:
    """A scaled Pythagorean triple."""
    a, b, c = rng.choice(((3, 4, 5), (5, 12, 13), (8, 15, 17)))
    k = rng.randint(1, 6)
    p, q, r = a * k, b * k, c * k
    return MathExample(
        f"The legs of a right triangle are ${p}$ and ${q}$. How long is its hypotenuse?",
        f"By Pythagoras the square of the hypotenuse is {p}^2 + {q}^2 = {p * p} + {q * q} = "
        f"{r * r}. The square root of {r * r} is {r}.",
        str(r),
    )


def common_divisor(rng: Random) -> MathExample:
    """Euclid's algorithm, step by step."""
    g = rng.randint(3, 12)
    a, b = g * rng.randint(8, 15), g * rng.randint(3, 7)
    steps, x, y = [], a, b
    while y:
        steps.append(f"{x} = {x // y} * {y} + {x % y}")
        x, y = y, x % y
    return MathExample(
        f"Determine the greatest common divisor of ${a}$ and ${b}$.",
        f"Divide with remainder until nothing is left: {'; '.join(steps)}. "
        f"The last remainder that is not zero is {x}.",
        str(x),
    )


def percent_change(rng: Random) -> MathExample:
    """A price after a discount."""
    price, percent = 20 * rng.randint(2, 20), rng.choice((5, 10, 15, 20, 25, 40))
    off = price * percent // 100
    return MathExample(
        f"A coat costs {price} euros. In a sale its price drops by {percent} percent. "
        "What does it cost now, in euros?",
        f"{percent} percent of {price} is {price} * {percent} / 100 = {off}. "
        f"The new price is {price} - {off} = {price - off}.",
        str(price - off),
    )


def travel_time(rng: Random) -> MathExample:
    """Two walkers meet."""
    u, v, hours = rng.randint(3, 6), rng.randint(4, 9), rng.randint(2, 7)
    distance = (u + v) * hours
    return MathExample(
        f"Two friends start {distance} km apart and walk towards each other, one at {u} km/h and "
        f"the other at {v} km/h. After how many hours do they meet?",
        f"Every hour the gap shrinks by {u} + {v} = {u + v} km. From {distance} km it takes "
        f"{distance} / {u + v} = {hours} hours.",
        str(hours),
    )


def quadratic_roots(rng: Random) -> MathExample:
    """The larger root by factoring."""
    p, q = rng.randint(1, 6), rng.randint(7, 12)
    return MathExample(
        f"Find the larger root of $x^2 - {p + q}x + {p * q} = 0$.",
        f"Two numbers with sum {p + q} and product {p * q} are {p} and {q}. So the polynomial is "
        f"(x - {p})(x - {q}), and its roots are {p} and {q}. The larger one is {q}.",
        str(q),
    )


def digit_sum(rng: Random) -> MathExample:
    """Missing digit by the rule for nine."""
    a, b, c = rng.randint(1, 9), rng.randint(0, 9), rng.randint(0, 9)
    total = a + b + c
    digit = (-total) % 9 or 9
    return MathExample(
        f"The four-digit number ${a}{b}{c}d$ with last digit $d > 0$ is divisible by $9$. "
        "Calculate the digit $d$.",
        f"A number is divisible by 9 when its digit sum is. The known digits add up to {a} + {b} + "
        f"{c} = {total}. The next multiple of 9 above {total} is {total + digit}, so d = "
        f"{total + digit} - {total} = {digit}.",
        str(digit),
    )


FAMILIES: tuple[Callable[[Random], MathExample], ...] = (
    shop_total,
    power_remainder,
    linear_equation,
    two_unknowns,
    arithmetic_sequence,
    geometric_sum,
    count_multiples,
    choose_team,
    draw_balls,
    triangle_area,
    right_triangle,
    common_divisor,
    percent_change,
    travel_time,
    quadratic_roots,
    digit_sum,
)


def make_math_examples(seed: int, per_family: int) -> list[MathExample]:
    """Different examples of every family, families interleaved."""
    rng = Random(seed)
    seen: set[str] = set()
    examples = []
    for _ in range(per_family):
        for family in FAMILIES:
            example = family(rng)
            while example.question in seen:
                example = family(rng)
            seen.add(example.question)
            examples.append(example)
    return examples
