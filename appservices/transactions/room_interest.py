"""Interest: the application services that receive the events of a room.

One is interested in a room that is in its namespaces, by its id or an alias, and in a room with a
joined user of its own. It also receives events that one of its users sent, or is the subject of.

The interest in a room is computed once, when the room is first seen, and changes with the log. So a
message costs two look-ups, however many members and application services there are.

Spec: https://spec.matrix.org/v1.19/application-service-api/#registration
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.protocol.event_types import MEMBER
from homeserver.protocol.events import Event
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import StateChanged, membership_of
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room

MAX_CACHED_MEMBERS = 1_000_000  # users of application services, in all rooms together
MAX_PAST_ROOMS = 1_000
NOBODY: tuple[Appservice, ...] = ()

RoomAliasInterest = Callable[[int], Collection[Appservice]]
"""The application services that have an alias of a room, by its nid, in their namespaces."""


class JoinedUsers:
    """The users of application services who are joined to one room."""

    __slots__ = ("interested", "size", "users")

    def __init__(self) -> None:
        self.users: dict[Appservice, set[str]] = {}
        self.interested: tuple[Appservice, ...] = ()
        self.size = 1

    def set(self, user_id: str, services: Iterable[Appservice], *, is_joined: bool) -> None:
        """Note whether a user is joined, who belongs to these application services."""
        for service in services:
            users = self.users.setdefault(service, set())
            self.size -= len(users)
            if is_joined:
                users.add(user_id)
            else:
                users.discard(user_id)
            self.size += len(users)
            if not users:
                del self.users[service]
        self.interested = tuple(self.users)


class RoomInterest:
    """The interest in rooms as they are now."""

    def __init__(
        self, appservices: Appservices, rooms: RoomRegistry, of_aliases: RoomAliasInterest
    ) -> None:
        self._appservices = appservices
        self._rooms = rooms
        self._of_aliases = of_aliases
        self._joined: LruCache[int, JoinedUsers] = LruCache(
            "appservice_interest", MAX_CACHED_MEMBERS, size_of=lambda _, joined: joined.size
        )
        appservices.subscribe(self._joined.clear)

    def of_room(self, room: Room) -> Collection[Appservice]:
        """The application services that are interested in a room, whatever happens in it."""
        return self._with_namespaces(room, self.joined(room).interested)

    def joined(self, room: Room) -> JoinedUsers:
        """The joined users of application services."""
        joined = self._joined.get(room.room_nid)
        if joined is None:
            joined = self._joined.put(room.room_nid, joined_users(self._appservices, room))
        return joined

    def follow(self, entry: StateChanged) -> Collection[Appservice]:
        """The application services that are interested in a room before or after a change.

        To be called for all changes, in the order of the log.
        """
        room = self._rooms.loaded(entry.room_nid)
        if room is None:
            return NOBODY
        joined = self.joined(room)
        interested = joined.interested
        if entry.changes:
            for user_id, membership, _ in entry.members():
                services = self._appservices.covering_user(user_id)
                if services:
                    joined.set(user_id, services, is_joined=membership == "join")
            if joined.interested != interested:
                interested = tuple(dict.fromkeys((*interested, *joined.interested)))
                self._joined.measure(entry.room_nid)
        return self._with_namespaces(room, interested)

    def _with_namespaces(
        self, room: Room, interested: tuple[Appservice, ...]
    ) -> Collection[Appservice]:
        others = self._of_aliases(room.room_nid)
        if others or self._appservices.have_room_namespaces:
            in_rooms = self._appservices.covering_room(room.room_id)
            return dict.fromkeys((*interested, *others, *in_rooms))
        return interested

    def of_event(self, event: Event, in_room: Collection[Appservice]) -> Collection[Appservice]:
        """The application services that are interested in an event of a room.

        `in_room` are those that are interested in all events of it.
        """
        return with_subjects(self._appservices, event, in_room)


class PastInterest:
    """The interest in rooms as they were at earlier events, for readers that are behind.

    The states at successive events of a room differ little, so each is compared with the one that
    the same reader has seen before.
    """

    def __init__(
        self, appservices: Appservices, rooms: RoomRegistry, of_aliases: RoomAliasInterest
    ) -> None:
        self._appservices = appservices
        self._rooms = rooms
        self._of_aliases = of_aliases
        self._known: LruCache[tuple[str, int], tuple[bytes, JoinedUsers]] = LruCache(
            "past_appservice_interest", MAX_PAST_ROOMS
        )
        appservices.subscribe(self._known.clear)

    async def of_event(
        self, reader: str, room: Room, stored: StoredEvent
    ) -> Collection[Appservice]:
        """The application services that were interested in an event when it was sent."""
        in_room = {
            *(await self._joined_before(reader, room, stored)).interested,
            *self._of_aliases(room.room_nid),
            *self._appservices.covering_room(room.room_id),
        }
        return with_subjects(self._appservices, stored.event, in_room)

    async def _joined_before(self, reader: str, room: Room, stored: StoredEvent) -> JoinedUsers:
        known = self._known.get((reader, room.room_nid))
        root, joined = known or (room.root, joined_users(self._appservices, room))
        if root != stored.state_before:
            changes = await self._rooms.changes_between(room, root, stored.state_before)
            self._apply(joined, changes)
        if known is None or root != stored.state_before:
            self._known.put((reader, room.room_nid), (stored.state_before, joined))
        return joined

    def _apply(
        self, joined: JoinedUsers, changes: Mapping[tuple[str, str], StoredEvent | None]
    ) -> None:
        for (event_type, user_id), member in changes.items():
            services = self._appservices.covering_user(user_id) if event_type == MEMBER else NOBODY
            if services:
                joined.set(user_id, services, is_joined=membership_of(member) == "join")


def joined_users(appservices: Appservices, room: Room) -> JoinedUsers:
    """The users of application services who are joined to a room now."""
    joined = JoinedUsers()
    for user_id, membership in room.members.items():
        if membership == "join":
            services = appservices.covering_user(user_id)
            if services:
                joined.set(user_id, services, is_joined=True)
    return joined


def with_subjects(
    appservices: Appservices, event: Event, interested: Collection[Appservice]
) -> Collection[Appservice]:
    """Some application services, and those to whom the sender or subject of an event belongs."""
    of_sender = appservices.covering_user(event.sender)
    of_subject = NOBODY if event.state_key is None else appservices.covering_user(event.state_key)
    if of_sender or of_subject:
        return dict.fromkeys((*interested, *of_sender, *of_subject))
    return interested
