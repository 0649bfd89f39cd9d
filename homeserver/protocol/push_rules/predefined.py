"""The predefined rules, which every user has before they change anything.

They are listed in the order in which they are checked within their kind. `OWN_USER_ID` is a
placeholder for the id of the user who has the rules.

Spec: https://spec.matrix.org/v1.19/client-server-api/#predefined-rules
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from homeserver.protocol.event_types import (
    CALL_INVITE,
    ENCRYPTED,
    MEMBER,
    MESSAGE,
    REACTION,
    SERVER_ACL,
    TOMBSTONE,
)
from homeserver.protocol.proposals.unstable_names import (
    SUBSCRIBED_THREAD_RULE,
    THREAD_CONDITION,
    UNSUBSCRIBED_THREAD_RULE,
)

OWN_USER_ID: Final = "[the user's Matrix ID]"
MASTER: Final = ".m.rule.master"

_SOUND: Final = {"set_tweak": "sound", "value": "default"}
_RING: Final = {"set_tweak": "sound", "value": "ring"}
_HIGHLIGHT: Final = {"set_tweak": "highlight"}


def _matches(key: str, pattern: str) -> dict[str, Any]:
    return {"kind": "event_match", "key": key, "pattern": pattern}


def _rule(
    name: str,
    conditions: Sequence[dict[str, Any]],
    actions: Sequence[str | dict[str, Any]] = (),
    *,
    enabled: bool = True,
) -> dict[str, Any]:
    return {
        "rule_id": name,
        "default": True,
        "enabled": enabled,
        "conditions": list(conditions),
        "actions": list(actions),
    }


def _is_type(event_type: str) -> dict[str, Any]:
    return _matches("type", event_type)


_IS_STATE: Final = _matches("state_key", "")
_TWO_MEMBERS: Final = {"kind": "room_member_count", "is": "2"}

_OVERRIDE: Final = (
    _rule(MASTER, [], enabled=False),
    _rule(".m.rule.suppress_notices", [_matches("content.msgtype", "m.notice")]),
    _rule(
        ".m.rule.invite_for_me",
        [
            _is_type(MEMBER),
            _matches("content.membership", "invite"),
            _matches("state_key", OWN_USER_ID),
        ],
        ["notify", _SOUND],
    ),
    _rule(".m.rule.member_event", [_is_type(MEMBER)]),
    _rule(
        ".m.rule.is_user_mention",
        [
            {
                "kind": "event_property_contains",
                "key": r"content.m\.mentions.user_ids",
                "value": OWN_USER_ID,
            }
        ],
        ["notify", _SOUND, _HIGHLIGHT],
    ),
    _rule(
        ".m.rule.is_room_mention",
        [
            {"kind": "event_property_is", "key": r"content.m\.mentions.room", "value": True},
            {"kind": "sender_notification_permission", "key": "room"},
        ],
        ["notify", _HIGHLIGHT],
    ),
    _rule(".m.rule.tombstone", [_is_type(TOMBSTONE), _IS_STATE], ["notify", _HIGHLIGHT]),
    _rule(".m.rule.reaction", [_is_type(REACTION)]),
    _rule(".m.rule.room.server_acl", [_is_type(SERVER_ACL), _IS_STATE]),
    _rule(
        ".m.rule.suppress_edits",
        [
            {
                "kind": "event_property_is",
                "key": r"content.m\.relates_to.rel_type",
                "value": "m.replace",
            }
        ],
    ),
)

# Only where users may subscribe to threads.
_POSTCONTENT: Final = (
    _rule(UNSUBSCRIBED_THREAD_RULE, [{"kind": THREAD_CONDITION, "subscribed": False}]),
    _rule(
        SUBSCRIBED_THREAD_RULE,
        [{"kind": THREAD_CONDITION, "subscribed": True}],
        ["notify", _SOUND],
    ),
)

_UNDERRIDE: Final = (
    _rule(".m.rule.call", [_is_type(CALL_INVITE)], ["notify", _RING]),
    _rule(
        ".m.rule.encrypted_room_one_to_one",
        [_TWO_MEMBERS, _is_type(ENCRYPTED)],
        ["notify", _SOUND],
    ),
    _rule(
        ".m.rule.room_one_to_one",
        [_TWO_MEMBERS, _is_type(MESSAGE)],
        ["notify", _SOUND],
    ),
    _rule(".m.rule.message", [_is_type(MESSAGE)], ["notify"]),
    _rule(".m.rule.encrypted", [_is_type(ENCRYPTED)], ["notify"]),
)

PREDEFINED: Final[Mapping[str, Sequence[Mapping[str, Any]]]] = {
    "override": _OVERRIDE,
    "postcontent": _POSTCONTENT,
    "underride": _UNDERRIDE,
}
"""The predefined rules by kind. Not to be changed."""
