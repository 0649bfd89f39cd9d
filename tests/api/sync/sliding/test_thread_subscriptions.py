"""The extension for subscriptions to threads."""

from typing import Any

from twisted.internet.defer import Deferred

from tests.api.rooms.threads_case import ThreadsTestCase
from tests.api.sync.sliding.sliding_client import SlidingClient
from tests.support.refused import Refused

NAME = "io.element.msc4308.thread_subscriptions"


class ThreadSubscriptionsExtensionTests(ThreadsTestCase):
    def client(self, **config: Any) -> SlidingClient:
        extensions = {NAME: {"enabled": True, **config}}
        return SlidingClient(self.alice, lists={}, extensions=extensions)

    async def changes_of(self, client: SlidingClient, **query: Any) -> Any:
        """What a response has of the extension, without the stamps."""
        return _without_stamps((await client.sync(**query))["extensions"].get(NAME))

    async def test_changes_come_once(self) -> None:
        """First those that there are, then what is new; of several changes only the last."""
        await self.subscribe(self.alice)
        client = self.client()
        self.assertEqual(
            await self.changes_of(client),
            {"subscribed": {self.room: {self.root: {"automatic": False}}}},
        )
        self.assertIsNone(await self.changes_of(client))

        cause = await self.reply(self.bob)
        await self.unsubscribe(self.alice)
        await self.subscribe(self.alice)
        await self.unsubscribe(self.alice)
        await self.subscribe(self.bob, cause)

        self.assertEqual(
            await self.changes_of(client), {"unsubscribed": {self.room: {self.root: {}}}}
        )
        self.assertIsNone(await self.changes_of(client))

    async def test_change_ends_the_wait(self) -> None:
        """The other device of a user shows it at once."""
        client = self.client()
        await client.sync()

        waiting = Deferred.fromCoroutine(self.changes_of(client, timeout_ms=20_000))
        await self.subscribe(self.alice)

        self.assertIn("subscribed", await waiting)

    async def test_lost_response_is_made_again(self) -> None:
        """No change is lost with it, nor with a restart."""
        client = self.client()
        await client.sync()
        before = client.pos
        await self.subscribe(self.alice)
        first = await self.changes_of(client)

        again = await self.changes_of(client, pos=before)
        self.assertEqual(again, first)
        await self.unsubscribe(self.alice)
        await self.restart_server(self.alice, self.bob)

        self.assertEqual(
            await self.changes_of(client), {"unsubscribed": {self.room: {self.root: {}}}}
        )

    async def test_the_rest_is_paged(self) -> None:
        """What does not fit comes from the endpoint, between two `pos`."""
        client = self.client(limit=2)
        await self.subscribe(self.alice)
        await client.sync()
        before = client.pos
        roots = [await self.alice.say(self.room, f"root {number}") for number in range(5)]
        for root in roots:
            await self.subscribe(self.alice, root=root)

        newest = (await client.sync())["extensions"][NAME]
        query = {"from": newest["prev_batch"], "to": before}
        rest = await self.changes(self.alice, limit=2, **query)
        last = await self.changes(self.alice, limit=2, **query | {"from": rest["end"]})

        self.assertEqual({*newest["subscribed"][self.room]}, {*roots[3:]})
        self.assertEqual({*rest["subscribed"][self.room]}, {*roots[1:3]})
        self.assertEqual({*last["subscribed"][self.room]}, {roots[0]})
        self.assertNotIn("end", last)

    async def test_limit_that_makes_no_sense(self) -> None:
        """It is an error of the client."""
        for limit in (0, -1, "x"):
            with self.assertRaises(Refused) as refused:
                await self.client(limit=limit).sync()
            self.assertEqual(refused.exception.status, 400)


def _without_stamps(changes: Any) -> Any:
    """The changes; the stamps are only compared with others of the same thread."""
    if changes is None:
        return None
    return {
        name: {
            room: {
                root: {key: value for key, value in entry.items() if key != "bump_stamp"}
                for root, entry in roots.items()
            }
            for room, roots in rooms.items()
        }
        for name, rooms in changes.items()
    }
