"""Sending presence to other servers."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock

from federation.receiving.presence_edus import (
    PRESENCE_RESEND_SECONDS,
    RESEND_BATCH_SIZE,
    PresenceEdus,
)
from federation.sending.room_servers import RoomServers
from homeserver.presence.presence_changed import PresenceChanged
from homeserver.presence.remote_presence import REMOTE_PRESENCE_TTL_SECONDS
from homeserver.protocol.event_types import PRESENCE

HERE, THERE = "here.example", "there.example"


class Sent:
    """Keeps what would be sent."""

    def __init__(self) -> None:
        self.edus: list[tuple[list[str], str, Any]] = []

    def send_edu(self, destinations: Iterable[str], kind: str, content: Any, key: object) -> None:
        """Keep it."""
        self.edus.append((list(destinations), kind, content))


def presence(present: int, sent: Sent, clock: Clock) -> PresenceEdus:
    """So many users who are online, in a room with another server."""
    users = [
        SimpleNamespace(
            rooms=(1,), published=PresenceChanged(1, f"@u{n}:{HERE}", (1,), "online", None, 0)
        )
        for n in range(present)
    ]
    rooms: Any = SimpleNamespace(
        local_server=SimpleNamespace(server_name=HERE),
        loaded=lambda number: SimpleNamespace(servers=[HERE, THERE]),
    )
    tracker: Any = SimpleNamespace(enabled=True, present=lambda: iter(users), now_ms=lambda: 1_000)
    unused: Any = None
    sender: Any = sent
    return PresenceEdus(rooms, tracker, unused, sender, RoomServers(rooms, unused), clock)


def test_presence_is_sent_again_before_it_times_out() -> None:
    """A user who is online all day is shown as online all day, on all servers."""
    clock, sent = Clock(), Sent()
    edus = presence(RESEND_BATCH_SIZE + 1, sent, clock)
    edus.start()
    clock.advance(PRESENCE_RESEND_SECONDS)

    assert PRESENCE_RESEND_SECONDS < REMOTE_PRESENCE_TTL_SECONDS
    assert [(servers, kind) for servers, kind, _ in sent.edus] == [([THERE], PRESENCE)] * 2
    told = [update["user_id"] for _, _, content in sent.edus for update in content["push"]]
    assert sorted(told) == sorted(f"@u{n}:{HERE}" for n in range(RESEND_BATCH_SIZE + 1))

    edus.stop()
    clock.advance(PRESENCE_RESEND_SECONDS)
    assert len(sent.edus) == 2


class ColdRoom:
    """A room that is not in memory: its servers are known once they were read."""

    def __init__(self) -> None:
        self.is_read = False

    def known(self, numbers: Iterable[int]) -> tuple[set[str], list[int]]:
        return ({THERE}, []) if self.is_read else (set(), list(numbers))

    async def load(self, numbers: Iterable[int]) -> None:
        self.is_read = True


def test_presence_reaches_servers_of_rooms_that_are_not_in_memory() -> None:
    """After a restart, users are shown as online before they send an event."""
    sent, unused = Sent(), None
    rooms: Any = SimpleNamespace(local_server=SimpleNamespace(is_local=lambda user_id: True))
    tracker: Any = SimpleNamespace(enabled=True, now_ms=lambda: 1_000)
    servers: Any = ColdRoom()
    edus = PresenceEdus(rooms, tracker, unused, sent, servers, Clock())  # type: ignore[arg-type]

    edus.apply([PresenceChanged(1, f"@alice:{HERE}", (1,), "online", None, 0)])

    assert [servers for servers, _, _ in sent.edus] == [[THERE]]


def test_updates_say_when_the_user_was_active() -> None:
    """Other servers may require it. Who was there without doing anything goes for them, too."""
    sent, unused = Sent(), None
    rooms: Any = SimpleNamespace(local_server=SimpleNamespace(is_local=lambda user_id: True))
    tracker: Any = SimpleNamespace(enabled=True, now_ms=lambda: 1_000)
    servers: Any = SimpleNamespace(known=lambda numbers: ({THERE}, []))
    edus = PresenceEdus(rooms, tracker, unused, sent, servers, Clock())  # type: ignore[arg-type]

    for state, active in (("unavailable", 0), ("offline", 0), ("offline", 400), ("online", 900)):
        edus.apply([PresenceChanged(1, f"@alice:{HERE}", (1,), state, None, active)])  # type: ignore[arg-type]

    updates = [update for _, _, content in sent.edus for update in content["push"]]
    told = [(update["presence"], update["last_active_ago"]) for update in updates]
    assert told == [("unavailable", 0), ("offline", 0), ("offline", 600), ("online", 100)]
