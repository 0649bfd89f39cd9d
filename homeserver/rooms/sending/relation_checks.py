"""What users may say by relations: no reaction twice, and no thread inside of a thread.

Only events of this server's users are held to these rules; what comes from elsewhere is taken as it
is, and clients count a reaction once.

Spec: https://spec.matrix.org/v1.19/client-server-api/#avoiding-duplicate-annotations
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from homeserver.protocol.errors import DuplicateAnnotation, MatrixError
from homeserver.protocol.relations import ANNOTATION, THREAD, Relation, relation_in, relation_of
from homeserver.rooms.events.event_draft import EventDraft
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.names import Names
from homeserver.storage.rooms.relations import has_annotated


class NotAThreadRoot(MatrixError):
    """A thread cannot start at an event that itself relates to another one.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#validation-of-mthread-relationships
    """

    errcode, status = "M_UNKNOWN", 400


class RelationChecks:
    """Checks the relations of local events; of two equal reactions it lets one be sent."""

    def __init__(self, db: Database, names: Names, rooms: RoomRegistry) -> None:
        self._db = db
        self._names = names
        self._rooms = rooms
        self._in_progress: set[tuple[int, str, str, str, str]] = set()

    @asynccontextmanager
    async def permit(self, room: Room, draft: EventDraft) -> AsyncIterator[None]:
        """Check a draft that has a relation; it is to be sent while the block runs.

        Raises `DuplicateAnnotation` and `NotAThreadRoot`.
        """
        relation = relation_in(draft.type, draft.state_key, draft.content)
        if relation is not None and relation.rel_type == THREAD:
            await self._check_thread_root(room, relation.parent_id)
        if relation is None or relation.rel_type != ANNOTATION or relation.key is None:
            yield
            return
        reaction = room.room_nid, relation.parent_id, draft.type, draft.sender, relation.key
        if reaction in self._in_progress:
            raise DuplicateAnnotation("You are reacting with this just now")
        self._in_progress.add(reaction)
        try:
            await self._check_new(room, draft, relation)
            yield
        finally:
            self._in_progress.discard(reaction)

    @staticmethod
    def has_relation(draft: EventDraft) -> bool:
        """Whether a draft must be sent within `permit`."""
        return relation_in(draft.type, draft.state_key, draft.content) is not None

    async def _check_thread_root(self, room: Room, event_id: str) -> None:
        """Replies relate to events too, but have no relation type, and may have threads."""
        root = await self._rooms.find_event(room, event_id)
        if root is not None and relation_of(root.shown) is not None:
            raise NotAThreadRoot("An event that relates to another one has no thread of its own")

    async def _check_new(self, room: Room, draft: EventDraft, relation: Relation) -> None:
        numbers = await self._names.find_nids([draft.type, draft.sender])
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
            raise DuplicateAnnotation("You have reacted with this already")
