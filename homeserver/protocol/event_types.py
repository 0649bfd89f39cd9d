"""The types of events that the server itself knows, each by one name, and keys of the room's state.

A key of the state is a type and a state key. Where a room has one event of a type, its state key is
empty, and the key of the state is `…_KEY` here.

What an event of one of these types is depends on its state key, too: see `event_kinds.py`.
"""

from typing import Final

# What a room is and who takes part in it.
# Spec: https://spec.matrix.org/v1.19/client-server-api/#room-events
CREATE: Final = "m.room.create"
MEMBER: Final = "m.room.member"
POWER_LEVELS: Final = "m.room.power_levels"
JOIN_RULES: Final = "m.room.join_rules"
CANONICAL_ALIAS: Final = "m.room.canonical_alias"
REDACTION: Final = "m.room.redaction"

# Room versions before 6 have a rule for it.
# Spec: https://spec.matrix.org/v1.19/rooms/v5/#authorisation-rules
ALIASES: Final = "m.room.aliases"

# Spec: https://spec.matrix.org/v1.19/client-server-api/#third-party-invites
THIRD_PARTY_INVITE: Final = "m.room.third_party_invite"

# Spec: https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility
HISTORY_VISIBILITY: Final = "m.room.history_visibility"

# Spec: https://spec.matrix.org/v1.19/client-server-api/#guest-access
GUEST_ACCESS: Final = "m.room.guest_access"

# Spec: https://spec.matrix.org/v1.19/client-server-api/#server-access-control-lists-acls-for-rooms
SERVER_ACL: Final = "m.room.server_acl"

# Spec: https://spec.matrix.org/v1.19/client-server-api/#room-upgrades
TOMBSTONE: Final = "m.room.tombstone"

# How long messages are kept, which is not in the specification.
# Proposal: https://github.com/matrix-org/matrix-spec-proposals/pull/1763
RETENTION: Final = "m.room.retention"

# Spec: https://spec.matrix.org/v1.19/client-server-api/#spaces
SPACE_CHILD: Final = "m.space.child"

# Spec: https://spec.matrix.org/v1.19/server-server-api/#policy-servers
POLICY: Final = "m.room.policy"

# Messages, and how a room presents itself.
# Spec: https://spec.matrix.org/v1.19/client-server-api/#instant-messaging
MESSAGE: Final = "m.room.message"
NAME: Final = "m.room.name"
TOPIC: Final = "m.room.topic"
AVATAR: Final = "m.room.avatar"

# Spec: https://spec.matrix.org/v1.19/client-server-api/#event-annotations-and-reactions
REACTION: Final = "m.reaction"

# Spec: https://spec.matrix.org/v1.19/client-server-api/#voice-over-ip
CALL_INVITE: Final = "m.call.invite"

# Other events that are activity of a room, by which clients of sliding sync (MSC4186) sort it.
STICKER: Final = "m.sticker"
POLL_START: Final = "m.poll.start"
UNSTABLE_POLL_START: Final = "org.matrix.msc3381.poll.start"
BEACON_INFO: Final = "m.beacon_info"
UNSTABLE_BEACON_INFO: Final = "org.matrix.msc3672.beacon_info"

# Spec: https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption
ENCRYPTION: Final = "m.room.encryption"
ENCRYPTED: Final = "m.room.encrypted"

# Ephemeral events, and the EDUs that carry them between servers.
# Spec: https://spec.matrix.org/v1.19/server-server-api/#edus
TYPING: Final = "m.typing"
RECEIPT: Final = "m.receipt"
PRESENCE: Final = "m.presence"
DIRECT_TO_DEVICE: Final = "m.direct_to_device"
DEVICE_LIST_UPDATE: Final = "m.device_list_update"
SIGNING_KEY_UPDATE: Final = "m.signing_key_update"
UNSTABLE_SIGNING_KEY_UPDATE: Final = "org.matrix.signing_key_update"  # before it was specified

# Account data that the server makes or reads.
# Spec: https://spec.matrix.org/v1.19/client-server-api/#client-config
FULLY_READ: Final = "m.fully_read"
PUSH_RULES: Final = "m.push_rules"
IGNORED_USER_LIST: Final = "m.ignored_user_list"
DIRECT: Final = "m.direct"
TAG: Final = "m.tag"
INVITE_PERMISSION_CONFIG: Final = "m.invite_permission_config"

# Keys of the state.
CREATE_KEY: Final[tuple[str, str]] = (CREATE, "")
POWER_LEVELS_KEY: Final[tuple[str, str]] = (POWER_LEVELS, "")
JOIN_RULES_KEY: Final[tuple[str, str]] = (JOIN_RULES, "")
HISTORY_VISIBILITY_KEY: Final[tuple[str, str]] = (HISTORY_VISIBILITY, "")
GUEST_ACCESS_KEY: Final[tuple[str, str]] = (GUEST_ACCESS, "")
SERVER_ACL_KEY: Final[tuple[str, str]] = (SERVER_ACL, "")
TOMBSTONE_KEY: Final[tuple[str, str]] = (TOMBSTONE, "")
NAME_KEY: Final[tuple[str, str]] = (NAME, "")
AVATAR_KEY: Final[tuple[str, str]] = (AVATAR, "")
CANONICAL_ALIAS_KEY: Final[tuple[str, str]] = (CANONICAL_ALIAS, "")
RETENTION_KEY: Final[tuple[str, str]] = (RETENTION, "")
ENCRYPTION_KEY: Final[tuple[str, str]] = (ENCRYPTION, "")
POLICY_KEY: Final[tuple[str, str]] = (POLICY, "")
