"""A queued push: what a pusher has to send for one event."""

from collections.abc import Sequence
from typing import Any

import msgspec

from homeserver.protocol.event_kinds import is_encrypted
from homeserver.protocol.push_rules.evaluation import Outcome
from homeserver.protocol.push_rules.rule_set import Action
from homeserver.rooms.events.stored_event import StoredEvent

MAX_TWEAKS_BYTES = 4_096


class QueuedPush(msgspec.Struct, frozen=True):
    """An event that notifies a user; all users with the same outcome share one object.

    `tweaks` is JSON. `is_urgent` says that a phone is to be woken for it. `is_out_of_room` is that
    of an invite to a room that this server is not in.
    """

    position: int
    room_nid: int
    stored: StoredEvent
    tweaks: bytes
    is_urgent: bool
    is_out_of_room: bool = False


def build_push(
    position: int,
    room_nid: int,
    stored: StoredEvent,
    outcome: Outcome,
    *,
    is_out_of_room: bool = False,
) -> QueuedPush:
    """The push of an event for all with this outcome.

    An event that makes no sound can wait, except an encrypted one, which may be a call.
    """
    tweaks = _tweaks(outcome.actions)
    encoded = msgspec.json.encode(tweaks)
    if len(encoded) > MAX_TWEAKS_BYTES:
        encoded = b"{}"
    is_urgent = is_encrypted(stored.event) or outcome.highlight or bool(tweaks.get("sound"))
    return QueuedPush(position, room_nid, stored, encoded, is_urgent, is_out_of_room)


def _tweaks(actions: Sequence[Action]) -> dict[str, Any]:
    tweaks: dict[str, Any] = {}
    for action in actions:
        if isinstance(action, dict):
            name = action.get("set_tweak")
            if isinstance(name, str):
                value = action.get("value", True if name == "highlight" else None)
                if value is not None:
                    tweaks[name] = value
    return tweaks
