"""Memberships of this server's users in rooms that it is not in, by handshakes with those that are.

Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.logger import Logger

from federation.receiving.event_fetcher import EventFetcher
from federation.remote.membership_requests import MembershipRequests
from federation.remote.membership_responses import Joined
from federation.remote.partial_state_resync import PartialStateResync
from federation.transport.errors import InvalidResponse
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.protocol.errors import Forbidden, MatrixError, Unavailable
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import server_name_of
from homeserver.rooms.events.event_draft import member_draft
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.inbound.event_checks import EventsMissing
from homeserver.rooms.inbound.remote_join import RemoteJoin
from homeserver.rooms.membership.out_of_room_memberships import OutOfRoomMemberships
from homeserver.rooms.room.registry import RoomRegistry

MEMBERS_WAIT_SECONDS = (
    0.5  # that a join waits for the members, who are quickly fetched if they are few
)

log = Logger()


class RemoteMemberships:
    """Joins, knocks, leaves and invites over federation."""

    def __init__(
        self,
        handshakes: MembershipRequests,
        entrance: RemoteJoin,
        distant: OutOfRoomMemberships,
        rooms: RoomRegistry,
        missing: EventFetcher,
        completion: PartialStateResync,
    ) -> None:
        self._requests = handshakes
        self._remote_join = entrance
        self._out_of_room = distant
        self._rooms = rooms
        self._origin = rooms.local_server
        self._missing = missing
        self._completion = completion
        self._entering: KeyedLocks[str] = KeyedLocks()

    async def join(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> StoredEvent:
        """Join a room by one of these servers; one join of a room at a time.

        If this server is in the room already, the other one has only vouched for the join, which
        is then an event like any other.
        """
        async with self._entering.hold(room_id):
            stored = await self._requests.join(user_id, room_id, servers, content, self._admit)
            await self._out_of_room.forget(room_id, user_id)
            return stored

    async def _admit(self, joined: Joined) -> StoredEvent:
        """Take a room in as a server gives it. Raises `InvalidResponse`, and `Forbidden`."""
        room = await self._rooms.find(joined.event.room_id)
        try:
            if room is not None and self._origin.server_name in room.joined_servers:
                return await self._receive(joined)
            return await self._admit_join(joined)
        except (EventsMissing, ValueError) as error:
            raise InvalidResponse(
                joined.server, f"the state of the room is not whole: {error}"
            ) from error

    async def _admit_join(self, joined: Joined) -> StoredEvent:
        stored = await self._remote_join.admit(
            joined.event,
            joined.state,
            joined.auth_chain,
            joined.servers,
            partial(self._missing.fetch_events, joined.server),
        )
        if joined.servers is not None:
            room = await self._rooms.get(joined.event.room_id)
            unfinished = room.partial
            self._completion.begin(room.room_nid)
            if unfinished is not None:
                # Clients without lazy loading find a small room in their next sync.
                with suppress(Unavailable):
                    await unfinished.wait_for_full_state(self._origin.clock, MEMBERS_WAIT_SECONDS)
        return stored

    async def _receive(self, joined: Joined) -> StoredEvent:
        async with self._rooms.writing(joined.event.room_id) as writer:
            received = await self._missing.receive(joined.server, writer, joined.event)
        if received.done is not None:
            await received.done
        standing = received.stored.status
        if refusal := standing.rejected or standing.soft_failed:
            raise Forbidden(f"The room's own rules refuse the join: {refusal}")
        return received.stored

    async def knock(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> StoredEvent:
        """Knock at a room by one of these servers."""
        knock = await self._requests.knock(user_id, room_id, servers, content)
        told = stripped_events(knock.room_state)
        return await self._out_of_room.knocked(knock.event, knock.server, told)

    async def leave(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> StoredEvent:
        """Turn down an invite, or take back a knock; nobody can be kept from that.

        Where no server answers, only this one knows.
        """
        try:
            event = await self._requests.leave(user_id, room_id, servers, content)
        except MatrixError as error:
            log.info("{room} is left without telling it: {error}", room=room_id, error=error)
            event = await self._own_leave(user_id, room_id, content)
        return await self._out_of_room.left(event)

    async def sign_invite(self, event: Event, stripped: Sequence[Mapping[str, Any]]) -> Event:
        """The same invite, with the signature of the invited user's server."""
        server = server_name_of(event.state_key or "")
        return await self._requests.invite(server, event, stripped)

    async def _own_leave(self, user_id: str, room_id: str, content: Mapping[str, Any]) -> Event:
        room = await self._rooms.get(room_id)
        draft = member_draft(user_id, user_id, content)
        return self._origin.sign_event(room.version, draft, room_id=room_id)


def stripped_events(pdus: Sequence[Any]) -> list[dict[str, Any]]:
    """What clients are told of a room that they are invited to, of events in whatever form."""
    stripped = []
    for pdu in pdus:
        if not isinstance(pdu, Mapping):
            continue
        event = {key: pdu.get(key) for key in ("type", "state_key", "sender", "content")}
        if isinstance(event["content"], dict) and all(
            isinstance(event[key], str) for key in ("type", "state_key", "sender")
        ):
            stripped.append(event)
    return stripped
