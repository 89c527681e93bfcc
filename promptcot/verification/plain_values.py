"""Python values as one line of text, between processes that do not trust each other.

Stdlib only, because the copy inside the sandbox runs alone. What a program returned becomes data of
built-in types and nothing else: no class, method or comparison of the program comes along. Lists,
numbers, texts, booleans and ``None`` are written as in JSON; everything else is an object with one
key that names its type. What has no such form is an ``Opaque``, equal to nothing.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

_SMALL = 1 << 63
_MOST_ITEMS = 1_000_000
"""Of an iterator, which may have no end."""


class Opaque:
    """A value that cannot be sent; equal to nothing, itself included."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<{self.kind}>"

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def encode(value: object) -> str:
    """One line of ASCII.

    Raises:
        RecursionError: The value is nested too deeply, or holds itself.
        MemoryError: It is too large.
    """
    return json.dumps(_to_tree(value), separators=(",", ":"))


def decode(text: str) -> Any:
    """The value that :func:`encode` wrote.

    Raises:
        ValueError: The text is no such value (a hostile program may write anything).
        RecursionError: It is nested too deeply.
    """
    return from_tree(json.loads(text))


def _to_tree(value: object) -> Any:
    if value is None or value is True or value is False:
        return value
    # The base types' own methods: a subclass may have overridden them.
    if isinstance(value, int):
        number = int.__index__(value)
        return number if -_SMALL < number < _SMALL else {"int": hex(number)}
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list):
        return [_to_tree(item) for item in list.__iter__(value)]
    for name, kind in _SEQUENCES.items():
        if isinstance(value, kind):
            return {name: [_to_tree(item) for item in kind.__iter__(value)]}
    if isinstance(value, dict):
        return {"dict": [[_to_tree(k), _to_tree(v)] for k, v in dict.items(value)]}
    return _rare_to_tree(value)


_SEQUENCES: dict[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset}


def _rare_to_tree(value: object) -> Any:
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": value.hex()}
    if isinstance(value, range):
        return {"range": [_to_tree(n) for n in (value.start, value.stop, value.step)]}
    if isinstance(value, type({}.keys())):
        return {"set": [_to_tree(item) for item in value]}
    if isinstance(value, Iterator):
        items = []
        for item in value:
            items.append(_to_tree(item))
            if len(items) > _MOST_ITEMS:
                raise MemoryError("an iterator without an end")
        return {"iterator": items}
    return {"opaque": type(value).__name__}


def from_tree(tree: Any) -> Any:
    """The value of a parsed line.

    Raises:
        ValueError: The tree is none that :func:`encode` writes.
    """
    if isinstance(tree, list):
        return [from_tree(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    try:
        ((name, content),) = tree.items()
        return _READERS[name](content)
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"not an encoded value: {str(tree)[:80]}") from exc


def _read_dict(pairs: Any) -> Any:
    return {from_tree(key): from_tree(value) for key, value in pairs}


_READERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "tuple": lambda items: tuple(from_tree(items)),
    "set": lambda items: set(from_tree(items)),
    "frozenset": lambda items: frozenset(from_tree(items)),
    "iterator": lambda items: iter(from_tree(items)),
    "range": lambda numbers: range(*from_tree(numbers)),
    "dict": _read_dict,
    "complex": lambda parts: complex(*parts),
    "bytes": bytes.fromhex,
    "opaque": Opaque,
}
