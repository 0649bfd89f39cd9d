"""Mentions: an index of the events that name somebody, which is read for those who were away long.

It follows the log: the rows are handed to it right after the event is durable. So a crash can lose
those of the last moment, and with them a highlight that is more than a window of events behind.

Spec: https://spec.matrix.org/v1.19/client-server-api/#user-and-room-mentions
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from homeserver.protocol.events import Event
from homeserver.rooms.room_facts import RoomEventAppended
from homeserver.rooms.rooms import Rooms
from homeserver.storage.database import Database
from homeserver.storage.mentions import EVERYBODY, INSERT_MENTION, mentions_between


@dataclass(frozen=True, slots=True)
class MentionsStored:
    """It was stored whom an event names. No reader needs to know."""

    position: int


class Mentions:
    """Writes and reads the index. `apply` is to be subscribed to the log."""

    def __init__(self, db: Database, rooms: Rooms) -> None:
        self._db = db
        self._rooms = rooms
        self._log = rooms.stores.log

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log."""
        rows = [
            INSERT_MENTION.row(fact.room, user_id, fact.position, fact.stored.number)
            for fact in facts
            if isinstance(fact, RoomEventAppended)
            for user_id in self._named(fact)
        ]
        if rows:
            # The log answers for it: what it has taken is written, however long that takes.
            self._log.append(MentionsStored(self._log.next_position()), rows)

    async def of(self, room: int, user_id: str, after: int, upto: int, limit: int) -> list[int]:
        """Numbers of the newest events between two positions that name a user, newest first."""
        return await self._db.run(mentions_between, room, user_id, after, upto, limit)

    def _named(self, fact: RoomEventAppended) -> Iterator[str]:
        """Members of the room on this server; who is no member is not notified."""
        event = fact.stored.event
        if "m.mentions" not in event.content:
            return
        if names_room(event):
            yield EVERYBODY
        room, is_ours = self._rooms.loaded(fact.room), self._rooms.origin.is_ours
        for user_id in sorted(named_users(event)):
            if room is not None and room.membership(user_id) == "join" and is_ours(user_id):
                yield user_id


def named_users(event: Event) -> frozenset[str]:
    """The users whom an event mentions."""
    mentions = event.content.get("m.mentions")
    users = mentions.get("user_ids") if isinstance(mentions, dict) else None
    if not isinstance(users, list):
        return frozenset()
    return frozenset(user for user in users if isinstance(user, str))


def names_room(event: Event) -> bool:
    """Whether an event mentions everybody in the room."""
    mentions = event.content.get("m.mentions")
    return isinstance(mentions, dict) and mentions.get("room") is True


def names(event: Event, user_id: str) -> bool:
    """Whether an event mentions a user, by their id or with everybody."""
    if "m.mentions" not in event.content:
        return False
    return names_room(event) or user_id in named_users(event)
