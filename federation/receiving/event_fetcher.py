"""Getting hold of what received events cite: previous events, auth events, and states.

Whoever sent the event is asked. What cannot be had leaves a gap: then the state before the event is
asked for, and taken from the other server's word.

Spec: https://spec.matrix.org/v1.19/server-server-api/#retrieving-events
"""

from collections.abc import Collection, Iterable
from contextlib import suppress

import msgspec
from twisted.logger import Logger

from federation.paths import V1, path_of
from federation.receiving.pdu_checks import PduChecks, log_dropped
from federation.transport.errors import FederationError, RemoteError
from federation.transport.lenient_lists import FewElements, StateElements
from federation.transport.limits import MAX_STATE_BYTES, STATE_TIMEOUT_SECONDS
from federation.transport.request_deadline import FederationRequests, RequestsWithDeadline
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import build_present_cooperatively, run_maybe_in_thread
from homeserver.protocol.event_graph import in_auth_order, in_graph_order, leading_to
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import is_valid_event_id
from homeserver.protocol.json_elements import decode_or_none
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.inbound.event_checks import EventsMissing
from homeserver.rooms.inbound.receiver import PduReceiver, ReceivedEvent
from homeserver.rooms.resolution.resolver import ResolvedState
from homeserver.rooms.room.writer import RoomWriter

MAX_MISSING = 20  # previous events that are asked for at once
MAX_GIVEN = 3 * MAX_MISSING  # elements that are looked at of what comes instead
MAX_SINGLE = 100  # events that are asked for one by one, for one received event
MAX_AUTH_ROUNDS = 5
MAX_PDU = 131_072  # bytes of an answer that holds one event

log = Logger()


class MissingEventsResponse(msgspec.Struct):
    """Answer to `get_missing_events`."""

    events: FewElements = []


class PdusResponse(msgspec.Struct):
    """A transaction that holds events, as `event` and `backfill` answer."""

    pdus: FewElements = []


class StateIdsResponse(msgspec.Struct):
    """Answer to `state_ids`."""

    pdu_ids: StateElements
    auth_chain_ids: StateElements = []


class StateResponse(msgspec.Struct):
    """Answer to `state`."""

    pdus: StateElements
    auth_chain: StateElements = []


class AuthChainResponse(msgspec.Struct):
    """Answer to `event_auth`."""

    auth_chain: StateElements


