"""Responses of other servers to membership requests, and the values made of them.

Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from federation.transport.lenient_lists import FewElements, NameElements, StateElements
from homeserver.protocol.event_types import MEMBER
from homeserver.protocol.events import Event


class TemplateEvent(msgspec.Struct):
    """The members of a template's event that are used, or have to be as expected."""

    type: str
    room_id: str
    sender: str
    state_key: str
    prev_events: list[Any]
    auth_events: list[Any]
    depth: Annotated[int, msgspec.Meta(ge=0)]
    content: dict[str, Any]

    def is_for(self, membership: str, room_id: str, user_id: str) -> bool:
        """Whether it is the template of this change.

        Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid
        """
        subject = (self.type, self.room_id, self.sender, self.state_key)
        is_subject = subject == (MEMBER, room_id, user_id, user_id)
        return is_subject and self.content.get("membership") == membership


class TemplateResponse(msgspec.Struct):
    """Response to `make_join`, `make_knock` and `make_leave`."""

    event: TemplateEvent
    room_version: str = "1"


class SendJoinResponse(msgspec.Struct):
    """Response to `send_join`: the state before the join, and its auth chain."""

    state: StateElements = []
    auth_chain: StateElements = []
    event: dict[str, Any] | None = None
    members_omitted: bool = False
    servers_in_room: NameElements | None = None


class SendKnockResponse(msgspec.Struct):
    """Response to `send_knock`."""

    knock_room_state: FewElements = []


class InviteResponse(msgspec.Struct):
    """Response to an invite."""

    event: dict[str, Any]


class Joined(msgspec.Struct, frozen=True):
    """A join that a server in the room has accepted, with the state before it.

    If the members were omitted, `servers` are those in the room, the responding server first.
    """

    event: Event
    state: Sequence[Event]
    auth_chain: Sequence[Event]
    server: str
    servers: Sequence[str] | None = None


class Knocked(msgspec.Struct, frozen=True):
    """A knock that a server in the room has accepted, with the stripped state of the room."""

    event: Event
    room_state: Sequence[Mapping[str, Any]]
    server: str
