"""Power levels: who may do what in a room.

`PowerLevels` is one `m.room.power_levels` event, or its absence, together with the create event:
every default is filled in and every value is an integer, so that a query is one dictionary look-up.
Room versions differ in three ways: how a level may be written (as an integer only, or also as a
string or a float), who the creator is, and whether creators rank above all.

A level that an old room version allows although it is not a number counts as not given: the
specification does not say what to do, and the default is that of a room without it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels
"""

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion

# Above every level that canonical JSON can carry (2^53 - 1).
INFINITE: Final = 2**63

DEFAULT_LEVELS: Final[Mapping[str, int]] = {
    "ban": 50,
    "events_default": 0,
    "invite": 0,
    "kick": 50,
    "redact": 50,
    "state_default": 50,
    "users_default": 0,
}
_DEFAULT_NOTIFICATION_LEVEL: Final = 50
_CREATOR_LEVEL: Final = 100  # in a room without power levels
_INTEGER_TEXT: Final = re.compile(r"\s*[+-]?[0-9]+\s*")


class PowerLevels:
    """The power levels in force in a room.

    `content` is that of the room's `m.room.power_levels` event, or `None` if it has none. The
    attributes are the levels required to ban, kick and so on; methods return the other levels.
    """

    __slots__ = (
        "_events",
        "_notifications",
        "_users",
        "ban",
        "events_default",
        "invite",
        "kick",
        "redact",
        "state_default",
        "users_default",
    )

    def __init__(self, create: Event, content: Mapping[str, Any] | None) -> None:
        version = create.version
        given = {} if content is None else content
        levels = {**DEFAULT_LEVELS, **_levels_in(version, given)}
        self.ban = levels["ban"]
        self.events_default = levels["events_default"]
        self.invite = levels["invite"]
        self.kick = levels["kick"]
        self.redact = levels["redact"]
        self.state_default = levels["state_default"]
        self.users_default = levels["users_default"]
        self._events = _levels_in(version, given.get("events"))
        self._notifications = _levels_in(version, given.get("notifications"))
        self._users = _levels_in(version, given.get("users"))
        if version.creators_outrank_everyone:
            self._users.update(dict.fromkeys(room_creators(create), INFINITE))
        elif content is None:
            self._users[creator_of(create)] = _CREATOR_LEVEL

    def of(self, user_id: str) -> int:
        """The power level of a user; `INFINITE` for a creator, in room versions that say so."""
        return self._users.get(user_id, self.users_default)

    def for_event(self, event_type: str, is_state: bool) -> int:
        """The level that is required to send an event of this type."""
        default = self.state_default if is_state else self.events_default
        return self._events.get(event_type, default)

    def notifications(self, key: str = "room") -> int:
        """The level that is required to notify the whole room, such as by an `@room` mention."""
        return self._notifications.get(key, _DEFAULT_NOTIFICATION_LEVEL)


def creator_of(create: Event) -> str:
    """The user who created the room: `content.creator` in old room versions, else the sender."""
    if create.version.creator_in_content:
        creator = create.content.get("creator")
        return creator if isinstance(creator, str) else create.sender
    return create.sender


def room_creators(create: Event) -> frozenset[str]:
    """All creators of the room: more than one only in room versions that allow it.

    Spec: https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules
    """
    if not create.version.creators_outrank_everyone:
        return frozenset((creator_of(create),))
    additional = create.content.get("additional_creators")
    others = additional if isinstance(additional, list) else []
    return frozenset((create.sender, *(user for user in others if isinstance(user, str))))


def parse_level(version: RoomVersion, value: object) -> int | None:
    """Read one level as the room version writes it; `None` if it is not a level.

    Old versions also read strings such as `" +0100 "`, and the oldest floats, which are truncated.

    Spec: https://spec.matrix.org/v1.19/rooms/v5/#deprecated-event-content-schemas
    """
    if type(value) is int:
        return value
    if version.integer_power_levels:
        return None
    if isinstance(value, float) and version.float_power_levels:
        return math.trunc(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return _parse_text(value)
    return None


def _parse_text(text: str) -> int | None:
    if _INTEGER_TEXT.fullmatch(text) is None:
        return None
    try:
        return int(text)
    except ValueError:  # more digits than Python converts, which is not a sensible level
        return None


def _levels_in(version: RoomVersion, values: object) -> dict[str, int]:
    """The members of an object that are levels."""
    if not isinstance(values, Mapping):
        return {}
    parsed = {key: parse_level(version, value) for key, value in values.items()}
    return {key: level for key, level in parsed.items() if level is not None}
