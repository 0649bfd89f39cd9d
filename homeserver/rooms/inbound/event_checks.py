"""Checks of received events, by all that does not depend on the room's forward extremities.

An event is checked by its auth events and by the state before it; these and its previous events
must be stored. None of this changes when the room changes, so it may wait for the database.

Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.authorization.auth_state import AuthState
from homeserver.protocol.authorization.auth_types import auth_types_for
from homeserver.protocol.authorization.receipt_checks import check_by_auth_events, check_by_state
from homeserver.protocol.authorization.rule_broken import rule_number
from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.event_types import CREATE, CREATE_KEY, MEMBER
from homeserver.protocol.events import Event
from homeserver.rooms.events.imported_events import is_import_id
from homeserver.rooms.events.stored_event import MAX_TOPOLOGICAL_DEPTH, EventStatus, StoredEvent
from homeserver.rooms.inbound.received_redactions import ReceivedRedactions, TargetRedactions
from homeserver.rooms.resolution.resolver import ResolvedState, StateResolver
from homeserver.rooms.room.admission import NO_EFFECT, RedactionEffect
from homeserver.rooms.room.changes import StateKey
from homeserver.rooms.room.event_rows import auth_rows, names_of
from homeserver.rooms.room.extremities import MAX_EXTREMITIES
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.room.writer import RoomWriter
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.storage.database.batch import Row

MAX_CACHED_AUTH_STATES = 500  # parts of states that recent events were checked by


class EventsMissing(LookupError):
    """Events that an event refers to are not stored, or not with the state after them.

    `auth` are missing auth events, `prev` missing previous ones: the caller fetches them, or the
    state before the event, and tries again.
    """

    def __init__(self, auth: Collection[str] = (), prev: Collection[str] = ()) -> None:
        super().__init__(f"{len(auth)} auth events and {len(prev)} previous events are missing")
        self.auth = frozenset(auth)
        self.prev = frozenset(prev)


class AuthEvents(msgspec.Struct, frozen=True):
    """The auth events of an event, or the reason why it is rejected without reading them.

    `numbers` are the nids of the auth events in this room: auth chains include them even if the
    event is rejected.
    """

    numbers: Sequence[int]
    stored: Sequence[StoredEvent] = ()
    create: Event | None = None
    rejected: frozenset[str] = frozenset()
    refusal: str | None = None

    def check(self, event: Event) -> str | None:
        events = [stored.event for stored in self.stored]
        return self.refusal or check_by_auth_events(event, events, self.create, self.rejected)


class CheckedEvent(msgspec.Struct, frozen=True):
    """An event with the results of all checks that do not depend on the room's forward extremities.

    `replaced_extremities` are the events that stop being forward extremities when this event is
    accepted, `missing` the missing events before it; with `is_after_gap` these precede no other
    event that clients have been shown. `effect` is its effect as a redaction, `pending_redactions`
    those that were received before it and redact it. `trusted_members` are those of its auth events
    that are member events of users whom the state before it does not have because that is partial.
    """

    stored: StoredEvent
    rows: Sequence[Row]
    replaced_extremities: frozenset[str]
    missing: Collection[str]
    was_outlier: bool
    is_after_gap: bool = False
    effect: RedactionEffect = NO_EFFECT
    pending_redactions: TargetRedactions | None = None
    trusted_members: Mapping[StateKey, Event] = msgspec.field(default_factory=dict)

    def among(self, state: AuthState) -> AuthState:
        """A state with the trusted members, where it does not have them."""
        return AuthState(_Filled(state, self.trusted_members)) if self.trusted_members else state

    @property
    def backward_extremities(self) -> Mapping[str, int]:
        """The missing events, with the depth of this one."""
        return dict.fromkeys(self.missing, self.stored.topological_depth)


class _Ancestors(msgspec.Struct, frozen=True):
    """The nearest ancestors of an event, for `CheckedEvent`."""

    event_ids: frozenset[str]
    missing: Collection[str]
    is_after_gap: bool


class _Filled:
    """A state, with other events for the keys that it lacks."""

    __slots__ = ("_more", "_state")

    def __init__(self, state: AuthState, more: Mapping[StateKey, Event]) -> None:
        self._state = state
        self._more = more

    def get(self, key: StateKey) -> Event | None:
        found = self._state.get(*key)
        return self._more.get(key) if found is None else found


class EventChecker:
    """Checks events for `PduReceiver` and `PartialStateCompletion`."""

    def __init__(self, storage: RoomStorage, resolver: StateResolver) -> None:
        self._storage = storage
        self._resolver = resolver
        # Consecutive events are often checked by the same few events of a state.
        self._auth_states: LruCache[tuple[bytes, frozenset[StateKey]], AuthState] = LruCache(
            "auth_states", MAX_CACHED_AUTH_STATES
        )
        self.redactions = ReceivedRedactions(storage)

    async def check(
        self,
        writer: RoomWriter,
        stored: StoredEvent,
        given_state: ResolvedState | None,
        *,
        is_provisional: bool = False,
    ) -> CheckedEvent:
        """Check an event, and find its state and effects. Raises `EventsMissing`.

        `is_provisional` while the room's state is partial: then members whom the state does not
        have are taken from the auth events, and an event that the state does not allow is not
        rejected, which would be final for all events that refer to it, but soft-failed.
        """
        event, was_outlier = stored.event, stored.status.is_outlier
        cited = await self.cited(writer, event, {})
        prevs = await self.find(writer, event.prev_event_ids)
        placed = {key: prev for key, prev in prevs.items() if not prev.status.is_outlier}
        missing = [each for each in event.prev_event_ids if each not in placed]
        if missing and given_state is None:
            raise EventsMissing(prev=missing)
        if given_state is None:
            after = [prev.state_after for prev in placed.values()]
            given_state = await self._resolver.resolve(writer.room, after or [EMPTY])
        before, rows = given_state.root, list(given_state.rows)
        trusted: dict[StateKey, StoredEvent] = {}
        if is_provisional:
            trusted = await self._unknown_members(before, cited)
            before, rows = await self._with_members(before, trusted, rows)
        if not was_outlier:
            rows += auth_rows(stored, cited.numbers)
        await self._storage.names.nids(names_of(event))
        rejected = cited.check(event)
        refusal = rejected or check_by_state(event, await self.auth_state(writer, event, before))
        stored.state_before = stored.state_after = before
        stored.topological_depth = _depth_of(event, placed.values(), is_below_known=bool(missing))
        is_final = rejected is not None or not is_provisional
        stored.status = (
            EventStatus(rejected=refusal) if is_final else EventStatus(soft_failed=refusal)
        )
        effect, pending = NO_EFFECT, None
        if refusal is None:
            if event.state_key is not None:
                rows += await self._apply(writer, stored)
            effect = await self.redactions.effect_of(writer, stored)
            pending = await self.redactions.pending_of(writer, stored)
            if pending is not None:
                rows += pending.rows
        ancestors = await self._ancestors(writer, event, placed, missing)
        return CheckedEvent(
            stored,
            rows,
            ancestors.event_ids,
            ancestors.missing,
            was_outlier,
            ancestors.is_after_gap,
            effect,
            pending,
            {key: member.event for key, member in trusted.items()},
        )

    async def _unknown_members(self, root: bytes, cited: AuthEvents) -> dict[StateKey, StoredEvent]:
        """The auth events that are member events of users whom a state does not have."""
        members = {
            (MEMBER, stored.event.state_key or ""): stored
            for stored in cited.stored
            if is_member_event(stored.event) and stored.status.rejected is None
        }
        known = await self._storage.nids_at(root, members)
        return {key: stored for key, stored in members.items() if key not in known}

    async def _with_members(
        self, root: bytes, members: Mapping[StateKey, StoredEvent], rows: list[Row]
    ) -> tuple[bytes, list[Row]]:
        if not members:
            return root, rows
        names = await self._storage.names.nids({name for key in members for name in key})
        entries = {
            (names[key[0]], names[key[1]]): stored.event_nid for key, stored in members.items()
        }
        root, nodes = await self._storage.states.change(root, entries)
        return root, [*rows, *nodes]

    async def cited(
        self, writer: RoomWriter, event: Event, fresh: Mapping[str, StoredEvent]
    ) -> AuthEvents:
        """The auth events of the event, and the checks by them. Raises `EventsMissing`."""
        room = writer.room
        ids = list(event.auth_event_ids)
        create_id = None
        if room.version.room_id_is_create_hash and event.type != CREATE:
            create_id = "$" + event.room_id[1:]
            ids.append(create_id)
        found = {each: fresh[each] for each in ids if each in fresh}
        found |= await self.find(writer, [each for each in ids if each not in found])
        numbers = [found[each].event_nid for each in event.auth_event_ids if each in found]
        missing = [each for each in ids if each not in found]
        foreign = [each for each in missing if await self._storage.events.rooms_with(each)]
        if len(foreign) < len(missing):
            raise EventsMissing(auth=set(missing).difference(foreign))
        if foreign:
            rule = rule_number(room.version, "3.5")
            return AuthEvents(numbers, refusal=f"rule {rule}: {foreign[0]} is of another room")
        if event.type == CREATE and await self._is_made_by_another(writer, event):
            # No rule of the specification forbids it, and its sender would take the room over.
            rule = rule_number(room.version, "1.1")
            return AuthEvents(
                numbers, refusal=f"rule {rule}: the room has been made by another event"
            )
        return AuthEvents(
            numbers,
            [found[each] for each in event.auth_event_ids],
            None if create_id is None else found[create_id].event,
            frozenset(each for each, stored in found.items() if stored.status.rejected is not None),
        )

    async def _is_made_by_another(self, writer: RoomWriter, create: Event) -> bool:
        number = writer.current_nid(CREATE_KEY)
        if number is None:
            return False
        made_by = (await self._storage.events.load(writer.room.version, [number]))[number]
        return made_by.event.event_id != create.event_id

    async def auth_state(self, writer: RoomWriter, event: Event, root: bytes) -> AuthState:
        """The part of a state that an event is checked by."""
        version = writer.room.version
        keys = auth_types_for(version, event.type, event.sender, event.state_key, event.content)
        what = root, frozenset((CREATE_KEY, *keys))
        state = self._auth_states.get(what)
        if state is None:
            found = await self._storage.state_at(version, *what)
            state = AuthState({key: stored.event for key, stored in found.items()})
            self._auth_states.put(what, state)
        return state

    async def _apply(self, writer: RoomWriter, stored: StoredEvent) -> Sequence[Row]:
        """Find the state after a state event, and the event that it replaces."""
        event, storage = stored.event, self._storage
        key = (event.type, event.state_key or "")
        names = await storage.names.nids(key)
        state = await storage.state_at(writer.room.version, stored.state_before, [key])
        if (replaced := state.get(key)) is not None:
            stored.replaces, stored.replaced = replaced.event_nid, replaced.event
        stored.state_after, rows = await storage.states.change(
            stored.state_before, {(names[key[0]], names[key[1]]): stored.event_nid}
        )
        return rows

    async def _ancestors(
        self,
        writer: RoomWriter,
        event: Event,
        prevs: Mapping[str, StoredEvent],
        missing: Sequence[str],
    ) -> _Ancestors:
        """The nearest ancestors of an event: its previous events, and those before hidden ones.

        A missing event before one that clients were shown already is no new gap: backfill starts
        there anyway.
        """
        ancestors, all_missing = set(event.prev_event_ids), list(missing)
        is_after_gap = any(each not in writer.backward_extremities for each in missing)
        hidden = [prev for prev in prevs.values() if prev.position is None]
        for _ in range(MAX_EXTREMITIES):
            prev_ids = {each for prev in hidden for each in prev.event.prev_event_ids}
            ids = prev_ids - ancestors
            if not ids:
                break
            found = await self.find(writer, ids)
            placed = {key: prev for key, prev in found.items() if not prev.status.is_outlier}
            ancestors |= ids
            all_missing += ids.difference(placed)
            is_after_gap |= len(placed) < len(ids) or any(map(_is_backfilled, placed.values()))
            hidden = [prev for prev in placed.values() if prev.position is None]
        return _Ancestors(frozenset(ancestors), all_missing, is_after_gap)

    async def find(self, writer: RoomWriter, event_ids: Iterable[str]) -> dict[str, StoredEvent]:
        """Those of the events that are stored. Imported ones are no part of the graph."""
        room = writer.room
        return await self._storage.events.find_many(
            room.version,
            room.room_nid,
            room.room_id,
            [
                each
                for each in event_ids
                if each not in writer.inbound.absent and not is_import_id(room.version, each)
            ],
        )

    async def look_up(self, writer: RoomWriter, events: Iterable[Event]) -> None:
        """Look up together which of some events, and of those that they refer to, are stored.

        Only the room's writer adds events, so that missing ones need not be looked up again.
        """
        wanted = {
            event_id
            for event in events
            for event_id in (event.event_id, *event.prev_event_ids, *event.auth_event_ids)
        }
        room, store = writer.room, self._storage.events
        found = await store.find_many(room.version, room.room_nid, room.room_id, wanted)
        writer.inbound.set_absent(
            event_id
            for event_id in wanted.difference(found)
            if store.cached_id(room.room_id, event_id) is None
        )


def _depth_of(event: Event, prevs: Iterable[StoredEvent], *, is_below_known: bool) -> int:
    """The depth of an event; at least its own claim, if previous events are missing."""
    depth = max((prev.topological_depth for prev in prevs), default=0) + 1
    return min(max(depth, event.depth) if is_below_known else depth, MAX_TOPOLOGICAL_DEPTH)


def _is_backfilled(stored: StoredEvent) -> bool:
    return stored.position is not None and stored.position < 0
