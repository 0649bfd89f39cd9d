"""Drafts: events that local users want to send, before the room's writer makes them.

Memberships have a kind of draft of their own, and the writer accepts an `m.room.member` only as
such: so no endpoint can change one like other state. What only a server may state in a member event
is removed from the content and passed separately, by code that has checked that it is true.
"""

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from homeserver.protocol.authorization.auth_types import AUTHORISING_USER
from homeserver.protocol.event_types import MEMBER
from homeserver.protocol.proposals.sticky_events import STICKY
from homeserver.rooms.events.stored_event import StoredEvent

THIRD_PARTY_INVITE = "third_party_invite"
SERVER_FIELDS = frozenset({AUTHORISING_USER, THIRD_PARTY_INVITE})
"""Fields of a member event that only a server may set, which vouches for them."""


class Stickiness(NamedTuple):
    """For how long an event shall stick, and the name that its sender's client has for that."""

    duration_ms: int
    name: str = STICKY

    @property
    def members(self) -> dict[str, Any]:
        """The members of the event that say so."""
        return {self.name: {"duration_ms": self.duration_ms}}


class EventDraft(msgspec.Struct, frozen=True):
    """An event that a local user wants to send; the writer makes the rest of it."""

    type: str
    sender: str
    content: dict[str, Any]
    state_key: str | None = None
    origin_server_ts: int | None = None  # ms since the epoch; None: now
    redacts: str | None = None  # event id, in room versions that have it outside of `content`
    target: StoredEvent | None = None  # the event of this room that is to be redacted
    is_optional: bool = False  # left out if the rules or a limit do not allow it
    sticky: Stickiness | None = None


class MemberDraft(EventDraft, frozen=True):
    """A change of a membership. `member_draft` makes it."""


def member_draft(
    sender: str,
    target: str,
    content: Mapping[str, Any],
    *,
    authoriser: str | None = None,
    third_party_invite: Mapping[str, Any] | None = None,
    origin_server_ts: int | None = None,
) -> MemberDraft:
    """The draft of a member event of `target`, for code that decides about memberships.

    `SERVER_FIELDS` in the content are dropped, whatever their origin. `authoriser` is the user who
    authorises a restricted join; `third_party_invite` is the proof of an invited address. The
    caller has checked both.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#mroommember
    """
    checked: dict[str, Any] = {
        key: value for key, value in content.items() if key not in SERVER_FIELDS
    }
    if authoriser is not None:
        checked[AUTHORISING_USER] = authoriser
    if third_party_invite is not None:
        checked[THIRD_PARTY_INVITE] = dict(third_party_invite)
    return MemberDraft(MEMBER, sender, checked, state_key=target, origin_server_ts=origin_server_ts)


class ClientTransaction(NamedTuple):
    """The request that makes an event: the device, the transaction id that it chose, and the path.

    `device_id` is the requester's `transaction_scope`, which is no device's for an application
    service that names none.

    `path` is the path without the transaction id and what comes before `rooms`: the id is scoped to
    the path. `sending_path` makes that of a message.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers
    """

    user_id: str
    device_id: str
    txn_id: str
    path: str


def sending_path(room_id: str, event_type: str) -> str:
    """The path of a request that sends a message event of this type; equal ones are one object."""
    return sys.intern(f"rooms/{room_id}/send/{event_type}")


def redaction_path(room_id: str, event_id: str) -> str:
    """The path of a request that redacts this event."""
    return f"rooms/{room_id}/redact/{event_id}"
