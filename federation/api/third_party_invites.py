"""Third-party invites that other servers, and identity servers, turn into invites of users.

The notification that an address was published need not be signed: the keys in the room prove it.

Spec: https://spec.matrix.org/v1.19/server-server-api/#third-party-invites
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from twisted.logger import Logger

from federation.paths import V1, path_of
from federation.receiving.room_access import RoomAccess
from federation.remote.client_errors import for_users
from federation.transport.client import FederationClient
from federation.transport.errors import FederationError
from homeserver.protocol.errors import Forbidden, InvalidParam, MatrixError
from homeserver.protocol.event_types import MEMBER
from homeserver.protocol.identifiers import is_valid_room_id, is_valid_user_id
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.membership.third_party_invites import MAX_INVITES, ThirdPartyInvites
from homeserver.storage.accounts.users import find_user
from homeserver.storage.database.database import Database
from homeserver.web.routes import Auth, Route

TIMEOUT_SECONDS = 20.0

log = Logger()


class Proof(msgspec.Struct):
    """Proof that a user owns the address; `display_name` is taken from the room."""

    signed: dict[str, Any]


class InviteContent(msgspec.Struct):
    """The content of the requested member event."""

    membership: Literal["invite"]
    third_party_invite: Proof


class PartialInvite(msgspec.Struct):
    """The requested member event."""

    type: Literal["m.room.member"]
    room_id: str
    sender: str
    state_key: str
    content: InviteContent


class PendingInvite(msgspec.Struct):
    """An invite that waited for a user to publish the address."""

    room_id: str
    sender: str
    signed: dict[str, Any]


class OnBind(msgspec.Struct):
    """A published address, its user, and the invites that waited for it."""

    medium: str
    address: str
    mxid: str
    invites: list[PendingInvite]


class ThirdPartyInvitesApi:
    def __init__(
        self,
        db: Database,
        local_server: LocalServer,
        access: RoomAccess,
        invites: ThirdPartyInvites,
    ) -> None:
        self._db = db
        self._local_server = local_server
        self._access = access
        self._invites = invites

    def routes(self) -> list[Route]:
        exchange = f"{V1}/exchange_third_party_invite/{{room_id}}"
        bound = f"{V1}/3pid/onbind"
        return [
            Route("PUT", exchange, self.exchange_third_party_invite, Auth.SERVER, limit="invite"),
            # The Identity Service API specifies POST, and identity servers use it.
            *(
                Route(method, bound, self.on_bind_third_party_identifier, Auth.NONE, limit="invite")
                for method in ("PUT", "POST")
            ),
        ]

    async def exchange_third_party_invite(
        self, origin: str, room_id: str, body: PartialInvite
    ) -> None:
        """Turn a third-party invite into an invite of a user of the requesting server."""
        if body.room_id != room_id:
            raise InvalidParam("The event belongs to another room")
        if not is_valid_user_id(body.state_key) or not is_valid_user_id(body.sender):
            raise InvalidParam("sender, state_key: not user ids")
        if body.state_key.partition(":")[2] != origin:
            raise Forbidden("The invited user does not belong to your server")
        if not self._local_server.is_local(body.sender):
            raise Forbidden("The third-party invite was not made by a user of this server")
        await self._access.present(origin, room_id)
        signed = body.content.third_party_invite.signed
        await self._invites.redeem(room_id, body.sender, body.state_key, signed)

    async def on_bind_third_party_identifier(self, body: OnBind) -> None:
        """Redeem the invites of a local user who has published an address.

        Each is checked alone. The identity server gets an error if it should try again, which does
        no harm to redeemed invites, or if none was redeemed. Raises `InvalidParam`, `Forbidden` and
        `MatrixError` of a server that failed.
        """
        if not is_valid_user_id(body.mxid) or not self._local_server.is_local(body.mxid):
            raise InvalidParam("The user does not belong to this server")
        if await self._db.run(find_user, body.mxid) is None:
            raise InvalidParam("The user does not exist")
        outcomes = [
            await self._redeem(body.mxid, invite)
            for invite in body.invites[:MAX_INVITES]
            if invite.signed.get("mxid") == body.mxid
            and is_valid_user_id(invite.sender)
            and is_valid_room_id(invite.room_id)
        ]
        failures = [outcome for outcome in outcomes if outcome is not None]
        for failure in failures:
            if failure.status not in (403, 404):
                raise failure
        if failures and len(failures) == len(outcomes):
            # Any client may send this: the error does not show which rooms exist.
            raise Forbidden("None of these invites can be redeemed")

    async def _redeem(self, user_id: str, invite: PendingInvite) -> MatrixError | None:
        """Redeem one invite; returns the error if that fails."""
        try:
            await self._invites.redeem(invite.room_id, invite.sender, user_id, invite.signed)
        except MatrixError as error:
            log.info(
                "could not redeem an invite of {user} to {room}: {error}",
                user=user_id,
                room=invite.room_id,
                error=error,
            )
            return error
        return None


class ThirdPartyExchange:
    """Asks the inviter's server to turn a third-party invite into an invite of a user."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def exchange(
        self, server: str, room_id: str, sender: str, user_id: str, signed: Mapping[str, Any]
    ) -> None:
        """Send the request. Raises `MatrixError` if the server refuses or does not respond."""
        # The other server takes the displayed name from the room.
        proof = {"display_name": user_id, "signed": signed}
        event = {
            "type": MEMBER,
            "room_id": room_id,
            "sender": sender,
            "state_key": user_id,
            "content": {"membership": "invite", "third_party_invite": proof},
        }
        path = path_of(f"{V1}/exchange_third_party_invite", room_id)
        try:
            await self._client.put(server, path, event, timeout=TIMEOUT_SECONDS)
        except FederationError as error:
            raise for_users(error) from error
