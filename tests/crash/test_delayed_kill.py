"""Kill -9 of the server while events are due: each is sent once, none before its time."""

import contextlib
import time
from typing import Any
from urllib.parse import quote

import pytest

from tests.clients.plain_client import ConnectionLost, User, register
from tests.support.process import SHARED_SECRET, running_server

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]
USERS = 5
EVENTS = 40  # of each user
SPREAD_MS = 100  # between two events of a user
CRASHES = 4
WAIT_SECONDS = 60.0
SCHEDULED = "/_matrix/client/v1/delayed_events"


def schedule(user: User, room_id: str, number: int) -> str:
    """Schedule one of a user's events; gives its delay id."""
    path = f"/_matrix/client/v3/rooms/{quote(room_id)}/delayed_event/m.room.message/t{number}"
    body = {
        "delay_ms": 500 + number * SPREAD_MS,
        "content": {"msgtype": "m.text", "body": f"{user.user_id} {number}"},
    }
    delay_id: str = user.request("PUT", path, body)["delay_id"]
    return delay_id


def looked_up(user: User, delay_id: str) -> Any:
    """A delayed event, once it is finalised."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        with contextlib.suppress(ConnectionLost):  # that to the process that was killed
            delayed = user.request("GET", f"{SCHEDULED}/{delay_id}")
            if "finalised_ts" in delayed:
                return delayed
        assert time.monotonic() < deadline, delay_id
        time.sleep(0.05)


def test_a_killed_server_sends_each_event_once() -> None:
    """Wherever the kill was: before the event, before its record, or after both."""
    with running_server() as server:
        users = [register(server.url, SHARED_SECRET, f"user{number}") for number in range(USERS)]
        room_id = users[0].create_room(preset="public_chat")
        for user in users[1:]:
            user.join(room_id)
        scheduled = {
            schedule(user, room_id, number): user for number in range(EVENTS) for user in users
        }

        for _ in range(CRASHES):
            time.sleep(SPREAD_MS * EVENTS / 1000 / (CRASHES + 1))
            server.kill()
            server.start()
        delayed = {delay_id: looked_up(user, delay_id) for delay_id, user in scheduled.items()}

        assert [each for each in delayed.values() if "error" in each] == []
        for each in delayed.values():
            assert each["finalised_ts"] >= each["scheduled_at"] + each["delay_ms"]
        events = [
            each for each in users[0].messages(room_id, None) if each["type"] == "m.room.message"
        ]
        assert sorted(each["event_id"] for each in events) == sorted(
            each["event_id"] for each in delayed.values()
        )
        assert len({each["content"]["body"] for each in events}) == USERS * EVENTS
