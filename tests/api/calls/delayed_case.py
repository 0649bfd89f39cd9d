"""A test case with two users in a room, who schedule events."""

import itertools
from typing import Any

import psycopg

from tests.support.actors import CLIENT, Actor
from tests.support.reactor import pause
from tests.support.refused import Refused
from tests.support.server import ServerTestCase

V1 = CLIENT.replace("v3", "v1")
UNSTABLE = "/_matrix/client/unstable/org.matrix.msc4140"
LONG_MS, SHORT_MS = 60_000, 50


class DelayedEventsTestCase(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self._txn_ids = (f"t{number}" for number in itertools.count())
        self.alice, self.bob = await self.register("alice"), await self.register("bob")
        self.room = await self.alice.create_room(public=True)
        await self.bob.join(self.room)

    async def schedule(
        self,
        by: Actor,
        delay_ms: int = LONG_MS,
        *,
        event_type: str = "m.room.message",
        txn_id: str | None = None,
        prefix: str = CLIENT,
        room: str | None = None,
        **body: Any,
    ) -> str:
        """Schedule an event; gives its delay id."""
        path = f"{prefix}/rooms/{room or self.room}/delayed_event/{event_type}/"
        path += txn_id or next(self._txn_ids)
        content = {"msgtype": "m.text", "body": "later"}
        response = await by.request("PUT", path, {"delay_ms": delay_ms, "content": content, **body})
        delay_id: str = response["delay_id"]
        return delay_id

    async def act(self, by: Actor, delay_id: str, action: str) -> None:
        """Send, cancel or restart."""
        await by.request("POST", f"{V1}/delayed_events/{delay_id}/{action}", {})

    async def get(self, by: Actor, delay_id: str) -> Any:
        """A delayed event, as its user looks it up."""
        return await by.request("GET", f"{V1}/delayed_events/{delay_id}")

    async def scheduled(self, by: Actor) -> list[str]:
        """The ids of what a user has scheduled."""
        listed = await by.request("GET", f"{V1}/delayed_events")
        return [each["delay_id"] for each in listed["delayed_events"]]

    def let_be_due(self, *delay_ids: str) -> None:
        """Have events sent as if their time had come, as far as they are scheduled."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "UPDATE delayed_events SET due_ms = 0"
                " WHERE delay_id = ANY(%s) AND due_ms IS NOT NULL",
                (list(delay_ids),),
            )
        self.server.parts.rooms.delayed_events._due.notice(0)

    async def finalised(self, by: Actor, delay_id: str) -> Any:
        """A delayed event, once it is finalised."""
        for _ in range(1_000):
            delayed = await self.get(by, delay_id)
            if "finalised_ts" in delayed:
                return delayed
            await pause(0.02)
        raise Refused(0, {"error": f"{delay_id} is not finalised"})

    async def said(self) -> list[str]:
        """The bodies of the messages in the room, newest first."""
        history = await self.alice.history(self.room)
        return [each["content"]["body"] for each in history if each["type"] == "m.room.message"]
