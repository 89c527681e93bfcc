"""What a token of :func:`pipeline.matching.tokenize` means for comparing problems.

Rewordings keep numbers and the words that carry a problem, and change the others: articles,
commands ("find", "determine"), letters of variables, endings, and a few words that everybody swaps
("largest", "greatest"). So every token is levelled to a *form*:

* a number stays, and a written one becomes digits;
* a variable (one letter, or the name of a Greek one) becomes ``§``;
* a stop word or command becomes nothing for the bag of words, and itself for n-grams;
* another word becomes its stem, or the first word of its group of synonyms.
"""

from __future__ import annotations

from functools import cache, lru_cache

from pipeline.matching import NUMBER_WORDS

VARIABLE = "§"
OPERATORS = frozenset(["-", "+", "*", "/", "^", "=", "<", ">", "%", "!", "<=", ">=", "!="])

_GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi "
    "rho sigma tau upsilon phi varphi chi psi omega"
)
_STOP = """
an the this that these those there here it its he she they them their his her him we us our you your
i me my who whom whose which what when where why how is are was were be been being am do does did
done has have had having can could will would shall should may might must and or but nor so yet if
then else than of in on at by to from for with without into onto over under between among about as
up out off upon per via within such some any all each every both either also only just not no whole
let suppose given give gives giving consider considered assume denote denotes denoted find finds
determine determines compute computes computed calculate calculated evaluate write writes written
express expressed state show shows shown prove answer answers solve simplify simplified say please
output return returns report print get decide get take takes taken make makes making use using used
form forms formed value values problem question expression equal equals many much exactly precisely
possible possibly way ways certain one ones same first now hence thus therefore while again already
ever example examples instance namely ie eg etc note notes call called calls known follow following
follows below above property properties exist exists existing result results resulting want wants
need needs needed goal become becomes otherwise whether respectively corresponding special
define defines defined satisfy satisfies satisfied satisfying that's what's text quad qquad begin
end array matrix pmatrix bmatrix vmatrix cases align aligned prime overline underline widehat boxed
overrightarrow overleftrightarrow overset underset cfrac tag hline cline tabular multicolumn label
quantity s t re ll ve d implement def program python code task lowest terms own once simply just
simplest notation other another others together count counts counted counting obtain
obtains obtained get gets getting there required requires require respective
"""
"""Words and commands that problems can do without, and macros that say how something looks."""
_SYNONYMS = """
largest greatest maximum maximal biggest max most maximize maximise highest maximizes longest
smallest least minimum minimal min fewest minimize minimise minimizes shortest
probability chance likelihood odds
average mean arithmetic-mean
integer integers int ints whole-number
number numbers
real reals
positive positives
divide divides divided division dividing divisible divisibility
multiple multiples
perimeter circumference
sum total totals add adds added adding sums summed addition altogether plus
difference differ differs subtract subtracts minus
product multiply multiplied times
remainder residue modulo mod pmod bmod equiv modulus
distinct different
arrange arrangement arrangements arranged order ordering orderings sort sorted sorts sorting
configuration configurations
identical equivalent indistinguishable
connect connects connected connecting join joins joined joining
split splits partition partitioned partitions
flip flips flipped toss tosses tossed
roll rolls rolled rolling throw throws thrown
beside
choose chosen chooses pick picks picked select selects selected selecting picking choosing chooses
random randomly
color colors colored colour colours coloured paint painted paints coloring colouring
circle circles circular circ round around
center centre centers centres centered centred
side sides edge edges
vertex vertices corner corners
point points
segment segments
perpendicular perp orthogonal
parallel parallels
triangle triangles triangular
rectangle rectangles rectangular
angle angles
length lengths long
radius radii
adjacent neighbouring neighboring neighbor neighbour neighbors neighbours next beside
sequence sequences progression progressions
string strings str
list lists array arrays
element elements entry entries item items
letter letters character characters char chars
function functions
digit digits
sqrt root square-root roots
factor factors divisor divisors
coprime relatively
hour hours hr hrs
minute minutes mins
kilometer kilometers km kilometre kilometres kms
meter meters metre metres
centimeter centimeters cm
mile miles
percent percentage percentages
dollar dollars usd
cent cents
remain remains remaining remained left rest leftover
start begins begin starts starting started beginning
contain contains containing hold holds include includes including
figure diagram picture
circumcircle circumscribed
delete deletes deleted remove removes removed removing
create build construct
rotate rotation rotations rotated
reflect reflection reflections
intersect intersects intersection intersections meet meets cross crosses
tangent touch touches touching tangential
row rows
child children kid kids
person persons people
even evens
prime primes
exam test examination
common shared share shares
near nearest closest closer nearer nearby
less fewer smaller below
greater larger bigger exceed exceeds exceeding
travel travels travelled traveled far distance distances
inside interior
big large
inclusive inclusively
math maths mathematics mathematical
occur occurs occurrence occurrences appear appears
replace replaces replaced change changes changed changing
position positions place places placed placing
ascending increasing increase increases increased
descending decreasing decreases decrease decreased reduce reduces reduced lower lowers lowered
line lines
belong belongs member members
word words
set sets
height heights
sit sits seated seating seatings sat seat seats
equation equations
weigh weighs weight weights
"""
"""Words that reworders swap, a group a line; the first stands for all."""
_ENDINGS = ("s", "es", "ed", "d", "ing", "ings", "e", "y", "ies", "ly", "ation", "ations")
_SUFFIXES = ("ations", "ation", "ings", "ing", "edly", "ed", "ies", "es", "s", "ly", "e", "y")
_BY_LAST_LETTER = {
    letter: tuple(suffix for suffix in _SUFFIXES if suffix[-1] == letter)
    for letter in {suffix[-1] for suffix in _SUFFIXES}
}


