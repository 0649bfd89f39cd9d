"""States of rooms and what authorises them, as other servers ask for them.

Spec: https://spec.matrix.org/v1.19/server-server-api/#retrieving-events
"""

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from homeserver.concurrency.cooperative import build_cooperatively
from homeserver.protocol.event_types import MEMBER
from homeserver.rooms.discovery.heroes import heroes
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import membership_of
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.rooms.names import Names


class AuthChains:
    """Reads states with their auth chains."""

    def __init__(self, names: Names, rooms: RoomRegistry) -> None:
        self._names = names
        self._rooms = rooms

    async def state_before(self, room: Room, stored: StoredEvent) -> list[StoredEvent]:
        """All events of the state before an event."""
        entries = await self._rooms.state_entries(stored.state_before)
        return await self._rooms.load_many_events(room, list(entries.values()))

    async def chain_of(self, room: Room, events: Iterable[StoredEvent]) -> list[StoredEvent]:
        """All that authorises some events, these themselves not included unless they do, too.

        Each comes after what authorises it, since an event is stored after what it cites.
        """
        chain: dict[str, StoredEvent] = {}
        level: Collection[StoredEvent] = list(events)
        while level:
            cited = (each for stored in level for each in stored.event.auth_event_ids)
            wanted = set(
                await build_cooperatively(self._rooms.local_server.clock, cited)
            ).difference(chain)
            found = await self._rooms.find_events(room, wanted)
            chain |= found
            level = list(found.values())
        return sorted(chain.values(), key=lambda stored: stored.event_nid)

    async def join_response(
        self, room: Room, join: StoredEvent, *, omit_members: bool
    ) -> dict[str, Any]:
        """What a server that joins is told: the state before its join, and what authorises it.

        With `omit_members` it gets the member events of the joining user and of the heroes alone,
        and nothing twice.
        """
        if omit_members:
            return await self._short_join_response(room, join)
        state = await self.state_before(room, join)
        chain = await self.chain_of(room, [*state, join])
        return self._join_response(join, state, chain) | {"members_omitted": False}

    async def _short_join_response(self, room: Room, join: StoredEvent) -> dict[str, Any]:
        """Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid"""
        user_id = join.event.state_key or ""
        named_after = await heroes(self._rooms, room, user_id)
        keys = [(MEMBER, member) for member in (user_id, *named_after)]
        members = await self._rooms.state_at(room.version, join.state_before, keys)
        others = await self._others_before(room, join)
        state = [*others, *members.values()]
        told = {each.event.event_id for each in state}
        chain = await self.chain_of(room, [*state, join])
        rest = [each for each in chain if each.event.event_id not in told]
        servers = Counter(room.joined_servers)
        if membership_of(members.get((MEMBER, user_id))) != "join":
            servers[join.event.sender_server] -= 1
        return self._join_response(join, state, rest) | {
            "members_omitted": True,
            "servers_in_room": sorted(name for name, count in servers.items() if count > 0),
        }

    async def _others_before(self, room: Room, join: StoredEvent) -> list[StoredEvent]:
        """All of the state before a join but for its members."""
        if room.root == join.state_after:
            # Nothing came after it yet, and of the others it changed nothing.
            return await self._rooms.load_events_in_order(room, list(room.state.values()))
        member_nid = await self._names.nid(MEMBER)
        entries = await self._rooms.state_entries(join.state_before)
        others = [event_nid for key, event_nid in entries.items() if key[0] != member_nid]
        return await self._rooms.load_events_in_order(room, others)

    def _join_response(
        self, join: StoredEvent, state: Iterable[StoredEvent], chain: Iterable[StoredEvent]
    ) -> dict[str, Any]:
        return {
            "origin": self._rooms.local_server.server_name,
            "event": msgspec.Raw(join.event.json),
            "state": raw_events(state),
            "auth_chain": raw_events(chain),
        }


def raw_events(events: Iterable[StoredEvent]) -> list[msgspec.Raw]:
    """Events as they were signed, without encoding them anew."""
    return [msgspec.Raw(stored.event.json) for stored in events]
