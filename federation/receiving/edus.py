"""Ephemeral data that other servers send: who types, who has read what, who is there.

Each kind is taken by a function of its own; unknown kinds are ignored, and a bad one spoils no
other.

Spec: https://spec.matrix.org/v1.19/server-server-api/#edus
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from twisted.logger import Logger

from homeserver.protocol.json_elements import BadElement, decode_element
from homeserver.web.bodies import contains_nul

TakeEdu = Callable[[str, Mapping[str, Any]], Awaitable[None]]
"""Takes the content of an EDU from the server with this name."""

log = Logger()


class EduDispatcher:
    """Hands EDUs to those who know what they mean."""

    def __init__(self, kinds: Mapping[str, TakeEdu]) -> None:
        self._kinds = kinds

    async def receive(self, origin: str, edus: Sequence[msgspec.Raw]) -> None:
        """Take what a server sent; nothing of it is answered."""
        for raw in edus:
            kind, content = _parse(raw)
            take = self._kinds.get(kind) if isinstance(kind, str) else None
            if take is None or not isinstance(content, Mapping):
                continue
            try:
                await take(origin, content)
            except Exception:
                log.failure("an EDU {kind} of {origin} failed", kind=kind, origin=origin)


def _parse(raw: msgspec.Raw) -> tuple[Any, Any]:
    """The type of an EDU and its content, as far as it is one."""
    # What these kinds hold is names, which no user could have written with a NUL.
    if contains_nul(bytes(raw)):
        return None, None
    try:
        edu = decode_element(raw)
    except BadElement:
        return None, None
    return (edu.get("edu_type"), edu.get("content")) if isinstance(edu, Mapping) else (None, None)
