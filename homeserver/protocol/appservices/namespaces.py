"""Namespaces: the users, aliases and rooms that an application service is interested in.

Spec: https://spec.matrix.org/v1.19/application-service-api/#registration
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

SPECIAL = frozenset(r"\.^$*+?{}[]|()")
QUANTIFIERS = "*+?{"


@dataclass(frozen=True, slots=True)
class Namespace:
    """All ids that begin with a match of `regex`, as with other homeservers.

    If it is `exclusive`, only its application service may create or delete what it covers. All of
    them begin with `prefix`.
    """

    regex: re.Pattern[str]
    exclusive: bool
    prefix: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", literal_prefix(self.regex))

    def covers(self, name: str) -> bool:
        """Whether an id belongs to the namespace."""
        return self.regex.match(name) is not None


class NamespaceList(msgspec.Struct, frozen=True):
    """The namespaces of one kind (users, aliases or rooms) of an application service."""

    namespaces: Sequence[Namespace] = ()

    def covers(self, name: str) -> bool:
        """Whether an id belongs to one of the namespaces."""
        return any(namespace.covers(name) for namespace in self.namespaces)

    def covers_exclusively(self, name: str) -> bool:
        """Whether an id belongs to one of the exclusive namespaces."""
        return any(namespace.exclusive and namespace.covers(name) for namespace in self.namespaces)


NO_NAMESPACES = NamespaceList()


def literal_prefix(regex: re.Pattern[str]) -> str:
    """Text with which everything that the expression matches begins; empty if that is unknown."""
    text = regex.pattern.removeprefix("^")
    if "|" in text or regex.flags & (re.IGNORECASE | re.VERBOSE):
        return ""
    length = 0
    while length < len(text) and text[length] not in SPECIAL:
        length += 1
    if length < len(text) and text[length] in QUANTIFIERS:
        length -= 1  # what is repeated may be missing
    return text[: max(length, 0)]
