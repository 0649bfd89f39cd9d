"""Room history visibility: may this user, or this server, see this event?

The answer depends on the room's state at the event, both the visibility and the user's membership,
and on one thing that came later: whether the user has joined since.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from homeserver.protocol.event_kinds import is_member_event, is_state
from homeserver.protocol.event_types import HISTORY_VISIBILITY
from homeserver.protocol.events import Event

VISIBILITIES: Final = ("world_readable", "shared", "invited", "joined")
DEFAULT_VISIBILITY: Final = "shared"


def visibility_of(content: Mapping[str, Any] | None) -> str:
    """The visibility that the content of `m.room.history_visibility` sets.

    `None` is a room without that event; it and unknown values mean `shared`.
    """
    visibility = None if content is None else content.get("history_visibility")
    return visibility if visibility in VISIBILITIES else DEFAULT_VISIBILITY


def may_see(visibility: str, membership: str | None, *, joined_later: bool) -> bool:
    """Whether a user may see an event while visibility and their membership were these.

    `membership` is `None` for a user without one. `joined_later` says whether the user joined at
    any later point.
    """
    return (
        visibility == "world_readable"
        or membership == "join"
        or (visibility == "shared" and joined_later)
        or (visibility == "invited" and membership == "invite")
    )


def may_see_event(
    event: Event,
    user_id: str,
    *,
    visibility: str,
    membership: str | None,
    joined_later: bool,
) -> bool:
    """Whether a user may see an event.

    `visibility` and `membership` are those before the event. An event that changes the visibility,
    or this user's membership, is seen if the state before or the state after it allows that.
    """
    if may_see(visibility, membership, joined_later=joined_later):
        return True
    if is_state(event, HISTORY_VISIBILITY):
        return may_see(visibility_of(event.content), membership, joined_later=joined_later)
    if is_member_event(event, user_id):
        return may_see(visibility, event.content.get("membership"), joined_later=joined_later)
    return False


def may_server_see_event(
    event: Event,
    server_name: str,
    *,
    visibility: str,
    memberships: Collection[str],
    joined_later: bool,
) -> bool:
    """Whether a server may see an event: whether any of its users may.

    `visibility` is that before the event, `memberships` are those of the server's users at that
    time, and `joined_later` says whether any of them joined at any later point.
    """

    def may_any_see(visibility: str) -> bool:
        return may_see(visibility, None, joined_later=joined_later) or any(
            may_see(visibility, membership, joined_later=False) for membership in memberships
        )

    if may_any_see(visibility):
        return True
    if is_state(event, HISTORY_VISIBILITY):
        return may_any_see(visibility_of(event.content))
    if is_member_event(event) and is_of_server(event.state_key, server_name):
        return may_see(visibility, event.content.get("membership"), joined_later=joined_later)
    return False


def is_of_server(user_id: str | None, server_name: str) -> bool:
    """Whether a user id belongs to a server."""
    return user_id is not None and user_id.partition(":")[2] == server_name
