"""Ephemeral data that other servers send: who types, who has read what, who is there.

Each kind is taken by a function of its own; unknown kinds are ignored, and a bad one spoils no
other.

Spec: https://spec.matrix.org/v1.19/server-server-api/#edus
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from twisted.logger import Logger

TakeEdu = Callable[[str, Mapping[str, Any]], Awaitable[None]]
"""Takes the content of an EDU from the server with this name."""

log = Logger()


class Edus:
    """Hands EDUs to those who know what they mean."""

    def __init__(self, kinds: Mapping[str, TakeEdu]) -> None:
        self._kinds = kinds

    async def take(self, origin: str, edus: Sequence[Any]) -> None:
        """Take what a server sent; nothing of it is answered."""
        for edu in edus:
            if not isinstance(edu, Mapping):
                continue
            kind, content = edu.get("edu_type"), edu.get("content")
            take = self._kinds.get(kind) if isinstance(kind, str) else None
            if take is None or not isinstance(content, Mapping):
                continue
            try:
                await take(origin, content)
            except Exception:
                log.failure("an EDU {kind} of {origin} failed", kind=kind, origin=origin)
