"""Tokens: places in the log and in a room's history, as clients hold them.

A stream token `s<position>` says: everything up to this position of the log has been seen. It stays
valid across restarts, as positions are never used twice. A topological token `t<depth>_<position>`
lies between two events of a room: after those of lower or equal (depth, position). A third number,
if present, is an upper bound: paging back from a `/sync` token must not return events received
after that sync, even if their topological depth is lower. After an `a` the third number is a lower
bound, the position up to which the client has seen everything: paging forwards must not return
those events again, even if they sort after one that was received later.

Spec: https://spec.matrix.org/v1.19/client-server-api/#pagination
"""

import re

import msgspec

from homeserver.protocol.errors import InvalidParam
from homeserver.streams.positions import MAX_POSITION
from homeserver.streams.sync_tokens import parse_sync_token

Place = tuple[int, int]  # (depth, position)
START: Place = (0, 0)
END: Place = (MAX_POSITION, MAX_POSITION)

_STREAM = re.compile(r"s(\d{1,19})", re.ASCII)
_TOPOLOGICAL = re.compile(r"t(\d{1,18})_(-?\d{1,19})(?:_(a?)(\d{1,19}))?", re.ASCII)


class HistoryToken(msgspec.Struct, frozen=True):
    """A position of the log, or a place in a room; two positions bound the events to show."""

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
    return _position(match[1])


def topological_token(place: Place, upto: int | None = None, above: int | None = None) -> str:
    """The token of a place in a room's history, with the positions that bound the events shown."""
    if above is not None:
        return f"t{place[0]}_{place[1]}_a{above}"
    return f"t{place[0]}_{place[1]}" + ("" if upto is None else f"_{upto}")


def parse_room_token(token: str, room_nid: int) -> int | Place:
    """The place in a room's history token: a position of the log, or a place in the room."""
    return parse_history_token(token, room_nid).place


def parse_history_token(token: str, room_nid: int) -> HistoryToken:
    """Parse a token for a room's history, or one of either sync. Raises `InvalidParam`."""
    match = _TOPOLOGICAL.fullmatch(token)
    if match is None:
        # A `pos` of sliding sync begins with such a token.
        return HistoryToken(parse_sync_token(token.partition("-")[0]).of_room(room_nid))
    place = int(match[1]), _position(match[2])
    bound = None if match[4] is None else _position(match[4])
    return HistoryToken(place, above=bound) if match[3] else HistoryToken(place, upto=bound)


def _position(digits: str) -> int:
    position = int(digits)
    if abs(position) > MAX_POSITION:
        raise InvalidParam("Not a token of this server")
    return position
