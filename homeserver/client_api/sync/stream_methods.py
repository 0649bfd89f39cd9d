"""The methods that a client may call over a WebSocket, equivalent to calls over HTTP.

A method has the path parameters and body members of its HTTP call as parameters, a free-form body
as `content`, and calls the same domain object with the same checks, counted against the same rate
limit. The `id` of the frame serves as the transaction id, so that a request can be repeated over
either transport.

Spec: https://spec.matrix.org/v1.19/client-server-api/#api-standards
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.account_data import AccountData, check_client_may_set
from homeserver.client_api.accounts.own_data import check_own, check_room_id
from homeserver.client_api.rooms.sticky_parameter import stickiness
from homeserver.presence.tracker import PresenceTracker
from homeserver.presence.user_presence import State
from homeserver.protocol.errors import BadJson, GuestAccessForbidden, Unrecognized
from homeserver.protocol.event_types import FULLY_READ
from homeserver.rooms.ephemeral.read_markers import ReadMarkers
from homeserver.rooms.ephemeral.receipts import READ, READ_PRIVATE
from homeserver.rooms.ephemeral.typing import TypingUsers
from homeserver.rooms.events.event_draft import Stickiness
from homeserver.rooms.sending.sending import Sending
from homeserver.streams.sync_tokens import SyncToken, parse_sync_token
from homeserver.sync.sliding.subscriptions import SlidingSubscriptions
from homeserver.web.bodies import check_no_nul_in_names, contains_nul, decode_body
from homeserver.web.rate_limits import RateLimits


class UpdateControl(Protocol):
    """Controls the updates of the calling socket, and knows when it closes.

    `sliding` are its subscriptions to connections of sliding sync.
    """

    @property
    def sliding(self) -> SlidingSubscriptions: ...

    def acknowledge(self, token: SyncToken) -> None:
        """The client has everything up to this token."""

    async def use_filter(self, caller: Requester, text: str) -> None:
        """Filter the following updates; `text` is a filter's id, or the filter as JSON."""

    def when_closed(self, action: Callable[[], object]) -> Callable[[], None]:
        """Have an action called when the socket closes; the result undoes that."""


class Call(msgspec.Struct, frozen=True):
    """The caller, the updates of its socket, and the `id` of the frame."""

    caller: Requester
    frame_id: str
    updates: UpdateControl


class Method(msgspec.Struct, frozen=True):
    """One method: `run(call, params)` is awaited, and `None` is sent as `{}`.

    `limit` names the rate limit that each call is counted against.
    """

    name: str
    params: type[msgspec.Struct]
    run: Callable[[Call, Any], Awaitable[object]]
    limit: str | None = None
    guests: bool = False


class Methods:
    """All methods by their names."""

    def __init__(self, rate_limits: RateLimits, methods: Iterable[Method]) -> None:
        self._rate_limits = rate_limits
        self._methods = {
            method.name: (method, msgspec.json.Decoder(method.params)) for method in methods
        }

    async def run(self, name: str, call: Call, params: bytes) -> object:
        """Call a method with the JSON of its parameters; returns its result.

        Raises `Unrecognized`, `GuestAccessForbidden`, `LimitExceeded`, `BadJson`, and what the
        method raises.
        """
        found = self._methods.get(name)
        if found is None:
            raise Unrecognized("There is no such method")
        method, decoder = found
        if call.caller.is_guest and not method.guests:
            raise GuestAccessForbidden("Guests may not do this")
        if method.limit is not None:
            self._rate_limits.check(method.limit, call.caller)
        decoded = decode_body(decoder, params)
        if contains_nul(params):
            check_no_nul_in_names(decoded)
        return await method.run(call, decoded)


class NoParams(msgspec.Struct):
    """No parameters."""


class Ack(msgspec.Struct):
    """What arrived: an update up to `next_batch`, or the response of a connection at `pos`."""

    next_batch: str | None = None
    pos: str | None = None
    conn_id: str = ""


class UseFilter(msgspec.Struct):
    filter: str | dict[str, Any]


class SocketMethods:
    """Methods for the socket itself."""

    def methods(self) -> list[Method]:
        return [
            Method("ping", NoParams, self.ping, guests=True),
            Method("ack", Ack, self.ack, guests=True),
            Method("filter", UseFilter, self.filter, guests=True),
        ]

    async def ping(self, call: Call, params: NoParams) -> None:
        """Respond, so that the client knows that the connection works."""

    async def ack(self, call: Call, params: Ack) -> None:
        """Acknowledge an update, and all those before it, or a response of sliding sync."""
        if params.next_batch is None and params.pos is None:
            raise BadJson("Either `next_batch` or `pos` says what has arrived")
        if params.next_batch is not None:
            call.updates.acknowledge(parse_sync_token(params.next_batch))
        if params.pos is not None:
            call.updates.sliding.acknowledge(params.conn_id, params.pos)

    async def filter(self, call: Call, params: UseFilter) -> None:
        """Filter the updates from the next one on, by a filter's id or a filter."""
        wanted = params.filter
        text = wanted if isinstance(wanted, str) else msgspec.json.encode(wanted).decode()
        await call.updates.use_filter(call.caller, text)


