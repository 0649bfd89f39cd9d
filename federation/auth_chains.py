"""States of rooms and what authorises them, as other servers ask for them.

Spec: https://spec.matrix.org/v1.19/server-server-api/#retrieving-events
"""

from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.stored_event import StoredEvent

MEMBER = "m.room.member"


class AuthChains:
    """Reads states with their auth chains."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    async def state_before(self, room: Room, stored: StoredEvent) -> list[StoredEvent]:
        """All events of the state before an event."""
        stores = self._rooms.stores
        entries = await stores.states.load(stored.state_before)
        return await stores.events.load_in_order(room.version, list(entries.values()))

    async def chain_of(self, room: Room, events: Iterable[StoredEvent]) -> list[StoredEvent]:
        """All that authorises some events, these themselves not included unless they do, too."""
        chain: dict[str, StoredEvent] = {}
        level: Collection[StoredEvent] = list(events)
        while level:
            wanted = {
                event_id
                for stored in level
                for event_id in stored.event.auth_event_ids
                if event_id not in chain
            }
            found = await self._rooms.stores.events.find_many(
                room.version, room.number, room.room_id, wanted
            )
            chain |= found
            level = list(found.values())
        return list(chain.values())

    async def join_answer(
        self, room: Room, join: StoredEvent, *, omit_members: bool
    ) -> dict[str, Any]:
        """What a server that joins is told: the state before its join, and what authorises it."""
        state = await self.state_before(room, join)
        servers: list[str] | None = None
        if omit_members:
            state = [each for each in state if each.event.type != MEMBER]
            servers = sorted(room.joined_servers)
        told = {each.event.event_id for each in state}
        chain = await self.chain_of(room, [*state, join])
        answer: dict[str, Any] = {
            "origin": self._rooms.origin.server_name,
            "event": msgspec.Raw(join.event.json),
            "state": raw_events(state),
            "auth_chain": raw_events(
                each for each in chain if not omit_members or each.event.event_id not in told
            ),
            "members_omitted": omit_members,
        }
        if servers is not None:
            answer["servers_in_room"] = servers
        return answer


def raw_events(events: Iterable[StoredEvent]) -> list[msgspec.Raw]:
    """Events as they were signed, without encoding them anew."""
    return [msgspec.Raw(stored.event.json) for stored in events]
