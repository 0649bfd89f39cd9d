"""The re-check of soft-failed events that still stick, when a membership of their sender changes.

Which state a server takes for the current one, and so whether it accepts an event, depends on the
order in which it receives events. What sticks is to be the same on all servers in the end.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4354
"""

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.concurrency.clock import DelayedCall
from homeserver.protocol.errors import Unavailable
from homeserver.rooms.inbound.event_checks import EventsMissing
from homeserver.rooms.inbound.receiver import PduReceiver
from homeserver.rooms.room.changes import StateChanged
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.writer import RoomWriter
from homeserver.rooms.sticky.sticky_events import StickyEvents
from homeserver.storage.database.database import DatabaseUnavailable

RETRY_SECONDS = 5.0
log = Logger()


class StickyRechecks:
    """Checks such events again, those of a room one after the other. `apply` follows the log."""

    def __init__(self, rooms: RoomRegistry, sticky: StickyEvents, receiver: PduReceiver) -> None:
        self._rooms = rooms
        self._sticky = sticky
        self._receiver = receiver
        self._waiting: dict[int, set[str]] = {}  # senders by room
        self._running: Deferred[None] | None = None
        self._alarm: DelayedCall | None = None
        self._stopped = False

    def start(self) -> None:
        """Check what is not checked because the process ended before."""
        for room_nid, senders in self._sticky.all_soft_failed():
            self._add(room_nid, senders)

    async def stop(self) -> None:
        """Check nothing any more; returns when what is being checked has ended."""
        self._stopped = True
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._running is not None:
            await self._running

    def apply(self, entries: Sequence[Any]) -> None:
        """Check the events of senders whose membership changed (called by the log)."""
        for entry in entries:
            if isinstance(entry, StateChanged) and entry.room_nid in self._sticky.rooms:
                changed = {user_id for user_id, _, _ in entry.members()}
                if self._sticky.soft_failed(entry.room_nid, changed):
                    self._add(entry.room_nid, changed)

    def _add(self, room_nid: int, senders: set[str]) -> None:
        self._waiting.setdefault(room_nid, set()).update(senders)
        if self._alarm is None:
            self._begin()

    def _begin(self) -> None:
        self._alarm = None
        if self._running is None and not self._stopped:
            running = self._running = Deferred()
            Deferred.fromCoroutine(self._run()).addBoth(self._ended, running)

    async def _run(self) -> None:
        while self._waiting and not self._stopped:
            room_nid, senders = self._waiting.popitem()
            try:
                await self._recheck_room(room_nid, senders)
            except (Unavailable, DatabaseUnavailable):
                self._waiting.setdefault(room_nid, set()).update(senders)
                raise

    async def _recheck_room(self, room_nid: int, senders: set[str]) -> None:
        room = await self._rooms.by_number(room_nid)
        if room is not None:
            async with self._rooms.writing(room.room_id) as writer:
                await self._recheck(writer, self._sticky.soft_failed(room_nid, senders))

    async def _recheck(self, writer: RoomWriter, event_nids: Sequence[int]) -> None:
        events = await self._rooms.load_events_in_order(writer.room, event_nids)
        for stored in events:
            if stored.status.soft_failed is None or self._stopped:
                continue
            try:
                await self._receiver.accept_after_all(writer, stored)
            except EventsMissing as error:
                log.info("{event} cannot be checked again: {error}", event=stored, error=error)

    def _ended(self, outcome: Any, running: "Deferred[None]") -> None:
        self._running = None
        if outcome is not None and not outcome.check(Unavailable, DatabaseUnavailable):
            log.failure("soft-failed events that stick could not be checked again", outcome)
        if self._waiting and not self._stopped:
            self._alarm = self._rooms.local_server.clock.callLater(RETRY_SECONDS, self._begin)
        running.callback(None)