class Send(msgspec.Struct):
    room_id: str
    event_type: str
    content: dict[str, Any]
    sticky_duration_ms: int | None = None


class SetState(msgspec.Struct):
    room_id: str
    event_type: str
    content: dict[str, Any]
    state_key: str = ""
    sticky_duration_ms: int | None = None


class Redact(msgspec.Struct):
    room_id: str
    event_id: str
    reason: str | None = None


class EventMethods:
    """Methods that send events to rooms."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending

    def methods(self) -> list[Method]:
        return [
            Method("send", Send, self.send, "message", guests=True),
            Method("state", SetState, self.state, "message", guests=True),
            Method("redact", Redact, self.redact, "message"),
        ]

    async def send(self, call: Call, params: Send) -> dict[str, str]:
        """Send a message event."""
        event_id = await self._sending.send_message(
            call.caller,
            params.room_id,
            params.event_type,
            params.content,
            call.frame_id,
            _sticky(params.sticky_duration_ms),
        )
        return {"event_id": event_id}

    async def state(self, call: Call, params: SetState) -> dict[str, str]:
        """Set a state event."""
        event_id = await self._sending.set_state(
            call.caller,
            params.room_id,
            params.event_type,
            params.state_key,
            params.content,
            sticky=_sticky(params.sticky_duration_ms),
        )
        return {"event_id": event_id}

    async def redact(self, call: Call, params: Redact) -> dict[str, str]:
        """Redact an event."""
        content = {} if params.reason is None else {"reason": params.reason}
        event_id = await self._sending.redact(
            call.caller, params.room_id, params.event_id, content, call.frame_id
        )
        return {"event_id": event_id}


def _sticky(duration_ms: int | None) -> Stickiness | None:
    return None if duration_ms is None else stickiness(duration_ms)


class SetTypingParams(msgspec.Struct):
    room_id: str
    typing: bool
    timeout: int = 30_000  # ms
    user_id: str | None = None


class SetReceipt(msgspec.Struct):
    room_id: str
    receipt_type: str
    event_id: str
    thread_id: Any = msgspec.UNSET


class SetReadMarkers(msgspec.Struct):
    room_id: str
    fully_read: str | None = msgspec.field(default=None, name=FULLY_READ)
    read: str | None = msgspec.field(default=None, name="m.read")
    read_private: str | None = msgspec.field(default=None, name="m.read.private")


class EphemeralMethods:
    """Methods for typing, receipts and read markers."""

    def __init__(self, typing_users: TypingUsers, markers: ReadMarkers) -> None:
        self._typing = typing_users
        self._markers = markers

    def methods(self) -> list[Method]:
        return [
            Method("typing", SetTypingParams, self.typing, "ephemeral"),
            Method("receipt", SetReceipt, self.receipt, "ephemeral"),
            Method("read_markers", SetReadMarkers, self.read_markers, "ephemeral"),
        ]

    async def typing(self, call: Call, params: SetTypingParams) -> None:
        """Notify a room that the caller is typing, or has stopped."""
        await self._typing.set(
            call.caller,
            params.room_id,
            params.user_id or call.caller.user_id,
            params.typing,
            timeout_ms=params.timeout,
        )

    async def receipt(self, call: Call, params: SetReceipt) -> None:
        """Set the caller's receipt."""
        await self._markers.mark(
            call.caller, params.room_id, params.receipt_type, params.event_id, params.thread_id
        )

    async def read_markers(self, call: Call, params: SetReadMarkers) -> None:
        """Move several markers of a room."""
        markers = {
            FULLY_READ: params.fully_read,
            READ: params.read,
            READ_PRIVATE: params.read_private,
        }
        given = {kind: event_id for kind, event_id in markers.items() if event_id is not None}
        await self._markers.mark_all(call.caller, params.room_id, given)


class SetPresenceParams(msgspec.Struct):
    presence: State
    status_msg: str | None = None
    user_id: str | None = None


class SetAccountData(msgspec.Struct):
    type: str
    content: dict[str, Any]
    room_id: str | None = None
    user_id: str | None = None


class UserMethods:
    """Methods for the caller's presence and account data."""

    def __init__(self, presence: PresenceTracker, account_data: AccountData) -> None:
        self._presence = presence
        self._account_data = account_data

    def methods(self) -> list[Method]:
        return [
            Method("presence", SetPresenceParams, self.presence, "presence"),
            Method("account_data", SetAccountData, self.account_data, "settings"),
        ]

    async def presence(self, call: Call, params: SetPresenceParams) -> None:
        """Set the caller's presence and status message."""
        user_id = params.user_id or call.caller.user_id
        await self._presence.set(call.caller, user_id, params.presence, params.status_msg)

    async def account_data(self, call: Call, params: SetAccountData) -> None:
        """Set the caller's account data, global or for a room."""
        user_id = params.user_id or call.caller.user_id
        check_own(call.caller, user_id)
        if params.room_id is not None:
            check_room_id(params.room_id)
        check_client_may_set(params.type)
        await self._account_data.set(user_id, params.room_id, params.type, params.content)
