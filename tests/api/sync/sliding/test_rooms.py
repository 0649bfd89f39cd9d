"""What of a room is sent: its state, its members, and what becomes of it."""

from typing import Any

from tests.api.sync.sliding.sliding_client import (
    SlidingClient,
    SlidingTestCase,
    texts,
    window,
)

ME, LAZY = ["m.room.member", "$ME"], ["m.room.member", "$LAZY"]


def keys(room: Any) -> set[tuple[str, str]]:
    """The types and state keys of the state that was sent."""
    return {(event["type"], event["state_key"]) for event in room.get("required_state", [])}


class RequiredStateTests(SlidingTestCase):
    async def test_only_state_that_was_asked_for_is_sent(self) -> None:
        """A client that shows a list of names needs little."""
        room = await self.alice.create_room(name="Tea", topic="Leaves")
        wanted = [["m.room.topic", ""], ["m.room.avatar", ""], ME]
        client = SlidingClient(self.alice, lists={"all": window(required_state=wanted)})

        response = await client.sync()

        self.assertEqual(
            keys(response["rooms"][room]),
            {("m.room.topic", ""), ("m.room.member", self.alice.user_id)},
        )

    async def test_wildcards_match_types_and_state_keys(self) -> None:
        """A client can ask for all children of a space, or for everything."""
        room = await self.alice.create_room()
        await self.alice.set_state(room, "m.space.child", {"via": ["a"]}, "!one:a")
        await self.alice.set_state(room, "m.space.child", {"via": ["a"]}, "!two:a")
        everything = {tuple(key) for key in await self.alice.full_state(room)}
        for wanted, expected in (
            ([["m.space.child", "*"]], {("m.space.child", "!one:a"), ("m.space.child", "!two:a")}),
            ([["*", "!one:a"]], {("m.space.child", "!one:a")}),
            ([["*", "*"]], everything),
            ([["*", "*"], LAZY], everything),
        ):
            client = SlidingClient(self.alice, lists={"all": window(required_state=wanted)})

            response = await client.sync()

            self.assertEqual(keys(response["rooms"][room]), expected, wanted)

    async def test_change_of_the_state_is_sent_once(self) -> None:
        """What the client has it does not get again."""
        room = await self.alice.create_room(topic="Old")
        wanted = [["m.room.topic", ""]]
        client = SlidingClient(self.alice, lists={"all": window(required_state=wanted)})
        await client.sync()
        await self.alice.set_state(room, "m.room.topic", {"topic": "New"})
        await self.alice.set_state(room, "org.example.x", {})

        first = await client.sync()
        await self.alice.say(room, "hello")
        second = await client.sync()

        (topic,) = first["rooms"][room]["required_state"]
        self.assertEqual(topic["content"], {"topic": "New"})
        self.assertEqual(keys(second["rooms"][room]), set())

    async def test_more_required_state_is_sent_at_once(self) -> None:
        """A client that opens a room asks for more of it than for the list."""
        room = await self.alice.create_room(topic="Tea")
        one, two = ["m.room.topic", ""], ["m.room.create", ""]
        client = SlidingClient(self.alice, lists={"all": window(required_state=[one])})
        await client.sync()

        more = await client.sync(lists={"all": window(required_state=[one, two])})
        less = await client.sync(lists={"all": window(required_state=[one])})

        self.assertEqual(keys(more["rooms"][room]), {("m.room.create", "")})
        self.assertEqual(less["rooms"], {})

    async def test_members_are_sent_when_the_timeline_needs_them(self) -> None:
        """A large room costs a client no more than a small one."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        carol = await self.register("carol")
        await carol.join(room)
        for number in range(3):
            await self.alice.say(room, str(number))
        wanted = window(required_state=[LAZY], timeline_limit=3)
        client = SlidingClient(self.alice, lists={"all": wanted})

        first = await client.sync()
        await self.bob.say(room, "hello")
        second = await client.sync()
        await self.bob.say(room, "again")
        third = await client.sync()

        self.assertEqual(keys(first["rooms"][room]), {("m.room.member", self.alice.user_id)})
        self.assertEqual(keys(second["rooms"][room]), {("m.room.member", self.bob.user_id)})
        self.assertEqual(keys(third["rooms"][room]), set())

    async def test_name_and_avatar_are_sent_when_they_change(self) -> None:
        """The list shows names without any state."""
        room = await self.alice.create_room(name="Old")
        client = SlidingClient(self.alice)
        await client.sync()
        await self.alice.set_state(room, "m.room.name", {"name": "New"})
        await self.alice.set_state(room, "m.room.avatar", {"url": "mxc://a/b"})

        changed = (await client.sync())["rooms"][room]
        await self.alice.set_state(room, "m.room.name", {})
        await self.alice.set_state(room, "m.room.avatar", {})
        removed = (await client.sync())["rooms"][room]

        self.assertEqual((changed["name"], changed["avatar"]), ("New", "mxc://a/b"))
        self.assertEqual((removed["name"], removed["avatar"]), (None, None))

    async def test_heroes_name_a_room_without_a_name(self) -> None:
        """A chat of two is shown by the other's name and picture."""
        await self.bob.put(f"/profile/{self.bob.user_id}/displayname", {"displayname": "Bob"})
        room = await self.alice.create_room(invite=[self.bob])
        client = SlidingClient(self.alice)

        invited = (await client.sync())["rooms"][room]
        await self.bob.join(room)
        joined = (await client.sync())["rooms"][room]

        hero = {"user_id": self.bob.user_id, "displayname": "Bob"}
        self.assertEqual(invited["heroes"], [hero])
        self.assertEqual((invited["joined_count"], invited["invited_count"]), (1, 1))
        self.assertEqual(joined["heroes"], [hero])
        self.assertEqual((joined["joined_count"], joined["invited_count"]), (2, 0))

    async def test_unread_counts_follow_messages_and_receipts(self) -> None:
        """The badge of a room is right on every device."""
        room = await self.alice.create_room(invite=[self.bob])
        await self.bob.join(room)
        client = SlidingClient(self.alice)
        await client.sync()
        event = await self.bob.say(room, "hello")

        unread = (await client.sync())["rooms"][room]
        await self.alice.read(room, event)
        read = (await client.sync())["rooms"][room]

        self.assertEqual(unread["notification_count"], 1)
        self.assertEqual((read["notification_count"], read["highlight_count"]), (0, 0))


