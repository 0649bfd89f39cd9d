"""The inboxes of devices: messages that wait until their device has received them.

A message stays in the database until the device shows, by a later token, that it has it. The newest
messages of active devices are also in memory, so that a device that keeps up reads nothing; for a
device that does not, nothing is in memory, however many messages wait.

Spec: https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from homeserver.accounts.sessions.devices import DevicesRemoved
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.encryption.changes import ToDeviceMessagesSent
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.to_device import MessageRow, delete_received, messages_after
from homeserver.streams.log import Log

MAX_MESSAGES = 100  # of one response, and of one device in memory
MAX_RESPONSE_BYTES = 1_048_576  # of the messages of one response, beyond the first
MAX_INBOX_BYTES = 131_072  # of one device in memory
MAX_INBOXES = 50_000  # devices in memory
DELETE_SECONDS = 1.0  # after which received messages are deleted, those of all devices together
MAX_DELETIONS = 1_000  # devices in one statement

DeviceName = tuple[str, str]  # user id and device id


class Messages(NamedTuple):
    """Messages for one response, oldest first, and the position of the `last` of them.

    `more_above` is that position if more messages wait above it.
    """

    events: Sequence[bytes]
    last: int
    more_above: int | None


class _Inbox:
    """The newest messages of one device, complete above `floor`."""

    __slots__ = ("floor", "may_have_stored", "messages", "size")

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self.messages: deque[MessageRow] = deque()
        self.size = 0
        self.may_have_stored = True  # whether the database may hold any, of any position

    def add(self, position: int, message: bytes) -> None:
        self.messages.append(MessageRow(position, message))
        self.size += len(message)
        self.may_have_stored = True
        while len(self.messages) > MAX_MESSAGES or self.size > MAX_INBOX_BYTES:
            self.floor = self._drop_oldest()

    def received(self, upto: int) -> None:
        """Drop what the device has."""
        while self.messages and self.messages[0].position <= upto:
            self._drop_oldest()
        # What was stored above the floor is in memory.
        self.may_have_stored = bool(self.messages) or upto < self.floor

    def _drop_oldest(self) -> int:
        oldest = self.messages.popleft()
        self.size -= len(oldest.message)
        return oldest.position


class DeviceInboxes:
    """The messages of local devices. `apply` is to be subscribed to the log.

    `start` and `stop` the deletion of received messages.
    """

    def __init__(self, db: Database, log: Log, clock: Clock) -> None:
        self._db = db
        self._log = log
        self._inboxes: LruCache[DeviceName, _Inbox] = LruCache("device_inboxes", MAX_INBOXES)
        self._received: dict[DeviceName, int] = {}
        self._deleting = PeriodicTask(
            clock, DELETE_SECONDS, self.delete, name="the deletion of received messages"
        )

    def start(self) -> None:
        """Begin to delete what devices have received."""
        self._deleting.start()

    async def stop(self) -> None:
        """Delete what was received, and stop."""
        await self._deleting.stop()
        await self.delete()

    def apply(self, entries: Sequence[Any]) -> None:
        """Add new messages to the inboxes in memory (called by the log)."""
        for entry in entries:
            if isinstance(entry, ToDeviceMessagesSent):
                for device_id, message in entry.messages:
                    inbox = self._inboxes.peek((entry.user_id, device_id))
                    if inbox is not None:
                        inbox.add(entry.position, message)
            elif isinstance(entry, DevicesRemoved):
                for device_id in entry.device_ids:
                    self._inboxes.pop((entry.user_id, device_id))

    def received(self, device: DeviceName, upto: int) -> None:
        """A device has everything up to a position: these messages are not needed any more."""
        # A token that this server never gave out must not delete what has yet to come.
        upto = min(upto, self._log.position)
        inbox = self._inbox(device)
        if inbox.may_have_stored:
            self._received[device] = max(upto, self._received.get(device, 0))
            inbox.received(upto)

    def has_none(self, device: DeviceName, after: int) -> bool:
        """Whether it is known, without waiting, that a device has no message above a position."""
        inbox = self._inboxes.get(device)
        if inbox is None or after < inbox.floor:
            return False
        return not inbox.messages or inbox.messages[-1].position <= after

    async def messages(
        self, device: DeviceName, after: int, upto: int, limit: int = MAX_MESSAGES
    ) -> Messages:
        """The messages with `after < position <= upto`, at most `limit`, as a response may have."""
        inbox = self._inbox(device)
        if after >= inbox.floor:
            rows = [each for each in inbox.messages if after < each.position <= upto]
        else:
            rows = await self._db.run(messages_after, *device, after, upto, limit + 1)
        chosen: list[bytes] = []
        size = 0
        for row in rows[:limit]:
            size += len(row.message)
            if chosen and size > MAX_RESPONSE_BYTES:
                break
            chosen.append(bytes(row.message))
        last = rows[len(chosen) - 1].position if chosen else after
        return Messages(chosen, last, None if len(chosen) == len(rows) else last)

    async def delete(self) -> None:
        """Delete what devices have received from the database."""
        while self._received:
            part = list(self._received.items())[:MAX_DELETIONS]
            await self._db.run(delete_received, [(*device, upto) for device, upto in part])
            for device, upto in part:
                if self._received.get(device) == upto:
                    del self._received[device]

    def _inbox(self, device: DeviceName) -> _Inbox:
        inbox = self._inboxes.get(device)
        if inbox is None:
            inbox = self._inboxes.put(device, _Inbox(self._log.position))
        return inbox
