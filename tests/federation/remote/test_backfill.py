"""Backfill of a gap before events of another server.

Spec: https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from tests.support.actors import bodies
from tests.support.fake_server.fake_http import Answer, always
from tests.support.organisations import FederationTestCase

WITH_MANY = '{"room":{"timeline":{"limit":100}}}'
WITH_TWO = '{"room":{"timeline":{"limit":2}}}'


class BackfillTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there = await self.fake()
        self.here = await self.organisation()
        self.bob = await self.here.register("bob")
        self.mallory = self.there.user("mallory")
        self.room = self.there.create_room()
        self.room_id = self.room.room_id
        await self.bob.join(self.room_id, via=[self.there.name])

    async def test_history_before_the_last_sync_is_fetched(self) -> None:
        """A client that pages back from its sync misses nothing."""
        for number in range(30):
            self.room.say(self.mallory, f"{number}")
        only = Answer(200, {"events": [self.room.ends[0].pdu]})
        self.there.answers["get_missing_previous_events"] = always(only)
        last = self.room.say(self.mallory, "last")

        await self.there.send(self.here.name, [last])
        joined = (await self.bob.sync(filter=WITH_TWO))["rooms"]["join"][self.room_id]["timeline"]
        page = await self.bob.messages(self.room_id, since=joined["prev_batch"], limit=40)

        assert bodies(joined["events"]) == ["29", "last"]
        assert bodies(page["chunk"]) == [f"{number}" for number in reversed(range(29))]

    async def test_sync_after_an_outage_begins_after_the_gap(self) -> None:
        """Earlier events are no neighbours; the room's name and bans are current."""
        await self.there.send(self.here.name, [self.room.say(self.mallory, "before")])
        since = (await self.bob.sync())["next_batch"]
        eve = self.room.member(self.there.user("eve"), "join")
        self.room.member(eve.sender, "ban", sender=self.mallory)
        self.room.add("m.room.name", {"name": "new"}, sender=self.mallory, state_key="")
        for number in range(40):
            self.room.say(self.mallory, f"{number}")
        only = Answer(200, {"events": [self.room.ends[0].pdu]})
        self.there.answers["get_missing_previous_events"] = always(only)
        await self.there.send(self.here.name, [self.room.say(self.mallory, "last")])

        await self.check_sync(since, ["39", "last"], 40, banned=eve.sender)
        await self.check_sync(None, ["39", "last"], 40, banned=eve.sender)

    async def test_sync_after_a_rejoin_begins_with_the_join(self) -> None:
        """The server missed the time between, and has the state of the join."""
        await self.there.send(self.here.name, [self.room.say(self.mallory, "before")])
        since = (await self.bob.sync())["next_batch"]
        await self.bob.leave(self.room_id)
        eve = self.room.member(self.there.user("eve"), "join")
        self.room.member(eve.sender, "ban", sender=self.mallory)
        self.room.add("m.room.name", {"name": "new"}, sender=self.mallory, state_key="")
        for number in range(40):
            self.room.say(self.mallory, f"{number}")
        await self.bob.join(self.room_id, via=[self.there.name])

        await self.check_sync(since, [], 40, banned=eve.sender)
        await self.check_sync(None, [], 40, banned=eve.sender)

    async def check_sync(
        self, since: str | None, said: list[str], missed: int, *, banned: str
    ) -> None:
        section = (await self.bob.sync(since, filter=WITH_MANY))["rooms"]["join"][self.room_id]
        timeline = section["timeline"]
        events = [*section["state"]["events"], *timeline["events"]]
        state = {(each["type"], each["state_key"]): each for each in events if "state_key" in each}
        assert bodies(timeline["events"]) == said
        assert timeline["limited"]
        assert state["m.room.name", ""]["content"] == {"name": "new"}
        assert state["m.room.member", banned]["content"]["membership"] == "ban"
        found: list[str] = []
        page = {"end": timeline["prev_batch"]}
        while "end" in page:
            page = await self.bob.messages(self.room_id, since=page["end"], limit=15)
            found += bodies(page["chunk"])
        numbers = [f"{number}" for number in reversed(range(missed)) if f"{number}" not in said]
        assert found == [*numbers, "before"]

    async def test_a_gap_is_fetched_from_any_page(self) -> None:
        """Also from directly after the gap."""
        first = self.room.say(self.mallory, "first")
        await self.there.send(self.here.name, [first])
        for number in range(30):
            self.room.say(self.mallory, f"{number}")
        only = Answer(200, {"events": [self.room.ends[0].pdu]})
        self.there.answers["get_missing_previous_events"] = always(only)
        await self.there.send(self.here.name, [self.room.say(self.mallory, "last")])

        said, since = [], {}
        for _ in range(40):
            page = await self.bob.messages(self.room_id, limit=1, **since)
            said += bodies(page["chunk"])
            if "end" not in page:
                break
            since = {"since": page["end"]}

        assert said[:31] == ["last", *(f"{number}" for number in reversed(range(30)))]
