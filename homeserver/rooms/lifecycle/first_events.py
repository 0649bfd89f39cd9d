"""The first events of a room: the content of its create event, and the state that it begins with.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.authorization.auth_types import is_user_id
from homeserver.protocol.errors import BadJson, InvalidParam
from homeserver.protocol.event_types import (
    AVATAR,
    CANONICAL_ALIAS,
    ENCRYPTION,
    GUEST_ACCESS,
    HISTORY_VISIBILITY,
    JOIN_RULES,
    NAME,
    NAME_KEY,
    POWER_LEVELS,
    SERVER_ACL,
    TOMBSTONE,
    TOPIC,
)
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.events.event_draft import EventDraft, member_draft
from homeserver.rooms.membership.third_party_invites import InvitedAddress

Preset = Literal["private_chat", "public_chat", "trusted_private_chat"]

PRESETS: dict[str, dict[str, dict[str, str]]] = {
    preset: {
        JOIN_RULES: {"join_rule": join_rule},
        HISTORY_VISIBILITY: {"history_visibility": "shared"},
        **guest_access,
    }
    for preset, join_rule, guest_access in (
        ("private_chat", "invite", {GUEST_ACCESS: {"guest_access": "can_join"}}),
        ("trusted_private_chat", "invite", {GUEST_ACCESS: {"guest_access": "can_join"}}),
        # Without the event guests may not join, as this preset requires.
        ("public_chat", "public", {}),
    )
}
MAX_CREATORS = 1_000


class StateDraft(msgspec.Struct, frozen=True):
    """A state event that the new room is to start with."""

    type: str
    content: dict[str, Any]
    state_key: str = ""


class RoomRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of the new room that a user requests."""

    version: str
    preset: Preset
    published: bool = False
    alias_name: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: Sequence[str] = ()
    invite_addresses: Sequence[InvitedAddress] = ()
    is_direct: bool = False
    creation_content: dict[str, Any] = msgspec.field(default_factory=dict)
    initial_state: Sequence[StateDraft] = ()
    power_levels: dict[str, Any] = msgspec.field(default_factory=dict)


def create_content(caller: Requester, version: RoomVersion, request: RoomRequest) -> dict[str, Any]:
    """Content of the create event: that of the request, and what the room version requires.

    Raises `BadJson` and `InvalidParam`.
    """
    content = {**request.creation_content, "room_version": version.identifier}
    content.pop("creator", None)
    if version.creator_in_content:
        content["creator"] = caller.user_id
    for name, kind in (("m.federate", bool), ("type", str), ("predecessor", dict)):
        if name in content and not isinstance(content[name], kind):
            raise BadJson(f"creation_content: {name} has the wrong type")
    if version.creators_outrank_everyone:
        named = _checked_creators(content.get("additional_creators", []))
        if request.preset == "trusted_private_chat":
            creators = dict.fromkeys([*named, *request.invite])
            creators.pop(caller.user_id, None)
            named = list(creators)
        if named or "additional_creators" in content:
            content["additional_creators"] = named
    return content


def _checked_creators(named: object) -> list[str]:
    """The requested additional creators. Raises `BadJson` and `InvalidParam`."""
    if not isinstance(named, list):
        raise BadJson("additional_creators is not a list")
    for user_id in named:
        if not is_user_id(user_id):
            raise InvalidParam(f"additional_creators: {user_id!r} is not a user id")
    return named


def first_events(
    creator: str,
    version: RoomVersion,
    request: RoomRequest,
    alias: str | None,
    member: dict[str, Any],
) -> list[EventDraft]:
    """The events between the create event and the invites, in the order of the specification."""
    given = {(state.type, state.state_key) for state in request.initial_state}
    if request.name is not None:
        given.discard(NAME_KEY)
    drafts: list[EventDraft] = [
        member_draft(creator, creator, member),
        _state(creator, POWER_LEVELS, power_levels_content(creator, version, request)),
    ]
    if alias is not None:
        drafts.append(_state(creator, CANONICAL_ALIAS, {"alias": alias}))
    for event_type, content in PRESETS[request.preset].items():
        if (event_type, "") not in given:
            drafts.append(_state(creator, event_type, content))
    drafts += [
        EventDraft(state.type, creator, state.content, state_key=state.state_key)
        for state in request.initial_state
    ]
    if request.name is not None:
        drafts.append(_state(creator, NAME, {"name": request.name}))
    if request.topic is not None:
        drafts.append(_state(creator, TOPIC, topic_content(request.topic)))
    return drafts


def topic_content(topic: str) -> dict[str, Any]:
    """A topic in plain text, in the old and in the extensible form.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#mroomtopic
    """
    return {"topic": topic, "m.topic": {"m.text": [{"body": topic}]}}


def power_levels_content(
    creator: str, version: RoomVersion, request: RoomRequest
) -> dict[str, Any]:
    """The default power levels, overridden by those of the request, key by key."""
    users: dict[str, int] = {}
    if not version.creators_outrank_everyone:
        users[creator] = 100
        if request.preset == "trusted_private_chat":
            users |= dict.fromkeys(request.invite, 100)
    content: dict[str, Any] = {
        "users": users,
        "users_default": 0,
        "events": {
            NAME: 50,
            AVATAR: 50,
            CANONICAL_ALIAS: 50,
            POWER_LEVELS: 100,
            HISTORY_VISIBILITY: 100,
            ENCRYPTION: 100,
            SERVER_ACL: 100,
            TOMBSTONE: 150 if version.creators_outrank_everyone else 100,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": 50 if request.preset == "public_chat" else 0,
    }
    return content | request.power_levels


def _state(sender: str, event_type: str, content: dict[str, Any]) -> EventDraft:
    return EventDraft(event_type, sender, content, state_key="")
