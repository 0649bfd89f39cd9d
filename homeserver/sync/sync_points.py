"""Sync points: the inputs of a response, all of them as they were at one position of the log.

If a request took a position, waited, and then read data that follows the log, it would see that
data as of later. What lies between would be in no response: not in this one, which ends at the
position, and not in the next, which takes it for sent.
"""

from typing import NamedTuple

from homeserver.rooms.room.user_rooms import MemberRooms, UserRooms
from homeserver.streams.log import Log
from homeserver.streams.shards import shard_of
from homeserver.streams.sync_tokens import PublishedPositions, SyncToken
from homeserver.sync.user_change_queues import USER_DATA, UserChangeQueues


class SyncPoint(NamedTuple):
    """What was published at one moment, and what had changed for a user by then.

    `changed` is what changed above the token, `None` where everything may have; `rooms` are the
    user's memberships of the rooms concerned.
    """

    now: PublishedPositions
    changed: set[int] | None
    rooms: MemberRooms


class SyncPoints:
    """Takes sync points."""

    def __init__(self, change_queues: UserChangeQueues, user_rooms: UserRooms, log: Log) -> None:
        self._change_queues = change_queues
        self._user_rooms = user_rooms
        self._log = log

    async def take(
        self, user_id: str, since: SyncToken | None, *, all_rooms: bool = False
    ) -> SyncPoint:
        """The current sync point for a token, `None` for no token.

        With `all_rooms` it has all memberships of the user.
        """
        while True:
            queue, rooms = self._change_queues.loaded(user_id), self._user_rooms.loaded(user_id)
            if queue is None or rooms is None:
                await self._user_rooms.of(user_id)
                await self._change_queues.queue_of(user_id)
                continue
            now = self._log.seen.snapshot()
            changed = None if since is None else queue.changed_since(since)
            if all_rooms or changed is None or USER_DATA in changed:
                rooms = dict(rooms)
            else:
                rooms = {number: rooms[number] for number in changed if number in rooms}
            if _are_published(rooms, now):
                return SyncPoint(now, changed, rooms)
            # Some memberships were read from the database before they were published.
            await self._log.written()


def _are_published(rooms: MemberRooms, now: PublishedPositions) -> bool:
    """Whether all memberships are as of published positions."""
    base = now.base
    # Not `all(…)`: each delivery comes by here, mostly with one room.
    for number, membership in rooms.items():
        position = membership.position
        if position > base and (now.even is not None or position > now.at(shard_of(number))):
            return False
    return True
