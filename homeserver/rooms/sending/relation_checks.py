"""Checks of relations: no repeated reaction, and no thread inside of a thread.

Only events of local users are checked; those of other servers are accepted as they are, and clients
count a reaction once.

Spec: https://spec.matrix.org/v1.19/client-server-api/#avoiding-duplicate-annotations
"""

from homeserver.protocol.errors import DuplicateAnnotation, MatrixError
from homeserver.protocol.relations import ANNOTATION, THREAD, Relation, relation_in, relation_of
from homeserver.rooms.events.event_draft import ClientTransaction, EventDraft
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.writer import RoomWriter
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.relations import has_annotated


class NotAThreadRoot(MatrixError):
    """A thread cannot start at an event that itself relates to another one.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#validation-of-mthread-relationships
    """

    errcode, status = "M_UNKNOWN", 400


class RelationRules:
    """Checks relations before they are sent."""

    def __init__(self, db: Database, rooms: RoomRegistry) -> None:
        self._db = db
        self._rooms = rooms
        self._on_the_way: set[tuple[int, str, str, str, str]] = set()

    async def send(
        self, writer: RoomWriter, draft: EventDraft, transaction: ClientTransaction | None = None
    ) -> StoredEvent:
        """Send a draft, if its relation allows it; a draft without relation is sent unchecked.

        Raises `DuplicateAnnotation`, `NotAThreadRoot`, and what `RoomWriter.send` raises.
        """
        relation = relation_in(draft.type, draft.state_key, draft.content)
        if relation is None:
            return await writer.send(draft, transaction)
        if relation.rel_type == THREAD:
            await self._check_thread_root(writer.room, relation.parent_id)
        if relation.rel_type != ANNOTATION or relation.key is None:
            return await writer.send(draft, transaction)
        reaction = (
            writer.room.room_nid,
            relation.parent_id,
            draft.type,
            draft.sender,
            relation.key,
        )
        if reaction in self._on_the_way:
            raise DuplicateAnnotation("You are sending this reaction already")
        self._on_the_way.add(reaction)
        try:
            await self._check_new(writer.room, draft, relation)
            return await writer.send(draft, transaction)
        finally:
            self._on_the_way.discard(reaction)

    async def _check_thread_root(self, room: Room, event_id: str) -> None:
        """Replies relate to events too, but have no relation type, and may have threads."""
        root = await self._rooms.stores.events.find(
            room.version, room.room_nid, room.room_id, event_id
        )
        if root is not None and relation_of(root.shown) is not None:
            raise NotAThreadRoot(
                "An event that relates to another one cannot have a thread of its own"
            )

    async def _check_new(self, room: Room, draft: EventDraft, relation: Relation) -> None:
        numbers = await self._rooms.stores.names.find_nids([draft.type, draft.sender])
        if len(numbers) < 2:
            return
        type_nid, sender_nid = numbers[draft.type], numbers[draft.sender]
        if await self._db.run(
            has_annotated,
            room.room_nid,
            relation.parent_id,
            type_nid,
            sender_nid,
            relation.key or "",
        ):
            raise DuplicateAnnotation("You have sent this reaction already")
