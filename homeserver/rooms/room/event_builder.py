"""Building local events: a draft becomes a signed event that the current state authorises.

Spec: https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections.abc import Collection, Iterable, Sequence

from homeserver.protocol.authorization.auth_types import auth_types_for
from homeserver.protocol.event_types import CREATE_KEY, SERVER_ACL_KEY
from homeserver.protocol.events import Event
from homeserver.rooms.events.event_draft import ClientTransaction, EventDraft
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.events.stored_event import MAX_TOPOLOGICAL_DEPTH, StoredEvent
from homeserver.rooms.room.admission import ResolvedDraft, resolve_draft
from homeserver.rooms.room.changes import NO_CHANGES, Changes
from homeserver.rooms.room.event_rows import auth_rows, check_names, nid_of
from homeserver.rooms.room.extremities import ForwardExtremities
from homeserver.rooms.room.local_event_checks import (
    check_draft,
    check_own_event,
    check_redaction,
    check_target,
)
from homeserver.rooms.room.queued_state import QueuedState
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_storage import EventsNotInMemory, RoomStorage
from homeserver.storage.database.batch import Row


class EventBuilder:
    """Builds the events of local users in one room, from what is in memory.

    All methods raise `NotInMemory` where something must be loaded.
    """

    __slots__ = ("_current", "_local_server", "_room", "_storage")

    def __init__(
        self, room: Room, local_server: LocalServer, storage: RoomStorage, current: QueuedState
    ) -> None:
        self._room = room
        self._local_server = local_server
        self._storage = storage
        self._current = current

    def resolve(self, draft: EventDraft) -> ResolvedDraft:
        """The draft with the event that it redacts, which may have arrived only now."""
        target = draft.target
        if target is None and draft.redacts is not None:
            target = self._storage.events.cached_id(self._room.room_id, draft.redacts)
        return resolve_draft(self._room.version, draft, target)

    def build(
        self,
        resolved: ResolvedDraft,
        extremities: ForwardExtremities,
        transaction: ClientTransaction | None = None,
        *,
        signers: Collection[str] = (),
        follows: Sequence[StoredEvent] | None = None,
    ) -> tuple[StoredEvent, list[int]]:
        """The event that a draft becomes, and the numeric ids of its auth events.

        It follows all extremities, or those that are given as `follows`. `signers` are servers that
        will sign it, too. Raises what `RoomWriter.append` raises.
        """
        draft, target, current = resolved.draft, resolved.target, self._current
        own_name = self._local_server.server_name
        check_draft(draft, self._room.room_id, own_name)
        auth_events = self._auth_events(draft)
        check_names(self._storage.names, draft.type, draft.sender, draft.state_key)
        follows = extremities.events if follows is None else follows
        event = self._event(draft, follows, [cited.event for cited in auth_events])
        check_own_event(event, current.auth, own_name, signers)
        if target is not None:
            check_target(target, current.current_nid(SERVER_ACL_KEY))
            check_redaction(event, target.event, current.auth)
        replaced = None
        if draft.state_key is not None:
            replaced = current.current((draft.type, draft.state_key))
        log = self._storage.log
        position = log.next_position()
        stored = StoredEvent(
            event,
            log.next_event_number(),
            position,
            extremities.root,
            extremities.root,
            stored_at=position,
            replaces=None if replaced is None else replaced.event_nid,
            replaced=None if replaced is None else replaced.event,
            topological_depth=min(extremities.topological_depth + 1, MAX_TOPOLOGICAL_DEPTH),
            transaction=transaction,
        )
        return stored, [cited.event_nid for cited in auth_events]

    def state_after(
        self, stored: StoredEvent, cited: Iterable[int], root: bytes
    ) -> tuple[Changes, Sequence[Row]]:
        """The changes by an event to the state with this root, and the rows that store them.

        Sets `state_after` of `stored`.
        """
        event = stored.event
        if event.state_key is None:
            return NO_CHANGES, ()
        names = self._storage.names
        entry = (nid_of(names, event.type), nid_of(names, event.state_key))
        stored.state_after, nodes = self._storage.states.apply(root, {entry: stored.event_nid})
        return {(event.type, event.state_key): stored}, [*nodes, *auth_rows(stored, cited)]

    def _event(
        self, draft: EventDraft, follows: Sequence[StoredEvent], auth_events: Sequence[Event]
    ) -> Event:
        return self._local_server.sign_event(
            self._room.version,
            draft,
            room_id=self._room.room_id,
            prev_events=[stored.event for stored in follows],
            auth_events=auth_events,
            depth=1 + max((stored.event.depth for stored in follows), default=0),
        )

    def _auth_events(self, draft: EventDraft) -> list[StoredEvent]:
        """The current events that authorise the draft, as the specification selects them."""
        keys = auth_types_for(
            self._room.version, draft.type, draft.sender, draft.state_key, draft.content
        )
        found: list[StoredEvent] = []
        missing: list[int] = []
        for key in keys:
            try:
                stored = self._current.current(key)
            except EventsNotInMemory as lacking:
                missing.extend(lacking.numbers)
            else:
                if stored is not None:
                    found.append(stored)
        # Room version 12 leaves the create event out of the selection, but its rules read it.
        create = self._room.state.get(CREATE_KEY)
        if create is not None and self._storage.events.cached(create) is None:
            missing.append(create)
        if missing:
            raise EventsNotInMemory(self._storage.events, self._room.version, missing)
        return found
