"""Interest: the application services that receive the events of a room.

One is interested in a room that is in its namespaces, by its id or an alias, and in a room with a
joined user of its own. It also receives events that one of its users sent, or is the subject of.

The interest in a room is computed once, when the room is first seen, and changes with the log. So a
message costs two look-ups, however many members and application services there are. A room that is
first seen in a batch of the log counts as it is after that batch.

Spec: https://spec.matrix.org/v1.19/application-service-api/#registration
"""

from collections.abc import Callable, Collection, Iterable

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


class _KnownInterest:
    """The interest in one room: by its id, and by the joined users of application services."""

    __slots__ = ("by_id", "interested", "size", "users")

    def __init__(self, by_id: Collection[Appservice]) -> None:
        self.by_id = by_id
        self.users: dict[Appservice, set[str]] = {}
        self.interested: tuple[Appservice, ...] = tuple(by_id)
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
        self.interested = tuple(dict.fromkeys((*self.by_id, *self.users)))


class RoomInterest:
    """The interest in rooms as they are now, of the application services that receive anything."""

    def __init__(
        self, appservices: Appservices, rooms: RoomRegistry, of_aliases: RoomAliasInterest
    ) -> None:
        self._appservices = appservices
        self._rooms = rooms
        self._of_aliases = of_aliases
        self._receivers: frozenset[str] = frozenset()
        self._known: LruCache[int, _KnownInterest] = LruCache(
            "appservice_interest", MAX_CACHED_MEMBERS, size_of=lambda _, known: known.size
        )
        appservices.subscribe(self._known.clear)

    def set_receivers(self, appservice_ids: Iterable[str]) -> None:
        """Have the interest of these application services known, and of no others.

        Many registrations only lend a token, for a namespace with all users of the server.
        """
        self._receivers = frozenset(appservice_ids)
        self._known.clear()

    def of_room(self, room: Room) -> Collection[Appservice]:
        """The application services that are interested in a room, whatever happens in it."""
        return self._with_aliases(room.room_nid, self._of(room).interested)

    def known(self, room_nid: int) -> Collection[Appservice] | None:
        """The same, for a room whose interest is in memory; otherwise `None`."""
        known = self._known.peek(room_nid)
        return None if known is None else self._with_aliases(room_nid, known.interested)

    def follow(self, entry: StateChanged) -> Collection[Appservice]:
        """The application services that are interested in a room before or after a change.

        To be called for all changes, in the order of the log.
        """
        room = self._rooms.loaded(entry.room_nid)
        if room is None:
            self._known.pop(entry.room_nid)
            return NOBODY
        known = self._of(room)
        interested = known.interested
        if entry.changes:
            for user_id, membership, _ in entry.members():
                if services := self._owners(user_id):
                    known.set(user_id, services, is_joined=membership == "join")
            if known.interested != interested:
                interested = tuple(dict.fromkeys((*interested, *known.interested)))
            self._known.measure(entry.room_nid)
        return self._with_aliases(entry.room_nid, interested)

    def of_event(self, event: Event, in_room: Collection[Appservice]) -> Collection[Appservice]:
        """The application services that are interested in an event of a room.

        `in_room` are those that are interested in all events of it.
        """
        of_sender = self._appservices.covering_user(event.sender)
        subject = event.state_key
        of_subject = NOBODY if subject is None else self._appservices.covering_user(subject)
        if of_sender or of_subject:
            return dict.fromkeys((*in_room, *of_sender, *of_subject))
        return in_room

    def _of(self, room: Room) -> _KnownInterest:
        known = self._known.get(room.room_nid)
        if known is None:
            known = _KnownInterest(self._appservices.covering_room(room.room_id))
            for user_id, membership in room.members.items():
                if membership == "join" and (services := self._owners(user_id)):
                    known.set(user_id, services, is_joined=True)
            self._known.put(room.room_nid, known)
        return known

    def _owners(self, user_id: str) -> Collection[Appservice]:
        services = self._appservices.covering_user(user_id)
        return [each for each in services if each.id in self._receivers] if services else services

    def _with_aliases(
        self, room_nid: int, interested: tuple[Appservice, ...]
    ) -> Collection[Appservice]:
        others = self._of_aliases(room_nid)
        return dict.fromkeys((*interested, *others)) if others else interested


class PastInterest:
    """The interest in rooms as they were at earlier events, for readers that are behind.

    The states at successive events of a room differ little, so each is compared with the one that
    the same application service was asked about before.
    """

    def __init__(
        self, appservices: Appservices, rooms: RoomRegistry, of_aliases: RoomAliasInterest
    ) -> None:
        self._rooms = rooms
        self._of_aliases = of_aliases
        self._joined: LruCache[tuple[Appservice, int], tuple[bytes, set[str]]] = LruCache(
            "past_appservice_interest", MAX_PAST_ROOMS
        )
        appservices.subscribe(self._joined.clear)

    async def was_interested(self, service: Appservice, room: Room, stored: StoredEvent) -> bool:
        """Whether an application service was interested in an event when it was sent."""
        event = stored.event
        return (
            service.covers_user(event.sender)
            or (event.state_key is not None and service.covers_user(event.state_key))
            or service.rooms.covers(room.room_id)
            or service in self._of_aliases(room.room_nid)
            or bool(await self._joined_before(service, room, stored.state_before))
        )

    async def _joined_before(self, service: Appservice, room: Room, root: bytes) -> set[str]:
        """The users of an application service who are joined in the state with this root."""
        key = service, room.room_nid
        known, joined = self._joined.get(key) or (room.root, _joined_now(service, room))
        if known != root:
            for (event_type, user_id), member in (
                await self._rooms.changes_between(room, known, root)
            ).items():
                if event_type == MEMBER and service.covers_user(user_id):
                    is_joined = membership_of(member) == "join"
                    (joined.add if is_joined else joined.discard)(user_id)
        self._joined.put(key, (root, joined))
        return joined


def _joined_now(service: Appservice, room: Room) -> set[str]:
    return {
        user_id
        for user_id, membership in room.members.items()
        if membership == "join" and service.covers_user(user_id)
    }
