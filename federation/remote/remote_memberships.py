"""Memberships of local users in rooms that this server is not in, by membership requests.

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
from homeserver.rooms.membership.blocked_rooms import BlockedRooms
from homeserver.rooms.membership.out_of_room_memberships import OutOfRoomMemberships
from homeserver.rooms.room.registry import RoomRegistry

# Seconds that a join waits for the full state, which arrives quickly if the room is small.
MEMBERS_WAIT_SECONDS = 0.5

log = Logger()


class RemoteMemberships:
    """Joins, knocks, leaves and invites over federation."""

    def __init__(
        self,
        requests: MembershipRequests,
        remote_join: RemoteJoin,
        out_of_room: OutOfRoomMemberships,
        rooms: RoomRegistry,
        fetcher: EventFetcher,
        completion: PartialStateResync,
        joining: KeyedLocks[str],
        blocked: BlockedRooms,
    ) -> None:
        self._blocked = blocked
        self._requests = requests
        self._remote_join = remote_join
        self._out_of_room = out_of_room
        self._rooms = rooms
        self._local_server = rooms.local_server
        self._fetcher = fetcher
        self._completion = completion
        self._joining = joining

    async def join(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> StoredEvent:
        """Join a room through one of these servers; one join of a room at a time.

        If this server is in the room already, the other one has only authorised the join, which is
        then received like any other event.
        """
        await self._blocked.check(room_id)
        async with self._joining.hold(room_id):
            stored = await self._requests.join(user_id, room_id, servers, content, self._admit)
            await self._out_of_room.forget(room_id, user_id)
            return stored

    async def _admit(self, joined: Joined) -> StoredEvent:
        """Admit a room with the state in a response. Raises `InvalidResponse` and `Forbidden`."""
        room = await self._rooms.find(joined.event.room_id)
        try:
            if room is not None and self._local_server.server_name in room.joined_servers:
                return await self._receive(joined)
            return await self._admit_join(joined)
        except (EventsMissing, ValueError) as error:
            raise InvalidResponse(
                joined.server, f"incomplete send_join response: {error}"
            ) from error

    async def _admit_join(self, joined: Joined) -> StoredEvent:
        stored = await self._remote_join.admit(
            joined.event,
            joined.state,
            joined.auth_chain,
            joined.servers,
            partial(self._fetcher.fetch_events, joined.server),
        )
        if joined.servers is not None:
            room = await self._rooms.get(joined.event.room_id)
            unfinished = room.partial
            self._completion.begin(room.room_nid)
            if unfinished is not None:
                # Clients without lazy loading find a small room in their next sync.
                with suppress(Unavailable):
                    await unfinished.wait_for_full_state(
                        self._local_server.clock, MEMBERS_WAIT_SECONDS
                    )
        return stored

    async def _receive(self, joined: Joined) -> StoredEvent:
        async with self._rooms.writing(joined.event.room_id) as writer:
            received = await self._fetcher.receive(joined.server, writer, joined.event)
        if received.done is not None:
            await received.done
        status = received.stored.status
        if reason := status.rejected or status.soft_failed:
            raise Forbidden(f"The room's rules do not allow the join: {reason}")
        return received.stored

    async def knock(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> StoredEvent:
        """Knock on a room through one of these servers."""
        await self._blocked.check(room_id)
        knock = await self._requests.knock(user_id, room_id, servers, content)
        stripped = stripped_events(knock.room_state)
        return await self._out_of_room.knocked(knock.event, knock.server, stripped)

    async def leave(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> StoredEvent:
        """Reject an invite, or withdraw a knock, which always succeeds.

        If no server responds, the leave is stored on this server only.
        """
        try:
            event = await self._requests.leave(user_id, room_id, servers, content)
        except MatrixError as error:
            log.info("left {room} locally; remote leave failed: {error}", room=room_id, error=error)
            event = await self._own_leave(user_id, room_id, content)
        return await self._out_of_room.left(event)

    async def sign_invite(self, event: Event, stripped: Sequence[Mapping[str, Any]]) -> Event:
        """The same invite, with the signature of the invited user's server."""
        server = server_name_of(event.state_key or "")
        return await self._requests.invite(server, event, stripped)

    async def _own_leave(self, user_id: str, room_id: str, content: Mapping[str, Any]) -> Event:
        room = await self._rooms.get(room_id)
        draft = member_draft(user_id, user_id, content)
        return self._local_server.sign_event(room.version, draft, room_id=room_id)


def stripped_events(pdus: Sequence[Any]) -> list[dict[str, Any]]:
    """The stripped state that clients get with an invite or knock, without malformed events."""
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
