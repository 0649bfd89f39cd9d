"""Branches of a room: the state that all of them resolve to, and those that a local event joins.

Other servers decide how many branches a room has. The current state is the resolution of the states
after all of them, since any may have a ban that the others lack. The number of branches that a
local event joins is bounded, and so is the number that is kept: beyond `MAX_BRANCHES`, branches
that the current state does not need are pruned, but only if it is the same without them. So a room
has at most `MAX_BRANCHES` branches, or as many as there are entries that each need their own
branch.

Spec: https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from homeserver.protocol.errors import Forbidden
from homeserver.protocol.events import Event
from homeserver.rooms.events.event_draft import ClientTransaction, EventDraft
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.resolution.resolver import ResolvedState, StateResolver
from homeserver.rooms.room.extremities import MAX_BRANCHES, MAX_EXTREMITIES, by_depth
from homeserver.rooms.room.preview import build_preview
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.room.writer import RoomWriter


class Branches:
    """Resolves the branches of rooms."""

    def __init__(self, storage: RoomStorage, resolver: StateResolver) -> None:
        self._storage = storage
        self._resolver = resolver

    async def resolve(
        self, room: Room, extremities: tuple[StoredEvent, ...]
    ) -> tuple[tuple[StoredEvent, ...], ResolvedState]:
        """The state that all branches resolve to, and the branches that are kept."""
        resolved = await self._resolver.resolve(room, _roots(extremities))
        if len(extremities) <= MAX_BRANCHES:
            return extremities, resolved
        kept = await self._needed(extremities, resolved.root)
        if len(kept) < len(extremities):
            again = await self._resolver.resolve(room, _roots(kept))
            if again.root == resolved.root:
                return kept, again
        return extremities, resolved

    async def _needed(
        self, extremities: tuple[StoredEvent, ...], root: bytes
    ) -> tuple[StoredEvent, ...]:
        """The newest extremity, the deepest ones, and for each conflicted entry one that has it."""
        ordered = [extremities[-1], *by_depth(extremities[:-1])]
        kept = dict.fromkeys(ordered[:MAX_EXTREMITIES])
        roots = list(dict.fromkeys(stored.state_after for stored in ordered))
        if len(roots) > 1:
            differing = await self._storage.states.diff_many(roots)
            settled = await self._storage.states.get_many(root, differing)
            first = {stored.state_after: stored for stored in reversed(ordered)}
            for key, values in differing.items():
                if (event := settled.get(key)) in values and event is not None:
                    kept[first[roots[values.index(event)]]] = None
        return tuple(stored for stored in extremities if stored in kept)


class PduReceiverPort(Protocol):
    """Receives a local event on a branch; returns it when it is durable: `PduReceiver`."""

    async def receive_own(
        self, writer: RoomWriter, event: Event, transaction: ClientTransaction | None = None, /
    ) -> StoredEvent: ...


class BranchSender:
    """Sends events into rooms that have more branches than one event joins.

    Such an event follows some of the branches, and is checked like an event of another server; the
    other branches remain.
    """

    def __init__(self, receiver: PduReceiverPort) -> None:
        self._receiver = receiver

    def applies_to(self, writer: RoomWriter, draft: EventDraft) -> bool:
        """Whether the room has more branches than one event joins."""
        return writer.extremities.is_wide

    async def send(
        self,
        writer: RoomWriter,
        draft: EventDraft,
        transaction: ClientTransaction | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> StoredEvent | None:
        """Send an event; `None` if it `is_wanted` no more. Raises what `RoomWriter.send` raises."""
        event = await build_preview(writer, draft)
        if not is_wanted():
            return None
        return await self._receiver.receive_own(writer, event, transaction)


def check_accepted(stored: StoredEvent, what_happened: str) -> StoredEvent:
    """A local event that was received like those of other servers. Raises `Forbidden`."""
    if stored.status.rejected or stored.status.soft_failed:
        raise Forbidden(what_happened)
    return stored


def _roots(extremities: Iterable[StoredEvent]) -> list[bytes]:
    return [extremity.state_after for extremity in extremities]
