"""Third-party invites: inviting whoever has an address, of whom nobody knows a user id.

The identity server is asked who has the address. If nobody has, it keeps the invite and writes to
the address, and the room learns a token and public keys (`m.room.third_party_invite`). Whoever
publishes the address later gets a signed object that names them; with it, a server turns the invite
into one of that user: one in the room by itself, any other by asking that of whoever invited.

Spec: https://spec.matrix.org/v1.19/client-server-api/#third-party-invites
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.logger import Logger

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.sessions.suspension import check_not_suspended
from homeserver.outbound.identity_invitations import IdentityInvitations, StoredInvite
from homeserver.protocol.authorization.auth_third_party import signing_key
from homeserver.protocol.errors import Forbidden, InvalidParam, MatrixError, NotFound
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

MAX_INVITES = 20  # that one request makes, or turns into invites of a user

log = Logger()


@dataclass(frozen=True, slots=True)
class InvitedAddress:
    """Whom a client wants to invite, and the identity server that is to be asked."""

    id_server: str
    id_access_token: str
    medium: str
    address: str


class ThirdPartyExchangePort(Protocol):
    """Who asks another server to turn a third-party invite into one of a user."""

    async def exchange(
        self, server: str, room_id: str, sender: str, user_id: str, signed: Mapping[str, Any]
    ) -> None:
        """Ask for that; raises `MatrixError` where the server refuses or does not answer."""


class ThirdPartyInvites:
    """Makes and redeems invites by address.

    `check_server` raises where an identity server is none that this server talks to.
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

    def checked(self, wanted: InvitedAddress) -> InvitedAddress:
        """The same with the canonical address. Raises `InvalidParam` and `ServerNotTrusted`."""
        self._check_server(wanted.id_server)
        try:
            address = canonical_address(wanted.medium, wanted.address)
        except InvalidThirdPartyId as error:
            raise InvalidParam(str(error)) from None
        return InvitedAddress(wanted.id_server, wanted.id_access_token, wanted.medium, address)

    async def invite(self, caller: Requester, room_id: str, wanted: InvitedAddress) -> None:
        """Invite whoever has an address, now or later.

        Raises `Forbidden`, `InvalidParam`, `ServerNotTrusted`, what `Memberships.invite` raises,
        and the identity server's own error.
        """
        check_not_suspended(caller)
        wanted = self.checked(wanted)
        # Nobody is written to on behalf of one who may not invite.
        await self._check_may_invite(caller.user_id, room_id)
        server, token = wanted.id_server, wanted.id_access_token
        user_id = await self._identity.lookup(server, token, wanted.medium, wanted.address)
        if user_id is not None:
            await self._memberships.invite(caller, room_id, user_id)
            return
        details = await self._details(caller.user_id, room_id, wanted)
        stored = await self._identity.store_invite(server, token, details)
        draft = EventDraft(
            THIRD_PARTY_INVITE, caller.user_id, _content(stored), state_key=stored.token
        )
        async with self._rooms.writing(room_id) as writer:
            await writer.send(draft)

    async def invite_all(
        self, caller: Requester, room_id: str, addresses: Sequence[InvitedAddress]
    ) -> None:
        """Invite people to a new room, which remains if that fails."""
        for wanted in addresses:
            try:
                await self.invite(caller, room_id, wanted)
            except MatrixError as error:
                log.info("an address was not invited to {room}: {e}", room=room_id, e=error)

    async def redeem_own(
        self, caller: Requester, room_id: str, sender: str, signed: Mapping[str, Any]
    ) -> None:
        """Redeem an invite for the caller. Raises `Forbidden`, also for the proof of another."""
        check_not_suspended(caller)
        if signed.get("mxid") != caller.user_id:
            raise Forbidden("The proof is for somebody else")
        await self.redeem(room_id, sender, caller.user_id, signed)

    async def redeem(
        self, room_id: str, sender: str, user_id: str, signed: Mapping[str, Any]
    ) -> None:
        """Turn the invite that `sender` made into one of a user, of whom `signed` is the proof.

        Does nothing where the user is in the room, or invited. Raises `Forbidden`, `NotFound`, and
        another `MatrixError` where a server does not answer that has a say in it.
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
            raise Forbidden("There is no such invite, or it was withdrawn")
        content = invite.shown.content
        signed_by = signing_key(signed, content)
        if signed_by is None:
            raise Forbidden("The proof is not signed by the identity server")
        # Only the server that lets the user in asks: all others must come to the same result.
        url = signed_by.validity_url
        if url and not await self._identity.is_key_valid(url, signed_by.public_key):
            raise Forbidden("The key of the identity server is not valid any more")
        name = content.get("display_name")
        proof = {"display_name": name if isinstance(name, str) else "", "signed": dict(signed)}
        draft = member_draft(sender, user_id, {"membership": "invite"}, third_party_invite=proof)
        await self._memberships.issue_invite(draft, room.room_id)

    async def _check_may_invite(self, sender: str, room_id: str) -> None:
        """See that a user may make an invite. Raises `Forbidden` and `NotFound`."""
        room = await self._rooms.find(room_id)
        if room is None or room.membership(sender) != "join":
            raise Forbidden("You are not in the room")
        draft = EventDraft(THIRD_PARTY_INVITE, sender, {"display_name": ""}, state_key="rehearsal")
        async with self._rooms.writing(room_id) as writer:
            await build_preview(writer, draft)

    async def _details(self, sender: str, room_id: str, wanted: InvitedAddress) -> dict[str, str]:
        """What the identity server is told, and may tell whom it writes to."""
        room = await self._rooms.get(room_id)
        member = (MEMBER, sender)
        state = await self._rooms.current(room, [member, *(key for key, _, _ in _INVITE_STATE)])
        details = {
            "medium": wanted.medium,
            "address": wanted.address,
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


# State, the field of its content, and how the identity server is told of it.
_INVITE_STATE: Sequence[tuple[StateKey, str, str]] = (
    (CANONICAL_ALIAS_KEY, "alias", "room_alias"),
    (AVATAR_KEY, "url", "room_avatar_url"),
    (JOIN_RULES_KEY, "join_rule", "room_join_rules"),
    (NAME_KEY, "name", "room_name"),
    (CREATE_KEY, "type", "room_type"),
)


def _content(stored: StoredInvite) -> dict[str, Any]:
    """Content of `m.room.third_party_invite`; the first key stands apart for older servers."""
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
