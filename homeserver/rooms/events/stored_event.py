"""A stored event: the immutable event, its place in this server's log, and its JSON for clients.

An event that goes to many readers is encoded once: the bytes before and after `unsigned` are kept,
and only `unsigned`, which differs by reader and by time, is put between them.

A redaction is *pending* if its sender may not redact the event, or if that event is not here yet:
it is accepted and part of the graph, but has no position, and clients do not see it.
"""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import DELAYED_SCOPE
from homeserver.protocol.client_events import client_event, client_event_parts
from homeserver.protocol.event_kinds import is_redaction
from homeserver.protocol.events import Event
from homeserver.protocol.proposals.sticky_events import sticky_duration_of, sticky_until
from homeserver.protocol.proposals.unstable_names import UNSTABLE_DELAY_ID, UNSTABLE_STICKY_TTL
from homeserver.rooms.events.imported_events import is_imported
from homeserver.streams.positions import seconds_at

_encode = msgspec.json.Encoder().encode


class EventStatus(msgspec.Struct, frozen=True):
    """The result of the checks performed on receipt of an event.

    An outlier is known because other events refer to it; its place in the graph is not known, and
    so not the state there. `rejected` and `soft_failed` say which rule the event broke: by the
    state before it, or only by the current state.

    Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
    """

    is_outlier: bool = False
    rejected: str | None = None
    soft_failed: str | None = None


ACCEPTED = EventStatus()
# Beyond this, more events in a row share a depth; tokens have no room for more.
MAX_TOPOLOGICAL_DEPTH = 10**17
EVENT_OVERHEAD = 1_000  # bytes of an event beside its JSON
REPLACED_OVERHEAD = 300  # of the one that it replaced


