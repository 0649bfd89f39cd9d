"""A session: what is said over one WebSocket, by an object that knows no socket.

The server's frames without `id` are updates, which a `Subscription` makes. The client's frames are
calls, `{"id", "method", "params"}`, and each is answered by `{"id", "result"}` or by
`{"id", "error"}`, in the order in which they are done. A session lives no longer than the access
token that it was opened with.

Spec: https://spec.matrix.org/v1.19/client-server-api/#standard-error-response
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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
from homeserver.sync.engine import SyncEngine
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
MAX_CALLS = 32  # that run at once; more are not read from the socket

log = Logger()


class FrameTransport(Protocol):
    """The socket, as far as a session needs it."""

    def send_text(self, text: bytes) -> None:
        """Send a message; it is buffered where it cannot go at once."""

    def close(self, code: int, reason: str) -> None:
        """Close the socket, and say why."""

    def set_reading(self, wanted: bool) -> None:
        """Take, or for now do not take, more from the client."""


class Frame(msgspec.Struct):
    """A call by the client."""

    id: str
    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")


class FrameId(msgspec.Struct):
    """What is looked for in a frame that is not a call."""

    id: str | None = None


_FRAME = msgspec.json.Decoder(Frame)
_FRAME_ID = msgspec.json.Decoder(FrameId)
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Opening:
    """How a socket was opened.

    `reader` wants to be told what is new above the position `since`, or everything where that is
    `None`; `filter_text` is the filter that it was made of. `connection` is the name that the
    client gave to this socket. `admit` checks the access token again.
    """

    reader: SyncRequest
    since: int | None
    filter_text: str | None
    set_presence: State | None
    connection: str
    admit: Callable[[], Requester | Awaitable[Requester]]


@dataclass(frozen=True, slots=True)
class Services:
    """What all sessions share. `ack_window` counts updates, `max_frame` bytes."""

    engine: SyncEngine
    rounds: BatchScheduler
    presence: PresenceTracker
    methods: Methods
    ack_window: int
    max_frame: int


class StreamSession:
    """One client at one socket."""

    def __init__(self, opening: Opening, services: Services, wire: FrameTransport) -> None:
        caller = opening.reader.caller
        self.user_id = caller.user_id
        self.device = device_of(caller)
        self.connection = opening.connection
        self._opening = opening
        self._services = services
        self._wire = wire
        self._filter_text = opening.filter_text
        self._subscription = Subscription(
            services.engine,
            services.rounds,
            opening.reader,
            opening.since,
            self,
            services.ack_window,
        )
        self._appeared: Deferred[None] | None = None
        self._calls = 0
        self._is_closed = False

    def open(self) -> None:
        """The socket is open: begin with the first update."""
        self._appeared = ensureDeferred(self._appear())
        self._subscription.start()

    def end(self) -> None:
        """The socket is gone."""
        if not self._is_closed:
            self._is_closed = True
            self._subscription.stop()
        if self._appeared is not None:
            self._appeared.addCallback(self._disappear)

    def close(self, code: int, reason: str) -> None:
        """Close the socket; nothing more is sent or called."""
        if not self._is_closed:
            self._is_closed = True
            self._subscription.stop()
            self._wire.close(code, reason)

    def block(self) -> None:
        """The socket cannot take more: no updates until `unblock`."""
        self._subscription.block()

    def unblock(self) -> None:
        """Everything sent so far is on its way."""
        self._subscription.unblock()

    def send_update(self, update: bytes) -> None:
        self._wire.send_text(update)

    def update_failed(self, failure: Failure) -> None:
        if failure.check(Unavailable):
            self.close(TRY_LATER, "The server cannot make updates just now")
        else:
            log.failure("updates of {user_id} failed", failure, user_id=self.user_id)
            self.close(INTERNAL_ERROR, "Internal error")

    def receive(self, payload: bytes, is_text: bool) -> None:
        """A message came from the client."""
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
            self._wire.set_reading(False)
        ensureDeferred(self._serve(frame))

    def acknowledge(self, position: int) -> None:
        self._subscription.acknowledge(position)

    async def use_filter(self, caller: Requester, text: str) -> None:
        self._subscription.use(await self._read_again(caller, text))
        self._filter_text = text

    async def refresh_reader(self) -> None:
        """Something changed for the user that the reader was made of, such as whom they ignore."""
        reader = await self._read_again(self._opening.reader.caller, self._filter_text)
        self._subscription.use(reader)

    async def check_token(self) -> None:
        """Close the socket if its access token is not valid any more."""
        try:
            await self._admit()
        except TOKEN_ERRORS:
            self.close(TOKEN_INVALID, NOT_VALID)

    async def _appear(self) -> None:
        """While the socket is open its user is as present as by a long poll."""
        caller = self._opening.reader.caller
        asked = self._opening.set_presence
        try:
            await self._services.presence.touch(caller.user_id, caller.device_id, asked)
        except Exception:
            log.failure("could not note the presence of {user_id}", user_id=self.user_id)

    def _disappear(self, _: object) -> None:
        caller = self._opening.reader.caller
        asked = self._opening.set_presence
        self._services.presence.sync_ended(caller.user_id, caller.device_id, asked)

    async def _admit(self) -> Requester:
        caller = self._opening.admit()
        return caller if isinstance(caller, Requester) else await caller

    async def _read_again(self, caller: Requester, filter_text: str | None) -> SyncRequest:
        return await self._services.engine.reader(
            caller,
            filter_text=filter_text,
            state_after=self._opening.reader.state_after,
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
                self._wire.set_reading(True)

    def _respond_error(self, frame_id: str | None, error: MatrixError) -> None:
        self._respond({"id": frame_id, "error": error.body()})

    def _respond(self, answer: dict[str, Any]) -> None:
        if not self._is_closed:
            self._wire.send_text(_encode(answer))


def _find_id(payload: bytes) -> str | None:
    """The `id` of a frame that could not be understood, if it has one."""
    try:
        found: FrameId = decode_body(_FRAME_ID, payload)
    except (NotJson, BadJson):
        return None
    return found.id


def device_of(caller: Requester) -> str:
    """The name under which a caller's sockets are kept; tokens without a device have their own."""
    return caller.device_id or f"token {caller.token}"
