"""Timeline heads: where rooms stand, as much as is needed to load them.

Reads the tables that `events.py` owns, for many rooms with one statement.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from homeserver.storage.database.database import Connection


@dataclass(frozen=True, slots=True)
class TimelineHead:
    """The end of a room's timeline, and its current state.

    `newest` are (position, event) of the newest timeline events, newest first; `root` is that of
    the current state, `None` before the first event; `forked_at` is the newest position at which
    the current state was a resolved one, or 0. `extremities` are the forward extremities as JSON,
    `None` if the newest event is the only one.
    """

    newest: Sequence[tuple[int, int]]
    root: bytes | None
    forked_at: int
    extremities: str | None


NO_EVENTS = TimelineHead((), None, 0, None)


async def timeline_heads(
    db: Connection, rooms: Sequence[int], limit: int
) -> dict[int, TimelineHead]:
    """The ends of the timelines of rooms, with at most `limit` events of each.

    Rooms without any event are left out.
    """
    async with db.cursor(binary=True) as cursor:
        await cursor.execute(
            """
            SELECT wanted.room, newest.*
              FROM unnest(%(rooms)s::int4[]) AS wanted (room)
             CROSS JOIN LATERAL (
                   (SELECT position, event, extremities, COALESCE(state_after, state_before)
                      FROM events
                     WHERE events.room = wanted.room AND position > 0
                     ORDER BY position DESC
                     LIMIT %(limit)s)
                    UNION ALL
                   (SELECT position, NULL, extremities, root
                      FROM current_states
                     WHERE current_states.room = wanted.room
                     ORDER BY position DESC
                     LIMIT 1)) AS newest
            """,
            {"rooms": list(rooms), "limit": limit},
        )
        by_room: dict[int, list[_Row]] = {}
        for room, *row in await cursor.fetchall():
            by_room.setdefault(room, []).append(tuple(row))
    return {room: _head(rows) for room, rows in by_room.items()}


_Row = tuple[int, int | None, str | None, bytes | None]  # position, event, extremities, root


def _head(rows: list[_Row]) -> TimelineHead:
    # At the position of an event, a resolved state is newer than the state after that event.
    by_age = sorted(rows, key=lambda row: (row[0], row[1] is None), reverse=True)
    newest = [(position, event) for position, event, *_ in by_age if event is not None]
    forks = [position for position, event, *_ in by_age if event is None]
    last = max(rows, key=lambda row: (row[0], row[1] is not None))
    return TimelineHead(newest, by_age[0][3], max(forks, default=0), last[2])
