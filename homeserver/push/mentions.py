"""Mentions: an index of the events that mention users, read for users with many unread events.

A durable reader of the log writes it: the rows are appended right after the event is durable,
together with the position of the reader. Rows that a crash kept from being stored are added at the
next start.

Spec: https://spec.matrix.org/v1.19/client-server-api/#user-and-room-mentions
"""

from collections.abc import Awaitable, Iterator

from homeserver.protocol.events import Event
from homeserver.rooms.history.timeline_source import TimelineEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.mentions import INSERT_MENTION, WHOLE_ROOM, mentions_between


class Mentions:
    """Makes the rows of the index, for the durable reader of mentions, and reads it."""

    def __init__(self, db: Database, rooms: RoomRegistry) -> None:
        self._db = db
        self._rooms = rooms

    async def of(self, room: int, user_id: str, after: int, upto: int, limit: int) -> list[int]:
        """Numeric ids of the newest events that mention a user in a range, newest first."""
        return await self._db.run(mentions_between, room, user_id, after, upto, limit)

    def rows_of(self, event: TimelineEvent) -> list[Row] | Awaitable[list[Row]]:
        """The rows of an event that mentions users."""
        room = self._rooms.loaded(event.room_nid)
        return self._rows_in(event, room) if room is not None else self._load_and_rows_of(event)

    async def _load_and_rows_of(self, event: TimelineEvent) -> list[Row]:
        room = await self._rooms.by_number(event.room_nid)
        return [] if room is None else self._rows_in(event, room)

    def _rows_in(self, event: TimelineEvent, room: Room) -> list[Row]:
        number = event.stored.event_nid
        return [
            INSERT_MENTION.row(event.room_nid, user_id, event.position, number)
            for user_id in self._mentioned(event.stored.event, room)
        ]

    def _mentioned(self, event: Event, room: Room) -> Iterator[str]:
        """The mentioned local members of the room; other users are not notified."""
        if mentions_room(event):
            yield WHOLE_ROOM
        is_local = self._rooms.local_server.is_local
        for user_id in sorted(mentioned_users(event)):
            if room.membership(user_id) == "join" and is_local(user_id):
                yield user_id


def has_mentions(event: Event) -> bool:
    """Whether an event says whom it mentions, if anybody."""
    return "m.mentions" in event.content


def mentioned_users(event: Event) -> frozenset[str]:
    """The users whom an event mentions."""
    mentions = event.content.get("m.mentions")
    users = mentions.get("user_ids") if isinstance(mentions, dict) else None
    if not isinstance(users, list):
        return frozenset()
    return frozenset(user for user in users if isinstance(user, str))


def mentions_room(event: Event) -> bool:
    """Whether an event mentions the whole room."""
    mentions = event.content.get("m.mentions")
    return isinstance(mentions, dict) and mentions.get("room") is True


def mentions_user(event: Event, user_id: str) -> bool:
    """Whether an event mentions a user, by their id or with the whole room."""
    return has_mentions(event) and (mentions_room(event) or user_id in mentioned_users(event))
