"""Invites that are taken back, and knocks that are turned down, of rooms that are elsewhere.

Such an event cannot be judged: the room's state is not here. The server that the invite came from,
or that was knocked at, is trusted to end it. Where another one says that it has ended, that server
is asked whether the user could still leave the room: if so, nothing has happened. A stranger who
knows of an invite cannot make it vanish, and can only end its own. The id of a room gives nobody a
say in it.

Spec: https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
"""

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from federation.paths import V1, path_of
from federation.receiving.pdu_checks import PduChecks
from federation.transport.client import FederationClient
from federation.transport.errors import FederationError, RemoteError
from homeserver.concurrency.clock import Clock
from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import is_valid_server_name
from homeserver.rooms.membership.out_of_room_memberships import OutOfRoomMemberships
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.storage.rooms.memberships import PendingRow

TIMEOUT_SECONDS = 10.0
PROPAGATION_WAIT_SECONDS = 5.0  # that others may take to hear of it

log = Logger()


class RescindedInvites:
    """Takes events that end invites and knocks of users of this server, of rooms elsewhere."""

    def __init__(
        self,
        clock: Clock,
        client: FederationClient,
        checks: PduChecks,
        rooms: RoomRegistry,
        distant: OutOfRoomMemberships,
    ) -> None:
        self._clock = clock
        self._client = client
        self._checks = checks
        self._rooms = rooms
        self._out_of_room = distant

    async def receive(self, room_id: str, pdus: Sequence[Any]) -> None:
        """Look for such events among those of a room that this server is not in."""
        room = await self._rooms.find(room_id)
        if room is None or self._rooms.local_server.server_name in room.joined_servers:
            return
        for event in await self._checks.valid_events(room.version, room_id, pdus):
            user_id = event.state_key or ""
            if (
                not is_member_event(event)
                or event.content.get("membership") not in ("leave", "ban")
                or not self._rooms.local_server.is_local(user_id)
            ):
                continue
            pending = await self._out_of_room.pending(room.room_nid, user_id)
            # Its own first, which nobody has to be asked about; a server may be slow to answer.
            for entry in sorted(pending, key=lambda each: each.server != event.sender_server):
                if await self._has_ended(event, entry):
                    await self._out_of_room.ended(event, [entry])
                else:
                    log.info("{event} is not believed: nobody bears it out", event=event)

    async def _has_ended(self, event: Event, entry: PendingRow) -> bool:
        """Whether an event ends what is pending by way of a server, which may have to be asked."""
        if event.sender_server == entry.server:
            return True
        if not is_valid_server_name(entry.server):
            return False
        # Whom it was sent to first is chance.
        for wait in (0.0, PROPAGATION_WAIT_SECONDS):
            await self._pause(wait)
            if await self._could_leave(entry.server, event.room_id, event.state_key or "") is False:
                return True
        return False

    async def _could_leave(self, server: str, room_id: str, user_id: str) -> bool | None:
        """Whether a user could leave a room, by the word of a server; `None` if it gives none."""
        try:
            await self._client.get(
                server, path_of(f"{V1}/make_leave", room_id, user_id), timeout=TIMEOUT_SECONDS
            )
        except RemoteError as refusal:
            return False if refusal.status == 403 else None
        except FederationError:
            return None
        return True

    async def _pause(self, seconds: float) -> None:
        if seconds:
            done: Deferred[None] = Deferred()
            self._clock.callLater(seconds, done.callback, None)
            await done
