"""Invites that are taken back, and knocks that are turned down, of rooms that are elsewhere.

Such an event cannot be judged: the room's state is not here. Whoever invited is believed, and so
are servers whose users made the room what the invited user was told of it. Where another one says
that an invite was taken back, one of these is asked whether the user could still leave the room: if
so, nothing has happened. A stranger who knows of an invite cannot make it vanish.

Spec: https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
"""

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from federation.client import FederationClient, path_of
from federation.errors import FederationError, Refused
from federation.handshakes import V1
from federation.pdus import PduChecks
from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.events import Event
from homeserver.rooms.distant_memberships import DistantMemberships
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.user_rooms import Membership, UserRooms
from homeserver.streams.clock import Clock

MAX_ASKED = 2  # servers
TIMEOUT_SECONDS = 10.0
NEWS_SECONDS = 5.0  # that others may take to hear of it

log = Logger()


class Withdrawals:
    """Takes events that end invites and knocks of users of this server, of rooms elsewhere."""

    def __init__(
        self,
        clock: Clock,
        client: FederationClient,
        checks: PduChecks,
        rooms: Rooms,
        distant: DistantMemberships,
        user_rooms: UserRooms,
    ) -> None:
        self._clock = clock
        self._client = client
        self._checks = checks
        self._rooms = rooms
        self._distant = distant
        self._user_rooms = user_rooms

    async def take(self, room_id: str, pdus: Sequence[Mapping[str, Any]]) -> None:
        """Look for such events among those of a room that this server is not in."""
        room = await self._rooms.find(room_id)
        if room is None or self._rooms.origin.server_name in room.joined_servers:
            return
        for event in await self._checks.good(room.version, room_id, pdus):
            user_id = event.state_key or ""
            if (
                not is_member_event(event)
                or event.content.get("membership") not in ("leave", "ban")
                or not self._rooms.origin.is_ours(user_id)
            ):
                continue
            place = (await self._user_rooms.of(user_id)).get(room.number)
            if place is None or place.membership not in ("invite", "knock"):
                continue
            if await self._is_believed(room, event, user_id, place):
                await self._distant.take(event)
            else:
                log.info("{event} is not believed: nobody bears it out", event=event)

    async def _is_believed(self, room: Room, event: Event, user_id: str, place: Membership) -> bool:
        trusted = await self._trusted(room, user_id, place)
        if event.sender_server in trusted or not trusted:
            return event.sender_server in trusted
        # Whom it was sent to first is chance.
        for wait in (0.0, NEWS_SECONDS):
            await self._pause(wait)
            for server in trusted[:MAX_ASKED]:
                could_leave = await self._could_leave(server, room.room_id, user_id)
                if could_leave is False:
                    return True
                if could_leave:
                    break
        return False

    async def _trusted(self, room: Room, user_id: str, place: Membership) -> list[str]:
        """Servers that are in the room for all that is known, the likeliest first."""
        told = await self._distant.stripped_state(room.number, user_id)
        names = [place.sender.partition(":")[2], room.room_id.partition(":")[2]]
        names += [str(each.get("sender", "")).partition(":")[2] for each in told]
        own = self._rooms.origin.server_name
        return [name for name in dict.fromkeys(names) if name and name != own]

    async def _could_leave(self, server: str, room_id: str, user_id: str) -> bool | None:
        """Whether a user could leave a room, by the word of a server; `None` if it gives none."""
        try:
            await self._client.get(
                server, path_of(f"{V1}/make_leave", room_id, user_id), timeout=TIMEOUT_SECONDS
            )
        except Refused as refusal:
            return False if refusal.status == 403 else None
        except FederationError:
            return None
        return True

    async def _pause(self, seconds: float) -> None:
        if seconds:
            done: Deferred[None] = Deferred()
            self._clock.callLater(seconds, done.callback, None)
            await done
