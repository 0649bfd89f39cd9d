"""Rescinded invites and rejected knocks, of rooms that this server is not in.

We cannot authorise these events because we do not have the room state. We trust the server that
sent the invite, or that received the knock, to end it. For an event of any other server we ask that
server whether the user could still `make_leave`: if so, the event is ignored. A server that only
knows of an invite cannot rescind it, and can only rescind its own. The server name in a room id
carries no authority.

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
PROPAGATION_WAIT_SECONDS = 5.0  # seconds until the event may have reached other servers

log = Logger()


class RescindedInvites:
    """Receives events that rescind invites or reject knocks of local users."""

    def __init__(
        self,
        clock: Clock,
        client: FederationClient,
        checks: PduChecks,
        rooms: RoomRegistry,
        out_of_room: OutOfRoomMemberships,
    ) -> None:
        self._clock = clock
        self._client = client
        self._checks = checks
        self._rooms = rooms
        self._out_of_room = out_of_room

    async def receive(self, room_id: str, pdus: Sequence[Any]) -> None:
        """Find such events among the PDUs of a room that this server is not in."""
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
            # An entry of the sender's own server needs no request; another server may be slow to
            # respond.
            for entry in sorted(pending, key=lambda each: each.server != event.sender_server):
                if await self._has_ended(event, entry):
                    await self._out_of_room.ended(event, [entry])
                else:
                    log.info(
                        "ignored {event}: no server in the room confirmed the rescinded invite",
                        event=event,
                    )

    async def _has_ended(self, event: Event, entry: PendingRow) -> bool:
        """Whether an event ends the invite or knock of an entry, by its sender or as its server
        reports.
        """
        if event.sender_server == entry.server:
            return True
        if not is_valid_server_name(entry.server):
            return False
        # The event may reach that server after us: ask twice.
        for wait in (0.0, PROPAGATION_WAIT_SECONDS):
            await self._pause(wait)
            if await self._could_leave(entry.server, event.room_id, event.state_key or "") is False:
                return True
        return False

    async def _could_leave(self, server: str, room_id: str, user_id: str) -> bool | None:
        """Whether a user could leave a room, as reported by a server; `None` if it does not say."""
        try:
            await self._client.get(
                server, path_of(f"{V1}/make_leave", room_id, user_id), timeout=TIMEOUT_SECONDS
            )
        except RemoteError as error:
            return False if error.status == 403 else None
        except FederationError:
            return None
        return True

    async def _pause(self, seconds: float) -> None:
        if seconds:
            done: Deferred[None] = Deferred()
            self._clock.callLater(seconds, done.callback, None)
            await done
