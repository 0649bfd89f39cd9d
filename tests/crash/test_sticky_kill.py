"""Kill -9 of the server while sticky events are sent: all that were acknowledged stick."""

import json
import time
from urllib.parse import quote

import pytest

from tests.clients.plain_client import CLIENT, User, register
from tests.crash.senders import Sender
from tests.support.process import SHARED_SECRET, running_server

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]
USERS = 3
MOST = 90  # events of a user: a hundred may stick in a room
CRASHES = 3
PAUSE_SECONDS = 0.7  # before a crash
STICKY = "msc4354_sticky"


class StickyUser(User):
    """A user whose messages stick."""

    def send(self, room_id: str, body: str, txn_id: str, *, timeout: float = 60) -> str:
        path = f"{CLIENT}/rooms/{quote(room_id)}/send/m.x/{quote(txn_id, safe='')}"
        target = f"{path}?org.matrix.msc4354.sticky_duration_ms=3600000"
        event_id: str = self.request("PUT", target, {"body": body}, timeout=timeout)["event_id"]
        return event_id


class StickySender(Sender):
    """Sends as many of them as a user may have in a room."""

    def step(self) -> None:
        if len(self.acknowledged) < MOST:
            super().step()
        time.sleep(0.02)


def sticking(user: User, room_id: str) -> list[str]:
    """The ids of all events that stick, as a client gets them that begins."""
    text = quote(json.dumps({"room": {"timeline": {"limit": 0}}}))
    response = user.request("GET", f"{CLIENT}/sync?filter={text}")
    events = response["rooms"]["join"][room_id][STICKY]["events"]
    return [event["event_id"] for event in events]


def test_a_killed_server_loses_none() -> None:
    """What is acknowledged is stored with all that makes it stick."""
    with running_server() as server:
        made = [register(server.url, SHARED_SECRET, f"user{number}") for number in range(USERS)]
        users = [
            StickyUser(server.url, user.user_id, user.device_id, user.token or "") for user in made
        ]
        room_id = users[0].create_room(preset="public_chat")
        for user in users[1:]:
            user.join(room_id)
        senders = [StickySender(user, room_id) for user in users]
        for sender in senders:
            sender.start()

        for _ in range(CRASHES):
            time.sleep(PAUSE_SECONDS)
            server.kill()
            server.start()
        for sender in senders:
            sender.stop()

        assert [sender.failure for sender in senders] == [None] * USERS
        users[0].close()  # its connection may be to the server that was killed last
        found = sticking(users[0], room_id)
        assert len(found) == len({*found})
        for sender in senders:
            assert {*sender.acknowledged.values()} <= {*found}
