"""Third-party invites that other servers, and identity servers, turn into invites of users.

Who notifies of an address that was published need not sign the request: what it says is proved by
the keys that the room has.

Spec: https://spec.matrix.org/v1.19/server-server-api/#third-party-invites
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from twisted.logger import Logger

from federation.paths import V1, path_of
from federation.receiving.room_access import RoomAccess
from federation.remote.membership_requests import for_users
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
    """What shows that a user has the address; `display_name` is taken from the room."""

    signed: dict[str, Any]


class InviteContent(msgspec.Struct):
    """The content of the member event that is wanted."""

    membership: Literal["invite"]
    third_party_invite: Proof


class PartialInvite(msgspec.Struct):
    """The member event that is wanted."""

    type: Literal["m.room.member"]
    room_id: str
    sender: str
    state_key: str
    content: InviteContent


class PendingInvite(msgspec.Struct):
    """An invite that waited for somebody to publish the address."""

    room_id: str
    sender: str
    signed: dict[str, Any]


class OnBind(msgspec.Struct):
    """An address that was published, by whom, and the invites that waited for that."""

    medium: str
    address: str
    mxid: str
    invites: list[PendingInvite]


class ThirdPartyInvitesApi:
    def __init__(
        self, db: Database, origin: LocalServer, access: RoomAccess, invites: ThirdPartyInvites
    ) -> None:
        self._db = db
        self._origin = origin
        self._access = access
        self._invites = invites

    def routes(self) -> list[Route]:
        exchange = f"{V1}/exchange_third_party_invite/{{room_id}}"
        bound = f"{V1}/3pid/onbind"
        return [
            Route("PUT", exchange, self.exchange_third_party_invite, Auth.SERVER, limit="invite"),
            # The Identity Service API calls it a POST, and so do those that exist.
            *(
                Route(method, bound, self.on_bind_third_party_identifier, Auth.NONE, limit="invite")
                for method in ("PUT", "POST")
            ),
        ]

    async def exchange_third_party_invite(
        self, origin: str, room_id: str, body: PartialInvite
    ) -> None:
        """Turn a third-party invite into one of a user of the asking server."""
        if body.room_id != room_id:
            raise InvalidParam("The event is of another room")
        if not is_valid_user_id(body.state_key) or not is_valid_user_id(body.sender):
            raise InvalidParam("sender, state_key: not user ids")
        if body.state_key.partition(":")[2] != origin:
            raise Forbidden("The invited user is not of your server")
        if not self._origin.is_local(body.sender):
            raise Forbidden("The third-party invite was not made by a user of this server")
        await self._access.present(origin, room_id)
        signed = body.content.third_party_invite.signed
        await self._invites.redeem(room_id, body.sender, body.state_key, signed)

    async def on_bind_third_party_identifier(self, body: OnBind) -> None:
        """Redeem the invites of a user of this server who has published an address.

        Each is judged alone. The identity server is told if it should come again, which does no
        harm to what was redeemed, and if nothing was. Raises `InvalidParam`, `Forbidden` and
        `MatrixError` of a server that failed.
        """
        if not is_valid_user_id(body.mxid) or not self._origin.is_local(body.mxid):
            raise InvalidParam("The user is not of this server")
        if await self._db.run(find_user, body.mxid) is None:
            raise InvalidParam("There is no such user")
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
            # Anybody may ask: what rooms there are is not told.
            raise Forbidden("None of these invites can be redeemed")

    async def _redeem(self, user_id: str, invite: PendingInvite) -> MatrixError | None:
        """Redeem one invite; gives why that cannot be."""
        try:
            await self._invites.redeem(invite.room_id, invite.sender, user_id, invite.signed)
        except MatrixError as error:
            log.info(
                "{user} is not invited to {room}: {error}",
                user=user_id,
                room=invite.room_id,
                error=error,
            )
            return error
        return None


class ThirdPartyExchange:
    """Asks the server of whoever invited to turn a third-party invite into one of a user."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def exchange(
        self, server: str, room_id: str, sender: str, user_id: str, signed: Mapping[str, Any]
    ) -> None:
        """Ask for that; raises `MatrixError` where the server refuses or does not answer."""
        # The name that the room shows is known there.
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
