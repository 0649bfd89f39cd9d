"""Messages to devices from other servers.

A server sends a message again if it does not know whether it arrived. So the ids of received
messages are stored with the messages, in the same commit: each is delivered once, even after a
restart. A transaction whose messages could not be stored is refused, and sent again.

Any server may send messages to any device, as in the Client-Server API. What it can have stored is
bounded by its rate, by the messages of an EDU, and by what may wait for one device.

Spec: https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from twisted.logger import Logger

from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.concurrency.lru_cache import LruCache
from homeserver.encryption.to_device import (
    MAX_MESSAGE_BYTES,
    MAX_TYPE_BYTES,
    ReceivedMessages,
    ToDevice,
)
from homeserver.protocol.errors import LimitExceeded
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.rooms.events.local_server import LocalServer
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.to_device import INSERT_RECEIVED, received_among
from homeserver.streams.log import Log
from homeserver.web.rate_limits import RateLimits

MAX_MESSAGE_ID = 32  # code points
MAX_CACHED_IDS = 20_000  # of the latest messages, of all servers together
LIMIT = "remote_to_device"
log = Logger()


class _Edu(msgspec.Struct, frozen=True):
    sender: str
    event_type: str
    message_id: str
    messages: Mapping[str, Mapping[str, msgspec.Raw]]


class ToDeviceEdus:
    """Delivers the messages of other servers."""

    def __init__(
        self,
        db: Database,
        log: Log,
        to_device: ToDevice,
        local_server: LocalServer,
        limits: RateLimits,
    ) -> None:
        self._db = db
        self._log = log
        self._to_device = to_device
        self._is_local = local_server.is_local
        self._limits = limits
        self._known: LruCache[tuple[str, str], bool] = LruCache(
            "to_device_received", MAX_CACHED_IDS
        )
        self._receiving: KeyedLocks[str] = KeyedLocks()  # by origin

    async def receive(self, origin: str, contents: Sequence[Mapping[str, Any]]) -> None:
        """Deliver the messages of one transaction, in their order.

        Raises `Unavailable`, and `LimitExceeded` after those that the server's rate permits.
        """
        edus: dict[str, _Edu] = {}
        for content in contents:
            edu = self._parse(origin, content)
            if edu is not None:
                edus.setdefault(edu.message_id, edu)
        if not edus:
            return
        async with self._receiving.hold(origin):
            new = await self._without_known(origin, edus)
            permitted, error = self._permitted(origin, new)
            position = self._log.position
            await self._to_device.receive(
                [
                    ReceivedMessages(
                        edu.sender,
                        edu.event_type,
                        edu.messages,
                        [INSERT_RECEIVED.row(origin, edu.message_id, position)],
                    )
                    for edu in permitted
                ]
            )
            for edu in permitted:
                self._known.put((origin, edu.message_id), True)
        if error is not None:
            raise error

    async def _without_known(self, origin: str, edus: Mapping[str, _Edu]) -> list[_Edu]:
        """The messages that were not received before."""
        unknown = [each for each in edus if self._known.get((origin, each)) is None]
        if not unknown:
            return []
        stored = await self._db.run(received_among, origin, unknown)
        return [edus[each] for each in unknown if each not in stored]

    def _permitted(
        self, origin: str, edus: Sequence[_Edu]
    ) -> tuple[Sequence[_Edu], LimitExceeded | None]:
        """The first messages, as many as the server may send now."""
        for number, _ in enumerate(edus):
            try:
                self._limits.check(LIMIT, origin)
            except LimitExceeded as error:
                return edus[:number], error
        return edus, None

    def _parse(self, origin: str, content: Mapping[str, Any]) -> _Edu | None:
        """The messages for local users; `None` if the EDU is malformed, or is another server's."""
        sender, event_type = content.get("sender"), content.get("type")
        message_id, messages = content.get("message_id"), content.get("messages")
        if not (
            isinstance(sender, str)
            and is_valid_user_id(sender)
            and sender.partition(":")[2] == origin
            and isinstance(event_type, str)
            and len(event_type.encode()) <= MAX_TYPE_BYTES
            and isinstance(message_id, str)
            and len(message_id) <= MAX_MESSAGE_ID
            and "\0" not in message_id
            and isinstance(messages, Mapping)
        ):
            log.info("dropped a malformed message to devices from {origin}", origin=origin)
            return None
        found = {
            user_id: dict(_encoded(devices))
            for user_id, devices in messages.items()
            if self._is_local(user_id) and is_valid_user_id(user_id)
        }
        return _Edu(sender, event_type, message_id, found)


def _encoded(devices: Any) -> Iterator[tuple[str, msgspec.Raw]]:
    """The well-formed messages for the devices of a user."""
    for device_id, content in devices.items() if isinstance(devices, Mapping) else ():
        if isinstance(content, Mapping):
            encoded = msgspec.json.encode(content)
            if len(encoded) <= MAX_MESSAGE_BYTES:
                yield device_id, msgspec.Raw(encoded)
