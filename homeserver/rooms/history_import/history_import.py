"""The import of history: an application service inserts old messages into a room.

They have their own senders and times, notify nobody, and stay on this server
(`homeserver/rooms/events/imported_events.py`). Members read them as the room's past, so the
requester needs the power to redact the messages of others, and the senders are users that the
application service may act as. These need not be members: a bridge imports messages of people who
left long ago.

A request that is repeated inserts nothing twice: each message has an id, that of the bridge or one
that follows from the message, and those that the room has already are left out.

No specification has this: docs/history-import.md describes it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.sessions.suspension import check_not_suspended
from homeserver.concurrency.cooperative import build_cooperatively
from homeserver.concurrency.fair_slots import FairSlots, QueueFull
from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.errors import (
    BadJson,
    Forbidden,
    InvalidParam,
    LimitExceeded,
    NotFound,
    TooLarge,
    Unavailable,
)
from homeserver.protocol.event_format import EventTooLarge, InvalidEvent
from homeserver.protocol.event_types import REDACTION
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import is_valid_event_id, is_valid_user_id
from homeserver.rooms.ephemeral.receipts import READ_PRIVATE, Receipts
from homeserver.rooms.events.imported_events import (
    OldMessage,
    build_imported_event,
    can_have_imports,
    check_import_id,
    import_id,
    message_digest,
)
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history_import.import_request import Importer, ImportRequest
from homeserver.rooms.history_import.insertion import (
    InsertionPoint,
    append_to_timeline,
    insert_before,
    next_depth,
)
from homeserver.rooms.room.event_rows import check_names
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room_receipts import Receipt
from homeserver.rooms.room.writer import RoomWriter
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.event_pages import first_at_depth, first_message

MAX_MESSAGES = 1_000  # of one request
RETRY_AFTER_MS = 1_000  # for a request that finds too many others waiting

FindImporter = Callable[[Requester], Importer | None]
"""Finds the application service that made a request, if its registration permits imports."""


class HistoryImport:
    """Inserts old messages into rooms."""

    def __init__(
        self,
        db: Database,
        rooms: RoomRegistry,
        receipts: Receipts,
        find_importer: FindImporter,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._receipts = receipts
        self._find_importer = find_importer
        # A service with a thousand rooms keeps no other one from importing, nor users from writing.
        self._slots = FairSlots(4, share=2, max_waiting=100, max_waiting_in_all=200)

    async def insert(self, caller: Requester, room_id: str, request: ImportRequest) -> list[str]:
        """Insert old messages; returns their event ids when they are durable.

        Raises `Forbidden` for a caller who may not import these messages into this room, `BadJson`
        and `TooLarge` for messages that make no valid event, `LimitExceeded` where too many
        requests wait, `InvalidParam` for a place where none can be inserted and in a room of the
        versions 1 and 2, `NotFound` for an unknown event or room, `Unavailable` while the members
        of a room are being fetched.
        """
        importer = self._check_senders(caller, request)
        try:
            async with self._slots.slot(importer.id), self._rooms.writing(room_id) as writer:
                await self._check_room(writer, caller, request)
                return await self._insert(writer, caller, request)
        except QueueFull:
            raise LimitExceeded(RETRY_AFTER_MS, "Too many imports wait for others") from None

    async def _insert(
        self, writer: RoomWriter, caller: Requester, request: ImportRequest
    ) -> list[str]:
        await writer.inbound.lock.acquire()
        try:
            ids, stored = await self._insert_new(writer, caller, request)
        finally:
            writer.inbound.lock.release()
        if request.mark_read_by is not None and ids:
            await self._mark_read(writer, request.mark_read_by, stored[ids[-1]])
        return ids

    def _check_senders(self, caller: Requester, request: ImportRequest) -> Importer:
        check_not_suspended(caller)
        importer = self._find_importer(caller)
        if importer is None:
            raise Forbidden(
                "Only an application service may import history, if its registration permits it"
            )
        if len(request.messages) > MAX_MESSAGES:
            raise TooLarge(f"A request has at most {MAX_MESSAGES} messages")
        is_local = self._rooms.local_server.is_local
        for sender in {message.sender for message in request.messages}:
            is_valid = is_valid_user_id(sender) and is_local(sender)
            if not (is_valid and importer.covers_user(sender)):
                raise Forbidden(f"The application service may not send as {sender}")
        if any(message.type == REDACTION for message in request.messages):
            raise InvalidParam("A redaction is not imported: leave out what was redacted")
        return importer

    async def _check_room(
        self, writer: RoomWriter, caller: Requester, request: ImportRequest
    ) -> None:
        room = writer.room
        if room.membership(caller.user_id) != "join":
            raise Forbidden("You are not in the room")
        levels = await self._rooms.power_levels(room)
        if levels.of(caller.user_id) < levels.redact:
            raise Forbidden("To import history you need the power level to redact messages")
        if not can_have_imports(room.version):
            raise InvalidParam(
                f"Rooms of version {room.version.identifier} cannot have imported history"
            )
        if room.partial is not None:
            raise Unavailable("The room's members are being fetched; try again later")
        reader = request.mark_read_by
        if reader is not None and not (
            self._rooms.local_server.is_local(reader) and room.membership(reader) == "join"
        ):
            raise InvalidParam(f"{reader} is no local member of the room")

    async def _insert_new(
        self, writer: RoomWriter, caller: Requester, request: ImportRequest
    ) -> tuple[list[str], Mapping[str, StoredEvent]]:
        """Insert the messages that the room does not have; returns all ids, and the events."""
        storage, room = writer.storage, writer.room
        with _reported_to_clients():
            ids = self._ids(writer, request.messages)
        known = await storage.events.find_many(room.version, room.room_nid, room.room_id, ids)
        for event_id, message in zip(ids, request.messages, strict=True):
            if event_id in known and known[event_id].event.sender != message.sender:
                raise InvalidParam(f"{event_id} is another event")
        new = [
            (event_id, message)
            for event_id, message in zip(ids, request.messages, strict=True)
            if event_id not in known
        ]
        if not new:
            return ids, known
        # What is queued must be found in the database.
        await storage.log.written()
        point = await self._point(writer, request)
        depth = next_depth(writer) if point is None else point.depth
        silent = point is not None or not request.notify
        with _reported_to_clients():
            events = await build_cooperatively(
                writer.local_server.clock, _events(writer, new, depth, silent=silent)
            )
        # The caller may have waited long, and have been removed from the room meanwhile.
        await self._check_room(writer, caller, request)
        while True:
            try:
                for event in events:
                    check_names(storage.names, event.type, event.sender)
                if point is None:
                    inserted, done = append_to_timeline(writer, events)
                else:
                    inserted, done = insert_before(writer, point, events)
                break
            except NotInMemory as missing:
                await missing.load()
        await done
        return ids, {**known, **{stored.event.event_id: stored for stored in inserted}}

    def _ids(self, writer: RoomWriter, messages: Sequence[OldMessage]) -> list[str]:
        """The ids of the events that messages become."""
        room, server_name = writer.room, writer.local_server.server_name
        equal: Counter[str] = Counter()
        ids: list[str] = []
        for message in messages:
            event_id = message.event_id
            if event_id is None:
                digest = message_digest(room.version, room.room_id, message)
                event_id = import_id(digest, equal[digest], server_name)
                equal[digest] += 1
            check_import_id(room.version, event_id)
            ids.append(event_id)
        if len(set(ids)) < len(ids):
            raise InvalidParam("Two messages of the request have the same event_id")
        return ids

    async def _point(self, writer: RoomWriter, request: ImportRequest) -> InsertionPoint | None:
        """The place for the messages; `None` for the end of the room."""
        room_nid = writer.room.room_nid
        if request.forward:
            return None
        if request.before is not None:
            return await self._point_before(writer, request.before)
        place = await self._db.run(first_message, room_nid)
        if place is not None:
            _, before = await self._db.run(first_at_depth, room_nid, place[0])
            return InsertionPoint(place[0], before)
        if request.forward_if_empty:
            return None
        raise InvalidParam("The room has no message to insert others before: use forward")

    async def _point_before(self, writer: RoomWriter, event_id: str) -> InsertionPoint:
        is_valid = is_valid_event_id(event_id)
        stored = await self._rooms.find_event(writer.room, event_id) if is_valid else None
        if stored is None or stored.position is None:
            raise NotFound(f"{event_id} is no event of the room's history")
        depth = stored.topological_depth
        if depth <= 1:
            raise InvalidParam("Nothing is before the first event of a room")
        first, before = await self._db.run(first_at_depth, writer.room.room_nid, depth)
        if stored.position != (before if stored.position > 0 else first):
            raise InvalidParam("Nothing can be inserted here: choose the event before it")
        return InsertionPoint(depth, before)

    async def _mark_read(self, writer: RoomWriter, user_id: str, stored: StoredEvent) -> None:
        """Move a user's private receipt; other servers do not know the event."""
        position = stored.position or 0
        if position > 0:
            now = self._rooms.local_server.now_ms()
            receipt = Receipt(user_id, READ_PRIVATE, None, stored.event.event_id, position, now)
            await self._receipts.move(writer.room, [receipt])


def _events(
    writer: RoomWriter, messages: Sequence[tuple[str, OldMessage]], depth: int, *, silent: bool
) -> Iterator[Event]:
    room = writer.room
    for event_id, message in messages:
        yield build_imported_event(
            room.version, room.room_id, event_id, message, depth=depth, silent=silent
        )


@contextmanager
def _reported_to_clients() -> Iterator[None]:
    """Report a message that makes no valid event."""
    try:
        yield
    except EventTooLarge as error:
        raise TooLarge(str(error)) from error
    except InvalidEvent as error:
        raise BadJson(str(error)) from error
