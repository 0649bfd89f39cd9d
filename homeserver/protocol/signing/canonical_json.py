"""Canonical JSON: the unique encoding of a JSON value, so that it can be signed.

Keys sorted by code point, no white space, UTF-8, integers within ±(2^53 - 1) and no other numbers.
Rooms of version 6 and later refuse other values; older rooms may have floats and larger integers,
which are written as Python's `json` writes them, as every server has always done.

Values are those of a JSON decoder: dict, list, str, int, float, bool and None. A tuple counts as a
list. Anything else, subclasses included, is refused, so that the signed value is the stored one.

Spec: https://spec.matrix.org/v1.19/appendices/#canonical-json
"""

from collections.abc import Iterable
from typing import Any

import canonicaljson
import msgspec

MAX_INTEGER = 2**53 - 1

# The integers in rooms of old versions that every server can read.
MAX_CUSTOMARY_INTEGER = 2**63 - 1

# The specification sets no limit. This one leaves room for the objects around an event, because the
# decoders of most servers stop at about 1,000 levels.
MAX_DEPTH = 500

_encode = msgspec.json.Encoder(order="deterministic").encode


class NotCanonical(ValueError):
    """The value has no canonical form."""


def encode_canonical(value: Any) -> bytes:
    """The canonical form, by the strict rules. Raises `NotCanonical`."""
    check_canonical(value)
    return encode_checked(value)


def encode_canonical_loose(value: Any) -> bytes:
    """The canonical form if there is one, or else the customary form of room versions 1 to 5.

    Also for signed JSON outside of rooms, such as a federation request with old events. Raises
    `NotCanonical` for values that are not JSON at all: NaN, lone surrogates, other types.
    """
    try:
        return encode_canonical(value)
    except NotCanonical:
        return _encode_customary(value)


def encode_checked(value: Any) -> bytes:
    """The canonical form of a value that has passed `check_canonical`, which is not repeated here.

    Raises `NotCanonical` for a lone surrogate, which that check leaves to the encoder.
    """
    try:
        return _encode(value)
    except UnicodeEncodeError as error:
        raise NotCanonical("strings may not hold lone surrogates") from error


def check_canonical(value: Any) -> None:
    """Check types, the range of numbers, and nesting. Raises `NotCanonical`.

    Lone surrogates are found by the encoder, at no cost.
    """
    level: list[Any] = [(value,)]
    for _ in range(MAX_DEPTH + 1):
        level = _containers_in(level)
        if not level:
            return
    raise NotCanonical(f"nested more than {MAX_DEPTH} levels deep")


def check_depth(value: Any) -> None:
    """Check nesting alone, for a value that was decoded. Raises `NotCanonical`."""
    level: list[Any] = [(value,)]
    for _ in range(MAX_DEPTH + 1):
        level = [member for container in level for member in _members(container) if _nests(member)]
        if not level:
            return
    raise NotCanonical(f"nested more than {MAX_DEPTH} levels deep")


def check_customary(value: Any) -> None:
    """Check a value to be sent in rooms that may have more than canonical JSON.

    No number may be one that another server could not decode. Raises `NotCanonical`.
    """
    check_depth(value)
    waiting: list[Any] = [value]
    while waiting:
        for member in _members(waiting.pop()):
            if _nests(member):
                waiting.append(member)
            elif type(member) is int and abs(member) > MAX_CUSTOMARY_INTEGER:
                raise NotCanonical("integer outside of ±(2^63 - 1)")


def _members(container: Any) -> Iterable[Any]:
    return container.values() if type(container) is dict else container


def _nests(value: Any) -> bool:
    return type(value) in (dict, list, tuple) and bool(value)


def _containers_in(level: list[Any]) -> list[Any]:
    """Check the members of some dicts and lists; return those that have members of their own."""
    deeper: list[Any] = []
    for container in level:
        members: Iterable[Any] = container
        if type(container) is dict:
            for key in container:
                if type(key) is not str:
                    raise NotCanonical(f"{type(key).__name__} as the key of an object")
            members = container.values()
        for member in members:
            kind = type(member)
            if kind is str or member is None or kind is bool:
                continue
            if kind is int:
                if not -MAX_INTEGER <= member <= MAX_INTEGER:
                    raise NotCanonical("integer outside of ±(2^53 - 1)")
            elif kind is dict or kind is list or kind is tuple:
                if member:
                    deeper.append(member)
            elif kind is float:
                raise NotCanonical("numbers must be integers")
            else:
                raise NotCanonical(f"{kind.__name__} is not a JSON type")
    return deeper


def _encode_customary(value: Any) -> bytes:
    try:
        return canonicaljson.encode_canonical_json(value)
    except RecursionError as error:
        raise NotCanonical("nested too deeply") from error
    except (TypeError, ValueError) as error:
        raise NotCanonical(str(error)) from error
