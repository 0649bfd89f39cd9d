"""EDUs of other servers: typing notifications, receipts, presence, messages to devices.

A function for each type receives its EDUs; unknown types are ignored, and a malformed EDU does not
affect the others. While the database is unavailable the transaction is refused, so that the other
server sends it again.

Spec: https://spec.matrix.org/v1.19/server-server-api/#edus
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from twisted.logger import Logger

from homeserver.protocol.errors import LimitExceeded, Unavailable
from homeserver.protocol.json_elements import BadElement, decode_element
from homeserver.web.bodies import contains_nul

Content = TypeVar("Content")
EduReceiver = Callable[[str, Mapping[str, Any]], Awaitable[None]]
"""Receives the content of an EDU, from the server of this name."""

EduBatchReceiver = Callable[[str, Sequence[Mapping[str, Any]]], Awaitable[None]]
"""Receives the contents of all EDUs of a type in one transaction. Strings in them may have NULs."""

log = Logger()


class EduDispatcher:
    """Passes each EDU to the function for its type.

    Those of `batch_receivers` come after all others.
    """

    def __init__(
        self,
        receivers: Mapping[str, EduReceiver],
        batch_receivers: Mapping[str, EduBatchReceiver],
    ) -> None:
        self._receivers = receivers
        self._batch_receivers = batch_receivers

    async def receive(self, origin: str, edus: Sequence[msgspec.Raw]) -> None:
        """Receive the EDUs of a transaction; the sender gets no response about them.

        Raises `Unavailable`, and `LimitExceeded` if the server sends too many.
        """
        batches: dict[str, list[Mapping[str, Any]]] = {}
        for raw in edus:
            edu_type, content = _parse(raw)
            if not isinstance(edu_type, str) or not isinstance(content, Mapping):
                continue
            if edu_type in self._batch_receivers:
                batches.setdefault(edu_type, []).append(content)
            # EDUs of these types hold names, which no user could have written with a NUL.
            elif edu_type in self._receivers and not contains_nul(bytes(raw)):
                await self._pass_on(origin, edu_type, self._receivers[edu_type], content)
        for edu_type, contents in batches.items():
            await self._pass_on(origin, edu_type, self._batch_receivers[edu_type], contents)

    async def _pass_on(
        self,
        origin: str,
        edu_type: str,
        receive: Callable[[str, Content], Awaitable[None]],
        content: Content,
    ) -> None:
        try:
            await receive(origin, content)
        except (Unavailable, LimitExceeded):
            raise
        except Exception:
            log.failure(
                "failed to receive an EDU {edu_type} from {origin}",
                edu_type=edu_type,
                origin=origin,
            )


def _parse(raw: msgspec.Raw) -> tuple[Any, Any]:
    """The type and content of an EDU, or `None` for both if it is not one."""
    try:
        edu = decode_element(raw)
    except BadElement:
        return None, None
    return (edu.get("edu_type"), edu.get("content")) if isinstance(edu, Mapping) else (None, None)
