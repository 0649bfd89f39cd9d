"""The room versions: one row per version, one named column for each rule that differs.

Other code reads a column (`version.knocking`) and never compares identifiers: versions have no
order. A new version is a row here, and a column if it brings a rule that no other version has.

Spec: https://spec.matrix.org/v1.19/rooms/
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

import msgspec
from msgspec.structs import replace


class EventFormat(Enum):
    """The references of an event to itself and to others. Finer differences are columns."""

    V1 = "v1"
    """`event_id` is a field; `prev_events` and `auth_events` hold pairs of an id and its hashes."""

    V3 = "v3"
    """No `event_id`; `prev_events` and `auth_events` are lists of event ids."""


class EventIdFormat(Enum):
    """The origin of an event id."""

    CHOSEN = "v1"
    """`$opaque_id:domain`, chosen by the server that makes the event."""

    HASH = "v3"
    """`$` and the reference hash in unpadded Base64."""

    URL_SAFE_HASH = "v4"
    """`$` and the reference hash in URL-safe unpadded Base64."""


class StateResolution(Enum):
    """The state resolution algorithms."""

    V1 = "v1"
    V2 = "v2"
    V2_1 = "v2.1"


class RoomVersion(msgspec.Struct, frozen=True, eq=False):
    """The rules that differ between room versions. Compared by identity: one object each."""

    identifier: str
    stable: bool

    # Events
    event_format: EventFormat
    event_id_format: EventIdFormat
    max_depth: int
    """The largest `depth` of an event; a room that has reached it stays there."""
    strict_canonical_json: bool
    """Events must be canonical JSON: no floats, no integers beyond 2^53 - 1."""
    redacts_in_content: bool
    """A redaction names its target in `content.redacts`, not in `redacts` at the top level."""
    limits_ids_by_codepoints: bool
    """Identifiers, types and state keys of events may have 255 codepoints. The specification says
    255 bytes for all versions, but other servers count codepoints in room versions before 11.
    """
    room_id_is_create_hash: bool
    """The room id is the event id of `m.room.create` with the sigil `!`; that event has none."""

    # Signatures
    event_id_domain_must_sign: bool
    """An event needs a signature of the domain in its event id, beside the sender's."""
    validates_signing_key_validity: bool
    """A signing key must have been valid at the event's `origin_server_ts`."""

    # Redaction: kept besides the keys that all versions keep
    redaction_keeps_legacy_keys: bool
    """`origin`, `membership` and `prev_state` at the top level."""
    redaction_keeps_aliases: bool
    """`aliases` of `m.room.aliases`."""
    redaction_keeps_allow: bool
    """`allow` of `m.room.join_rules`."""
    redaction_keeps_authorising_user: bool
    """`join_authorised_via_users_server` of `m.room.member`."""
    redaction_keeps_create_content: bool
    """All content of `m.room.create`, not `creator` only."""
    redaction_keeps_third_party_signed: bool
    """`signed` in `third_party_invite` of `m.room.member`."""
    redaction_keeps_invite_level: bool
    """`invite` of `m.room.power_levels`."""
    redaction_keeps_redacts: bool
    """`redacts` in the content of `m.room.redaction`."""

    # Authorisation
    creator_in_content: bool
    """`content.creator` of `m.room.create` is required, and names the room's creator."""
    special_case_aliases_auth: bool
    """Any server may send `m.room.aliases` for its own domain, without further checks."""
    redactions_need_power: bool
    """The redact level is an authorisation rule, not a condition for applying the redaction."""
    limit_notifications_power_levels: bool
    """`notifications` in `m.room.power_levels` may only be changed as `events` may."""
    integer_power_levels: bool
    """Power levels must be integers; before, strings and floats were read as integers."""
    float_power_levels: bool
    """Power levels may be floats, which are truncated. Strict canonical JSON has no floats."""
    knocking: bool
    """Membership `knock` and the join rule `knock` exist."""
    restricted_joins: bool
    """The join rule `restricted` exists."""
    knock_restricted: bool
    """The join rule `knock_restricted` exists."""
    create_in_auth_events: bool
    """`auth_events` hold the `m.room.create` event; otherwise the room id implies it."""
    creators_outrank_everyone: bool
    """The creators, including `additional_creators`, have infinite power that no one can revoke."""

    # State
    state_resolution: StateResolution


