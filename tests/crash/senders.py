"""Load that a crash interrupts: senders that record acknowledged messages, and retry others.

A sender numbers its messages; the number is the transaction id, so that a message whose response
was lost is sent again under the same id, as a good client does.
"""

import threading
import time
from abc import ABC, abstractmethod

from tests.clients.plain_client import ConnectionLost, User
from tests.support.refused import Refused

GIVE_UP_SECONDS = 60.0
PAUSE_SECONDS = 0.05
NOT_NOW = (502, 503)


class ClientThread(ABC):
    """A client that works in a separate thread until it is stopped.

    `failure` describes an error: an exception in a thread would go unnoticed, and a client that
    died would look like one without errors.
    """

    def __init__(self) -> None:
        self.failure: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the running request finish, then end the thread."""
        self._stop.set()
        self._thread.join(GIVE_UP_SECONDS)
        if self._thread.is_alive():
            self.failure = "still waiting for a response"

    @abstractmethod
    def step(self) -> None:
        """One piece of work."""

    def _run(self) -> None:
        try:
            while not self._stop.is_set() and self.failure is None:
                self.step()
        except Exception as error:
            self.failure = repr(error)
            raise


class Sender(ClientThread):
    """One client that sends the next message when the server responds, in a separate thread.

    `acknowledged` maps the body of each message to the event id that the server gave, in the order
    of sending; `interrupted` counts attempts that got no response, or one of `NOT_NOW`.
    """

    def __init__(self, user: User, room_id: str) -> None:
        super().__init__()
        self.user = user
        self.room_id = room_id
        self.acknowledged: dict[str, str] = {}
        self.interrupted = 0
        self._count = 0

    def send_again(self, body: str) -> str:
        """Repeat the request of a message; gives the event id."""
        return self.user.send(self.room_id, body, body)

    def step(self) -> None:
        """Send the next message."""
        self._count += 1
        self._send(f"{self.user.user_id} {self._count:06}")

    def _send(self, body: str) -> None:
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            try:
                self.acknowledged[body] = self.user.send(self.room_id, body, body, timeout=20)
                return
            except ConnectionLost:
                pass
            except Refused as refused:
                # Any other error would be a permanent refusal.
                if refused.status not in NOT_NOW:
                    raise
            self.interrupted += 1
            time.sleep(PAUSE_SECONDS)
        self.failure = f"{body}: not acknowledged within {GIVE_UP_SECONDS} s"


class Reader(ClientThread):
    """One client that long-polls in a thread and records the messages that it receives.

    `seen` holds (room id, event id, body) in the order of arrival, over all restarts.
    """

    def __init__(self, user: User, since: str) -> None:
        super().__init__()
        self.user = user
        self.since = since
        self.seen: list[tuple[str, str, str]] = []

    def step(self) -> None:
        """Make one long poll."""
        try:
            self.since = read_since(self.user, self.since, self.seen, timeout_ms=500)
        except ConnectionLost:
            time.sleep(PAUSE_SECONDS)
        except Refused as refused:
            if refused.status not in NOT_NOW:
                raise
            time.sleep(PAUSE_SECONDS)


def read_since(
    user: User, since: str, seen: list[tuple[str, str, str]], *, timeout_ms: int = 0
) -> str:
    """Add all messages after a token to `seen`, oldest first; gives the next token.

    A limited timeline's gap is filled from `/messages`, as a client does.
    """
    response = user.sync(since, timeout_ms=timeout_ms)
    found: list[tuple[str, str, str]] = []
    for room_id, room in response.get("rooms", {}).get("join", {}).items():
        timeline = room.get("timeline", {})
        events = timeline.get("events", [])
        if timeline.get("limited"):
            gap = user.messages(room_id, timeline["prev_batch"], to=since)
            events = gap[::-1] + events
        found += [
            (room_id, event["event_id"], event["content"]["body"])
            for event in events
            if event["type"] == "m.room.message"
        ]
    seen += found
    next_batch: str = response["next_batch"]
    return next_batch
