"""Moments: what an answer starts from, all of it as it was at one position of the log.

Who takes a position, waits, and then looks at something that follows the log sees it as it has
become meanwhile, and what lies between is in no answer: not in this one, which ends at the
position, and not in the next, which takes it for told.
"""

from typing import NamedTuple

from homeserver.rooms.room.user_rooms import MemberRooms, UserRooms
from homeserver.streams.log import Log
from homeserver.sync.user_change_queues import USER_DATA, UserChangeQueues


class SyncPoint(NamedTuple):
    """A position of the log, and how things were for a user then.

    `changed` is what had news above the token, `None` where all may have; `rooms` are the user's
    places in the rooms concerned.
    """

    position: int
    changed: set[int] | None
    rooms: MemberRooms


class SyncPoints:
    """Takes moments."""

    def __init__(self, feeds: UserChangeQueues, user_rooms: UserRooms, log: Log) -> None:
        self._change_queues = feeds
        self._user_rooms = user_rooms
        self._log = log

    async def take(self, user_id: str, since: int | None) -> SyncPoint:
        """The present moment for one with a token of position `since`, `None` for one without."""
        while True:
            feed, rooms = self._change_queues.loaded(user_id), self._user_rooms.loaded(user_id)
            if feed is None or rooms is None:
                await self._user_rooms.of(user_id)
                await self._change_queues.queue_of(user_id)
                continue
            now = self._log.position
            changed = None if since is None else feed.changed_since(since)
            if changed is None or USER_DATA in changed:
                rooms = dict(rooms)
            else:
                rooms = {number: rooms[number] for number in changed if number in rooms}
            if all(place.position <= now for place in rooms.values()):
                return SyncPoint(now, changed, rooms)
            # They were read from the database before they were published.
            await self._log.written()