class TimelineTests(SlidingTestCase):
    async def test_timeline_is_limited(self) -> None:
        """A client learns that there is more, and from where to read on."""
        room = await self.alice.create_room()
        for number in range(5):
            await self.alice.say(room, str(number))
        client = SlidingClient(self.alice, lists={"all": window(timeline_limit=2)})

        first = (await client.sync())["rooms"][room]
        page = await self.alice.messages(room, since=first["prev_batch"], limit=2)
        for number in range(5, 9):
            await self.alice.say(room, str(number))
        second = (await client.sync())["rooms"][room]

        self.assertEqual((texts(first), first["limited"]), (["3", "4"], True))
        self.assertEqual([event["content"]["body"] for event in page["chunk"]], ["2", "1"])
        self.assertEqual((texts(second), second["limited"]), (["7", "8"], True))
        self.assertEqual(second["num_live"], 2)

    async def test_higher_limit_sends_earlier_events(self) -> None:
        """A client that opens a room sees a screen of messages at once."""
        room = await self.alice.create_room()
        for number in range(5):
            await self.alice.say(room, str(number))
        client = SlidingClient(self.alice, lists={"all": window(timeline_limit=1)})
        await client.sync()
        subscription = {"timeline_limit": 4, "required_state": []}

        opened = await client.sync(room_subscriptions={room: subscription})
        await self.alice.say(room, "5")
        live = await client.sync()
        closed = await client.sync(room_subscriptions={})
        await self.alice.say(room, "6")
        again = await client.sync(room_subscriptions={room: subscription})

        shown = opened["rooms"][room]
        self.assertEqual(texts(shown), ["1", "2", "3", "4"])
        self.assertTrue(shown["unstable_expanded_timeline"])
        self.assertEqual(shown["num_live"], 0)
        self.assertNotIn("initial", shown)
        self.assertEqual(texts(live["rooms"][room]), ["5"])
        self.assertEqual(closed["rooms"], {})
        self.assertEqual(texts(again["rooms"][room]), ["6"])

    async def test_example_of_a_changed_limit(self) -> None:
        """The proposal's example: what the client has it does not get again."""
        room = await self.alice.create_room()
        for text in "AB":
            await self.alice.say(room, text)
        clients = [
            SlidingClient(self.alice, conn_id, lists={"all": window(timeline_limit=1)})
            for conn_id in ("four", "three")
        ]
        for text in "CD":
            for client in clients:
                await client.sync()
            await self.alice.say(room, text)
        for client in clients:
            await client.sync()

        four = await clients[0].sync(lists={"all": window(timeline_limit=4)})
        three = await clients[1].sync(lists={"all": window(timeline_limit=3)})

        self.assertEqual(texts(four["rooms"][room]), ["A", "B", "C", "D"])
        self.assertEqual(three["rooms"], {})

    async def test_position_is_a_token_of_the_history(self) -> None:
        """A client can page back from where it is."""
        room = await self.alice.create_room()
        await self.alice.say(room, "before")
        pos = (await SlidingClient(self.alice).sync())["pos"]
        await self.alice.say(room, "after")

        page = await self.alice.messages(room, since=pos, limit=1)

        self.assertEqual(page["chunk"][0]["content"]["body"], "before")

    async def test_own_message_has_its_transaction_id(self) -> None:
        """A client recognizes the message that it has just sent."""
        room = await self.alice.create_room()
        client = SlidingClient(self.alice)
        await client.sync()
        await self.alice.say(room, "hello", txn_id="mine")

        response = await client.sync()

        (event,) = response["rooms"][room]["timeline"]
        self.assertEqual(event["unsigned"]["transaction_id"], "mine")


