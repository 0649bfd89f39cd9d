"""Namespaces: the users, aliases and rooms that an application service is interested in.

Spec: https://spec.matrix.org/v1.19/application-service-api/#registration
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Namespace:
    """All ids that begin with a match of `regex`, as with other homeservers.

    If it is `exclusive`, only its application service may create or delete what it covers.
    """

    regex: re.Pattern[str]
    exclusive: bool

    def covers(self, name: str) -> bool:
        """Whether an id belongs to the namespace."""
        return self.regex.match(name) is not None


@dataclass(frozen=True, slots=True)
class NamespaceList:
    """The namespaces of one kind (users, aliases or rooms) of an application service."""

    namespaces: Sequence[Namespace] = ()

    def covers(self, name: str) -> bool:
        """Whether an id belongs to one of the namespaces."""
        return any(namespace.covers(name) for namespace in self.namespaces)

    def covers_exclusively(self, name: str) -> bool:
        """Whether an id belongs to one of the exclusive namespaces."""
        return any(namespace.exclusive and namespace.covers(name) for namespace in self.namespaces)


NO_NAMESPACES = NamespaceList()
