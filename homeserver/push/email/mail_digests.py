"""The pending mails of all pushers, and their progress in the database."""

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.concurrency.clock import Clock
from homeserver.outbound.digest_mails import DigestMails
from homeserver.protocol.errors import Unavailable
from homeserver.push.email.digest_contents import DigestContents
from homeserver.push.email.digest_texts import clean
from homeserver.push.email.mail_slots import MailSlots
from homeserver.push.email.pending_digest import DigestContext, PendingDigest, UnreadEvents
from homeserver.push.pushers.active_pushers import ActivePushers
from homeserver.push.pushers.directory import PusherDirectory
from homeserver.push.pushers.pusher import Pusher, PushersChanged, PushProgressStored
from homeserver.push.pushers.pushers import Pushers
from homeserver.push.pushers.queued_push import QueuedPush
from homeserver.push.unread_counts import UnreadCounts
from homeserver.rooms.room.changes import EventAppended
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room_receipts import ReceiptsChanged
from homeserver.storage.accounts.users import find_user
from homeserver.storage.database.database import Database
from homeserver.streams.log import Log

STORE_AGAIN_SECONDS = 1.0
START_SECONDS = 30.0  # over which what a former process has left is begun
MAX_BRAND = 40  # characters
log = Logger()


class MailDigests:
    """Sends mails about unread messages; `apply` is to be subscribed to the log.

    `delay` is that of a first mail, in seconds.
    """

    def __init__(
        self,
        mails: DigestMails,
        contents: DigestContents,
        directory: PusherDirectory,
        pushers: Pushers,
        unread: UnreadEvents,
        unread_counts: UnreadCounts,
        rooms: RoomRegistry,
        db: Database,
        stream_log: Log,
        clock: Clock,
        chance: Callable[[], float],
        delay: float,
    ) -> None:
        self._mails = mails
        self._contents = contents
        self._directory = directory
        self._unread_counts = unread_counts
        self._rooms = rooms
        self._db = db
        self._log = stream_log
        self._clock = clock
        self._chance = chance
        self._pending = ActivePushers(lambda pusher: PendingDigest(pusher, self._context))
        self._unstored: dict[int, PendingDigest] = {}
        self._is_storing = False
        self._is_stopped = False
        self._starting: Deferred[None] | None = None
        self.slots = MailSlots(clock, chance)
        self._context = DigestContext(
            unread,
            self.slots,
            clock,
            chance,
            delay,
            self._current,
            self._record,
            self._was_read,
            self._send,
            pushers.rejected,
            self._pending.drop,
        )

    def __len__(self) -> int:
        return len(self._pending)

    def start(self) -> None:
        """Continue with what waited when the last process ended."""
        self._starting = Deferred.fromCoroutine(self._continue())
        self._starting.addErrback(self._not_continued)

    async def _continue(self) -> None:
        seconds = min(START_SECONDS, self._context.delay)
        async for pusher in self._directory.behind():
            if pusher.is_mailing:
                self._pending.of(pusher).resume(self._chance() * seconds)

    def _not_continued(self, failure: Failure) -> None:
        if not self._is_stopped:
            log.failure("mails wait for the next event of their users", failure)

    async def stop(self) -> None:
        """Begin no further mail; those that wait are sent after the next start."""
        self._is_stopped = True
        if self._starting is not None:
            self._starting.cancel()
        for digest in self._pending:
            await digest.stop()
        self._store()

    def put(self, pusher: Pusher, push: QueuedPush) -> None:
        """Have a pusher mail an event, if it is still unread after a while."""
        if self._is_stopped or push.position <= pusher.progress.sent_upto:
            return
        digest = self._pending.of(pusher)
        if digest.put(push.position, push.room_nid):
            self._note_unstored(digest)

    def first_unsent(self) -> int | None:
        """The position of the oldest event of which it is not stored that it waits."""
        positions = [digest.pusher.progress.behind_since for digest in self._unstored.values()]
        return min((each for each in positions if each is not None), default=None)

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries: users who are active need no mail (called by the log)."""
        if not self._pending:
            return
        for entry in entries:
            if isinstance(entry, EventAppended):
                self._seen(entry.stored.event.sender, entry.position)
            elif isinstance(entry, ReceiptsChanged):
                for receipt in entry.receipts:
                    self._seen(receipt.user_id, entry.position)
            elif isinstance(entry, PushersChanged):
                for user_id in entry.user_ids:
                    for digest in self._pending.of_user(user_id):
                        digest.refresh()

    def _seen(self, user_id: str, position: int) -> None:
        for digest in self._pending.of_user(user_id):
            if digest.seen(position):
                self._note_unstored(digest)

    async def _current(self, pusher: Pusher) -> Pusher | None:
        """The pusher as it is now; None if it is gone, or its user is to get no mails."""
        user = await self._db.run(find_user, pusher.row.user_id)
        if user is None or user.is_deactivated or user.is_locked or user.is_suspended:
            return None
        return await self._directory.current(pusher)

    async def _was_read(self, user_id: str, room_nid: int, position: int) -> bool:
        room = await self._rooms.by_number(room_nid)
        if room is None or room.membership(user_id) != "join":
            return False
        return await self._unread_counts.was_read_after(room, user_id, position)

    async def _send(self, pusher: Pusher, pushes: Sequence[QueuedPush], upto: int) -> None:
        digest = await self._contents.build(pusher.row.user_id, pushes)
        brand = pusher.data.get("brand")
        await self._mails.send(
            pusher.row.pushkey,
            digest,
            brand=clean(brand, MAX_BRAND) if isinstance(brand, str) else None,
            token=pusher.row.unsubscribe_token or "",
            upto=upto,
        )

    async def _record(self, pusher: Pusher) -> None:
        """Store the progress of a pusher; returns when it is durable."""
        position = self._log.next_position()
        row = pusher.progress.digest_row(pusher.number)
        await self._log.append(PushProgressStored(position), [row])

    def _note_unstored(self, digest: PendingDigest) -> None:
        """Have the progress stored, with that of others whom the same event notifies."""
        self._unstored[digest.pusher.number] = digest
        if not self._is_storing:
            self._is_storing = True
            self._clock.callLater(0, self._store)

    def _store(self) -> None:
        self._is_storing = False
        if not self._unstored:
            return
        try:
            position = self._log.next_position()
        except Unavailable as error:
            log.warn("the progress of mails is stored later: {error}", error=error)
            self._is_storing = True
            self._clock.callLater(STORE_AGAIN_SECONDS, self._store)
            return
        rows = [
            digest.pusher.progress.digest_row(number) for number, digest in self._unstored.items()
        ]
        self._unstored = {}
        # Not awaited: the log writes what it has accepted, however long that takes.
        appended = self._log.append(PushProgressStored(position), rows)
        appended.addErrback(lambda _: None)