class StoredEvent:
    """An event as this server has it.

    `event_nid` is its numeric id in the database, `position` its place in the timeline: below zero
    for a backfilled or imported event, `None` for one that no timeline shows. `stored_at` is the
    position of the log at which it was first stored, or taken out of the timeline. `state_before`
    and `state_after` are roots of state trees, without meaning for an outlier. `replaces` is the
    nid of the state event that it replaced, `replaced` that event. `transaction` is the request
    that made it: (user id, device id, transaction id, path), a `ClientTransaction` of
    `event_draft.py`.

    `topological_depth` is one more than the depths of the events before it. Its own `depth` should
    be the same, but no server can check that, and history is ordered by `topological_depth`.
    """

    __slots__ = (
        "__weakref__",
        "_is_sticky",
        "_parts",
        "event",
        "event_nid",
        "position",
        "redaction",
        "replaced",
        "replaces",
        "state_after",
        "state_before",
        "status",
        "stored_at",
        "topological_depth",
        "transaction",
    )

    def __init__(
        self,
        event: Event,
        event_nid: int,
        position: int | None,
        state_before: bytes,
        state_after: bytes,
        *,
        stored_at: int,
        replaces: int | None = None,
        replaced: Event | None = None,
        redaction: Event | None = None,
        transaction: tuple[str, str, str, str] | None = None,
        status: EventStatus = ACCEPTED,
        topological_depth: int | None = None,
    ) -> None:
        self.event = event
        self.event_nid = event_nid
        self.position = position
        self.stored_at = stored_at
        self.state_before = state_before
        self.state_after = state_after
        self.replaces = replaces
        self.replaced = replaced
        self.redaction = redaction
        self.transaction = transaction
        self.status = status
        self.topological_depth = (
            min(event.depth, MAX_TOPOLOGICAL_DEPTH)
            if topological_depth is None
            else topological_depth
        )
        self._parts: tuple[bytes, bytes] | None = (
            None  # before `unsigned`, and after it with `room_id`
        )
        self._is_sticky = False  # known once there are parts

    def __repr__(self) -> str:
        return f"<StoredEvent {self.event.event_id} at {self.position}>"

    @property
    def log_position(self) -> int:
        """Its position, or `stored_at` for an event without one: comparable with any position."""
        return self.position or self.stored_at

    @property
    def visible_since(self) -> int:
        """The position from which on users could see it, if it is not later in their absence.

        That of an imported event is its import: users who left before it do not see it. A
        backfilled one was there all the time.
        """
        position = self.position
        if position is None or (position < 0 and is_imported(self.event)):
            return self.stored_at
        return position

    @property
    def received_ms(self) -> int:
        """When it was first stored, in ms since the epoch, as exactly as positions follow that."""
        return int(seconds_at(self.stored_at) * 1000)

    @property
    def sticky_until(self) -> int | None:
        """When it stops sticking, in ms since the epoch; `None` if clients get it like others."""
        if self.redaction is not None or sticky_duration_of(self.event) is None:
            return None
        return sticky_until(self.event, self.received_ms)

    def remove_from_timeline(self) -> None:
        """Show it in no timeline any more; its place in the log stays."""
        self.position, self.stored_at = None, self.log_position

    @property
    def memory(self) -> int:
        """About how many bytes it takes while it is not decoded, with its places in caches."""
        size = EVENT_OVERHEAD + len(self.event.json)
        if self.replaced is not None:
            size += REPLACED_OVERHEAD + len(self.replaced.json)
        return size

    def forget_decoded(self) -> None:
        """Keep what is stored of it, and nothing that can be made of that again."""
        self._parts = None
        for event in (self.event, self.replaced, self.redaction):
            if event is not None:
                event.forget_decoded()

    def purge(self) -> None:
        """Delete the content, as a redaction would; the event keeps its place in the timeline."""
        self.event = self.event.redacted()
        self._parts = None

    @property
    def is_redaction_pending(self) -> bool:
        """Whether it is a redaction in the graph that no client may see (see above)."""
        return self.position is None and self.status == ACCEPTED and is_redaction(self.event)

    @property
    def shown(self) -> Event:
        """The event as clients see it: redacted if there is a redaction."""
        return self.event if self.redaction is None else self.event.redacted()

    def redact(self, redaction: Event) -> None:
        """Show the event redacted from now on."""
        if self.redaction is None:
            self.redaction = redaction
            self._parts = None

    def update(self, other: "StoredEvent") -> None:
        """Become as another object of the same event says. A redaction is never undone."""
        self.event = other.event
        self.position = other.position
        self.stored_at = other.stored_at
        self.state_before = other.state_before
        self.state_after = other.state_after
        self.replaces = other.replaces
        self.replaced = other.replaced
        self.transaction = other.transaction
        self.status = other.status
        self.topological_depth = other.topological_depth
        if other.redaction is not None:
            self.redaction = other.redaction
        self._parts = None

    def unsigned(
        self,
        now_ms: int,
        *,
        device: tuple[str, str] | None = None,
        membership: str | None = None,
        relations: bytes | None = None,
    ) -> dict[str, Any]:
        """`unsigned` for a reader: their (user id, device id), and membership at the event.

        `relations` is the JSON of `m.relations`, made by
        `homeserver/rooms/history/aggregations.py`.
        """
        unsigned: dict[str, Any] = {"age": max(0, now_ms - self.event.origin_server_ts)}
        if membership is not None:
            unsigned["membership"] = membership
        if (until := self.sticky_until) is not None:
            # Clients of today know only the second name.
            left = min(max(0, until - now_ms), sticky_duration_of(self.event) or 0)
            unsigned["sticky_duration_ttl_ms"] = unsigned[UNSTABLE_STICKY_TTL] = left
        if self.transaction is not None and device is not None:
            user_id, scope, txn_id, _ = self.transaction
            if (user_id, scope) == device:
                unsigned["transaction_id"] = txn_id
            elif scope == DELAYED_SCOPE and user_id == device[0]:
                unsigned["delay_id"] = unsigned[UNSTABLE_DELAY_ID] = txn_id
        if self.replaced is not None:
            unsigned["replaces_state"] = self.replaced.event_id
            if self.redaction is None:
                unsigned["prev_content"] = self.replaced.content
                unsigned["prev_sender"] = self.replaced.sender
        if self.redaction is not None:
            # Not in the specification, but many clients that have the redaction already rely on it.
            unsigned["redacted_by"] = self.redaction.event_id
            unsigned["redacted_because"] = client_event(
                self.redaction,
                room_id=True,
                unsigned={"age": max(0, now_ms - self.redaction.origin_server_ts)},
            )
        if relations is not None:
            unsigned["m.relations"] = msgspec.Raw(relations)
        return unsigned

    def client_json(
        self,
        now_ms: int,
        *,
        room_id: bool,
        device: tuple[str, str] | None = None,
        membership: str | None = None,
        relations: bytes | None = None,
    ) -> bytes:
        """The event as JSON for a client; `/sync` leaves `room_id` out."""
        parts = self._parts
        if parts is None:
            parts = self._parts = client_event_parts(self.shown, room_id=True)
            self._is_sticky = self.sticky_until is not None
        head, tail = parts
        if relations is None and self._has_plain_unsigned(device):
            age = now_ms - self.event.origin_server_ts
            if age < 0:  # this comes by for each event that is sent: `max` would take twice as long
                age = 0
            if membership is None:
                unsigned = b'{"age":%d}' % age
            else:
                unsigned = b'{"age":%d,"membership":"%s"}' % (age, membership.encode())
        else:
            unsigned = _encode(
                self.unsigned(now_ms, device=device, membership=membership, relations=relations)
            )
        return b"".join((head, unsigned, tail if room_id else b"}"))

    def _has_plain_unsigned(self, device: tuple[str, str] | None) -> bool:
        """Whether `unsigned` has what every event has there, and no more; once there are parts."""
        transaction = self.transaction
        return (
            (transaction is None or device is None or transaction[0] != device[0])
            and self.replaced is None
            and self.redaction is None
            and not self._is_sticky
        )

    def client_dict(
        self,
        now_ms: int,
        *,
        device: tuple[str, str] | None = None,
        membership: str | None = None,
        relations: bytes | None = None,
        room_id: bool = True,
    ) -> dict[str, Any]:
        """The event as an object for a client, for callers that change it further."""
        unsigned = self.unsigned(now_ms, device=device, membership=membership, relations=relations)
        return client_event(self.shown, room_id=room_id, unsigned=unsigned)
