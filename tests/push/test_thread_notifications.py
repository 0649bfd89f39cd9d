"""Whom messages in threads notify, where users may subscribe to threads."""

import contextlib
import json
from typing import Any, ClassVar
from urllib.parse import quote

from tests.push.push_case import PushTestCase
from tests.support.actors import Actor
from tests.support.refused import Refused


class ThreadNotificationsTests(PushTestCase):
    """Alice has a phone; Bob and Carol have none."""

    settings: ClassVar[dict[str, Any]] = {
        **PushTestCase.settings,
        "threads": {"subscriptions": True},
    }

    async def setUp(self) -> None:
        await super().setUp()
        self.root = await self.carol.say(self.room, "root")
        for each in (self.alice, self.carol):
            await each.read(self.room, self.root)
        await self.set_pusher()

    async def reply(self, **content: Any) -> str:
        """Bob sends a message in the thread."""
        relation = {"rel_type": "m.thread", "event_id": self.root}
        content = {"msgtype": "m.text", "body": "reply", "m.relates_to": relation, **content}
        return await self.bob.send(self.room, "m.room.message", content)

    async def set_subscription(self, by: Actor, *, is_wanted: bool) -> None:
        room, root = quote(self.room, safe=""), quote(self.root, safe="")
        path = "/_matrix/client/unstable/io.element.msc4306/rooms"
        body = {} if is_wanted else None
        method = "PUT" if is_wanted else "DELETE"
        await by.request(method, f"{path}/{room}/thread/{root}/subscription", body)

    async def counts(self, by: Actor) -> tuple[int, int]:
        """The unread notifications and highlights of the room."""
        room = (await by.sync())["rooms"]["join"][self.room]
        unread = room["unread_notifications"]
        return unread["notification_count"], unread["highlight_count"]

    async def test_only_subscribers_are_notified(self) -> None:
        """The room notifies as before; a thread notifies those who follow it."""
        await self.reply()
        self.assertEqual(await self.counts(self.alice), (0, 0))
        await self.set_subscription(self.alice, is_wanted=True)
        followed = await self.reply()
        await self.set_subscription(self.alice, is_wanted=False)
        await self.reply()
        said = await self.bob.say(self.room, "to all")

        received = await self.pushed(2)

        self.assertEqual([each["event_id"] for each in received], [followed, said])
        await self.assert_no_more(2)

    async def test_mention_notifies_others_too(self) -> None:
        """Their clients subscribe them after that."""
        event_id = await self.reply(**{"m.mentions": {"user_ids": [self.alice.user_id]}})

        received = await self.pushed(1)

        self.assertEqual(received[0]["event_id"], event_id)
        self.assertEqual(await self.counts(self.alice), (1, 1))
        self.assertEqual(await self.counts(self.carol), (0, 0))

    async def test_subscribed_thread_notifies_in_a_muted_room(self) -> None:
        """Who does not want that ends the subscription."""
        await self.set_rule("room", self.room, actions=[])
        await self.set_subscription(self.alice, is_wanted=True)

        await self.bob.say(self.room, "to all")
        followed = await self.reply()

        received = await self.pushed(1)
        self.assertEqual(received[0]["event_id"], followed)
        self.assertEqual(received[0]["devices"][0]["tweaks"]["sound"], "default")
        await self.assert_no_more(1)

    async def test_counts_follow_the_subscription(self) -> None:
        """Rules apply as they are now, also after a restart; edits and reactions never count."""
        event_id = await self.reply()
        relation = {"rel_type": "m.annotation", "event_id": event_id, "key": "+"}
        await self.bob.send(self.room, "m.reaction", {"m.relates_to": relation})
        self.assertEqual(await self.counts(self.carol), (0, 0))

        await self.set_subscription(self.carol, is_wanted=True)
        self.assertEqual(await self.counts(self.carol), (1, 0))
        await self.reply()
        self.assertEqual(await self.counts(self.carol), (2, 0))
        self.assertEqual(await self.counts(self.alice), (0, 0))
        await self.restart_server(self.alice, self.bob, self.carol)
        self.assertEqual(await self.counts(self.carol), (2, 0))

        await self.set_subscription(self.carol, is_wanted=False)
        self.assertEqual(await self.counts(self.carol), (0, 0))

    async def test_root_that_is_no_event(self) -> None:
        """What a sender writes breaks neither counts nor pushes of others."""
        for root in ("$\0", "x" * 5_000, "$\ud83d"):
            relation = b'{"rel_type":"m.thread","event_id":%b}' % json.dumps(root).encode()
            content = b'{"msgtype":"m.text","body":"x","m.relates_to":%b}' % relation
            with contextlib.suppress(Refused):
                await self.bob.send(self.room, "m.room.message", content)
        said = await self.bob.say(self.room, "to all")

        self.assertEqual((await self.pushed(1))[0]["event_id"], said)
        self.assertEqual(await self.counts(self.carol), (1, 0))

    async def test_equal_counts_part_at_a_thread(self) -> None:
        """Members who share what is unread differ by their subscriptions."""
        await self.set_subscription(self.carol, is_wanted=True)
        await self.read_all()
        await self.reply()
        self.assertEqual(await self.counts(self.alice), (0, 0))
        self.assertEqual(await self.counts(self.carol), (1, 0))

        await self.set_subscription(self.carol, is_wanted=False)
        await self.set_subscription(self.alice, is_wanted=True)
        await self.read_all()
        await self.reply()
        self.assertEqual(await self.counts(self.carol), (0, 0))
        self.assertEqual(await self.counts(self.alice), (1, 0))

    async def read_all(self) -> None:
        """Both have read a message that they had counted."""
        event_id = await self.bob.say(self.room, "to all")
        for each in (self.alice, self.carol):
            await self.counts(each)
            await each.read(self.room, event_id)
            self.assertEqual(await self.counts(each), (0, 0))
