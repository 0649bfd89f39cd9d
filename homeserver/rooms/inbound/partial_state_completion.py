"""The completion of a room's partial state.

The member events have been fetched and stored as outliers. With them the full state before the join
is known, and the events since the join are checked again (`recheck.py`): their states, and whether
they are allowed. Then the differences from the current state are published, each change once, in
small parts, and finally that the room has full state.

No PDUs are received in the room meanwhile; local users continue to write, and their events are
checked again like the rest before the state is complete.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace
from twisted.internet.defer import Deferred

from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.event_types import MEMBER
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.inbound.receiver import PduReceiver
from homeserver.rooms.inbound.recheck import PartialStateRecheck
from homeserver.rooms.resolution.auth_index import parts
from homeserver.rooms.resolution.resolver import ResolvedState
from homeserver.rooms.room.admission import AdmittedEvent
from homeserver.rooms.room.changes import (
    NO_CHANGES,
    Changes,
    RoomUnPartialStated,
    StateChanged,
    StateKey,
)
from homeserver.rooms.room.event_rows import encryption_rows, membership_rows, nid_of
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.room.writer import RoomWriter
from homeserver.rooms.state.node_codec import Key
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.event_graph import accepted_state
from homeserver.storage.rooms.events import (
    FORGET_CURRENT_STATES,
    INSERT_CURRENT_STATE,
    REMOVE_FROM_TIMELINE,
)
from homeserver.storage.rooms.partial_rooms import COMPLETE_PARTIAL_ROOM

READ_BATCH_SIZE = 1_000  # state entries that are read at a time
PUBLISH_BATCH_SIZE = 50  # members in one log entry

Done = Deferred[None]


class JoinRefused(Exception):
    """The join would not be allowed with these members, so they cannot be those of the room."""


class PartialStateCompletion:
    """Completes rooms with partial state."""

    def __init__(self, storage: RoomStorage, receiver: PduReceiver, db: Database) -> None:
        self._storage = storage
        self._receiver = receiver
        self._db = db

    async def complete(self, writer: RoomWriter, members: Sequence[str]) -> None:
        """Complete a room, given the ids of the member events of the state before the join.

        The events were stored before. Returns when all is durable. Raises `JoinRefused`, and
        `Unavailable` while the database is unavailable; then the state is as partial as before.
        """
        partial = writer.room.partial
        assert partial is not None, "the room is partial"
        await writer.inbound.lock.acquire()
        try:
            known = await self._receiver.find_known(writer, [partial.join_id])
            join = known[partial.join_id]
            full_state = await self._full_state_before(writer, join, members)
            recheck = PartialStateRecheck(
                writer,
                self._storage,
                self._receiver.event_checker,
                self._receiver.resolver,
                self._db,
            )
            if not await recheck.recheck_join(join, full_state):
                raise JoinRefused(f"the full state does not allow the join {join}")
            await recheck.recheck_rest()
            await self._finish(writer, recheck)
        finally:
            writer.inbound.lock.release()

    async def _full_state_before(
        self, writer: RoomWriter, join: StoredEvent, event_ids: Sequence[str]
    ) -> ResolvedState:
        """The state before the join with all members that it did not have."""
        room, member_nid = writer.room, await self._storage.names.nid(MEMBER)
        await self._storage.log.written()
        entries: dict[Key, int] = {}
        for part in parts(list(event_ids), READ_BATCH_SIZE):
            for type_nid, key_nid, number in await self._db.run(
                accepted_state, room.room_nid, part
            ):
                if type_nid == member_nid:
                    entries[type_nid, key_nid] = number
        states = self._storage.states
        known = await states.get_many(join.state_before, entries)
        lacking = {key: number for key, number in entries.items() if key not in known}
        return ResolvedState(*await states.change_many(join.state_before, lacking))

    async def _finish(self, writer: RoomWriter, recheck: PartialStateRecheck) -> None:
        """Publish the differences in parts, and then switch to the full state."""
        version, storage = writer.room.version, self._storage
        since = storage.log.position + 1
        while True:
            await recheck.catch_up()
            before = writer.extremities
            changed = await storage.states.diff(before.root, recheck.extremities.root)
            fresh = {key: pair for key, pair in changed.items() if pair[1] is not None}
            if len(fresh) > PUBLISH_BATCH_SIZE:
                await self._publish_members(writer, fresh)
                continue
            changes = await storage.changes_between(version, before.root, recheck.extremities.root)
            lost = [key for key, current in changes.items() if current is None]
            former = await storage.state_at(version, before.root, lost)
            await self._know_names(changes, former.values())
            if writer.extremities is before:
                break
        await self._switch(writer, recheck, changes, former, since)

    async def _publish_members(
        self, writer: RoomWriter, changed: Mapping[Key, tuple[int | None, int | None]]
    ) -> None:
        """Publish members that were unknown, a part of them at a time."""
        for keys in parts(list(changed), PUBLISH_BATCH_SIZE):
            pairs = {new: old for old, new in (changed[key] for key in keys) if new is not None}
            events = await self._storage.events.load_in_order(writer.room.version, list(pairs))
            by_key = {_key(stored): stored for stored in events}
            await self._know_names(by_key, ())
            while True:
                try:
                    # Changes that local users have made meanwhile are newer.
                    current = {
                        key: stored
                        for key, stored in by_key.items()
                        if writer.current_nid(key) == pairs[stored.event_nid]
                    }
                    done = self._publish_part(writer, current)
                    break
                except NotInMemory as missing:
                    await missing.load()
            await done

    def _publish_part(self, writer: RoomWriter, events: Mapping[StateKey, StoredEvent]) -> Done:
        names, log, room = self._storage.names, self._storage.log, writer.room
        log.check_open()
        entries = {
            (nid_of(names, key[0]), nid_of(names, key[1])): stored.event_nid
            for key, stored in events.items()
        }
        root, nodes = self._storage.states.apply(writer.extremities.root, entries)
        position = log.next_position()
        rows = [
            INSERT_CURRENT_STATE.row(room.room_nid, position, root, writer.extremities.all_json),
            *membership_rows(names, room, events, position, {}),
            *encryption_rows(room, events),
            *nodes,
        ]
        entry = StateChanged(position, room.room_nid, root, events, is_fork=True)
        return writer.change_state(entry, replace(writer.extremities, root=root), rows)

    async def _switch(
        self,
        writer: RoomWriter,
        recheck: PartialStateRecheck,
        changes: Changes,
        former: Mapping[StateKey, StoredEvent],
        since: int,
    ) -> None:
        """Switch to the full state, without yielding to the reactor.

        The current states that were published on the way, after the position `since`, are deleted.
        """
        log, room, extremities = self._storage.log, writer.room, recheck.extremities
        assert room.partial is not None, "only this method ends partial state, and the lock is held"
        log.check_open()
        position = log.next_position()
        rows = [
            INSERT_CURRENT_STATE.row(
                room.room_nid, position, extremities.root, extremities.all_json
            ),
            FORGET_CURRENT_STATES.row(room.room_nid, since, position),
            COMPLETE_PARTIAL_ROOM.row(room.room_nid, room.partial.join_id, position),
            *(REMOVE_FROM_TIMELINE.row(number) for number in recheck.removed),
            *membership_rows(self._storage.names, room, changes, position, former),
            *encryption_rows(room, changes),
            *recheck.extremities_rows,
        ]
        entry = RoomUnPartialStated(
            position,
            room.room_nid,
            extremities.root,
            changes,
            is_fork=True,
            removed=frozenset(recheck.removed),
        )
        done = writer.change_state(entry, extremities, rows)
        writer.inbound.end_partial(room.partial.join_id)
        for checked in recheck.admitted:
            admitted = AdmittedEvent(
                checked.stored,
                extremities,
                NO_CHANGES,
                is_fork=True,
                is_last=False,
                should_send=False,
                effect=checked.effect,
                was_outlier=True,
                backward_extremities=checked.backward_extremities,
                is_after_gap=checked.is_after_gap,
            )
            done = writer.admit(admitted)
            if checked.pending_redactions is not None:
                redactions = self._receiver.event_checker.redactions
                done = (
                    redactions.release(writer, checked.stored, checked.pending_redactions) or done
                )
        await done

    async def _know_names(self, changes: Changes, more: Iterable[StoredEvent]) -> None:
        """Load the nids that the rows of memberships need."""
        names = {name for key in changes for name in key}
        events = [*(stored for stored in changes.values() if stored is not None), *more]
        await self._storage.names.nids(names | {stored.event.sender for stored in events})


def _key(stored: StoredEvent) -> StateKey:
    return stored.event.type, stored.event.state_key or ""
