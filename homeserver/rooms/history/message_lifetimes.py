"""The lifetime of messages: how old one may be before it is shown to no local user any more.

A message is as old as its sender says, or as the time since which this server has it, if that is
longer: a sender cannot make a message live longer than others.

Proposal: https://github.com/matrix-org/matrix-spec-proposals/pull/1763
"""

from collections.abc import Iterable

import msgspec

from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.event_types import RETENTION_KEY
from homeserver.protocol.events import Event
from homeserver.protocol.retention.lifetimes import LifetimeLimits
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.streams.positions import EPOCH_SECONDS, position_at

MAX_CACHED = 10_000  # rooms with a policy
DAY_SECONDS = 86_400
# Positions below were not made of the time, by a version that counted them.
FIRST_TIMED = position_at(EPOCH_SECONDS + DAY_SECONDS)


class Cutoff(msgspec.Struct, frozen=True):
    """What is older has expired: messages sent before a time in ms, or stored up to a position."""

    sent_ms: int
    position: int

    @classmethod
    def at(cls, ms: int) -> "Cutoff":
        """The cutoff of a time in ms since the epoch."""
        return cls(ms, position_at(ms / 1000))

    def has_expired(self, event: Event, position: int | None) -> bool:
        """Whether an event is too old. State never is."""
        if event.state_key is not None:
            return False
        is_old_here = FIRST_TIMED < (position or 0) <= self.position
        return is_old_here or event.origin_server_ts < self.sent_ms


class MessageLifetimes:
    """The lifetimes of the messages of all rooms. Without `limits`, nothing expires."""

    def __init__(self, rooms: RoomRegistry, limits: LifetimeLimits | None) -> None:
        self.limits = limits
        self._rooms = rooms
        # Events are immutable, but for a redaction, which their object shows.
        self._policies: LruCache[int, StoredEvent] = LruCache("retention_policies", MAX_CACHED)

    async def cutoff(self, room: Room) -> Cutoff | None:
        """What has expired in a room by now; `None` if nothing does."""
        if self.limits is None:
            return None
        policy = None
        event_nid = room.number_of(RETENTION_KEY)
        if event_nid is not None:
            policy = self._policies.get(event_nid)
            if policy is None:
                found = await self._rooms.current(room, [RETENTION_KEY])
                policy = found.get(RETENTION_KEY)
                if policy is not None:
                    self._policies.put(policy.event_nid, policy)
        return self._cutoff(policy)

    def may_have_expired(self, room: Room, events: Iterable[StoredEvent]) -> bool:
        """Whether any of these events has expired, or may have: without waiting."""
        if self.limits is None:
            return False
        event_nid = room.number_of(RETENTION_KEY)
        policy = None if event_nid is None else self._policies.get(event_nid)
        if event_nid is not None and policy is None:
            return True
        cutoff = self._cutoff(policy)
        return cutoff is not None and any(
            cutoff.has_expired(stored.event, stored.position) for stored in events
        )

    def _cutoff(self, policy: StoredEvent | None) -> Cutoff | None:
        assert self.limits is not None, "nothing expires without limits"
        lifetime = self.limits.lifetime(None if policy is None else policy.shown.content)
        if lifetime is None:
            return None
        return Cutoff.at(max(0, self._rooms.local_server.now_ms() - lifetime))
