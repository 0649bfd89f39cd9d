"""Creating rooms over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#creation
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.rooms.discovery.directory import RoomDirectory
from homeserver.rooms.lifecycle.creation import RoomCreation
from homeserver.rooms.lifecycle.first_events import Preset, RoomRequest, StateDraft
from homeserver.rooms.membership.third_party_invites import (
    MAX_INVITES,
    InvitedAddress,
    ThirdPartyInvites,
)
from homeserver.web.routes import Route

UserId = Annotated[str, msgspec.Meta(pattern="^@")]


class InitialState(msgspec.Struct):
    """An initial state event."""

    type: str
    content: dict[str, Any]
    state_key: str = ""


class InviteThirdParty(msgspec.Struct):
    """An invited address, and the identity server that looks it up."""

    id_server: str
    id_access_token: str
    medium: str
    address: str


class CreateRoom(msgspec.Struct):
    """The properties of the new room."""

    visibility: Literal["public", "private"] | None = None
    preset: Preset | None = None
    room_version: str | None = None
    room_alias_name: str | None = None
    name: str | None = None
    topic: str | None = None
    is_direct: bool | None = None
    invite: list[UserId] = []
    invite_3pid: Annotated[list[InviteThirdParty], msgspec.Meta(max_length=MAX_INVITES)] = []
    creation_content: dict[str, Any] | None = None
    initial_state: list[InitialState] = []
    power_level_content_override: dict[str, Any] | None = None


class CreateRoomApi:
    """`default_version` is the room version where the request has none."""

    def __init__(
        self,
        creation: RoomCreation,
        third_party: ThirdPartyInvites,
        directory: RoomDirectory,
        default_version: str,
    ) -> None:
        self._creation = creation
        self._third_party = third_party
        self._directory = directory
        self._default_version = default_version

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v3/createRoom"
        return [Route("POST", path, self.create_room, limit="room_creation")]

    async def create_room(self, caller: Requester, body: CreateRoom) -> dict[str, str]:
        """Create a room and invite users."""
        if body.visibility == "public":
            self._directory.check_may_publish(caller)
        addresses = [
            self._third_party.checked(
                InvitedAddress(each.id_server, each.id_access_token, each.medium, each.address)
            )
            for each in body.invite_3pid
        ]
        request = _request(body, self._default_version, addresses)
        return {"room_id": await self._creation.create(caller, request)}


def _request(
    body: CreateRoom, default_version: str, addresses: Sequence[InvitedAddress]
) -> RoomRequest:
    published = body.visibility == "public"
    return RoomRequest(
        version=default_version if body.room_version is None else body.room_version,
        preset=body.preset or ("public_chat" if published else "private_chat"),
        published=published,
        alias_name=body.room_alias_name,
        name=body.name,
        topic=body.topic,
        invite=list(dict.fromkeys(body.invite)),
        invite_addresses=addresses,
        is_direct=bool(body.is_direct),
        creation_content=body.creation_content or {},
        initial_state=[
            StateDraft(state.type, state.content, state.state_key) for state in body.initial_state
        ],
        power_levels=body.power_level_content_override or {},
    )
