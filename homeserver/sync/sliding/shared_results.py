"""Shared results: new events of a room as all members see them, made once for all of them.

Spec: MSC4186
"""

from msgspec import UNSET, Raw

from homeserver.protocol.sliding_sync.response import RoomResult
from homeserver.push.unread_counter import UnreadCount
from homeserver.streams.tokens import stream_token
from homeserver.sync.sections.timelines import SharedTimelineSlice
from homeserver.sync.sliding.bump_stamps import bump_stamp_at, newest_bump


def shared_result(
    shared: SharedTimelineSlice,
    num_live: int,
    count: UnreadCount | None,
    lists: tuple[str, ...],
) -> RoomResult:
    """The result for a member who sees a slice as all others do, and to whom nothing else is new.

    `count` is `None` for a form without unread counts. The result is shared by all members for
    whom the rest is the same, too: do not change it.
    """
    notifications, highlights = (-1, -1) if count is None else (count.notification, count.highlight)
    key = notifications, highlights, num_live, lists
    result = shared.results.get(key)
    if result is None:
        events = shared.events
        result = RoomResult("join", encoded={})
        bump = newest_bump(reversed(events))
        if bump is not None:
            result.bump_stamp = bump_stamp_at(bump)
        result.timeline = Raw(shared.rendered)
        result.event_ids = frozenset(stored.event.event_id for stored in events)
        result.prev_batch = stream_token((events[0].position or 1) - 1)
        result.num_live = num_live
        result.lists = lists or UNSET
        if count is not None:
            result.notification_count = notifications
            result.highlight_count = highlights
        shared.results[key] = result
    return result
