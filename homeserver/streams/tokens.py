"""Tokens: places in the log and in a room's history, as clients hold them.

A stream token `s<position>` says: everything up to this position of the log has been seen. It stays
valid across restarts, as positions are never used twice. A topological token `t<depth>_<position>`
stands between two events of a room: after those of lower or equal (depth, position). It may carry a
third number, the position beyond which the reader wants to see nothing: who pages back from a token
of `/sync` does not meet what has come since, though it may stand deeper in the past. Who pages
forwards from one sees nothing again that had come before, though it may stand behind what came
late: after an `a` the third number is the position up to which everything has been seen.

Spec: https://spec.matrix.org/v1.19/client-server-api/#pagination
"""

import re
from dataclasses import dataclass

from homeserver.protocol.errors import InvalidParam
from homeserver.streams.log import MAX_POSITION

Place = tuple[int, int]  # (depth, position)
START: Place = (0, 0)
END: Place = (MAX_POSITION, MAX_POSITION)

_STREAM = re.compile(r"s(\d{1,18})")
_TOPOLOGICAL = re.compile(r"t(\d{1,18})_(-?\d{1,18})(?:_(a?)(\d{1,18}))?")


@dataclass(frozen=True, slots=True)
class HistoryToken:
    """A position of the log, or a place in a room, and between which positions to show events."""

    place: int | Place
    upto: int | None = None
    above: int | None = None


def stream_token(position: int) -> str:
    """The token of a position."""
    return f"s{position}"


def parse_stream_token(token: str) -> int:
    """The position of a stream token; raises `InvalidParam`."""
    match = _STREAM.fullmatch(token)
    if match is None:
        raise InvalidParam("Not a token of this server's /sync")
    return int(match[1])


def topological_token(place: Place, upto: int | None = None, above: int | None = None) -> str:
    """The token of a place in a room's history, with the positions between which to show events."""
    if above is not None:
        return f"t{place[0]}_{place[1]}_a{above}"
    return f"t{place[0]}_{place[1]}" + ("" if upto is None else f"_{upto}")


def parse_room_token(token: str) -> int | Place:
    """What a token for a room's history says: a position of the log, or a place in the room."""
    return parse_history_token(token).place


def parse_history_token(token: str) -> HistoryToken:
    """All that a token for a room's history says. Raises `InvalidParam`."""
    match = _TOPOLOGICAL.fullmatch(token)
    if match is None:
        return HistoryToken(parse_stream_token(token))
    place = int(match[1]), int(match[2])
    bound = None if match[4] is None else int(match[4])
    return HistoryToken(place, above=bound) if match[3] else HistoryToken(place, upto=bound)
