"""The room writer: the one way into a room.

It holds what the next event needs: the forward extremities, the root of the current state, and what
has been queued but not yet published. A message in an active room is therefore authorised, signed
and queued in one turn of the reactor, without a database read, and nothing can come between the
check and the write. Where something is not in memory the attempt ends with `NotAtHand`, what is
missing is loaded, and the attempt is made again from the start, against whatever the state is by
then.

Spec: https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from twisted.internet.defer import Deferred

from homeserver.protocol.auth_rules import check_auth
from homeserver.protocol.auth_state import AuthState
from homeserver.protocol.auth_types import auth_types_for
from homeserver.protocol.errors import BadJson, Forbidden
from homeserver.protocol.events import Event
from homeserver.protocol.rule_broken import RuleBroken
from homeserver.rooms.drafts import Draft, Transaction
from homeserver.rooms.event_store import EventStore
from homeserver.rooms.origin import Origin
from homeserver.rooms.redactions import check_redaction
from homeserver.rooms.relation_rows import relation_rows, rows_of_redaction
from homeserver.rooms.room import Room, RoomEventAppended, StateKey
from homeserver.rooms.states import MissingNodes, States
from homeserver.rooms.stored_event import StoredEvent
from homeserver.storage.batch import Row
from homeserver.storage.events import INSERT_EVENT, MARK_REDACTED
from homeserver.storage.memberships import UPSERT_MEMBERSHIP
from homeserver.storage.names import Names
from homeserver.storage.rooms import INSERT_ROOM
from homeserver.streams.log import Log


@dataclass(frozen=True, slots=True)
class Head:
    """Where the next event attaches: forward extremities, their greatest depth, current state."""

    extremities: tuple[Event, ...]
    depth: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Stores:
    """Where a writer reads and writes."""

    log: Log
    names: Names
    states: States
    events: EventStore


class NotAtHand(LookupError):
    """Events or names that are needed, and have to be loaded first."""

    def __init__(self, events: Sequence[int] = (), names: Sequence[str] = ()) -> None:
        super().__init__("not in memory")
        self.events = events
        self.names = names


class RoomWriter:
    """Writes the events of one room; there is only one writer for a room at any time."""

    def __init__(self, room: Room, head: Head, origin: Origin, stores: Stores) -> None:
        self.room = room
        self.head = head
        self.users = 0  # requests that hold on to this writer, which must therefore not be dropped
        self._queued = 0  # position of the last event that was handed to the log
        self._origin = origin
        self._log = stores.log
        self._names = stores.names
        self._states = stores.states
        self._events = stores.events
        self._pending: dict[StateKey, StoredEvent] = {}
        self._auth = AuthState(_CurrentEvents(self))

    @property
    def is_busy(self) -> bool:
        """Whether something has not been published yet, or a request is at work here."""
        return self.users > 0 or bool(self._pending) or self._queued > self.room.last_position

    async def send(self, draft: Draft, transaction: Transaction | None = None) -> StoredEvent:
        """Append one event; returns when it is durable and readers know of it.

        A state event that would change nothing is not sent: the current one is returned.

        Raises `Forbidden` where the auth rules refuse it, `TooLarge` and `BadJson` where it is no
        valid event, `Unavailable` while the database is away.
        """
        while True:
            try:
                if draft.state_key is not None and (unchanged := self._unchanged(draft)):
                    return unchanged
                (stored,), done = self.append([draft], transaction)
                break
            except NotAtHand as missing:
                await self._load(missing)
            except MissingNodes:
                await self._load_nodes(draft)
        await done
        return stored

    def append(
        self,
        drafts: Sequence[Draft],
        transaction: Transaction | None = None,
        *,
        create: StoredEvent | None = None,
        more_rows: Sequence[Row] = (),
    ) -> tuple[list[StoredEvent], Deferred[None]]:
        """Queue events, all or none, without waiting; the Deferred fires when they are durable.

        `create` is the room's create event where this call makes the room; `more_rows` are written
        together with it.

        Raises `NotAtHand` or `MissingNodes` where something must be loaded first, and what `send`
        raises.
        """
        self._log.check_open()
        saved = self.head, dict(self._pending), self._auth
        built: list[tuple[StoredEvent, StoredEvent | None, list[Row]]] = []
        try:
            if create is not None:
                built.append((create, None, self._take(create)))
            for draft in drafts:
                stored = self._build(draft, transaction)
                built.append((stored, draft.target, self._take(stored)))
        except BaseException:
            self.head, self._pending, self._auth = saved
            raise
        done: Deferred[None] | None = None
        for stored, redacted, rows in built:
            self._events.add(stored)
            assert stored.position is not None
            if redacted is not None:
                rows.append(MARK_REDACTED.row(redacted.number, stored.number))
                rows += rows_of_redaction(redacted)
            fact = RoomEventAppended(stored.position, self.room.number, stored, redacted)
            if stored is create:
                rows += [self._room_row(stored.event), *more_rows]
                fact = replace(fact, version=self.room.version)
            done = self._log.append(fact, rows)
            self._queued = stored.position
        assert done is not None
        return [stored for stored, _, _ in built], done

    def rehearse(self, draft: Draft) -> Event:
        """The event that a draft would become if it were appended now; nothing is changed.

        It does become that if it is appended in the same turn of the reactor and says itself when
        it was sent. Raises what `append` raises.
        """
        self._log.check_open()
        saved = self.head, dict(self._pending), self._auth
        try:
            stored = self._build(draft, None)
            self._take(stored)
            return stored.event
        finally:
            self.head, self._pending, self._auth = saved

    def published(self, stored: StoredEvent) -> None:
        """Readers know of the event now: the room shows what was pending here."""
        event = stored.event
        if event.state_key is not None:
            key = (event.type, event.state_key)
            if self._pending.get(key) is stored:
                del self._pending[key]

    def current_number(self, key: StateKey) -> int | None:
        """Number of the current event of a type and state key, queued ones included."""
        pending = self._pending.get(key)
        return self.room.number_of(key) if pending is None else pending.number

    def current(self, key: StateKey) -> StoredEvent | None:
        """The current event of a type and state key; raises `NotAtHand` where it must be loaded."""
        pending = self._pending.get(key)
        if pending is not None:
            return pending
        number = self.room.number_of(key)
        if number is None:
            return None
        stored = self._events.cached(number)
        if stored is None:
            raise NotAtHand(events=[number])
        return stored

    def membership(self, user_id: str) -> str | None:
        """The user's membership, queued changes included."""
        pending = self._pending.get(("m.room.member", user_id))
        if pending is not None:
            membership: str | None = pending.event.content.get("membership")
            return membership
        return self.room.members.get(user_id)

    def _unchanged(self, draft: Draft) -> StoredEvent | None:
        """The current state event, if the draft says the same from the same sender."""
        assert draft.state_key is not None
        current = self.current((draft.type, draft.state_key))
        if (
            current is not None
            and current.redaction is None
            and current.event.sender == draft.sender
            and current.event.content == draft.content
        ):
            return current
        return None

    def _build(self, draft: Draft, transaction: Transaction | None) -> StoredEvent:
        auth_events = self._auth_events(draft)
        self._check_names(draft)
        event = self._event(draft, auth_events)
        try:
            check_auth(event, self._auth)
        except RuleBroken as broken:
            raise Forbidden(str(broken)) from broken
        if draft.target is not None:
            check_redaction(event, draft.target.event, self._auth)
        replaced = None
        if draft.state_key is not None:
            replaced = self.current((draft.type, draft.state_key))
        position = self._log.next_position()
        return StoredEvent(
            event,
            position,
            position,
            self.head.root,
            self.head.root,
            replaces=None if replaced is None else replaced.number,
            replaced=None if replaced is None else replaced.event,
            transaction=None
            if transaction is None
            else (transaction.user_id, transaction.device_id, transaction.txn_id),
        )

    def _event(self, draft: Draft, auth_events: Sequence[Event]) -> Event:
        return self._origin.sign_event(
            self.room.version,
            draft,
            room_id=self.room.room_id,
            prev_events=self.head.extremities,
            auth_events=auth_events,
            depth=self.head.depth + 1,
        )

    def _take(self, stored: StoredEvent) -> list[Row]:
        """Make a built event the head of the room; the rows that store it."""
        event = stored.event
        rows: list[Row] = []
        type_nid, sender_nid = self._nid(event.type), self._nid(event.sender)
        key_nid = None
        if event.state_key is not None:
            key_nid = self._nid(event.state_key)
            stored.state_after, rows = self._states.apply(
                self.head.root, {(type_nid, key_nid): stored.number}
            )
            if event.type == "m.room.member":
                rows.append(
                    UPSERT_MEMBERSHIP.row(
                        key_nid,
                        self.room.number,
                        event.content["membership"],
                        stored.number,
                        stored.position,
                        sender_nid,
                    )
                )
            self._pending[(event.type, event.state_key)] = stored
            self._auth = AuthState(_CurrentEvents(self))
        _, device_id, txn_id = stored.transaction or (None, None, None)
        rows.append(
            INSERT_EVENT.row(
                stored.number,
                self.room.number,
                stored.position,
                event.depth,
                type_nid,
                sender_nid,
                key_nid,
                event.event_id,
                event.json,
                stored.state_before,
                stored.state_after if event.state_key is not None else None,
                stored.replaces,
                None,
                device_id,
                txn_id,
            )
        )
        rows += relation_rows(stored, self.room.number, type_nid, sender_nid)
        self.head = Head((event,), event.depth, stored.state_after)
        return rows

    def _room_row(self, create: Event) -> Row:
        return INSERT_ROOM.row(
            self.room.number,
            self.room.version.identifier,
            self._nid(create.sender),
            self.room.published,
        )

    def _auth_events(self, draft: Draft) -> list[Event]:
        """The current events that authorise the draft, as the specification selects them."""
        keys = auth_types_for(
            self.room.version, draft.type, draft.sender, draft.state_key, draft.content
        )
        found: list[Event] = []
        missing: list[int] = []
        for key in keys:
            try:
                stored = self.current(key)
            except NotAtHand as lacking:
                missing.extend(lacking.events)
            else:
                if stored is not None:
                    found.append(stored.event)
        # Room version 12 leaves the create event out of the selection, but its rules read it.
        create = self.room.state.get(("m.room.create", ""))
        if create is not None and self._events.cached(create) is None:
            missing.append(create)
        if missing:
            raise NotAtHand(events=missing)
        return found

    def _check_names(self, draft: Draft) -> None:
        """See that the numbers of all names are at hand, before the event is built."""
        names = [draft.type, draft.sender]
        if draft.state_key is not None:
            names.append(draft.state_key)
        if any("\x00" in name for name in names):
            raise BadJson("type and state_key may not contain a NUL character")
        missing = [name for name in names if self._names.cached_nid(name) is None]
        if missing:
            raise NotAtHand(names=missing)

    def _nid(self, name: str) -> int:
        nid = self._names.cached_nid(name)
        if nid is None:
            raise NotAtHand(names=[name])
        return nid

    async def _load(self, missing: NotAtHand) -> None:
        if missing.events:
            await self._events.load(self.room.version, missing.events)
        if missing.names:
            await self._names.nids(list(missing.names))

    async def _load_nodes(self, draft: Draft) -> None:
        assert draft.state_key is not None
        await self._states.get(self.head.root, self._nid(draft.type), self._nid(draft.state_key))


class _CurrentEvents:
    """The writer's current state in the form that the auth rules read."""

    __slots__ = ("_writer",)

    def __init__(self, writer: RoomWriter) -> None:
        self._writer = writer

    def get(self, key: StateKey) -> Event | None:
        stored = self._writer.current(key)
        return None if stored is None else stored.event