class EventFetcher:
    """Receives events together with what they need."""

    def __init__(
        self, client: FederationRequests, checks: PduChecks, receiving: PduReceiver
    ) -> None:
        self._client = client
        self._checks = checks
        self._receiver = receiving

    async def receive(self, server: str, writer: RoomWriter, event: Event) -> ReceivedEvent:
        """Receive an event that `server` sent, and whatever it cites that is not here.

        The events right before it must be had themselves: a server that could choose the state of
        what it sends could rewrite the room. Where the past of those is out of reach, the state is
        taken from the word of the server, and resolved with what is known.

        Raises `EventsMissing` for what cannot be had, and `FederationError`.
        """
        with suppress(EventsMissing):
            return await self._with_auth_events(server, writer, event)
        await self.fill_in(server, writer, [event])
        return await self._with_auth_events(server, writer, event)

    def within(self, clock: Clock, seconds: float) -> "EventFetcher":
        """The same with so much time for all that is asked: `OutOfTime` is raised when it is over.

        What is being received then is received.
        """
        return EventFetcher(
            RequestsWithDeadline(self._client, clock, seconds), self._checks, self._receiver
        )

    async def receive_complete(self, writer: RoomWriter, event: Event) -> ReceivedEvent:
        """Receive an event that cites nothing that is not here. Raises `EventsMissing`."""
        return await self._receiver.receive(writer, event)

    async def receive_with_auth(
        self, server: str, writer: RoomWriter, event: Event
    ) -> ReceivedEvent:
        """Receive an event that follows nothing that is not here, with what authorises it.

        Raises `EventsMissing` and `FederationError`.
        """
        return await self._with_auth_events(server, writer, event)

    async def receive_backfilled(
        self, server: str, writer: RoomWriter, event: Event
    ) -> ReceivedEvent:
        """Receive an event of the room's past; where nothing before it is here, with its state."""
        try:
            return await self._with_auth_events(server, writer, event, is_past=True)
        except EventsMissing as missing:
            if not missing.prev:
                raise
            prev = missing.prev
        state = await self._state_before(server, writer, event, prev)
        return await self._with_auth_events(server, writer, event, state, is_past=True)

    async def look_up(self, writer: RoomWriter, events: Iterable[Event]) -> None:
        """Prepare for events that are about to be received, one after the other."""
        await self._receiver.look_up(writer, events)

    async def find_known(
        self, writer: RoomWriter, event_ids: Iterable[str]
    ) -> dict[str, StoredEvent]:
        """Those of the events that are here."""
        return await self._receiver.find_known(writer, event_ids)

    async def fetch_events(
        self, server: str, writer: RoomWriter, event_ids: Collection[str]
    ) -> list[Event]:
        """Events one by one; those that cannot be had are left out."""
        events: list[Event] = []
        for event_id in sorted(event_ids)[:MAX_SINGLE]:
            try:
                answer: PdusResponse = await self._client.get(
                    server,
                    path_of(f"{V1}/event", event_id),
                    answer=PdusResponse,
                    max_answer=MAX_PDU,
                )
            except FederationError as error:
                if not error.is_alive:
                    raise
                continue
            found = await self._checks.valid_events(
                writer.room.version, writer.room.room_id, answer.pdus
            )
            events += [event for event in found if event.event_id == event_id]
        return events

    async def _state_before(
        self, server: str, writer: RoomWriter, event: Event, missing: Collection[str]
    ) -> ResolvedState:
        """The state before an event, some of whose previous events are missing.

        What the other server knows of each of these is resolved with what is known here.
        """
        fetched = {prev: await self._state_after(server, writer, prev) for prev in sorted(missing)}
        return await self._receiver.state_before(writer, event, fetched)

    async def _state_after(self, server: str, writer: RoomWriter, event_id: str) -> ResolvedState:
        """The state after an event that is not here, by the word of a server."""
        state = await self.fetch_state(server, writer, event_id)
        return await self._receiver.state_of(writer, state, event_id)

    async def fetch_state(self, server: str, writer: RoomWriter, event_id: str) -> list[str]:
        """Get hold of the state before an event, by the word of a server; the event, too.

        Gives the ids of the state's events, which are kept as outliers and durable; one that cannot
        be had is not part of the state, for us. Raises `FederationError`.
        """
        room = writer.room
        query = {"event_id": event_id}
        ids: StateIdsResponse = await self._client.get(
            server,
            path_of(f"{V1}/state_ids", room.room_id),
            query=query,
            answer=StateIdsResponse,
            timeout=STATE_TIMEOUT_SECONDS,
            max_answer=MAX_STATE_BYTES,
        )
        clock = writer.local_server.clock
        state_ids = await build_present_cooperatively(clock, map(_event_id, ids.pdu_ids))
        chain_ids = await build_present_cooperatively(clock, map(_event_id, ids.auth_chain_ids))
        wanted = [*chain_ids, *state_ids, event_id]
        missing = set(wanted).difference(await self._receiver.known_among(writer, wanted))
        if len(missing) > MAX_SINGLE:
            answer: StateResponse = await self._client.get(
                server,
                path_of(f"{V1}/state", room.room_id),
                query=query,
                answer=StateResponse,
                timeout=STATE_TIMEOUT_SECONDS,
                max_answer=MAX_STATE_BYTES,
            )
            pdus = [*answer.auth_chain, *answer.pdus]
            events = await self._checks.valid_events(room.version, room.room_id, pdus)
            events += await self.fetch_events(server, writer, [event_id])
        else:
            events = await self.fetch_events(server, writer, missing)
        await self._outliers(server, writer, events)
        return await self._receiver.known_among(writer, state_ids)

    async def _with_auth_events(
        self,
        server: str,
        writer: RoomWriter,
        event: Event,
        state: ResolvedState | None = None,
        *,
        is_past: bool = False,
    ) -> ReceivedEvent:
        """Receive an event, and the auth events that it lacks before it."""
        receive = self._receiver.receive
        try:
            return await receive(writer, event, state_before=state, is_past=is_past)
        except EventsMissing as missing:
            if not missing.auth:
                raise
            lacking = missing.auth
        await self._fetch_authorities(server, writer, event, lacking)
        return await receive(writer, event, state_before=state, is_past=is_past)

    async def _fetch_authorities(
        self, server: str, writer: RoomWriter, event: Event, lacking: Collection[str]
    ) -> None:
        """Get hold of what authorises an event, and keep it, as far as a server gives it.

        That is all of it; or, where the server does not tell that, what is lacking one by one, or
        all that is known of the state at the event.
        """
        room = writer.room
        try:
            answer: AuthChainResponse = await self._client.get(
                server,
                path_of(f"{V1}/event_auth", room.room_id, event.event_id),
                answer=AuthChainResponse,
                max_answer=MAX_STATE_BYTES,
            )
        except RemoteError:
            await self._outliers(server, writer, await self.fetch_events(server, writer, lacking))
            if set(lacking).difference(await self._receiver.known_among(writer, lacking)):
                await self.fetch_state(server, writer, event.event_id)
            return
        events = await self._checks.valid_events(room.version, room.room_id, answer.auth_chain)
        await self._outliers(server, writer, events)

    async def _outliers(self, server: str, writer: RoomWriter, events: Iterable[Event]) -> None:
        """Keep events aside, with what authorises them as far as that can be had."""
        waiting = await run_maybe_in_thread(self._receiver.threads, in_auth_order, list(events))
        for _ in range(MAX_AUTH_ROUNDS):
            try:
                await self._receiver.outliers(writer, waiting)
            except EventsMissing as missing:
                more = await self.fetch_events(server, writer, missing.auth)
                if not more:
                    break
                waiting = in_auth_order([*more, *waiting])
            else:
                return
        dropped: list[str] = []
        for event in waiting:
            try:
                await self._receiver.outliers(writer, [event])
            except EventsMissing:
                dropped.append(f"what authorises {event.event_id} cannot be had")
        log_dropped(writer.room.room_id, dropped)

    async def fill_in(self, server: str, writer: RoomWriter, events: Collection[Event]) -> None:
        """Receive the events between those that are known and some that came, asked for at once.

        They are asked for before those events that follow what is not here, nor came with them.
        """
        came = {event.event_id for event in events}
        before = {each for event in events for each in event.prev_event_ids} - came
        had = came | await self._placed(writer, before)
        latest = [event for event in events if not had.issuperset(event.prev_event_ids)]
        if not latest:
            return
        room = writer.room
        extremities = writer.extremities.events
        try:
            answer: MissingEventsResponse = await self._client.post(
                server,
                path_of(f"{V1}/get_missing_events", room.room_id),
                {
                    "earliest_events": [each.event.event_id for each in extremities],
                    "latest_events": [event.event_id for event in latest],
                    "limit": MAX_MISSING,
                    "min_depth": 0,
                },
                answer=MissingEventsResponse,
            )
        except FederationError as error:
            log.info("missing events cannot be had: {error}", error=error)
            return
        pdus = answer.events[:MAX_GIVEN]
        found = await self._checks.valid_events(room.version, room.room_id, pdus)
        placed = await self._placed(writer, [each.event_id for each in found])
        # Who asks for what leads from a fork is told of the room from its beginning. What is before
        # an event that is here is past: taken for news, it would bring back the state of then.
        led = {
            each.event_id: each
            for event in latest
            for each in leading_to(event, found, placed, writer.backward_extremities)
        }
        for each in in_graph_order(led.values()):
            if each.event_id in came:
                continue
            try:
                await self._receive_before(server, writer, each)
            except (EventsMissing, FederationError) as error:
                log.info("{event} cannot be received: {error}", event=each, error=error)

    async def _placed(self, writer: RoomWriter, event_ids: Iterable[str]) -> set[str]:
        """Those of the events that are here, and in their place in the graph."""
        known = await self._receiver.find_known(writer, event_ids)
        return {name for name, stored in known.items() if not stored.status.is_outlier}

    async def _receive_before(self, server: str, writer: RoomWriter, event: Event) -> None:
        """Receive one of the events that were missing; the first of them may begin after a gap."""
        try:
            await self._with_auth_events(server, writer, event)
        except EventsMissing as missing:
            if not missing.prev:
                raise
            state = await self._state_before(server, writer, event, missing.prev)
            await self._with_auth_events(server, writer, event, state)


def _event_id(element: msgspec.Raw) -> str | None:
    """The event id that an element is, if it is one."""
    event_id: str | None = decode_or_none(element, str)
    return event_id if event_id is not None and is_valid_event_id(event_id) else None
