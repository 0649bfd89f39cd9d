"""The invites of a new room that need another server, which a crash does not lose.

They are stored together with the room, and each is removed when it was sent or refused. The request
that creates the room waits for them. What a process has not sent when it ends is sent by the next
one; an invite that was sent just before may then be sent twice.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from twisted.logger import Logger

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.protocol.errors import MatrixError, Unavailable
from homeserver.rooms.lifecycle.first_events import RoomRequest
from homeserver.rooms.membership.third_party_invites import InvitedAddress
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.accounts.users import find_user
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import Database, DatabaseUnavailable
from homeserver.storage.rooms.unsent_invites import (
    INSERT_UNSENT_INVITE,
    UnsentInvite,
    delete_unsent_invite,
    unsent_invites,
)

RESUME_SECONDS = 60.0
MAX_RESUMED = 500  # invites, in one run
MAX_CONCURRENT_ROOMS = 10
log = Logger()


class InviteUser(Protocol):
    """Invites a user of any server to an existing room: `Memberships.invite`."""

    async def __call__(
        self, caller: Requester, room_id: str, user_id: str, *, is_direct: bool
    ) -> object: ...


InviteAddress = Callable[[Requester, str, InvitedAddress], Awaitable[None]]
"""Invites the owner of an address to an existing room: `ThirdPartyInvites.invite`."""


class RemoteInvites:
    """Sends the invites of new rooms. `start` it to send those that are left from before."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        rooms: RoomRegistry,
        invite_user: InviteUser,
        invite_address: InviteAddress,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._invite_user = invite_user
        self._invite_address = invite_address
        self._in_progress: set[int] = set()  # nids of rooms
        self._resuming = PeriodicTask(
            clock, RESUME_SECONDS, self.resume, name="sending the invites of new rooms"
        )

    def start(self) -> None:
        """Begin to send what earlier requests have not, every minute."""
        self._resuming.start(now=True)

    def stop(self) -> Deferred[None]:
        """Begin no more; fires when the current run has ended."""
        return self._resuming.stop()

    def of_request(
        self, caller: Requester, room_nid: int, request: RoomRequest, user_ids: Sequence[str]
    ) -> list[UnsentInvite]:
        """The invites of these remote users, and of the addresses of a request."""
        users = [
            UnsentInvite(
                room_nid, place, caller.user_id, request.is_direct, user_id, None, None, None, None
            )
            for place, user_id in enumerate(user_ids)
        ]
        return users + [
            UnsentInvite(
                room_nid,
                place,
                caller.user_id,
                request.is_direct,
                None,
                invited.medium,
                invited.address,
                invited.id_server,
                invited.id_access_token,
            )
            for place, invited in enumerate(request.invite_addresses, start=len(users))
        ]

    def rows(self, invites: Sequence[UnsentInvite]) -> list[Row]:
        """The rows that are to be stored together with the room."""
        return [
            INSERT_UNSENT_INVITE.row(
                invite.room,
                invite.place,
                invite.sender,
                invite.is_direct,
                invite.user_id,
                invite.medium,
                invite.address,
                invite.id_server,
                invite.id_access_token,
            )
            for invite in invites
        ]

    async def send(self, caller: Requester, room: Room, invites: Sequence[UnsentInvite]) -> None:
        """Send the invites of a room, which exists, and remains if that fails."""
        self._in_progress.add(room.room_nid)
        try:
            for invite in invites:
                await self._send(caller, room, invite)
        finally:
            self._in_progress.discard(room.room_nid)

    async def resume(self) -> None:
        """Send the invites that no request is sending."""
        by_room: dict[int, list[UnsentInvite]] = {}
        for invite in await self._db.run(unsent_invites, MAX_RESUMED):
            if invite.room not in self._in_progress:
                by_room.setdefault(invite.room, []).append(invite)
        # Another server may take long to respond, and must not delay the invites of other rooms.
        free = DeferredSemaphore(MAX_CONCURRENT_ROOMS)

        def resume(invites: Sequence[UnsentInvite]) -> Deferred[None]:
            return Deferred.fromCoroutine(self._resume_room(invites))

        sending = [free.run(resume, invites) for invites in by_room.values()]
        await DeferredList(sending, consumeErrors=True)

    async def _resume_room(self, invites: Sequence[UnsentInvite]) -> None:
        for invite in invites:
            if not self._resuming.is_started:
                return
            try:
                await self._resume(invite)
            except (Unavailable, DatabaseUnavailable):
                return  # the next run begins with this one
            except Exception:
                # It must not keep all later ones from being sent, now or in the next run.
                log.failure("could not send an invite of room {room}", room=invite.room)
                await self._db.run(delete_unsent_invite, invite.room, invite.place)

    async def _resume(self, invite: UnsentInvite) -> None:
        room = await self._rooms.by_number(invite.room)
        sender = await self._db.run(find_user, invite.sender)
        if (
            room is None
            or sender is None
            or sender.is_deactivated
            or sender.is_locked
            or (invite.user_id and room.membership(invite.user_id) in ("invite", "join", "ban"))
        ):
            await self._db.run(delete_unsent_invite, invite.room, invite.place)
            return
        caller = Requester(sender.user_id, None, is_suspended=sender.is_suspended)
        await self._send(caller, room, invite)

    async def _send(self, caller: Requester, room: Room, invite: UnsentInvite) -> None:
        try:
            if invite.user_id is not None:
                await self._invite_user(
                    caller, room.room_id, invite.user_id, is_direct=invite.is_direct
                )
            else:
                await self._invite_address(caller, room.room_id, _address_of(invite))
        except Unavailable as error:
            log.info("an invite to {room} waits: {error}", room=room.room_id, error=error)
            return
        except MatrixError as error:
            log.info(
                "could not invite {invited} to {room}: {error}",
                invited=invite.user_id or "an address",
                room=room.room_id,
                error=error,
            )
        await self._db.run(delete_unsent_invite, invite.room, invite.place)


def _address_of(invite: UnsentInvite) -> InvitedAddress:
    return InvitedAddress(
        invite.id_server or "",
        invite.id_access_token or "",
        invite.medium or "",
        invite.address or "",
    )