def _groups() -> dict[str, str]:
    forms: dict[str, str] = {}
    for line in _SYNONYMS.split("\n"):
        words = line.split()
        for word in words:
            forms.setdefault(word, words[0])
    return forms


_FORMS = _groups()
_STOP_WORDS = frozenset(_STOP.split())
_VARIABLES = frozenset(_GREEK.split())


def is_variable(token: str) -> bool:
    """Whether a token names a variable."""
    return (len(token) == 1 and token.isalpha()) or token in _VARIABLES


@lru_cache(maxsize=65536)
def content_form(token: str) -> str:
    """The form of a number or of a word that carries meaning; empty for everything else."""
    return _content_form(token)


def _content_form(token: str) -> str:
    if token in OPERATORS or is_variable(token):
        return ""
    if token[0].isdigit():
        return token
    if token in NUMBER_WORDS:
        return NUMBER_WORDS[token]
    if token in _FORMS:
        return _FORMS[token]
    stem = "" if token in _STOP_WORDS else _stem(token)
    return "" if stem in _STOP_WORDS else stem


def spellings(form: str) -> list[str]:
    """Tokens that have this form, the usual ones; for looking forms up by a token's hash."""
    tokens = {form, *_spelled_out().get(form, ())}
    tokens.update(form + ending for ending in _ENDINGS)
    tokens.update(form + form[-1] + ending for ending in ("ed", "ing"))
    # Each is asked for once, so a cache would only forget what texts ask for.
    return sorted([token for token in tokens if _content_form(token) == form])


@cache
def _spelled_out() -> dict[str, list[str]]:
    tokens: dict[str, list[str]] = {}
    for token, form in (_FORMS | NUMBER_WORDS).items():
        tokens.setdefault(form, []).append(token)
    return tokens


def is_stop_word(token: str) -> bool:
    """Whether problems can do without this word."""
    return token in _STOP_WORDS


def stop_words() -> list[str]:
    """Words without a form."""
    return sorted(_STOP_WORDS)


def variables() -> list[str]:
    """Tokens that name variables: Latin letters and names of Greek ones."""
    return [*map(chr, range(ord("a"), ord("z") + 1)), *sorted(_VARIABLES)]


@lru_cache(maxsize=65536)
def gram_form(token: str) -> str:
    """What a token is in an n-gram."""
    return VARIABLE if is_variable(token) else content_form(token) or token


def _stem(word: str) -> str:
    for suffix in _BY_LAST_LETTER.get(word[-1:], ()):
        stem = word.removesuffix(suffix)
        if suffix == "ies" and stem != word and len(stem) == 2:
            return f"{stem}y"
        if stem != word and len(stem) >= 3:
            if suffix in {"ed", "ing"} and len(stem) > 3 and stem[-1] == stem[-2]:
                stem = stem[:-1]
            return _FORMS.get(stem, stem)
    return word
