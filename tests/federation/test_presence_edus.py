"""Telling other servers who is there."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock

from federation.presence_edus import PRESENCE, TOGETHER, TOLD_AGAIN_SECONDS, PresenceEdus
from homeserver.presence.presence_changed import PresenceChanged
from homeserver.presence.remote_presence import BELIEVED_SECONDS

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
            rooms=(1,), told=PresenceChanged(1, f"@u{n}:{HERE}", (1,), "online", None, 0)
        )
        for n in range(present)
    ]
    rooms: Any = SimpleNamespace(
        origin=SimpleNamespace(server_name=HERE),
        loaded=lambda number: SimpleNamespace(servers=[HERE, THERE]),
    )
    tracker: Any = SimpleNamespace(enabled=True, present=lambda: iter(users), now_ms=lambda: 1_000)
    unused: Any = None
    sender: Any = sent
    return PresenceEdus(rooms, tracker, unused, sender, clock)


def test_who_stays_is_told_of_before_others_take_them_for_gone() -> None:
    """Somebody who is online all day is shown so all day, on all servers."""
    clock, sent = Clock(), Sent()
    edus = presence(TOGETHER + 1, sent, clock)
    edus.start()
    clock.advance(TOLD_AGAIN_SECONDS)

    assert TOLD_AGAIN_SECONDS < BELIEVED_SECONDS
    assert [(servers, kind) for servers, kind, _ in sent.edus] == [([THERE], PRESENCE)] * 2
    told = [update["user_id"] for _, _, content in sent.edus for update in content["push"]]
    assert sorted(told) == sorted(f"@u{n}:{HERE}" for n in range(TOGETHER + 1))

    edus.stop()
    clock.advance(TOLD_AGAIN_SECONDS)
    assert len(sent.edus) == 2
