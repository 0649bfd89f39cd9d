"""Redaction: an event without all that is not essential.

Signatures and reference hashes cover the redacted form, so that an event keeps its id and its
signatures when it is redacted. The algorithm differs between room versions in the columns
`redaction_keeps_…`. `unsigned` is not part of the signed event and is always removed.

Spec: https://spec.matrix.org/v1.19/client-server-api/#redactions
"""

from collections.abc import Mapping
from typing import Any

from homeserver.protocol import event_types
from homeserver.protocol.room_versions import RoomVersion

_TOP_LEVEL_KEYS = frozenset(
    {
        "event_id",
        "type",
        "room_id",
        "sender",
        "state_key",
        "content",
        "hashes",
        "signatures",
        "depth",
        "prev_events",
        "auth_events",
        "origin_server_ts",
    }
)
_TOP_LEVEL_KEYS_WITH_LEGACY = _TOP_LEVEL_KEYS | {"origin", "membership", "prev_state"}

_POWER_LEVEL_KEYS = (
    "ban",
    "events",
    "events_default",
    "kick",
    "redact",
    "state_default",
    "users",
    "users_default",
)


def redact(version: RoomVersion, pdu: Mapping[str, Any]) -> dict[str, Any]:
    """The redacted copy of an event in the federation format.

    The argument is not changed; the copy shares the values that are kept.
    """
    kept = _TOP_LEVEL_KEYS_WITH_LEGACY if version.redaction_keeps_legacy_keys else _TOP_LEVEL_KEYS
    redacted = {key: value for key, value in pdu.items() if key in kept}
    content = pdu.get("content")
    redacted["content"] = _redact_content(version, pdu.get("type"), content) if content else {}
    return redacted


def _redact_content(version: RoomVersion, event_type: Any, content: Any) -> dict[str, Any]:
    match event_type:
        case event_types.MEMBER:
            return _redact_member(version, content)
        case event_types.CREATE:
            if version.redaction_keeps_create_content:
                return dict(content)
            return _only(content, "creator")
        case event_types.JOIN_RULES:
            keys = ("join_rule", "allow") if version.redaction_keeps_allow else ("join_rule",)
            return _only(content, *keys)
        case event_types.POWER_LEVELS:
            invite = ("invite",) if version.redaction_keeps_invite_level else ()
            return _only(content, *_POWER_LEVEL_KEYS, *invite)
        case event_types.HISTORY_VISIBILITY:
            return _only(content, "history_visibility")
        case event_types.ALIASES if version.redaction_keeps_aliases:
            return _only(content, "aliases")
        case event_types.REDACTION if version.redaction_keeps_redacts:
            return _only(content, "redacts")
    return {}


def _redact_member(version: RoomVersion, content: Mapping[str, Any]) -> dict[str, Any]:
    redacted = _only(content, "membership")
    if version.redaction_keeps_authorising_user:
        redacted |= _only(content, "join_authorised_via_users_server")
    invite = content.get("third_party_invite")
    # The key itself stays even if it has no `signed` in it: version 11 says that it "is no longer
    # redacted, but will only contain the `signed` key".
    if version.redaction_keeps_third_party_signed and isinstance(invite, Mapping):
        redacted["third_party_invite"] = _only(invite, "signed")
    return redacted


def _only(content: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: content[key] for key in keys if key in content}
