"""Lazy loading: which member events each device has been sent, so that they are not sent again.

A connection of sliding sync counts as a device of its own.

A member counts as known to a device only from the position of the response that had it: a request
that is repeated with an older token, because the response got lost, gets it again. An entry that is
evicted here is merely sent once more.

Spec: https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members
"""

from collections.abc import Iterable

from homeserver.concurrency.lru_cache import LruCache
from homeserver.sync.sync_request import SyncRequest

MAX_ENTRIES = 500_000  # (device, room, member), of all devices together

_Known = dict[tuple[int, str], int]  # (room, user id) -> position of the response


class LazyMembers:
    """The member events that each device has."""

    def __init__(self) -> None:
        self._devices: LruCache[tuple[str, ...], _Known] = LruCache(
            "lazy_members", MAX_ENTRIES, size_of=lambda _, known: len(known)
        )

    def unsent(
        self, request: SyncRequest, room: int, user_ids: Iterable[str], since: int | None
    ) -> list[str]:
        """The users, of those given, whose member events the device does not have at `since`."""
        if request.filter.room.state.include_redundant_members or since is None:
            return list(user_ids)
        known = self._devices.get(request.recipient)
        if known is None:
            return list(user_ids)
        return [user_id for user_id in user_ids if known.get((room, user_id), since + 1) > since]

    def sent_members(self, request: SyncRequest, room: int) -> list[str]:
        """The users of a room whose member events the device was sent."""
        known = self._devices.peek(request.recipient) or {}
        return [user_id for number, user_id in known if number == room]

    def mark_sent(
        self, request: SyncRequest, room: int, user_ids: Iterable[str], position: int
    ) -> None:
        """Record that the response that ends at `position` has these members."""
        known = self._devices.peek(request.recipient) or {}
        for user_id in user_ids:
            known[(room, user_id)] = position
        self._devices.put(request.recipient, known)

    def start_over(self, request: SyncRequest) -> None:
        """Forget what the device has: it begins with an initial sync."""
        self._devices.pop(request.recipient)