class MembershipTests(SlidingTestCase):
    async def test_invite_has_stripped_state(self) -> None:
        """A user sees what they are invited to, and nothing else."""
        room = await self.alice.create_room(name="Tea", invite=[self.bob])
        client = SlidingClient(self.bob)

        shown = (await client.sync())["rooms"][room]
        await self.bob.join(room)
        joined = (await client.sync())["rooms"][room]

        stripped = {event["type"]: event for event in shown["invite_state"]}
        self.assertEqual(stripped["m.room.name"]["content"], {"name": "Tea"})
        self.assertEqual(stripped["m.room.member"]["state_key"], self.bob.user_id)
        self.assertNotIn("timeline", shown)
        self.assertTrue(joined["initial"])
        self.assertEqual(joined["name"], "Tea")

    async def test_declined_invite_disappears(self) -> None:
        """A user who declines sees that on all devices."""
        room = await self.alice.create_room(invite=[self.bob])
        client = SlidingClient(self.bob)
        await client.sync()
        await self.bob.leave(room)

        left = (await client.sync())["rooms"][room]

        (own,) = left["required_state"]
        self.assertEqual(own["content"]["membership"], "leave")
        self.assertNotIn("invite_state", left)

    async def test_left_room_is_sent_to_a_client_that_has_it(self) -> None:
        """A room that was left on another device disappears, and a new client never sees it."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        client = SlidingClient(self.bob)
        await client.sync()
        await self.alice.say(room, "before")
        await self.bob.leave(room)
        await self.alice.say(room, "after")

        left = (await client.sync())["rooms"][room]
        fresh = await SlidingClient(self.bob).sync()

        self.assertEqual(texts(left), ["before"])
        (own,) = left["required_state"]
        self.assertEqual(own["content"]["membership"], "leave")
        self.assertEqual(fresh["rooms"], {})
        self.assertEqual(fresh["lists"]["all"]["count"], 0)

    async def test_kicked_user_sees_the_room_and_nothing_later(self) -> None:
        """A user learns that they were kicked, whichever client they use."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        await self.alice.say(room, "before")
        await self.alice.kick(room, self.bob)
        await self.alice.say(room, "after")
        await self.alice.set_state(room, "m.room.name", {"name": "Secret"})

        response = await SlidingClient(self.bob).sync()

        shown = response["rooms"][room]
        self.assertIn("before", texts(shown))
        self.assertNotIn("after", texts(shown))
        self.assertNotIn("Secret", str(response))

    async def test_ban_of_a_user_who_never_joined_is_not_shown(self) -> None:
        """Nobody can fill another user's list."""
        room = await self.alice.create_room()
        await self.alice.ban(room, self.bob)

        response = await SlidingClient(self.bob).sync()

        self.assertEqual(response["rooms"], {})

    async def test_subscription_to_a_foreign_room_is_ignored(self) -> None:
        """Nobody reads a room by asking for it."""
        room = await self.alice.create_room(name="Secret")
        subscription = {"timeline_limit": 10, "required_state": [["*", "*"]]}
        subscriptions = {room: subscription, "!none:example.org": subscription}

        response = await SlidingClient(self.bob, room_subscriptions=subscriptions).sync()

        self.assertEqual(response["rooms"], {})

    async def test_rejoined_room_begins_again(self) -> None:
        """A client does not mix what it had of a room with what it may see now."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        client = SlidingClient(self.bob)
        await client.sync()
        await self.bob.leave(room)
        await client.sync()
        await self.bob.join(room)

        joined = (await client.sync())["rooms"][room]

        self.assertTrue(joined["initial"])
        self.assertTrue(joined["limited"])

    async def test_ignored_users_are_not_shown(self) -> None:
        """Neither their messages nor their invites reach a user."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        await self.bob.say(room, "spam")
        await self.bob.create_room(invite=[self.alice])
        ignored = {"ignored_users": {self.bob.user_id: {}}}
        path = f"/user/{self.alice.user_id}/account_data/m.ignored_user_list"
        await self.alice.put(path, ignored)

        response = await SlidingClient(self.alice).sync()

        self.assertEqual(response["rooms"].keys(), {room})
        self.assertEqual(texts(response["rooms"][room]), [])

    async def test_knock_is_shown_to_the_user(self) -> None:
        """A user sees where they wait to be let in."""
        rules = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
        room = await self.alice.create_room(initial_state=[rules], name="Tea")
        await self.bob.knock(room)

        shown = (await SlidingClient(self.bob).sync())["rooms"][room]

        own = shown["invite_state"][-1]
        self.assertEqual(own["content"]["membership"], "knock")
