"""What servers respond when users of this one join, knock, leave and invite, and what comes of it.

Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from federation.transport.lenient_lists import FewElements, NameElements, StateElements
from homeserver.protocol.events import Event


class TemplateEvent(msgspec.Struct):
    """What is taken of the event of a template."""

    prev_events: list[Any]
    auth_events: list[Any]
    depth: Annotated[int, msgspec.Meta(ge=0)]
    content: dict[str, Any] = {}


class TemplateResponse(msgspec.Struct):
    """Answer to `make_join` and its kind."""

    event: TemplateEvent
    room_version: str = "1"


class SendJoinResponse(msgspec.Struct):
    """Answer to `send_join`: the state before the join, and what authorises it."""

    state: StateElements = []
    auth_chain: StateElements = []
    event: dict[str, Any] | None = None
    members_omitted: bool = False
    servers_in_room: NameElements | None = None


class SendKnockResponse(msgspec.Struct):
    """Answer to `send_knock`."""

    knock_room_state: FewElements = []


class InviteResponse(msgspec.Struct):
    """Answer to an invite."""

    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Joined:
    """A join that a server in the room has accepted, with the state before it.

    Where members were left out of that, `servers` are those in the room, the one asked first.
    """

    event: Event
    state: Sequence[Event]
    auth_chain: Sequence[Event]
    server: str
    servers: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Knocked:
    """A knock that a server in the room has accepted, and what that tells of the room."""

    event: Event
    room_state: Sequence[Mapping[str, Any]]
    server: str
