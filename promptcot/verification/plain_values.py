"""Python values as one line of text, between processes that do not trust each other.

Stdlib only, because the copy inside the sandbox runs alone. What a program returned becomes data of
built-in types and nothing else: no class, method or comparison of the program comes along. Lists,
numbers, texts, booleans and ``None`` are written as in JSON; everything else is an object with one
key that names its type. What has no such form is an ``Opaque``, equal to nothing. A large value
may be replaced by its digest, which is the same for equal values and can be had from them only.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

_SMALL = 1 << 10_000
"""Integers beyond are written in hexadecimal: Python refuses to read 4,300 decimal digits."""
_KEYS: Any = type({}.keys())
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


def encode(value: object, *, digest_over: int = 0) -> str:
    """One line of ASCII.

    Args:
        value: Anything.
        digest_over: Characters beyond which the digest is written, except of floats and lists of
            nothing else, which may have to be compared with a tolerance; 0: never.

    Raises:
        RecursionError: The value is nested too deeply, or holds itself.
        MemoryError: It is too large.
    """
    tree = _to_tree(value)
    text = _write(tree)
    if 0 < digest_over < len(text) and not is_floats(tree):
        return _write({"digest": digest_of(tree)})
    return text


def _write(tree: Any) -> str:
    return json.dumps(tree, separators=(",", ":"))


def digest_of(tree: Any) -> str:
    """SHA-256 of a form that is the same for equal values: 1, 1.0 and True are one."""
    return hashlib.sha256(canonical_text(tree).encode("ascii")).hexdigest()


def canonical_text(tree: Any) -> str:
    """A text that is the same for equal values, from a parsed line."""
    return _write(_canonical(tree))


def _canonical(tree: Any) -> Any:
    if isinstance(tree, bool):
        return int(tree)
    if isinstance(tree, float):
        return _to_tree(int(tree)) if tree.is_integer() else tree
    if isinstance(tree, list):
        kinds = set(map(type, tree))
        if kinds <= {int, str}:
            return tree
        if kinds <= {int, float}:
            return [int(n) if type(n) is float and n.is_integer() else n for n in tree]
        return [_canonical(item) for item in tree]
    if isinstance(tree, dict):
        ((name, content),) = tree.items()
        content = _canonical(content)
        if name in ("set", "frozenset", "dict"):
            name, content = name.removeprefix("frozen"), sorted(content, key=_write)
        return {name: content}
    return tree


def is_floats(tree: Any) -> bool:
    """Whether a parsed value is a float, or a list or tuple of nothing else."""
    if isinstance(tree, dict):
        tree = tree.get("tuple")
    if isinstance(tree, list):
        return bool(tree) and set(map(type, tree)) == {float}
    return isinstance(tree, float)


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
        return value if _is_plain(value) else [_to_tree(item) for item in list.__iter__(value)]
    for name, kind in _SEQUENCES.items():
        if isinstance(value, kind):
            return {name: [_to_tree(item) for item in kind.__iter__(value)]}
    if isinstance(value, dict):
        return {"dict": [[_to_tree(k), _to_tree(v)] for k, v in dict.items(value)]}
    return _rare_to_tree(value)


def _is_plain(items: list[Any]) -> bool:
    """Whether a list is what it would be turned into; most long ones are."""
    if type(items) is not list:
        return False
    kinds = set(map(type, items))
    if kinds <= {str}:
        return True
    return kinds <= {int, float} and min(items) > -_SMALL and max(items) < _SMALL


_SEQUENCES: dict[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset}


def _rare_to_tree(value: object) -> Any:
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": value.hex()}
    if isinstance(value, range):
        return {"range": [_to_tree(n) for n in (value.start, value.stop, value.step)]}
    if isinstance(value, _KEYS):
        return {"set": [_to_tree(key) for key in value]}
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return _to_tree(value.item())  # type: ignore[attr-defined]
    if isinstance(value, Iterator):
        items: list[Any] = []
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
