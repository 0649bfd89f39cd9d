"""The client side of the WebSocket transport for tests, on the library `websockets`.

Frames with an `id` are responses, those with a `conn_id` are of sliding sync, and all others are
updates shaped like a response of `/sync`. Frames that arrive while another one is awaited are kept
for later calls.
"""

import base64
import itertools
import json
import socket
import time
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlencode, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.clients.plain_client import User
from tests.support.closing import ClosedOnExit

PATH = "/_matrix/client/v3/stream"
WAIT_SECONDS = 10.0


class NothingArrived(Exception):
    """An awaited frame did not arrive in time."""


class Stream(ClosedOnExit):
    """One open WebSocket of a user.

    The token goes into the `Authorization` header, or with `by_subprotocol` next to the
    subprotocol, as browsers do it. `receive_buffer` bounds the bytes that the kernel takes for a
    client that does not read; compression, which would hide its slowness, is then left out.
    """

    def __init__(
        self,
        user: User,
        *,
        by_subprotocol: bool = False,
        receive_buffer: int | None = None,
        **query: Any,
    ) -> None:
        self.bytes_received = 0
        self._updates: list[Any] = []
        self._answers: dict[str, Any] = {}
        self._sliding: dict[str, list[Any]] = {}
        self._ids = itertools.count(1)
        self._opened = open_socket(
            user, by_subprotocol=by_subprotocol, receive_buffer=receive_buffer, **query
        )
        self._socket = self._opened.__enter__()

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server chose."""
        return self._socket.subprotocol

    def call(self, method: str, frame_id: str | None = None, **params: Any) -> Any:
        """Call a method and wait for the response frame."""
        frame_id = frame_id or f"call-{next(self._ids)}"
        self.send_text(json.dumps({"id": frame_id, "method": method, "params": params}))
        return self.answer(frame_id)

    def send_text(self, text: str) -> None:
        """Send a frame as it is."""
        self._socket.send(text)

    def answer(self, frame_id: str | None) -> Any:
        """Wait for the response with this id; the id of an unreadable frame is None."""
        key = json.dumps(frame_id)
        deadline = time.monotonic() + WAIT_SECONDS
        while key not in self._answers:
            self._receive(deadline)
        return self._answers.pop(key)

    def update(self) -> Any:
        """The next update."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._updates:
            self._receive(deadline)
        return self._updates.pop(0)

    def sliding(self, conn_id: str) -> Any:
        """The next frame of a connection of sliding sync."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._sliding.get(conn_id):
            self._receive(deadline)
        return self._sliding[conn_id].pop(0)

    @property
    def is_quiet(self) -> bool:
        """Whether no update or frame of sliding sync has arrived that no test has read."""
        return not self._updates and not any(self._sliding.values())

    def messages_until(self, room_id: str, last: str) -> list[str]:
        """Bodies of a room's messages in updates, up to and with the one named `last`."""
        bodies: list[str] = []
        while last not in bodies:
            bodies += bodies_in(self.update(), room_id)
        return bodies

    def ephemeral(self, room_id: str, event_type: str) -> Any:
        """The content of the next ephemeral event of a type in a room."""
        while True:
            room = self.update().get("rooms", {}).get("join", {}).get(room_id, {})
            for event in room.get("ephemeral", {}).get("events", []):
                if event["type"] == event_type:
                    return event["content"]

    def close_code(self) -> int | None:
        """Wait until the server closes the socket; gives the code of its close frame."""
        deadline = time.monotonic() + WAIT_SECONDS
        try:
            while True:
                self._receive(deadline)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None

    def close(self) -> None:
        """Close the socket from this side."""
        self._opened.__exit__(None, None, None)

    def _receive(self, deadline: float) -> None:
        try:
            text = self._socket.recv(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise NothingArrived(f"nothing in {WAIT_SECONDS} s; have {self._updates}") from None
        self.bytes_received += len(text)
        frame = json.loads(text)
        if "id" in frame:
            self._answers[json.dumps(frame["id"])] = frame
        elif "conn_id" in frame:
            self._sliding.setdefault(frame["conn_id"], []).append(frame)
        else:
            self._updates.append(frame)


def open_socket(
    user: User,
    *,
    by_subprotocol: bool = False,
    receive_buffer: int | None = None,
    subprotocols: tuple[str, ...] = ("m.json",),
    **query: Any,
) -> AbstractContextManager[ClientConnection]:
    """A socket that is opened on entering; a refusal raises the error of the library."""
    headers = {"Authorization": f"Bearer {user.token}"}
    if by_subprotocol:
        headers = {}
        encoded = base64.urlsafe_b64encode((user.token or "").encode()).decode().rstrip("=")
        subprotocols += (f"m.token.{encoded}",)
    address = urlsplit(user.url)
    raw = socket.socket()
    if receive_buffer is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    raw.connect((address.hostname or "", address.port or 80))
    opened: AbstractContextManager[ClientConnection] = connect(
        f"ws://{address.netloc}{PATH}" + (f"?{urlencode(query)}" if query else ""),
        sock=raw,
        subprotocols=[Subprotocol(name) for name in subprotocols],
        additional_headers=headers,
        max_size=None,
        max_queue=2,
        compression="deflate" if receive_buffer is None else None,
    )
    return opened


def bodies_in(update: Any, room_id: str) -> list[str]:
    """Bodies of the messages that an update, or a response of `/sync`, has for a joined room."""
    room = update.get("rooms", {}).get("join", {}).get(room_id, {})
    events = room.get("timeline", {}).get("events", [])
    return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]
