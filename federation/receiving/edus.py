"""EDUs of other servers: typing notifications, receipts, presence.

A function for each type receives its EDUs; unknown types are ignored, and a malformed EDU does not
affect the others.

Spec: https://spec.matrix.org/v1.19/server-server-api/#edus
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from twisted.logger import Logger

from homeserver.protocol.json_elements import BadElement, decode_element
from homeserver.web.bodies import contains_nul

EduReceiver = Callable[[str, Mapping[str, Any]], Awaitable[None]]
"""Receives the content of an EDU, from the server of this name."""

log = Logger()


class EduDispatcher:
    """Passes each EDU to the function for its type."""

    def __init__(self, receivers: Mapping[str, EduReceiver]) -> None:
        self._receivers = receivers

    async def receive(self, origin: str, edus: Sequence[msgspec.Raw]) -> None:
        """Receive the EDUs of a transaction; the sender gets no response about them."""
        for raw in edus:
            edu_type, content = _parse(raw)
            receive = self._receivers.get(edu_type) if isinstance(edu_type, str) else None
            if receive is None or not isinstance(content, Mapping):
                continue
            try:
                await receive(origin, content)
            except Exception:
                log.failure(
                    "failed to receive an EDU {edu_type} from {origin}",
                    edu_type=edu_type,
                    origin=origin,
                )


def _parse(raw: msgspec.Raw) -> tuple[Any, Any]:
    """The type and content of an EDU, or `None` for both if it is not one."""
    # EDUs of these types hold names, which no user could have written with a NUL.
    if contains_nul(bytes(raw)):
        return None, None
    try:
        edu = decode_element(raw)
    except BadElement:
        return None, None
    return (edu.get("edu_type"), edu.get("content")) if isinstance(edu, Mapping) else (None, None)
