"""The room directory: the rooms of this server that are listed publicly, largest first.

The order is computed every few seconds at most, from one count of members; the entries of a page
come from the summaries of its rooms. A search reads the summaries of all listed rooms, which are in
memory after the first one. A token names the room at the edge of a page by its place in the order,
so that rooms that are added and removed meanwhile neither hide others nor show them twice.

Spec: https://spec.matrix.org/v1.19/client-server-api/#published-room-directory
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.errors import Forbidden, InvalidParam, MissingToken
from homeserver.protocol.event_types import CANONICAL_ALIAS
from homeserver.protocol.identifiers import is_valid_server_name
from homeserver.rooms.discovery.network_lists import NetworkListChanged, NetworkLists
from homeserver.rooms.discovery.room_summaries import PublicRoom, RoomSummaries, RoomSummary
from homeserver.rooms.room.changes import DirectoryVisibilityChanged
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import rooms as storage
from homeserver.storage.rooms.memberships import joined_counts
from homeserver.streams.log import Log

CACHE_TTL_SECONDS = 5.0
MAX_LISTED = 10_000  # rooms; the smallest of more are not shown
MAX_PAGE = 100  # rooms
MAX_CACHED_LISTS = 100  # that of the server, and those of networks
ALL_NETWORKS = ""  # no network has this id

_TOKEN = re.compile(r"([np])(\d{1,9})_(\d{1,9})")
_Place = tuple[int, int]  # (members, negative; room nid): the order of the list


class DirectoryQuery(msgspec.Struct, frozen=True):
    """A page of the listed rooms that match a text and one of the types.

    `room_types` may hold `None`, for rooms without a type; as `None` itself it means all. `network`
    is one of an application service, `all_networks` includes those of all.
    """

    limit: int | None = None
    since: str | None = None
    text: str | None = None
    room_types: Collection[str | None] | None = None
    all_networks: bool = False
    network: str | None = None


class DirectoryPage(msgspec.Struct, frozen=True):
    """Some listed rooms, and how many match in all."""

    rooms: Sequence[PublicRoom]
    next_batch: str | None
    prev_batch: str | None
    total: int

    def body(self) -> dict[str, Any]:
        """The page as clients and other servers get it."""
        tokens = {"next_batch": self.next_batch, "prev_batch": self.prev_batch}
        return {
            "chunk": self.rooms,
            "total_room_count_estimate": self.total,
            **{name: token for name, token in tokens.items() if token is not None},
        }


class _List(msgspec.Struct, frozen=True):
    """The order of one list, and the time from which it has to be made again."""

    places: Sequence[_Place]
    stale_at: float


FindRemoteRooms = Callable[[str, DirectoryQuery], Awaitable[DirectoryPage]]


class RoomDirectory:
    """The listed rooms. Subscribe `apply` to the log.

    `allow_publishing`: members with sufficient power may list a room, not only administrators.
    `without_login`: the list is shown to clients that are not logged in. Other servers are asked
    for theirs through `find_remote`.
    """

    def __init__(
        self,
        db: Database,
        log: Log,
        rooms: RoomRegistry,
        summaries: RoomSummaries,
        find_remote: FindRemoteRooms,
        networks: NetworkLists,
        *,
        allow_publishing: bool,
        without_login: bool,
    ) -> None:
        self._find_remote = find_remote
        self._networks = networks
        self._db = db
        self._log = log
        self._rooms = rooms
        self._summaries = summaries
        self._allow_publishing = allow_publishing
        self._without_login = without_login
        self._lists: LruCache[str | None, _List] = LruCache("room_directories", MAX_CACHED_LISTS)
        self._changes = 0

    def apply(self, entries: Sequence[Any]) -> None:
        """Show a room that is newly listed immediately (called by the log)."""
        if any(
            isinstance(entry, DirectoryVisibilityChanged | NetworkListChanged) for entry in entries
        ):
            self._changes += 1
            self._lists.clear()

    def check_may_look(self, caller: Requester | None) -> None:
        """Raise `MissingToken` for a caller without login, unless the list is shown to them too."""
        if caller is None and not self._without_login:
            raise MissingToken("Log in to see the room directory")

    def check_may_publish(self, caller: Requester) -> None:
        """Raise `Forbidden` if only administrators may list rooms."""
        if not (self._allow_publishing or caller.is_admin):
            raise Forbidden("Only administrators of this server may list rooms")

    async def is_listed(self, room_id: str) -> bool:
        """Whether a room is in the directory. Raises `NotFound`."""
        return (await self._rooms.get(room_id)).published

    async def set_listed(self, caller: Requester, room_id: str, listed: bool) -> None:
        """List a room, or stop listing it.

        The specification does not say who may: here administrators, and members with the power to
        name the room. Raises `Forbidden` and `NotFound`.
        """
        async with self._rooms.writing(room_id) as writer:
            room = writer.room
            if not caller.is_admin:
                if room.membership(caller.user_id) != "join":
                    raise Forbidden("You are not in the room")
                levels = await self._rooms.power_levels(room)
                needed = levels.for_event(CANONICAL_ALIAS, is_state=True)
                if levels.of(caller.user_id) < needed:
                    raise Forbidden("You may not list this room")
            if listed:
                self.check_may_publish(caller)
            self._log.check_open()
            await writer.set_published(published=listed)

    async def migrate(self, old: Room, new: Room) -> None:
        """List a room in place of the one that it has replaced, if that was listed."""
        writing = self._rooms.writing
        async with writing(old.room_id) as replaced, writing(new.room_id) as replacement:
            if not replaced.room.published:
                return
            self._log.check_open()
            # Without yielding to the reactor in between: so both are in the same commit.
            replacement.set_published(published=True)
            await replaced.set_published(published=False)

    async def page_of(self, server_name: str | None, query: DirectoryQuery) -> DirectoryPage:
        """A page of the directory of this server, or of another one.

        Raises `InvalidParam` for an invalid token or server name, and what `find_remote` raises.
        """
        if server_name is None or server_name == self._rooms.local_server.server_name:
            return await self.page(query)
        if not is_valid_server_name(server_name):
            raise InvalidParam("Not a server name")
        return await self._find_remote(server_name, query)

    async def page(self, query: DirectoryQuery) -> DirectoryPage:
        """A page of the directory of this server.

        Raises `InvalidParam` for an invalid token, and for a network in a list of all.
        """
        if query.network is not None and query.all_networks:
            raise InvalidParam(
                "third_party_instance_id and include_all_networks exclude each other"
            )
        places = await self._order(ALL_NETWORKS if query.all_networks else query.network)
        if query.text or query.room_types is not None:
            places = [place for place in places if _matches(query, await self._summary(place))]
        start, end = _cut(places, query.since, min(query.limit or MAX_PAGE, MAX_PAGE))
        found = [await self._summary(place) for place in places[start:end]]
        return DirectoryPage(
            [_shown(summary) for summary in found if summary is not None],
            _token("n", places[end - 1]) if start < end < len(places) else None,
            _token("p", places[start]) if 0 < start < len(places) else None,
            len(places),
        )

    async def _order(self, network: str | None) -> Sequence[_Place]:
        """The places of all listed rooms, in order; those of a network, or `ALL_NETWORKS`."""
        now = self._rooms.local_server.clock.seconds()
        cached = self._lists.get(network)
        if cached is not None and now < cached.stale_at:
            return cached.places
        changes = self._changes
        room_nids = await self._listed(network)
        counts = await self._db.run(joined_counts, room_nids)
        places = sorted((-counts.get(room_nid, 0), room_nid) for room_nid in room_nids)
        del places[MAX_LISTED:]
        # Clients name networks as they like: one without rooms does not displace another list.
        if changes == self._changes and (places or network is None):
            self._lists.put(network, _List(places, now + CACHE_TTL_SECONDS))
        return places

    async def _listed(self, network: str | None) -> list[int]:
        if network not in (None, ALL_NETWORKS):
            return await self._networks.rooms_of(network)
        listed = await self._db.run(storage.published_rooms)
        if network is None:
            return listed
        return sorted({*listed, *await self._networks.rooms_of_all()})

    async def _summary(self, place: _Place) -> RoomSummary | None:
        return await self._summaries.of(place[1], -place[0])


def _matches(query: DirectoryQuery, summary: RoomSummary | None) -> bool:
    if summary is None:
        return False
    if query.room_types is not None and summary.room_type not in query.room_types:
        return False
    if not query.text:
        return True
    text = query.text.casefold()
    shown = (summary.name, summary.topic, summary.canonical_alias)
    return any(text in part.casefold() for part in shown if part is not None)


def _shown(summary: RoomSummary) -> PublicRoom:
    """The entry of the directory that a summary gives."""
    return PublicRoom(**{name: getattr(summary, name) for name in PublicRoom.__struct_fields__})


def _cut(places: Sequence[_Place], since: str | None, size: int) -> tuple[int, int]:
    """The first and last index of a page."""
    if since is None:
        return 0, min(size, len(places))
    match = _TOKEN.fullmatch(since)
    if match is None:
        raise InvalidParam("Not a token of this directory")
    place = (-int(match[2]), int(match[3]))
    if match[1] == "n":
        start = bisect_right(places, place)
        return start, min(start + size, len(places))
    end = bisect_left(places, place)
    return max(0, end - size), end


def _token(direction: str, place: _Place) -> str:
    return f"{direction}{-place[0]}_{place[1]}"