_V1 = RoomVersion(
    identifier="1",
    stable=True,
    event_format=EventFormat.V1,
    event_id_format=EventIdFormat.CHOSEN,
    max_depth=2**63 - 1,
    strict_canonical_json=False,
    redacts_in_content=False,
    limits_ids_by_codepoints=True,
    room_id_is_create_hash=False,
    event_id_domain_must_sign=True,
    validates_signing_key_validity=False,
    redaction_keeps_legacy_keys=True,
    redaction_keeps_aliases=True,
    redaction_keeps_allow=False,
    redaction_keeps_authorising_user=False,
    redaction_keeps_create_content=False,
    redaction_keeps_third_party_signed=False,
    redaction_keeps_invite_level=False,
    redaction_keeps_redacts=False,
    creator_in_content=True,
    special_case_aliases_auth=True,
    redactions_need_power=True,
    limit_notifications_power_levels=False,
    integer_power_levels=False,
    float_power_levels=True,
    knocking=False,
    restricted_joins=False,
    knock_restricted=False,
    create_in_auth_events=True,
    creators_outrank_everyone=False,
    state_resolution=StateResolution.V1,
)

_V2 = replace(_V1, identifier="2", state_resolution=StateResolution.V2)

_V3 = replace(
    _V2,
    identifier="3",
    event_format=EventFormat.V3,
    event_id_format=EventIdFormat.HASH,
    event_id_domain_must_sign=False,
    redactions_need_power=False,
)

_V4 = replace(_V3, identifier="4", event_id_format=EventIdFormat.URL_SAFE_HASH)

_V5 = replace(_V4, identifier="5", validates_signing_key_validity=True)

_V6 = replace(
    _V5,
    identifier="6",
    max_depth=2**53 - 1,
    strict_canonical_json=True,
    redaction_keeps_aliases=False,
    special_case_aliases_auth=False,
    limit_notifications_power_levels=True,
    float_power_levels=False,
)

_V7 = replace(_V6, identifier="7", knocking=True)

_V8 = replace(_V7, identifier="8", restricted_joins=True, redaction_keeps_allow=True)

_V9 = replace(_V8, identifier="9", redaction_keeps_authorising_user=True)

_V10 = replace(_V9, identifier="10", integer_power_levels=True, knock_restricted=True)

_V11 = replace(
    _V10,
    identifier="11",
    redacts_in_content=True,
    limits_ids_by_codepoints=False,
    redaction_keeps_legacy_keys=False,
    redaction_keeps_create_content=True,
    redaction_keeps_third_party_signed=True,
    redaction_keeps_invite_level=True,
    redaction_keeps_redacts=True,
    creator_in_content=False,
)

_V12 = replace(
    _V11,
    identifier="12",
    room_id_is_create_hash=True,
    create_in_auth_events=False,
    creators_outrank_everyone=True,
    state_resolution=StateResolution.V2_1,
)

ROOM_VERSIONS: Mapping[str, RoomVersion] = MappingProxyType(
    {
        version.identifier: version
        for version in (_V1, _V2, _V3, _V4, _V5, _V6, _V7, _V8, _V9, _V10, _V11, _V12)
    }
)

DEFAULT_ROOM_VERSION = "12"
"""The version that the specification recommends for new rooms."""


def find_room_version(identifier: str) -> RoomVersion | None:
    """The room version of that name, or `None` if it is not supported."""
    return ROOM_VERSIONS.get(identifier)
