"""Fetches what received events refer to: previous events, auth events, and states.

The server that sent the event is asked. Where previous events stay missing, the state before the
event is fetched instead, as that server reports it.

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
from homeserver.rooms.inbound.received_event import ReceivedEvent
from homeserver.rooms.inbound.receiver import PduReceiver
from homeserver.rooms.resolution.resolver import ResolvedState
from homeserver.rooms.room.writer import RoomWriter

MAX_MISSING = 20  # previous events fetched in one request
MAX_GIVEN = 3 * MAX_MISSING  # elements of the response that are considered
MAX_SINGLE = 100  # events fetched one by one, for one received event
MAX_AUTH_ROUNDS = 5
MAX_PDU = 131_072  # bytes of a response that holds one event

log = Logger()


class MissingEventsResponse(msgspec.Struct):
    """Response to `get_missing_events`."""

    events: FewElements = []


class PdusResponse(msgspec.Struct):
    """A transaction that holds events: the response to `event` and `backfill`."""

    pdus: FewElements = []


class StateIdsResponse(msgspec.Struct):
    """Response to `state_ids`."""

    pdu_ids: StateElements
    auth_chain_ids: StateElements = []


class StateResponse(msgspec.Struct):
    """Response to `state`."""

    pdus: StateElements
    auth_chain: StateElements = []


class AuthChainResponse(msgspec.Struct):
    """Response to `event_auth`."""

    auth_chain: StateElements


class EventFetcher:
    """Receives events together with the events that they refer to."""

    def __init__(
        self, client: FederationRequests, checks: PduChecks, receiver: PduReceiver
    ) -> None:
        self._client = client
        self._checks = checks
        self._receiver = receiver

    async def receive(self, server: str, writer: RoomWriter, event: Event) -> ReceivedEvent:
        """Receive an event that `server` sent, and the events that it refers to and that are
        missing.

        Its previous events themselves must be available: a server that could choose the state
        before what it sends could rewrite the room. Where the events before those are unavailable,
        the state there is taken as the server reports it, and resolved with the known states.

        Raises `EventsMissing` for what is unavailable, and `FederationError`.
        """
        with suppress(EventsMissing):
            return await self._with_auth_events(server, writer, event)
        await self.fetch_missing(server, writer, [event])
        return await self._with_auth_events(server, writer, event)

    def within(self, clock: Clock, seconds: float) -> "EventFetcher":
        """A fetcher whose requests all share one deadline; it raises `OutOfTime` when that has
        passed.

        An event that is being received by then is still received.
        """
        return EventFetcher(
            RequestsWithDeadline(self._client, clock, seconds), self._checks, self._receiver
        )

    async def receive_complete(self, writer: RoomWriter, event: Event) -> ReceivedEvent:
        """Receive an event of which nothing is missing. Raises `EventsMissing`."""
        return await self._receiver.receive(writer, event)

    async def receive_with_auth(
        self, server: str, writer: RoomWriter, event: Event
    ) -> ReceivedEvent:
        """Receive an event whose previous events are all stored, with its auth events.

        Raises `EventsMissing` and `FederationError`.
        """
        return await self._with_auth_events(server, writer, event)

    async def receive_backfilled(
        self, server: str, writer: RoomWriter, event: Event
    ) -> ReceivedEvent:
        """Receive a backfilled event; if previous events are missing, with the state before it."""
        try:
            return await self._with_auth_events(server, writer, event, is_backfilled=True)
        except EventsMissing as missing:
            if not missing.prev:
                raise
            prev = missing.prev
        state = await self._state_before(server, writer, event, prev)
        return await self._with_auth_events(server, writer, event, state, is_backfilled=True)

    async def look_up(self, writer: RoomWriter, events: Iterable[Event]) -> None:
        """Look up what a list of events refers to, before they are received one after the other."""
        await self._receiver.look_up(writer, events)

    async def find_known(
        self, writer: RoomWriter, event_ids: Iterable[str]
    ) -> dict[str, StoredEvent]:
        """Those of the events that are stored here."""
        return await self._receiver.find_known(writer, event_ids)

    async def fetch_events(
        self, server: str, writer: RoomWriter, event_ids: Collection[str]
    ) -> list[Event]:
        """Fetch events one by one; those that are unavailable are left out."""
        events: list[Event] = []
        for event_id in sorted(event_ids)[:MAX_SINGLE]:
            try:
                response: PdusResponse = await self._client.get(
                    server,
                    path_of(f"{V1}/event", event_id),
                    response_type=PdusResponse,
                    max_response=MAX_PDU,
                )
            except FederationError as error:
                if not error.is_alive:
                    raise
                continue
            found = await self._checks.valid_events(
                writer.room.version, writer.room.room_id, response.pdus
            )
            events += [event for event in found if event.event_id == event_id]
        return events

    async def _state_before(
        self, server: str, writer: RoomWriter, event: Event, missing: Collection[str]
    ) -> ResolvedState:
        """The state before an event, some of whose previous events are missing.

        The state after each of these, as the other server reports it, is resolved with the known
        states.
        """
        fetched = {prev: await self._state_after(server, writer, prev) for prev in sorted(missing)}
        return await self._receiver.state_before(writer, event, fetched)

    async def _state_after(self, server: str, writer: RoomWriter, event_id: str) -> ResolvedState:
        """The state after an event that is not stored, as reported by a server."""
        state = await self.fetch_state(server, writer, event_id)
        return await self._receiver.state_of(writer, state, event_id)

    async def fetch_state(self, server: str, writer: RoomWriter, event_id: str) -> list[str]:
        """Fetch the state before an event, as reported by a server, and the event itself.

        Returns the ids of the state events, which are durably stored as outliers; those that are
        unavailable are left out of the state. Raises `FederationError`.
        """
        room = writer.room
        query = {"event_id": event_id}
        ids: StateIdsResponse = await self._client.get(
            server,
            path_of(f"{V1}/state_ids", room.room_id),
            query=query,
            response_type=StateIdsResponse,
            timeout=STATE_TIMEOUT_SECONDS,
            max_response=MAX_STATE_BYTES,
        )
        clock = writer.local_server.clock
        state_ids = await build_present_cooperatively(clock, map(_event_id, ids.pdu_ids))
        chain_ids = await build_present_cooperatively(clock, map(_event_id, ids.auth_chain_ids))
        wanted = [*chain_ids, *state_ids, event_id]
        missing = set(wanted).difference(await self._receiver.known_among(writer, wanted))
        if len(missing) > MAX_SINGLE:
            response: StateResponse = await self._client.get(
                server,
                path_of(f"{V1}/state", room.room_id),
                query=query,
                response_type=StateResponse,
                timeout=STATE_TIMEOUT_SECONDS,
                max_response=MAX_STATE_BYTES,
            )
            pdus = [*response.auth_chain, *response.pdus]
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
        is_backfilled: bool = False,
    ) -> ReceivedEvent:
        """Receive an event, and first those of its auth events that are missing."""
        receive = self._receiver.receive
        try:
            return await receive(writer, event, state_before=state, is_backfilled=is_backfilled)
        except EventsMissing as missing:
            if not missing.auth:
                raise
            missing_ids = missing.auth
        await self._fetch_auth_events(server, writer, event, missing_ids)
        return await receive(writer, event, state_before=state, is_backfilled=is_backfilled)

    async def _fetch_auth_events(
        self, server: str, writer: RoomWriter, event: Event, missing_ids: Collection[str]
    ) -> None:
        """Fetch and store the auth events of an event, as far as the server has them.

        That is the whole auth chain; or, if the server returns an error for it, the missing events
        one by one, or else the state at the event.
        """
        room = writer.room
        try:
            response: AuthChainResponse = await self._client.get(
                server,
                path_of(f"{V1}/event_auth", room.room_id, event.event_id),
                response_type=AuthChainResponse,
                max_response=MAX_STATE_BYTES,
            )
        except RemoteError:
            await self._outliers(
                server, writer, await self.fetch_events(server, writer, missing_ids)
            )
            if set(missing_ids).difference(await self._receiver.known_among(writer, missing_ids)):
                await self.fetch_state(server, writer, event.event_id)
            return
        events = await self._checks.valid_events(room.version, room.room_id, response.auth_chain)
        await self._outliers(server, writer, events)

    async def _outliers(self, server: str, writer: RoomWriter, events: Iterable[Event]) -> None:
        """Store outliers, with their auth events as far as these are available."""
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
                dropped.append(f"the auth events of {event.event_id} could not be fetched")
        log_dropped(writer.room.room_id, dropped)

    async def fetch_missing(
        self, server: str, writer: RoomWriter, events: Collection[Event]
    ) -> None:
        """Fetch and receive the events between the known events and `events`, with one request.

        The request names those of `events` that have missing previous events outside of `events`.
        """
        received = {event.event_id for event in events}
        before = {each for event in events for each in event.prev_event_ids} - received
        available = received | await self._known_in_graph(writer, before)
        latest = [event for event in events if not available.issuperset(event.prev_event_ids)]
        if not latest:
            return
        room = writer.room
        extremities = writer.extremities.events
        try:
            response: MissingEventsResponse = await self._client.post(
                server,
                path_of(f"{V1}/get_missing_events", room.room_id),
                {
                    "earliest_events": [each.event.event_id for each in extremities],
                    "latest_events": [event.event_id for event in latest],
                    "limit": MAX_MISSING,
                    "min_depth": 0,
                },
                response_type=MissingEventsResponse,
            )
        except FederationError as error:
            log.info("could not fetch missing events: {error}", error=error)
            return
        pdus = response.events[:MAX_GIVEN]
        found = await self._checks.valid_events(room.version, room.room_id, pdus)
        in_graph = await self._known_in_graph(writer, [each.event_id for each in found])
        # A request that starts at events of a fork gets the room from its beginning. Events before
        # a known event are history: received as new events, they would bring back the state of that
        # time.
        between = {
            each.event_id: each
            for event in latest
            for each in leading_to(event, found, in_graph, writer.backward_extremities)
        }
        for each in in_graph_order(between.values()):
            if each.event_id in received:
                continue
            try:
                await self._receive_before(server, writer, each)
            except (EventsMissing, FederationError) as error:
                log.info("could not receive {event}: {error}", event=each, error=error)

    async def _known_in_graph(self, writer: RoomWriter, event_ids: Iterable[str]) -> set[str]:
        """Those of the events that are stored and are not outliers."""
        known = await self._receiver.find_known(writer, event_ids)
        return {name for name, stored in known.items() if not stored.status.is_outlier}

    async def _receive_before(self, server: str, writer: RoomWriter, event: Event) -> None:
        """Receive one of the missing events; the first of them may have missing previous events."""
        try:
            await self._with_auth_events(server, writer, event)
        except EventsMissing as missing:
            if not missing.prev:
                raise
            state = await self._state_before(server, writer, event, missing.prev)
            await self._with_auth_events(server, writer, event, state)


def _event_id(element: msgspec.Raw) -> str | None:
    """The event id in a list element, if it is one."""
    event_id: str | None = decode_or_none(element, str)
    return event_id if event_id is not None and is_valid_event_id(event_id) else None
