"""The log entry for a change of a user's presence, and its `m.presence` event.

Spec: https://spec.matrix.org/v1.19/client-server-api/#presence
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec

from homeserver.presence.user_presence import OFFLINE, ONLINE, State
from homeserver.protocol.event_types import PRESENCE

_encode = msgspec.json.Encoder().encode


class PresenceChanged(msgspec.Struct, frozen=True):
    """A change of a user's presence, shown to users joined to one of `rooms`, by numeric id.

    `last_active_ms` is milliseconds since the epoch.
    """

    position: int
    user_id: str
    rooms: tuple[int, ...]
    state: State
    status_msg: str | None
    last_active_ms: int

    def content(self, now_ms: int, last_active_ms: int | None = None) -> dict[str, Any]:
        """The content of `m.presence` and of the API, with the last activity as it is known now.

        A user who is online counts as currently active until they are idle, so watchers need no
        event for each activity meanwhile.
        """
        active = self.last_active_ms if last_active_ms is None else last_active_ms
        content: dict[str, Any] = {"presence": self.state}
        if active:
            content["last_active_ago"] = max(0, now_ms - active)
        if self.state != OFFLINE:
            content["currently_active"] = self.state == ONLINE
        if self.status_msg is not None:
            content["status_msg"] = self.status_msg
        return content

    def event(self, now_ms: int, last_active_ms: int | None = None) -> msgspec.Raw:
        """The `m.presence` event for clients."""
        content = self.content(now_ms, last_active_ms)
        event = {"type": PRESENCE, "sender": self.user_id, "content": content}
        return msgspec.Raw(_encode(event))


class PresenceUpdate(NamedTuple):
    """Presence events for one user, and the changes that they show."""

    events: Sequence[msgspec.Raw]
    changes: Collection[PresenceChanged]
