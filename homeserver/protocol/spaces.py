"""Spaces: the child rooms of a space, their order, and who may see a room.

Spec: https://spec.matrix.org/v1.19/client-server-api/#spaces
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from homeserver.protocol.identifiers import is_valid_room_id, is_valid_server_name
from homeserver.protocol.room_versions import RoomVersion

SPACE = "m.space"
"""The type of rooms that are spaces."""


MAX_VIA = 10  # servers that are stored for each child
_ORDER = re.compile(r"[\x20-\x7e]{1,50}")


class Child(msgspec.Struct, frozen=True):
    """A child room of a space, and the servers through which to reach it."""

    room_id: str
    via: tuple[str, ...]
    suggested: bool
    order: str | None
    timestamp: int  # ms since the epoch

    @property
    def rank(self) -> tuple[bool, str, int, str]:
        """The sort key of children.

        Spec: https://spec.matrix.org/v1.19/client-server-api/#ordering-of-children-within-a-space
        """
        return self.order is None, self.order or "", self.timestamp, self.room_id


def parse_child(state_key: str, content: Mapping[str, Any], timestamp: int) -> Child | None:
    """The child that an `m.space.child` event declares; `None` if it declares none.

    Without `via`, a room is not part of the space, or no longer.
    """
    via = content.get("via")
    if not isinstance(via, list) or not via or not is_valid_room_id(state_key):
        return None
    if not all(isinstance(name, str) for name in via):
        return None
    servers = [name for name in via[: 10 * MAX_VIA] if is_valid_server_name(name)]
    order = content.get("order")
    if not isinstance(order, str) or _ORDER.fullmatch(order) is None:
        order = None
    suggested = content.get("suggested") is True
    return Child(state_key, tuple(servers[:MAX_VIA]), suggested, order, timestamp)


def may_be_shown(
    *,
    join_rule: str | None,
    world_readable: bool,
    memberships: Iterable[str],
    is_allowed: bool,
    version: RoomVersion | None = None,
) -> bool:
    """Whether a user or server may see a room in a hierarchy: those who may read, join or knock.

    `memberships` are a user's own, or those of all users of a server. `is_allowed`: they are in one
    of the rooms that a restricted room names. If the version is unknown, all join rules are assumed
    to exist in it.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy
    """
    own = frozenset(memberships)
    if world_readable or own & {"join", "invite"}:
        return True
    if own == {"ban"}:
        return False
    if join_rule == "knock":
        return version is None or version.knocking
    if join_rule == "knock_restricted":
        return version is None or version.knock_restricted
    if join_rule == "restricted":
        return is_allowed and (version is None or version.restricted_joins)
    return join_rule == "public"
