"""A session: the protocol of one WebSocket, in an object that knows no socket.

The server's frames without `id` are updates, which a `Subscription` makes, and responses of sliding
sync to which the client has subscribed. The client's frames are
calls, `{"id", "method", "params"}`, and the response to each is `{"id", "result"}` or
`{"id", "error"}`, in the order of completion. A session lives no longer than the access
token that it was opened with.

Spec: https://spec.matrix.org/v1.19/client-server-api/#standard-error-response
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.sync.stream_methods import Call, Methods
from homeserver.presence.tracker import PresenceTracker
from homeserver.presence.user_presence import State
from homeserver.protocol.errors import (
    BadJson,
    MatrixError,
    NotJson,
    TooLarge,
    Unavailable,
    UnknownToken,
    UserLocked,
)
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.engine import SyncEngine
from homeserver.sync.sliding.subscriptions import SlidingSubscriptions
from homeserver.sync.subscription import BatchScheduler, Subscription
from homeserver.sync.sync_request import SyncRequest
from homeserver.web.bodies import decode_body

UNSUPPORTED_DATA = 1003
INTERNAL_ERROR = 1011
RESTART = 1012
TRY_LATER = 1013
REPLACED = 4001
TOKEN_INVALID = 4003

NOT_VALID = "The access token is not valid any more"
TOKEN_ERRORS = (UnknownToken, UserLocked)

MAX_ID = 255  # characters
MAX_CALLS = 32  # that run concurrently; more are not read from the socket

log = Logger()


class FrameTransport(Protocol):
    """The part of the socket that a session needs."""

    def send_text(self, text: bytes) -> None:
        """Send a message; it is buffered where it cannot be sent at once."""

    def close(self, code: int, reason: str) -> None:
        """Close the socket, with a reason."""

    def set_reading(self, wanted: bool) -> None:
        """Read from the client, or pause reading."""


class Frame(msgspec.Struct):
    """A call by the client."""

    id: str
    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")


class FrameId(msgspec.Struct):
    """The `id` of a frame that is not a valid call."""

    id: str | None = None


_FRAME = msgspec.json.Decoder(Frame)
_FRAME_ID = msgspec.json.Decoder(FrameId)
_encode = msgspec.json.Encoder().encode


class Opening(msgspec.Struct, frozen=True):
    """The parameters with which a socket was opened.

    `sync_request` asks for updates above the token `since`, or for an initial sync where that is
    `None`; `filter_text` is the filter that it was built from. A client that does not want
    `updates` uses sliding sync. `connection` is the client's name for this socket. `admit` checks
    the access token again.
    """

    sync_request: SyncRequest
    since: SyncToken | None
    updates: bool
    filter_text: str | None
    set_presence: State | None
    connection: str
    admit: Callable[[], Requester | Awaitable[Requester]]


class Services(msgspec.Struct, frozen=True):
    """The objects that all sessions share. `ack_window` counts updates, `max_frame` bytes."""

    engine: SyncEngine
    rounds: BatchScheduler
    presence: PresenceTracker
    methods: Methods
    ack_window: int
    max_frame: int


class StreamSession:
    """The session of one client on one socket."""

    def __init__(self, opening: Opening, services: Services, transport: FrameTransport) -> None:
        caller = opening.sync_request.caller
        self.user_id = caller.user_id
        self.device = device_of(caller)
        self.connection = opening.connection
        self._opening = opening
        self._services = services
        self._transport = transport
        self._filter_text = opening.filter_text
        self._subscription = Subscription(
            services.engine,
            services.rounds,
            opening.sync_request,
            opening.since,
            self,
            services.ack_window,
        )
        self._sliding = SlidingSubscriptions(self)
        self._presence_began: Deferred[None] | None = None
        self._calls = 0
        self._is_closed = False
        self._when_closed: dict[object, Callable[[], object]] = {}

    def open(self) -> None:
        """Begin with the first update, if the client wants updates: the socket is open."""
        self._presence_began = ensureDeferred(self._begin_presence())
        if self._opening.updates:
            self._subscription.start()
        else:
            self._subscription.stop()

    def end(self) -> None:
        """End the session: the socket is closed."""
        if not self._is_closed:
            self._close()
        if self._presence_began is not None:
            self._presence_began.addCallback(self._end_presence)

    def close(self, code: int, reason: str) -> None:
        """Close the socket; no more frames are sent or served."""
        if not self._is_closed:
            self._close()
            self._transport.close(code, reason)

    def block(self) -> None:
        """Send no updates until `unblock`: the socket's buffer is full."""
        self._subscription.block()

    def unblock(self) -> None:
        """Send updates again: the socket's buffer is empty."""
        self._subscription.unblock()

    def send_update(self, update: bytes) -> None:
        self._transport.send_text(update)

    def update_failed(self, failure: Failure) -> None:
        if failure.check(Unavailable):
            self.close(TRY_LATER, "The server cannot make updates just now")
        else:
            log.failure("updates of {user_id} failed", failure, user_id=self.user_id)
            self.close(INTERNAL_ERROR, "Internal error")

    def receive(self, payload: bytes, is_text: bool) -> None:
        """Handle a message from the client."""
        if self._is_closed:
            return
        if not is_text:
            self.close(UNSUPPORTED_DATA, "The subprotocol m.json has text frames only")
            return
        try:
            frame = self._decode(payload)
        except MatrixError as error:
            self._respond_error(_find_id(payload), error)
            return
        self._calls += 1
        if self._calls == MAX_CALLS:
            self._transport.set_reading(False)
        ensureDeferred(self._serve(frame))

    @property
    def sliding(self) -> SlidingSubscriptions:
        return self._sliding

    def acknowledge(self, token: SyncToken) -> None:
        self._subscription.acknowledge(token)

    def when_closed(self, action: Callable[[], object]) -> Callable[[], None]:
        key = object()
        self._when_closed[key] = action
        return lambda: self._when_closed.pop(key, None) and None

    async def use_filter(self, caller: Requester, text: str) -> None:
        self._subscription.use(await self._build_request(caller, text))
        self._filter_text = text

    async def refresh_request(self) -> None:
        """Build the sync request again: an input has changed, such as the ignored users."""
        request = await self._build_request(self._opening.sync_request.caller, self._filter_text)
        self._subscription.use(request)

    async def check_token(self) -> None:
        """Close the socket if its access token is not valid any more."""
        try:
            await self._admit()
        except TOKEN_ERRORS:
            self.close(TOKEN_INVALID, NOT_VALID)

    def _close(self) -> None:
        self._is_closed = True
        self._subscription.stop()
        self._sliding.stop()
        for action in list(self._when_closed.values()):
            action()

    async def _begin_presence(self) -> None:
        """Begin presence: an open socket counts like a long poll."""
        caller = self._opening.sync_request.caller
        set_presence = self._opening.set_presence
        try:
            await self._services.presence.sync_began(caller.user_id, caller.device_id, set_presence)
        except Exception:
            log.failure("could not set the presence of {user_id}", user_id=self.user_id)

    def _end_presence(self, _: object) -> None:
        caller = self._opening.sync_request.caller
        set_presence = self._opening.set_presence
        self._services.presence.sync_ended(caller.user_id, caller.device_id, set_presence)

    async def _admit(self) -> Requester:
        caller = self._opening.admit()
        return caller if isinstance(caller, Requester) else await caller

    async def _build_request(self, caller: Requester, filter_text: str | None) -> SyncRequest:
        return await self._services.engine.build_request(
            caller,
            filter_text=filter_text,
            state_after=self._opening.sync_request.state_after,
        )

    def _decode(self, payload: bytes) -> Frame:
        limit = self._services.max_frame
        if len(payload) > limit:
            raise TooLarge(f"A frame may have at most {limit} bytes")
        frame: Frame = decode_body(_FRAME, payload)
        if not 0 < len(frame.id) <= MAX_ID or "\0" in frame.id:
            raise BadJson(f"The `id` of a frame has 1 to {MAX_ID} characters, none of them NUL")
        return frame

    async def _serve(self, frame: Frame) -> None:
        try:
            call = Call(await self._admit(), frame.id, self)
            result = await self._services.methods.run(frame.method, call, bytes(frame.params))
            self._respond({"id": frame.id, "result": {} if result is None else result})
        except MatrixError as error:
            self._respond_error(frame.id, error)
            if isinstance(error, TOKEN_ERRORS):
                self.close(TOKEN_INVALID, NOT_VALID)
        except Exception:
            log.failure("{method} of {user_id} failed", method=frame.method, user_id=self.user_id)
            self._respond_error(frame.id, MatrixError("Internal error"))
        finally:
            self._calls -= 1
            if self._calls == MAX_CALLS - 1 and not self._is_closed:
                self._transport.set_reading(True)

    def _respond_error(self, frame_id: str | None, error: MatrixError) -> None:
        self._respond({"id": frame_id, "error": error.body()})

    def _respond(self, response: dict[str, Any]) -> None:
        if not self._is_closed:
            self._transport.send_text(_encode(response))


def _find_id(payload: bytes) -> str | None:
    """The `id` of an invalid frame, if it has one."""
    try:
        found: FrameId = decode_body(_FRAME_ID, payload)
    except (NotJson, BadJson):
        return None
    return found.id


def device_of(caller: Requester) -> str:
    """The device id that a caller's sockets are registered under, or a name for its token."""
    return caller.transaction_scope or f"token {caller.token}"
