"""Membership requests to other servers: join, knock, leave and invite (`make_*` and `send_*`).

A server in the room makes a template of the event; this server completes and signs it, and sends it
back. Several servers are asked, each a little later than the one before, as long as another one may
respond differently.

Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from federation.paths import V1, V2, path_of
from federation.receiving.pdu_checks import PduChecks
from federation.remote.client_errors import for_users
from federation.remote.membership_responses import (
    InviteResponse,
    Joined,
    Knocked,
    SendJoinResponse,
    SendKnockResponse,
    TemplateResponse,
)
from federation.remote.staggered_requests import StaggeredRequests
from federation.transport.client import FederationClient
from federation.transport.errors import (
    FederationError,
    InvalidResponse,
    RemoteError,
)
from federation.transport.limits import MAX_STATE_BYTES, STATE_TIMEOUT_SECONDS
from homeserver.concurrency.cooperative import build_present_cooperatively
from homeserver.protocol.errors import (
    BadJson,
    Forbidden,
    IncompatibleRoomVersion,
    MatrixError,
    NotFound,
    UnsupportedRoomVersion,
)
from homeserver.protocol.event_format import check_format
from homeserver.protocol.event_kinds import is_state
from homeserver.protocol.event_types import CREATE, MEMBER
from homeserver.protocol.events import Event, InvalidEvent, build_event
from homeserver.protocol.identifiers import is_valid_server_name
from homeserver.protocol.json_elements import decodable, decode_or_none
from homeserver.protocol.room_versions import ROOM_VERSIONS, EventFormat, RoomVersion
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.events.stored_event import StoredEvent

MAX_SERVERS = 20  # asked in turn
MAX_SERVERS_IN_ROOM = 20_000  # that are kept of a response
AUTHORISED_VIA = "join_authorised_via_users_server"

ResponseT = TypeVar("ResponseT")
log = Logger()


class MembershipRequests:
    """Sends membership requests to servers that are in rooms.

    The methods raise `Forbidden` and other errors for clients if a server refuses, and
    `RemoteServerFailed` if no server is reachable.
    """

    def __init__(
        self, client: FederationClient, local_server: LocalServer, checks: PduChecks
    ) -> None:
        self._client = client
        self._local_server = local_server
        self._checks = checks
        self._running: set[Deferred[Any]] = set()

    def end_waits(self) -> None:
        """Cancel all requests, at shutdown: what was stored of a room by then does no harm."""
        for running in [*self._running]:
            running.cancel()

    async def join(
        self,
        user_id: str,
        room_id: str,
        servers: Sequence[str],
        content: Mapping[str, Any],
        enter: Callable[[Joined], Awaitable[StoredEvent]],
    ) -> StoredEvent:
        """Join a local user to a room through one of these servers.

        `enter` admits the room with the state of the response; where it raises `InvalidResponse` or
        `Forbidden`, the next server is asked.
        """

        async def make(server: str) -> Event:
            return await self._make("join", server, room_id, user_id, content)

        async def send(server: str, event: Event) -> StoredEvent:
            response = await self._put(
                server,
                "send_join",
                event,
                response_type=SendJoinResponse,
                query={"omit_members": "true"},
                timeout=STATE_TIMEOUT_SECONDS,
                max_response=MAX_STATE_BYTES,
            )
            return await enter(await self._joined(server, event, response))

        return await self._by_one_of("join", room_id, servers, make, send)

    async def knock(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> Knocked:
        """Knock on a room through one of these servers."""

        async def make(server: str) -> Event:
            return await self._make("knock", server, room_id, user_id, content)

        async def send(server: str, event: Event) -> Knocked:
            response: SendKnockResponse = await self._client.put(
                server,
                path_of(f"{V1}/send_knock", room_id, event.event_id),
                event.json,
                response_type=SendKnockResponse,
                despite_backoff=True,
            )
            return Knocked(event, list(decodable(response.knock_room_state)), server)

        return await self._by_one_of("knock", room_id, servers, make, send)

    async def leave(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> Event:
        """Reject an invite, or withdraw a knock, through one of these servers."""

        async def make(server: str) -> Event:
            return await self._make("leave", server, room_id, user_id, content)

        async def send(server: str, event: Event) -> Event:
            await self._put(server, "send_leave", event, response_type=dict[str, Any])
            return event

        return await self._by_one_of("leave", room_id, servers, make, send)

    async def invite(
        self, server: str, event: Event, stripped: Sequence[Mapping[str, Any]]
    ) -> Event:
        """The invite with the signature of the invited user's server, which is asked for it.

        Raises `UnsupportedRoomVersion` if that server does not know the version of the room.
        """
        content = {
            "event": event.pdu,
            "room_version": event.version.identifier,
            "invite_room_state": stripped,
        }
        path = path_of("invite", event.room_id, event.event_id)
        try:
            response = await self._put_invite(server, path, content)
            return await self._countersigned(server, event, response.event)
        except InvalidEvent as error:
            # The response is not invalid for this server alone: the event is invalid for the
            # client.
            raise BadJson(f"{server} returned an invalid event: {error}") from error
        except FederationError as error:
            failure = for_users(error)
            if isinstance(failure, IncompatibleRoomVersion):
                # The other code says that this user's own server lacks the version.
                failure = UnsupportedRoomVersion(str(failure))
            raise failure from error

    async def _put_invite(
        self, server: str, path: str, content: Mapping[str, Any]
    ) -> InviteResponse:
        put: Any = partial(self._client.put, server, despite_backoff=True)
        response: InviteResponse
        try:
            response = await put(f"{V2}/{path}", content, response_type=InviteResponse)
        except RemoteError as failure:
            # The old endpoint is for the oldest room versions only, as its requests name none.
            if content["room_version"] not in ("1", "2") or failure.status not in (400, 404):
                raise
            unsigned = {"invite_room_state": content["invite_room_state"]}
            old = {**content["event"], "unsigned": unsigned}
            kind = tuple[int, InviteResponse]
            try:
                _, response = await put(f"{V1}/{path}", old, response_type=kind)
            except RemoteError as second:
                raise failure if _lacks_endpoint(second) else second from None
        return response

    async def _put(
        self, server: str, endpoint: str, event: Event, *, response_type: Any, **options: Any
    ) -> Any:
        """Send an event, to the v1 endpoint if a server has no other."""
        path = path_of(endpoint, event.room_id, event.event_id)
        put: Any = partial(self._client.put, server, despite_backoff=True, **options)
        try:
            return await put(f"{V2}/{path}", event.json, response_type=response_type)
        except RemoteError as failure:
            if not _lacks_endpoint(failure):
                raise
        # The v1 endpoints respond with a list of the status and the body.
        _, body = await put(f"{V1}/{path}", event.json, response_type=tuple[int, response_type])
        return body

    async def _make(
        self, kind: str, server: str, room_id: str, user_id: str, content: Mapping[str, Any]
    ) -> Event:
        """The event of a membership request, completed and signed."""
        template: TemplateResponse = await self._client.get(
            server,
            path_of(f"{V1}/make_{kind}", room_id, user_id),
            query=None if kind == "leave" else {"ver": list(ROOM_VERSIONS)},
            response_type=TemplateResponse,
            despite_backoff=True,
        )
        version = ROOM_VERSIONS.get(template.room_version)
        if version is None:
            raise IncompatibleRoomVersion(
                "This server does not support the version of the room",
                room_version=template.room_version,
            )
        draft = template.event
        if not draft.is_for(kind, room_id, user_id):
            raise InvalidResponse(server, "the template is that of another event")
        own: dict[str, Any] = {**content, "membership": kind}
        via = draft.content.get(AUTHORISED_VIA)
        if kind == "join" and isinstance(via, str):
            own[AUTHORISED_VIA] = via
        try:
            event = build_event(
                version,
                room_id=room_id,
                type=MEMBER,
                sender=user_id,
                state_key=user_id,
                content=own,
                prev_events=_references(version, draft.prev_events),
                auth_events=_references(version, draft.auth_events),
                depth=draft.depth,
                origin_server_ts=self._local_server.now_ms(),
                # Other events have no such member; it is expected of these.
                members={"origin": self._local_server.server_name},
                server_name=self._local_server.server_name,
                key=self._local_server.key,
            )
            check_format(version, event.pdu)
        except (InvalidEvent, msgspec.ValidationError) as error:
            raise InvalidResponse(server, f"invalid template: {error}") from error
        return event

    async def _joined(self, server: str, event: Event, response: SendJoinResponse) -> Joined:
        version, room_id = event.version, event.room_id
        event = await self._signed_join(server, event, response.event)
        state = await self._checks.valid_events(version, room_id, response.state)
        known = {each.event_id for each in state}
        chain = await self._checks.valid_events(
            version, room_id, response.auth_chain, but=response.state
        )
        _check_create(server, version, state)
        servers = None
        if response.members_omitted:
            named = (response.servers_in_room or ())[:MAX_SERVERS_IN_ROOM]
            valid = await build_present_cooperatively(
                self._local_server.clock, map(_server_name, named)
            )
            servers = list(dict.fromkeys([server, *valid]))
        chain = [each for each in chain if each.event_id not in known]
        return Joined(event, state, chain, server, servers)

    async def _signed_join(
        self, server: str, event: Event, returned: Mapping[str, Any] | None
    ) -> Event:
        """A join with all required signatures: the authorising server returns it with its own."""
        try:
            returned = event.pdu if returned is None else returned
            return await self._countersigned(server, event, returned)
        except InvalidEvent as error:
            raise InvalidResponse(server, f"the returned join is malformed: {error}") from error

    async def _countersigned(self, server: str, event: Event, returned: Mapping[str, Any]) -> Event:
        """A local event as a server returned it: the same, with all required signatures.

        Without these every other server would reject it, and all later events of its sender. Raises
        `InvalidEvent` and `InvalidResponse`.
        """
        signed = Event.from_pdu(event.version, returned)
        if {**signed.pdu, "signatures": {}} != {**event.pdu, "signatures": {}}:
            raise InvalidResponse(server, "the returned event is not the one that was sent")
        (outcome,) = await self._checks.check(event.version, event.room_id, [signed.pdu])
        if isinstance(outcome, str):
            raise InvalidResponse(server, f"the returned event is not valid: {outcome}")
        return signed

    async def _by_one_of(
        self,
        kind: str,
        room_id: str,
        servers: Sequence[str],
        make: Callable[[str], Awaitable[Event]],
        send: Callable[[str, Event], Awaitable[ResponseT]],
    ) -> ResponseT:
        """Send an event to one of these servers: the first that made a template.

        Several may make templates at a time, as that changes nothing, but only one gets an event.
        """
        running = Deferred.fromCoroutine(self._try_each(kind, room_id, servers, make, send))
        self._running.add(running)
        try:
            return await running
        finally:
            self._running.discard(running)

    async def _try_each(
        self,
        kind: str,
        room_id: str,
        servers: Sequence[str],
        make: Callable[[str], Awaitable[Event]],
        send: Callable[[str, Event], Awaitable[ResponseT]],
    ) -> ResponseT:
        others = [each for each in dict.fromkeys(servers) if each != self._local_server.server_name]
        making = StaggeredRequests(self._local_server.clock, others[:MAX_SERVERS], make)
        failure: MatrixError | None = None
        try:
            async for server, made in making:
                try:
                    if isinstance(made, Exception):
                        raise made
                    return await send(server, made)
                except FederationError as error:
                    log.info(
                        "make_/send_{kind} of {room} via {server} failed: {error}",
                        kind=kind,
                        room=room_id,
                        server=server,
                        error=error,
                    )
                    if isinstance(error, RemoteError) and error.errcode == "M_FORBIDDEN":
                        raise for_users(error) from error
                    failure = failure or for_users(error)
                except (Forbidden, IncompatibleRoomVersion) as error:
                    # This follows from the state that this server sent, which may be wrong.
                    log.info(
                        "invalid {kind} of {room} via {server}: {error}",
                        kind=kind,
                        room=room_id,
                        server=server,
                        error=error,
                    )
                    failure = failure or error
        finally:
            making.close()
        raise failure or NotFound("No server is known that is in the room")


def _lacks_endpoint(failure: RemoteError) -> bool:
    return failure.status == 404 and failure.errcode in ("", "M_UNRECOGNIZED")


def _references(version: RoomVersion, references: list[Any]) -> list[Any]:
    """The events that a template names. Raises `msgspec.ValidationError`."""
    if version.event_format is EventFormat.V1:
        pairs = msgspec.convert(references, list[tuple[str, dict[str, str]]])
        return [list(pair) for pair in pairs]
    return msgspec.convert(references, list[str])


def _server_name(element: msgspec.Raw) -> str | None:
    name: str | None = decode_or_none(element, str)
    return name if name is not None and is_valid_server_name(name) else None


def _check_create(server: str, version: RoomVersion, state: Sequence[Event]) -> None:
    creates = [event for event in state if is_state(event, CREATE)]
    if len(creates) != 1:
        raise InvalidResponse(server, "the state has no create event")
    if creates[0].content.get("room_version", "1") != version.identifier:
        raise InvalidResponse(server, "the create event names another room version")
