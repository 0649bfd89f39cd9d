"""Auth events selection: the part of the room state that authorises an event.

Spec: https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection
"""

from collections.abc import Mapping
from typing import Any, TypeGuard

from homeserver.protocol.event_types import (
    CREATE,
    CREATE_KEY,
    JOIN_RULES_KEY,
    MEMBER,
    POWER_LEVELS_KEY,
    THIRD_PARTY_INVITE,
)
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.protocol.room_versions import RoomVersion

AUTHORISING_USER = "join_authorised_via_users_server"


def auth_types_for(
    version: RoomVersion,
    event_type: str,
    sender: str,
    state_key: str | None,
    content: Mapping[str, Any],
) -> list[tuple[str, str]]:
    """The (type, state key) pairs of an event's auth events; the room may lack some of them.

    Each pair occurs once. The create event is not selected if the room id implies it.
    """
    if event_type == CREATE:
        return []
    pairs = [CREATE_KEY] if version.create_in_auth_events else []
    pairs += [POWER_LEVELS_KEY, (MEMBER, sender)]
    if event_type == MEMBER and state_key is not None:
        for pair in _member_types(version, state_key, content):
            if pair not in pairs:
                pairs.append(pair)
    return pairs


def third_party_token(content: Mapping[str, Any]) -> str | None:
    """The token of a third-party invite that a membership event's content redeems, if any."""
    invite = content.get("third_party_invite")
    signed = invite.get("signed") if isinstance(invite, Mapping) else None
    token = signed.get("token") if isinstance(signed, Mapping) else None
    return token if isinstance(token, str) else None


def authorising_user(version: RoomVersion, content: Mapping[str, Any]) -> str | None:
    """The user who authorises a restricted join, if the membership event names one."""
    if not version.restricted_joins:
        return None
    user_id = content.get(AUTHORISING_USER)
    return user_id if is_user_id(user_id) else None


def is_user_id(value: object) -> TypeGuard[str]:
    """Whether a value of untrusted JSON is a user id."""
    return isinstance(value, str) and is_valid_user_id(value)


def _member_types(
    version: RoomVersion, target: str, content: Mapping[str, Any]
) -> list[tuple[str, str]]:
    membership = content.get("membership")
    pairs = [(MEMBER, target)]
    if membership in ("join", "invite", "knock"):
        pairs.append(JOIN_RULES_KEY)
    if membership == "invite" and (token := third_party_token(content)) is not None:
        pairs.append((THIRD_PARTY_INVITE, token))
    if membership == "join" and (user_id := authorising_user(version, content)) is not None:
        pairs.append((MEMBER, user_id))
    return pairs
