"""The extension for sticky events.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4480
"""

from typing import Any

from twisted.internet.defer import Deferred

from tests.api.sync.sliding.sliding_client import SlidingClient, window
from tests.api.sync.sticky_case import StickyTestCase, ids

NAME = "org.matrix.msc4354.sticky_events"


class StickyExtensionTests(StickyTestCase):
    def client(self, **config: Any) -> SlidingClient:
        lists = {"all": window(timeline_limit=3)}
        extensions = {NAME: {"enabled": True, **config}}
        return SlidingClient(self.bob, lists=lists, extensions=extensions)

    async def found(self, client: SlidingClient, **query: Any) -> dict[str, list[str]]:
        """The events of a response by room; the client has them from then on."""
        extension = (await client.sync(**query))["extensions"].get(NAME, {})
        if "next_batch" in extension:
            client.body["extensions"][NAME]["since"] = extension["next_batch"]
        return {room: ids(each["events"]) for room, each in extension.get("rooms", {}).items()}

    async def test_all_come_first_and_then_what_is_new(self) -> None:
        """Each once, and none that a timeline has."""
        first = [await self.stick(self.alice) for _ in range(2)]
        await self.bury()
        client = self.client()

        begun = await self.found(client)
        nothing = await self.found(client)
        second = await self.stick(self.alice)
        in_timeline = await self.found(client)
        await self.stick(self.alice)
        third = await self.stick(self.alice)
        await self.bury()
        missed = await self.found(client)
        at_last = await self.found(client)

        self.assertEqual(begun, {self.room: first})
        self.assertEqual([nothing, in_timeline, at_last], [{}, {}, {}])
        self.assertEqual(missed[self.room][-1], third)
        self.assertNotIn(second, missed[self.room])

    async def test_so_many_come_at_a_time(self) -> None:
        """The oldest first; the rest follows at once."""
        event_ids = [await self.stick(self.alice) for _ in range(5)]
        await self.bury()
        client = self.client(limit=2)

        parts = [(await self.found(client, timeout_ms=10_000))[self.room] for _ in range(3)]

        self.assertEqual(parts, [event_ids[:2], event_ids[2:4], event_ids[4:]])
        self.assertEqual(await self.found(client), {})

    async def test_rooms_out_of_the_window_are_included(self) -> None:
        """The client rings, wherever the room is in its list."""
        event_id = await self.stick(self.alice)
        for _ in range(3):
            await self.bob.create_room()
        client = self.client()

        found = await self.found(client, lists={"all": window(0, 0)})

        self.assertEqual(found, {self.room: [event_id]})

    async def test_who_joins_gets_all_that_stick(self) -> None:
        """Also those that are older than the client's token."""
        other = await self.alice.create_room(public=True)
        event_ids = [await self.stick(self.alice, other) for _ in range(3)]
        client = self.client(limit=1)
        await self.stick(self.alice)
        await self.bury()
        await self.found(client)
        await self.bury(other)

        await self.bob.join(other)

        self.assertEqual(await self.found(client), {other: event_ids})
        self.assertEqual(await self.found(client), {})

    async def test_an_event_ends_the_wait(self) -> None:
        """It comes with its room."""
        client = self.client()
        await self.found(client)

        waiting = Deferred.fromCoroutine(client.sync(timeout_ms=20_000))
        event_id = await self.stick(self.alice)
        response = await waiting

        self.assertEqual(ids(response["rooms"][self.room]["timeline"]), [event_id])

    async def test_a_lost_response_is_made_again(self) -> None:
        """The client asks with the token that it has."""
        event_id = await self.stick(self.alice)
        await self.bury()
        client = self.client()
        await client.sync()
        await self.restart_server(self.alice, self.bob)

        self.assertEqual(await self.found(client), {self.room: [event_id]})

    async def test_the_accepted_form_has_another_name(self) -> None:
        """A client finds it under the name that it asked for."""
        await self.stick(self.alice)
        await self.bury()
        body = {"extensions": {"sticky_events": {"enabled": True}}}

        response = await self.bob.request("POST", "/_matrix/client/v4/sync", body)

        self.assertEqual(len(response["extensions"]["sticky_events"]["rooms"]), 1)

    async def test_malformed_requests_are_refused(self) -> None:
        """With an error of the specification."""
        for config in ({"limit": 0}, {"since": "x"}):
            await self.assert_refused("M_INVALID_PARAM", self.found(self.client(**config)), 400)
