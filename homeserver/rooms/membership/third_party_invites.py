"""Third-party invites: inviting the owner of an address, whose user id is not known.

The identity server is asked which user has published the address. If none has, it stores the invite
and writes to the address, and the room gets a token and public keys (`m.room.third_party_invite`).
A user who publishes the address later gets a signed object that names them; with it, a server turns
the invite into one of that user: a server in the room by itself, any other through the server of
the inviter.

Spec: https://spec.matrix.org/v1.19/client-server-api/#third-party-invites
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.sessions.suspension import check_not_suspended
from homeserver.outbound.identity_invitations import IdentityInvitations, StoredInvite
from homeserver.protocol.authorization.auth_third_party import signing_key
from homeserver.protocol.errors import Forbidden, InvalidParam, NotFound
from homeserver.protocol.event_types import (
    AVATAR_KEY,
    CANONICAL_ALIAS_KEY,
    CREATE_KEY,
    JOIN_RULES_KEY,
    MEMBER,
    NAME_KEY,
    THIRD_PARTY_INVITE,
)
from homeserver.protocol.identifiers import server_name_of
from homeserver.protocol.third_party_ids.addresses import InvalidThirdPartyId, canonical_address
from homeserver.rooms.events.event_draft import EventDraft, member_draft
from homeserver.rooms.membership.memberships import Memberships
from homeserver.rooms.room.preview import build_preview
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room, StateKey

MAX_INVITES = 20  # that one request makes or redeems


class InvitedAddress(msgspec.Struct, frozen=True):
    """An address that a client wants to invite, and the identity server to ask."""

    id_server: str
    id_access_token: str
    medium: str
    address: str


class ThirdPartyExchangePort(Protocol):
    """Asks another server to turn a third-party invite into one of a user."""

    async def exchange(
        self, server: str, room_id: str, sender: str, user_id: str, signed: Mapping[str, Any]
    ) -> None:
        """Send the request. Raises `MatrixError` if the server refuses or does not respond."""


class ThirdPartyInvites:
    """Makes and redeems invites by address.

    `check_server` raises for an identity server that this server does not talk to.
    """

    def __init__(
        self,
        rooms: RoomRegistry,
        memberships: Memberships,
        identity: IdentityInvitations,
        check_server: Callable[[str], None],
        exchange: ThirdPartyExchangePort,
    ) -> None:
        self._rooms = rooms
        self._memberships = memberships
        self._identity = identity
        self._check_server = check_server
        self._exchange = exchange

    def checked(self, invited: InvitedAddress) -> InvitedAddress:
        """The same with the canonical address. Raises `InvalidParam` and `ServerNotTrusted`."""
        self._check_server(invited.id_server)
        try:
            address = canonical_address(invited.medium, invited.address)
        except InvalidThirdPartyId as error:
            raise InvalidParam(str(error)) from None
        return InvitedAddress(invited.id_server, invited.id_access_token, invited.medium, address)

    async def invite(self, caller: Requester, room_id: str, invited: InvitedAddress) -> None:
        """Invite the owner of an address, now or when they publish it.

        Raises `Forbidden`, `InvalidParam`, `ServerNotTrusted`, what `Memberships.invite` raises,
        and the identity server's own error.
        """
        check_not_suspended(caller)
        invited = self.checked(invited)
        # The identity server sends no mail on behalf of a user who may not invite.
        await self._check_may_invite(caller.user_id, room_id)
        server, token = invited.id_server, invited.id_access_token
        user_id = await self._identity.lookup(server, token, invited.medium, invited.address)
        if user_id is not None:
            await self._memberships.invite(caller, room_id, user_id)
            return
        details = await self._details(caller.user_id, room_id, invited)
        stored = await self._identity.store_invite(server, token, details)
        draft = EventDraft(
            THIRD_PARTY_INVITE, caller.user_id, _content(stored), state_key=stored.token
        )
        async with self._rooms.writing(room_id) as writer:
            await writer.send(draft)

    async def redeem_own(
        self, caller: Requester, room_id: str, sender: str, signed: Mapping[str, Any]
    ) -> None:
        """Redeem an invite for the caller. Raises `Forbidden`, also for another user's proof."""
        check_not_suspended(caller)
        if signed.get("mxid") != caller.user_id:
            raise Forbidden("The proof is for another user")
        await self.redeem(room_id, sender, caller.user_id, signed)

    async def redeem(
        self, room_id: str, sender: str, user_id: str, signed: Mapping[str, Any]
    ) -> None:
        """Turn the invite that `sender` made into one of a user, with `signed` as the proof.

        Does nothing if the user is in the room, or invited. Raises `Forbidden`, `NotFound`, and
        another `MatrixError` if a server that is needed does not respond.
        """
        room = await self._rooms.find(room_id)
        if room is not None and self._rooms.local_server.server_name in room.joined_servers:
            await self._redeem_here(room, sender, user_id, signed)
            return
        server = server_name_of(sender)
        if server == self._rooms.local_server.server_name:
            raise NotFound("This server is not in the room")
        await self._exchange.exchange(server, room_id, sender, user_id, signed)

    async def _redeem_here(
        self, room: Room, sender: str, user_id: str, signed: Mapping[str, Any]
    ) -> None:
        if room.membership(user_id) in ("join", "invite"):
            return
        token = signed.get("token")
        key: StateKey = (THIRD_PARTY_INVITE, token if isinstance(token, str) else "")
        invite = (await self._rooms.current(room, [key])).get(key)
        if invite is None:
            raise Forbidden("The invite does not exist, or was revoked")
        content = invite.shown.content
        signed_by = signing_key(signed, content)
        if signed_by is None:
            raise Forbidden("The proof is not signed by the identity server")
        # Only the server that redeems the invite checks this: all others must come to the same
        # result.
        url = signed_by.validity_url
        if url and not await self._identity.is_key_valid(url, signed_by.public_key):
            raise Forbidden("The key of the identity server is not valid any more")
        name = content.get("display_name")
        proof = {"display_name": name if isinstance(name, str) else "", "signed": dict(signed)}
        draft = member_draft(sender, user_id, {"membership": "invite"}, third_party_invite=proof)
        await self._memberships.issue_invite(draft, room.room_id)

    async def _check_may_invite(self, sender: str, room_id: str) -> None:
        """Check that a user may make an invite. Raises `Forbidden` and `NotFound`."""
        room = await self._rooms.find(room_id)
        if room is None or room.membership(sender) != "join":
            raise Forbidden("You are not in the room")
        draft = EventDraft(THIRD_PARTY_INVITE, sender, {"display_name": ""}, state_key="preview")
        async with self._rooms.writing(room_id) as writer:
            await build_preview(writer, draft)

    async def _details(self, sender: str, room_id: str, invited: InvitedAddress) -> dict[str, str]:
        """The data for the identity server, some of which it may show in its mail."""
        room = await self._rooms.get(room_id)
        member = (MEMBER, sender)
        state = await self._rooms.current(room, [member, *(key for key, _, _ in _INVITE_STATE)])
        details = {
            "medium": invited.medium,
            "address": invited.address,
            "room_id": room_id,
            "sender": sender,
        }
        for key, field, name in (
            *_INVITE_STATE,
            (member, "displayname", "sender_display_name"),
            (member, "avatar_url", "sender_avatar_url"),
        ):
            stored = state.get(key)
            value = None if stored is None else stored.shown.content.get(field)
            if isinstance(value, str) and value:
                details[name] = value
        return details


# State, the field of its content, and its name for the identity server.
_INVITE_STATE: Sequence[tuple[StateKey, str, str]] = (
    (CANONICAL_ALIAS_KEY, "alias", "room_alias"),
    (AVATAR_KEY, "url", "room_avatar_url"),
    (JOIN_RULES_KEY, "join_rule", "room_join_rules"),
    (NAME_KEY, "name", "room_name"),
    (CREATE_KEY, "type", "room_type"),
)


def _content(stored: StoredInvite) -> dict[str, Any]:
    """Content of `m.room.third_party_invite`; the first key is repeated for older servers."""
    keys = [
        {
            name: value
            for name, value in (
                ("public_key", key.public_key),
                ("key_validity_url", key.key_validity_url),
            )
            if value is not None
        }
        for key in stored.public_keys
    ]
    return {
        "display_name": stored.display_name,
        **keys[0],
        "public_keys": keys,
    }
