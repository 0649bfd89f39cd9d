"""Handshakes: joining, knocking and leaving where this server is not in the room, and inviting.

A server in the room makes a template of the event; this server completes and signs it, and hands it
over. Several servers are asked, each a little later than the one before, for as long as the answer
may be another elsewhere.

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
    FederationDenied,
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
    RefusedByRemote,
    RemoteServerFailed,
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

MAX_SERVERS = 20  # that are asked in turn
MAX_SERVERS_IN_ROOM = 20_000  # that are remembered of an answer
AUTHORISED_VIA = "join_authorised_via_users_server"

# What makes clients log out, or believe that their own request was wrong.
_NOT_PASSED_ON = ("", "M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_USER_DEACTIVATED", "M_USER_LOCKED")

Answer = TypeVar("Answer")
log = Logger()


class MembershipRequests:
    """Makes the handshakes with servers that are in rooms.

    They raise `Forbidden` and other errors for users where a server refuses, and
    `RemoteServerFailed` where none can be asked.
    """

    def __init__(self, client: FederationClient, origin: LocalServer, checks: PduChecks) -> None:
        self._client = client
        self._origin = origin
        self._checks = checks
        self._running: set[Deferred[Any]] = set()

    def end_waits(self) -> None:
        """End what is under way, as the server ends: what was kept of a room is of no harm."""
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
        """Join a user of ours to a room by one of these servers.

        `enter` takes the room in as a server gives it; where it raises `InvalidResponse`, or
        `Forbidden`, the next server is asked.
        """

        async def make(server: str) -> Event:
            return await self._make("join", server, room_id, user_id, content)

        async def hand_over(server: str, event: Event) -> StoredEvent:
            answer = await self._put(
                server,
                "send_join",
                event,
                answer=SendJoinResponse,
                query={"omit_members": "true"},
                timeout=STATE_TIMEOUT_SECONDS,
                max_answer=MAX_STATE_BYTES,
            )
            return await enter(await self._joined(server, event, answer))

        return await self._by_one_of(servers, make, hand_over)

    async def knock(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> Knocked:
        """Knock at a room by one of these servers."""

        async def make(server: str) -> Event:
            return await self._make("knock", server, room_id, user_id, content)

        async def hand_over(server: str, event: Event) -> Knocked:
            answer: SendKnockResponse = await self._client.put(
                server,
                path_of(f"{V1}/send_knock", room_id, event.event_id),
                event.json,
                answer=SendKnockResponse,
                despite_backoff=True,
            )
            return Knocked(event, list(decodable(answer.knock_room_state)), server)

        return await self._by_one_of(servers, make, hand_over)

    async def leave(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> Event:
        """Turn down an invite, or take back a knock, by one of these servers."""

        async def make(server: str) -> Event:
            return await self._make("leave", server, room_id, user_id, content)

        async def hand_over(server: str, event: Event) -> Event:
            await self._put(server, "send_leave", event, answer=dict[str, Any])
            return event

        return await self._by_one_of(servers, make, hand_over)

    async def invite(
        self, server: str, event: Event, stripped: Sequence[Mapping[str, Any]]
    ) -> Event:
        """Have the server of an invited user sign the invite; the event with its signature."""
        content = {
            "event": event.pdu,
            "room_version": event.version.identifier,
            "invite_room_state": stripped,
        }
        path = path_of("invite", event.room_id, event.event_id)
        try:
            answer = await self._put_invite(server, path, content)
            return await self._countersigned(server, event, answer.event)
        except InvalidEvent as error:
            # Not that server's answer is wrong for a client, but the event that it would become.
            raise BadJson(f"{server} gave back what is no event: {error}") from error
        except FederationError as error:
            raise for_users(error) from error

    async def _put_invite(
        self, server: str, path: str, content: Mapping[str, Any]
    ) -> InviteResponse:
        send: Any = partial(self._client.put, server, despite_backoff=True)
        answer: InviteResponse
        try:
            answer = await send(f"{V2}/{path}", content, answer=InviteResponse)
        except RemoteError as refusal:
            if not _lacks_endpoint(refusal):
                raise
            unsigned = {"invite_room_state": content["invite_room_state"]}
            old = {**content["event"], "unsigned": unsigned}
            _, answer = await send(f"{V1}/{path}", old, answer=tuple[int, InviteResponse])
        return answer

    async def _put(
        self, server: str, endpoint: str, event: Event, *, answer: Any, **options: Any
    ) -> Any:
        """Hand an event over; to the older endpoint where a server has no other."""
        path = path_of(endpoint, event.room_id, event.event_id)
        send: Any = partial(self._client.put, server, despite_backoff=True, **options)
        try:
            return await send(f"{V2}/{path}", event.json, answer=answer)
        except RemoteError as refusal:
            if not _lacks_endpoint(refusal):
                raise
        # There the answer stands beside its status.
        _, body = await send(f"{V1}/{path}", event.json, answer=tuple[int, answer])
        return body

    async def _make(
        self, kind: str, server: str, room_id: str, user_id: str, content: Mapping[str, Any]
    ) -> Event:
        """The event of a handshake, completed and signed."""
        template: TemplateResponse = await self._client.get(
            server,
            path_of(f"{V1}/make_{kind}", room_id, user_id),
            query=None if kind == "leave" else {"ver": list(ROOM_VERSIONS)},
            answer=TemplateResponse,
            despite_backoff=True,
        )
        version = ROOM_VERSIONS.get(template.room_version)
        if version is None:
            raise IncompatibleRoomVersion(
                "The room has a version that this server does not know",
                room_version=template.room_version,
            )
        made = template.event
        own: dict[str, Any] = {**content, "membership": kind}
        via = made.content.get(AUTHORISED_VIA)
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
                prev_events=_references(version, made.prev_events),
                auth_events=_references(version, made.auth_events),
                depth=made.depth,
                origin_server_ts=self._origin.now_ms(),
                server_name=self._origin.server_name,
                key=self._origin.key,
            )
            check_format(version, event.pdu)
        except (InvalidEvent, msgspec.ValidationError) as error:
            raise InvalidResponse(server, f"the template makes no event: {error}") from error
        return event

    async def _joined(self, server: str, event: Event, answer: SendJoinResponse) -> Joined:
        version, room_id = event.version, event.room_id
        event = await self._signed_join(server, event, answer.event)
        state = await self._checks.valid_events(version, room_id, answer.state)
        known = {each.event_id for each in state}
        chain = await self._checks.valid_events(
            version, room_id, answer.auth_chain, but=answer.state
        )
        _check_create(server, version, state)
        servers = None
        if answer.members_omitted:
            named = (answer.servers_in_room or ())[:MAX_SERVERS_IN_ROOM]
            valid = await build_present_cooperatively(self._origin.clock, map(_server_name, named))
            servers = list(dict.fromkeys([server, *valid]))
        chain = [each for each in chain if each.event_id not in known]
        return Joined(event, state, chain, server, servers)

    async def _signed_join(
        self, server: str, event: Event, came_back: Mapping[str, Any] | None
    ) -> Event:
        """A join with all signatures that it needs: that of whoever vouched for it comes back."""
        try:
            came_back = event.pdu if came_back is None else came_back
            return await self._countersigned(server, event, came_back)
        except InvalidEvent as error:
            raise InvalidResponse(server, f"the join came back malformed: {error}") from error

    async def _countersigned(
        self, server: str, event: Event, came_back: Mapping[str, Any]
    ) -> Event:
        """An event of ours as a server gives it back: the same, with all signatures that it needs.

        Without them every other server would refuse it, and all that its sender says later. Raises
        `InvalidEvent` and `InvalidResponse`.
        """
        signed = Event.from_pdu(event.version, came_back)
        if {**signed.pdu, "signatures": {}} != {**event.pdu, "signatures": {}}:
            raise InvalidResponse(server, "another event came back than was sent")
        (outcome,) = await self._checks.check(event.version, event.room_id, [signed.pdu])
        if isinstance(outcome, str):
            raise InvalidResponse(server, f"the event came back without what it needs: {outcome}")
        return signed

    async def _by_one_of(
        self,
        servers: Sequence[str],
        make: Callable[[str], Awaitable[Event]],
        hand_over: Callable[[str, Event], Awaitable[Answer]],
    ) -> Answer:
        """Hand an event over to one of these servers: the first of those that made one for us.

        Several may make one at a time, as that changes nothing, but no two get one.
        """
        running = Deferred.fromCoroutine(self._try_each(servers, make, hand_over))
        self._running.add(running)
        try:
            return await running
        finally:
            self._running.discard(running)

    async def _try_each(
        self,
        servers: Sequence[str],
        make: Callable[[str], Awaitable[Event]],
        hand_over: Callable[[str, Event], Awaitable[Answer]],
    ) -> Answer:
        others = [each for each in dict.fromkeys(servers) if each != self._origin.server_name]
        making = StaggeredRequests(self._origin.clock, others[:MAX_SERVERS], make)
        refusal: MatrixError | None = None
        try:
            async for server, made in making:
                try:
                    if isinstance(made, Exception):
                        raise made
                    return await hand_over(server, made)
                except FederationError as error:
                    log.info("a handshake failed: {error}", error=error)
                    if isinstance(error, RemoteError) and error.errcode == "M_FORBIDDEN":
                        raise for_users(error) from error
                    refusal = refusal or for_users(error)
                except (Forbidden, IncompatibleRoomVersion) as error:
                    # So it is by what this server says of the room, which may not be so.
                    log.info("{server} gave what is refused: {error}", server=server, error=error)
                    refusal = refusal or error
        finally:
            making.close()
        raise refusal or NotFound("No server is known that is in the room")


def for_users(error: FederationError) -> MatrixError:
    """What a user is told of a failure."""
    if isinstance(error, FederationDenied):
        return Forbidden(f"This server may not talk with {error.server}")
    if not isinstance(error, RemoteError):
        return RemoteServerFailed(f"{error.server} cannot be asked at the moment")
    known: dict[str, type[MatrixError]] = {
        "M_FORBIDDEN": Forbidden,
        "M_NOT_FOUND": NotFound,
    }
    if error.errcode == "M_INCOMPATIBLE_ROOM_VERSION":
        version = str(error.body.get("room_version", ""))
        return IncompatibleRoomVersion(error.error, room_version=version)
    kind = known.get(error.errcode)
    if kind is not None:
        return kind(error.error or "The other server refuses")
    if error.status in (400, 403, 404) and error.errcode not in _NOT_PASSED_ON:
        return RefusedByRemote(error.status, error.errcode, error.error[:500])
    return RemoteServerFailed(f"{error.server} refuses: {error.error}"[:500])


def _lacks_endpoint(refusal: RemoteError) -> bool:
    return refusal.status == 404 and refusal.errcode in ("", "M_UNRECOGNIZED")


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
