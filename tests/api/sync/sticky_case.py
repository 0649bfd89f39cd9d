"""A test case with two users in a room, who send sticky events."""

from collections.abc import Iterable
from itertools import count
from typing import Any

from tests.support.actors import CLIENT, Actor
from tests.support.server import ServerTestCase

HOUR_MS = 3_600_000
DURATION = "org.matrix.msc4354.sticky_duration_ms"
FIELD = "msc4354_sticky"
TTL = "msc4354_sticky_duration_ttl_ms"


class StickyTestCase(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self._txn_ids = (f"sticky{number}" for number in count())
        self.alice, self.bob = await self.register("alice"), await self.register("bob")
        self.room = await self.alice.create_room(public=True)
        await self.bob.join(self.room)

    async def stick(
        self,
        by: Actor,
        room: str | None = None,
        *,
        text: str = "here",
        duration: object = HOUR_MS,
        txn_id: str | None = None,
        name: str = DURATION,
        **query: Any,
    ) -> str:
        """Send a sticky message; gives its event id."""
        txn_id = txn_id or next(self._txn_ids)
        path = f"{CLIENT}/rooms/{room or self.room}/send/m.rtc.member/{txn_id}"
        sent = await by.request("PUT", path, {"body": text}, query={name: duration, **query})
        event_id: str = sent["event_id"]
        return event_id

    async def bury(self, room: str | None = None, *, by: Actor | None = None) -> None:
        """Send so many messages that a timeline does not reach back to what was before."""
        for place in range(15):
            await (by or self.alice).say(room or self.room, f"{place}")


def section(response: Any, room: str) -> Any:
    """The section of a joined room; empty if there is none."""
    return response.get("rooms", {}).get("join", {}).get(room, {})


def sticky(response: Any, room: str) -> list[str]:
    """The ids of the events in the sticky section of a room."""
    return ids(section(response, room).get(FIELD, {}).get("events", []))


def timeline(response: Any, room: str) -> list[str]:
    """The ids of the events in the timeline of a room."""
    return ids(section(response, room).get("timeline", {}).get("events", []))


def ids(events: Iterable[Any]) -> list[str]:
    """The ids of events."""
    return [event["event_id"] for event in events]
