"""Badge updates: when a user has read on another device, their phones get the lower count.

Several receipts within a moment are one update, and a phone whose badge is as it was gets none.
"""

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.concurrency.clock import Clock, DelayedCall
from homeserver.push.pushers.badges import Badges
from homeserver.push.pushers.directory import PusherDirectory
from homeserver.push.pushers.pusher_queues import PusherQueues
from homeserver.rooms.room.changes import EventAppended
from homeserver.rooms.room.room_receipts import ReceiptsChanged

DELAY_SECONDS = 1.0
log = Logger()


class BadgeUpdates:
    """Has pushers send lower counts. `apply` is to be subscribed to the log."""

    def __init__(
        self, directory: PusherDirectory, badges: Badges, queues: PusherQueues, clock: Clock
    ) -> None:
        self._directory = directory
        self._badges = badges
        self._queues = queues
        self._clock = clock
        self._users: set[str] = set()  # who have read something
        self._alarm: DelayedCall | None = None
        self._is_running = False
        self._is_stopped = False

    def stop(self) -> None:
        """Begin no further update."""
        self._is_stopped = True
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries: note who may have read something (called by the log)."""
        users = self._directory.users
        if not users:
            return
        for entry in entries:
            if isinstance(entry, ReceiptsChanged):
                for receipt in entry.receipts:
                    if receipt.user_id in users:
                        self.note(receipt.user_id)
            elif isinstance(entry, EventAppended):
                sender = entry.stored.event.sender
                if sender in users:
                    self.note(sender)

    def note(self, user_id: str) -> None:
        """The count of a user may be lower now."""
        self._users.add(user_id)
        if self._alarm is None and not (self._is_running or self._is_stopped):
            self._alarm = self._clock.callLater(DELAY_SECONDS, self._begin)

    def note_redaction(self, user_id: str, room_nid: int) -> None:
        """An event of a room was redacted, which a member may not have read."""
        self._badges.mark(user_id, room_nid)
        self.note(user_id)

    def _begin(self) -> None:
        self._alarm = None
        self._is_running = True
        Deferred.fromCoroutine(self._run()).addErrback(
            lambda failure: log.failure("badges could not be updated", failure)
        ).addBoth(self._ended)

    def _ended(self, _: object) -> None:
        self._is_running = False
        if self._users:
            self.note(self._users.pop())

    async def _run(self) -> None:
        users, self._users = self._users, set()
        for user_id in users:
            if self._is_stopped:
                return
            try:
                await self._update(user_id)
            except Exception:
                log.failure("the badge of {user_id} could not be updated", user_id=user_id)

    async def _update(self, user_id: str) -> None:
        # A phone without a badge has nothing to take back, and costs no more than this.
        pushers = [
            pusher
            for pusher in await self._directory.of(user_id)
            if pusher.is_pushing and pusher.progress.badge
        ]
        if pushers:
            badge = await self._badges.total(user_id)
            for pusher in pushers:
                if badge < (pusher.progress.badge or 0):
                    self._queues.put_counts(pusher)
