"""A connection of sliding sync: what one client was sent, so that it is sent only what is new.

A connection has at most two states. The *acknowledged* one belongs to the `pos` of the client's
last request: the client has all of it. The *offered* one is that of the response to this request;
the client may never get it. A request with the offered `pos` acknowledges it, and the state before
is dropped; one with the acknowledged `pos` again gets the answer that is right then.

Spec: MSC4186
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from homeserver.protocol.sliding_sync.request import RequestBody
from homeserver.protocol.sliding_sync.room_config import RoomConfig
from homeserver.streams.positions import MAX_POSITION
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sync_request import SyncRequest

LIVE: Final = MAX_POSITION
"""In place of a position: everything up to the token of the state was sent."""

NEVER: Final = 0

BYTES = 3_000  # of an empty connection, with what belongs to it
BYTES_OF_ROOM = 120
BYTES_OF_USER = 150
BYTES_OF_PLACE = 8  # of a room in the order of a list
BYTES_OF_BODY = 8  # for each byte of the requests whose configs are kept
MAX_REQUESTS = 4  # to `/sync` that are kept: most clients have as many configs
MAX_ASKED_FOR = 1 << 20  # bytes of these requests
MAX_PROFILED = 5_000  # users whose profiles are known to be sent; beyond it they are sent again
NO_CONFIG = RoomConfig(0)


class SentRoom(NamedTuple):
    """What was sent of one room, as positions of the log, `LIVE` or `NEVER`.

    `upto` is that of its events and state; the others are those of the extensions. `config` is the
    config that was applied. `limit` is the number of newest events, in one piece, that the client
    has at least, unless the room has fewer. `profiles` is that of all members' profiles: of those
    who joined later, and with lazy loading, they are sent with what they sent.
    """

    upto: int = NEVER
    receipts: int = NEVER
    typing: int = NEVER
    account_data: int = NEVER
    limit: int = 0
    is_dm: bool = False
    config: RoomConfig = NO_CONFIG
    profiles: int = NEVER


NOTHING_SENT = SentRoom()


class ScopedRoom(NamedTuple):
    """How a room is to be sent: with which config, and with which extensions."""

    config: RoomConfig
    lists: tuple[str, ...] = ()
    receipts: bool = False
    typing: bool = False
    account_data: bool = False
    profiles: bool = False

    @property
    def all_profiles(self) -> bool:
        """Whether the profiles of all members are to be sent."""
        return self.profiles and not self.config.lazy_profiles


class SentProfiles(NamedTuple):
    """What was sent of profiles: all that is new up to a token, of these fields; `None` for all."""

    token: SyncToken
    fields: frozenset[str] | None

    def has(self, fields: frozenset[str] | None) -> bool:
        """Whether these fields are all among those that were sent."""
        return self.fields is None or (fields is not None and fields <= self.fields)


class ListedScope(msgspec.Struct, frozen=True, eq=False):
    """The rooms that the body of a request asks for, by nid, and the number of rooms in each list.

    `version` is that of `ListedRooms` for which it was computed. With `is_whole` each list has all
    of its rooms in its ranges, so that their order has no effect. Otherwise `orders` has all rooms
    of each list, those with the latest activity first; `outside` are the positions of that of the
    rooms that the user is not in, and `subscribed` the rooms of subscriptions.
    """

    body: RequestBody
    version: int
    counts: Mapping[str, int]
    rooms: Mapping[int, ScopedRoom]
    is_whole: bool
    orders: Mapping[str, Sequence[int]] = msgspec.field(default_factory=dict)
    outside: Mapping[int, int] = msgspec.field(default_factory=dict)
    subscribed: Mapping[int, ScopedRoom] = msgspec.field(default_factory=dict)


class ConnectionState(msgspec.Struct):
    """What a client has, up to `token`, which is `None` before the first response.

    `pos` is its name; the token may have gone beyond that of the name, where nothing was new.
    `e2ee`, `account_data` and `threads` are the tokens up to which the extension was sent; `None`
    if it never was. `settled` is a scope of which the client has everything, up to the token.
    `profiled` are users whose whole profiles the client has; they are not stored.
    """

    pos: str | None = None
    token: SyncToken | None = None
    rooms: dict[int, SentRoom] = msgspec.field(default_factory=dict)
    e2ee: SyncToken | None = None
    account_data: SyncToken | None = None
    settled: ListedScope | None = None
    threads: SyncToken | None = None
    profiles: SentProfiles | None = None
    profiled: set[str] = msgspec.field(default_factory=set)

    def since(self, room_nid: int, upto: int) -> int | None:
        """The position that `upto` stands for in a room; `None` where nothing was sent."""
        if upto == NEVER:
            return None
        if upto != LIVE:
            return upto
        return None if self.token is None else self.token.of_room(room_nid)


class OfferedState(msgspec.Struct):
    """The state that a response leads to, as what it changes; `rooms` are those that changed.

    `profiled` are the users whose whole profiles the response has, and those whom it drops: false.
    """

    token: SyncToken
    rooms: Mapping[int, SentRoom]
    e2ee: SyncToken | None
    account_data: SyncToken | None
    settled: ListedScope | None = None
    threads: SyncToken | None = None
    profiles: SentProfiles | None = None
    profiled: Mapping[str, bool] = msgspec.field(default_factory=dict)

    def applied(self, state: ConnectionState, pos: str | None) -> ConnectionState:
        """The next state. The one before must not be used any more: both share their rooms."""
        state.rooms.update(self.rooms)
        profiled = state.profiled
        for user_id, is_sent in self.profiled.items():
            (profiled.add if is_sent else profiled.discard)(user_id)
        if len(profiled) > MAX_PROFILED:
            profiled.clear()
        return ConnectionState(
            pos,
            self.token,
            state.rooms,
            self.e2ee,
            self.account_data,
            self.settled,
            self.threads,
            self.profiles,
            profiled,
        )


class SlidingConnection:
    """One connection. `number` is the number of its last response, and part of its `pos`."""

    __slots__ = (
        "_body",
        "_bytes_asked_for",
        "_end_turn",
        "_reader",
        "_requests",
        "number",
        "offered",
        "offered_pos",
        "state",
    )

    def __init__(self, number: int, state: ConnectionState | None = None) -> None:
        self.number = number
        self.state = state or ConnectionState()
        self.offered: OfferedState | None = None
        self.offered_pos: str | None = None
        self._body: RequestBody | None = None
        self._bytes_asked_for = 0
        self._reader: SyncRequest | None = None
        self._requests: dict[tuple[int, bool], SyncRequest] = {}
        self._end_turn: Callable[[], None] | None = None

    @property
    def size(self) -> int:
        """Its bytes in memory, roughly."""
        state, offered = self.state, self.offered
        rooms, users, scope = len(state.rooms), len(state.profiled), state.settled
        if offered is not None:
            rooms += len(offered.rooms)
            users += len(offered.profiled)
            scope = offered.settled
        places = 0
        if scope is not None and scope.orders:
            places = sum(map(len, scope.orders.values()))
        return (
            BYTES
            + BYTES_OF_ROOM * rooms
            + BYTES_OF_USER * users
            + BYTES_OF_PLACE * places
            + BYTES_OF_BODY * self._bytes_asked_for
        )

    @property
    def is_in_use(self) -> bool:
        """Whether a request runs on it."""
        return self._end_turn is not None

    def acknowledge(self, pos: str) -> bool:
        """Have the state of a `pos` be the acknowledged one; false if it has no such state."""
        if self.offered is not None and self.offered_pos == pos:
            self.state = self.offered.applied(self.state, pos)
            self.offered = self.offered_pos = None
            return True
        return self.state.pos == pos

    def offer(self, offered: OfferedState) -> str:
        """Keep the state that a response leads to, in place of an earlier one; gives its `pos`.

        The first part of a `pos` is a token of `/sync` for the same moment.
        """
        self.number += 1
        self.offered, self.offered_pos = offered, f"{offered.token.text}-{self.number}"
        return self.offered_pos

    def advance(self, offered: OfferedState) -> None:
        """Go on from a state in which the client got nothing new: its `pos` stays."""
        self.state = offered.applied(self.state, self.state.pos)
        self.offered = self.offered_pos = None

    def use_scope(self, scope: ListedScope) -> None:
        """Count what a request asks for.

        The rooms keep the configs of earlier ones. Before these become too many, the rooms that are
        out of scope lose theirs: the client gets all that it wants of them when it asks again.
        """
        if self._body is not scope.body:
            self._bytes_asked_for += scope.body.size
        self._body = scope.body
        if self._bytes_asked_for > MAX_ASKED_FOR:
            self._bytes_asked_for = 2 * scope.body.size
            rooms = self.state.rooms
            for nid, sent in rooms.items():
                if nid not in scope.rooms:
                    rooms[nid] = sent._replace(config=NO_CONFIG)

    def reader_of(self, reader: SyncRequest) -> SyncRequest:
        """The reader of a new request: the same object as before if nothing is different."""
        if (self._reader is not reader and self._reader != reader) or len(
            self._requests
        ) > MAX_REQUESTS:
            self._reader, self._requests = reader, {}
        return self._reader

    @property
    def requests(self) -> dict[tuple[int, bool], SyncRequest]:
        """The requests to `/sync` of the reader, as `ResponseDraft` makes and keeps them."""
        return self._requests

    def end_turn(self) -> None:
        """End the request that runs, if there is one."""
        if self._end_turn is not None:
            self._end_turn()

    def begin_turn(self, end: Callable[[], None]) -> Callable[[], None]:
        """Begin a request, which ends the one that runs; call the result when it is over.

        `end` is called if another one begins.
        """
        self.end_turn()
        self._end_turn = end

        def finish() -> None:
            if self._end_turn is end:
                self._end_turn = None

        return finish
