"""Unread counts on a real database: with receipts, threads, rules, restarts, and much history."""

from copy import copy
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.push_rules.rule_set import PushRule, RuleSet
from homeserver.push.unread_counter import WINDOW, UnreadCount, UnreadCounter
from tests.support.postgres import DatabaseTestCase
from tests.sync.sync_server import SyncServer

READ, PRIVATE = "m.read", "m.read.private"


class UnreadCountsTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.server = await SyncServer.start(self.db)
        self.alice = await self.server.user("alice")
        self.bob = await self.server.user("bob")
        self.room_id = await self.server.create_room(self.alice)
        await self.join(self.bob)
        self.sent = 0

    async def clean_up(self) -> None:
        await self.server.stop()
        await super().clean_up()

    async def restart(self) -> None:
        await self.server.stop()
        self.server = await SyncServer.start(self.db)

    async def join(self, user: Requester) -> None:
        await self.server.rooms.memberships.join(user, self.room_id)

    async def say(self, by: Requester | None = None, **content: Any) -> str:
        self.sent += 1
        content = {"msgtype": "m.text", "body": "hello", **content}
        return await self.server.rooms.sending.send_message(
            by or self.alice, self.room_id, "m.room.message", content, f"txn{self.sent}"
        )

    async def reply(self, kind: str, parent: str, by: Requester | None = None) -> str:
        relation = {"rel_type": kind, "event_id": parent}
        return await self.say(by, **{"m.relates_to": relation})

    async def mention(self, *users: Requester) -> str:
        return await self.say(**{"m.mentions": {"user_ids": [user.user_id for user in users]}})

    async def burst(self, count: int) -> None:
        sends = [Deferred.fromCoroutine(self.say()) for _ in range(count)]
        await gatherResults(sends)

    async def read(self, event_id: str, kind: str = READ, **thread: Any) -> None:
        await self.server.sync.markers.mark(self.bob, self.room_id, kind, event_id, **thread)

    async def counts(self, user: Requester | None = None) -> UnreadCount:
        room = await self.server.core.registry.get(self.room_id)
        return await self.server.sync.push.unread_counts.counts(room, (user or self.bob).user_id)

    async def unread(self, user: Requester | None = None) -> tuple[int, int]:
        count = await self.counts(user)
        return count.notification, count.highlight

    async def counters(self, *users: Requester) -> list[UnreadCounter]:
        """Copies of the users' counters."""
        room = await self.server.core.registry.get(self.room_id)
        counts = self.server.sync.push.unread_counts
        return [copy(await counts.counter(room, user.user_id)) for user in users]

    async def set_rules(self, rules: RuleSet) -> None:
        content = rules.content_for(self.bob.user_id)
        await self.server.accounts.account_data.set(self.bob.user_id, None, "m.push_rules", content)

    async def test_messages_of_others_are_counted(self) -> None:
        """A badge shows that there is something to read."""
        await self.say()
        await self.say(msgtype="m.notice")
        await self.mention(self.bob)

        self.assertEqual(await self.unread(), (2, 1))

    async def test_own_events_never_count_and_read_the_room(self) -> None:
        """Users are not notified of their own events, and a sender has read the room."""
        await self.say()
        await self.say(self.bob)

        self.assertEqual(await self.unread(), (0, 0))
        self.assertEqual(await self.unread(self.alice), (1, 0))

    async def test_events_before_the_join_are_not_counted(self) -> None:
        """A newcomer does not start with thousands of unread messages."""
        thread = await self.say()
        await self.reply("m.thread", thread)
        carol = await self.server.user("carol")

        await self.join(carol)
        await self.say()

        self.assertEqual(await self.unread(carol), (1, 0))

    async def test_user_who_rejoins_starts_at_zero(self) -> None:
        """Events from before the last join are not unread."""
        await self.reply("m.thread", await self.say())
        self.assertEqual(await self.unread(), (2, 0))
        await self.server.rooms.memberships.leave(self.bob, self.room_id)
        await self.say()

        await self.join(self.bob)

        self.assertEqual(await self.unread(), (0, 0))

    async def test_receipts_of_both_kinds_clear_the_count(self) -> None:
        """The one that is further ahead counts, as the specification requires."""
        events = [await self.say() for _ in range(4)]

        await self.read(events[2])
        self.assertEqual(await self.unread(), (1, 0))
        await self.read(events[1], PRIVATE)
        self.assertEqual(await self.unread(), (1, 0))
        await self.read(events[3], PRIVATE)
        self.assertEqual(await self.unread(), (0, 0))

    async def test_threads_are_counted_separately(self) -> None:
        """The specification's example: C and E are in A's thread, and so are their reactions."""
        root = await self.say()
        first = await self.reply("m.thread", root)
        second = await self.reply("m.thread", root)
        await self.reply("m.reference", first)
        main = await self.reply("m.reference", root)

        self.assertEqual(await self.counts(), UnreadCount(5, 0, {root: (3, 0)}))
        await self.read(second, thread_id=root)
        self.assertEqual(await self.counts(), UnreadCount(3, 0, {root: (1, 0)}))
        await self.read(main, thread_id="main")
        self.assertEqual(await self.counts(), UnreadCount(1, 0, {root: (1, 0)}))
        await self.read(main)
        self.assertEqual(await self.counts(), UnreadCount())

    async def test_reply_in_a_thread_reads_that_thread(self) -> None:
        """Events outside the thread stay unread."""
        root = await self.say()
        await self.reply("m.thread", root)

        await self.reply("m.thread", root, by=self.bob)

        self.assertEqual(await self.counts(), UnreadCount(1, 0, {}))

    async def test_redacted_event_is_not_counted(self) -> None:
        """There is nothing left to read."""
        gone = await self.mention(self.bob)
        self.assertEqual(await self.unread(), (1, 1))

        await self.server.rooms.sending.redact(self.alice, self.room_id, gone, {}, "redaction")

        self.assertEqual(await self.unread(), (0, 0))
        await self.restart()
        self.assertEqual(await self.unread(), (0, 0))

    async def test_current_rules_apply(self) -> None:
        """Muting a room clears its count."""
        await self.say()
        self.assertEqual(await self.unread(), (1, 0))
        muted = PushRule(self.room_id, default=False, enabled=True, actions=[])

        await self.set_rules(RuleSet().put("room", muted))
        self.assertEqual(await self.unread(), (0, 0))
        await self.set_rules(RuleSet())
        self.assertEqual(await self.unread(), (1, 0))

    async def test_ignored_users_do_not_count(self) -> None:
        """Users are not notified of events that they are not shown."""
        await self.say()
        ignored = {"ignored_users": {self.alice.user_id: {}}}

        await self.server.accounts.account_data.set(
            self.bob.user_id, None, "m.ignored_user_list", ignored
        )

        self.assertEqual(await self.unread(), (0, 0))

    async def test_mention_of_the_room_is_evaluated_by_its_power_levels(self) -> None:
        """The power levels are those at the event, not those when a client syncs."""
        carol = await self.server.user("carol")
        await self.join(carol)
        whole_room = {"m.mentions": {"room": True}}
        levels = {"users": {self.bob.user_id: 50, self.alice.user_id: 100}}

        await self.say(**whole_room)
        await self.say(self.bob, **whole_room)
        await self.server.rooms.sending.set_state(
            self.alice, self.room_id, "m.room.power_levels", "", levels
        )
        self.assertEqual(await self.unread(carol), (2, 1))
        await self.say(self.bob, **whole_room)

        self.assertEqual(await self.unread(carol), (3, 2))
        await self.restart()
        self.assertEqual(await self.unread(carol), (3, 2))

    async def test_member_count_is_that_at_the_event(self) -> None:
        """A rule for rooms of two applies to events sent while there were two members."""
        condition = {"kind": "room_member_count", "is": "2"}
        silent = PushRule("two", default=False, enabled=True, actions=[], conditions=[condition])
        await self.set_rules(RuleSet().put("override", silent))
        await self.say()
        await self.join(await self.server.user("carol"))
        await self.say()

        self.assertEqual(await self.unread(), (1, 0))
        await self.restart()
        self.assertEqual(await self.unread(), (1, 0))

    async def test_display_name_is_that_of_the_room(self) -> None:
        """Old push rules search for it."""
        condition = {"kind": "contains_display_name"}
        actions = ["notify", {"set_tweak": "highlight"}]
        mentioned = PushRule(
            "name", default=False, enabled=True, actions=actions, conditions=[condition]
        )
        await self.set_rules(RuleSet().put("override", mentioned))
        content = {"membership": "join", "displayname": "Robert"}
        await self.server.rooms.sending.set_state(
            self.bob, self.room_id, "m.room.member", self.bob.user_id, content
        )

        await self.say(body="Ask robert.")
        await self.say(body="Ask bob.")

        self.assertEqual(await self.unread(), (2, 1))

    async def test_counts_survive_a_restart(self) -> None:
        """A restart for an update does not change the badges."""
        root = await self.say()
        await self.read(root)
        await self.reply("m.thread", root)
        await self.mention(self.bob)
        before = await self.counts()

        await self.restart()

        self.assertEqual(before, UnreadCount(2, 1, {root: (1, 0)}))
        self.assertEqual(await self.counts(), before)

    async def test_long_absence_is_counted_up_to_a_bound(self) -> None:
        """A user who was absent for long sees a bounded count, and still sees mentions."""
        first = await self.say()
        await self.read(first)
        self.assertEqual(await self.unread(), (0, 0))
        await self.mention(self.bob)
        await self.burst(WINDOW + 50)

        before_restart = await self.unread()
        await self.restart()

        self.assertEqual(await self.unread(), (WINDOW + 1, 1))
        self.assertEqual(before_restart, (WINDOW + 1, 1))

    async def test_count_beyond_memory_is_read_from_the_database(self) -> None:
        """The newest events in memory do not reach back to the receipt."""
        await self.read(await self.say())
        await self.burst(200)

        await self.restart()

        self.assertEqual(await self.unread(), (200, 0))
        await self.say()
        self.assertEqual(await self.unread(), (201, 0))

    async def test_new_messages_cost_no_query(self) -> None:
        """A delivery to a hundred members does not cost a hundred queries."""
        await self.unread()
        await self.say()
        room = await self.server.core.registry.get(self.room_id)
        runs = self.db.runs

        count = self.server.sync.push.unread_counts.cached(room, self.bob.user_id)

        self.assertEqual(count, UnreadCount(1, 0, {}))
        self.assertEqual(self.db.runs, runs)

    async def test_members_who_have_read_the_same_are_counted_together(self) -> None:
        """A message in a group of a hundred is counted once, not a hundred times."""
        carol, dave = await self.server.user("carol"), await self.server.user("dave")
        members = self.bob, carol, dave
        for member in (carol, dave):
            await self.say()
            await self.join(member)
            await self.counters(self.bob)
        await self.say()
        last = await self.say()
        before = await self.counters(*members)
        for member in members:
            await self.server.sync.markers.mark(member, self.room_id, READ, last)
        await self.say()
        read = await self.counters(*members)
        await self.mention(carol)
        mentioned = await self.counters(*members)
        await self.say(dave)
        spoken = await self.counters(*members)

        self.assertEqual([one.count().notification for one in before], [4, 3, 2])
        self.assertEqual([one.count().notification for one in read], [1, 1, 1])
        self.assertEqual(len({one.unread for one in read}), 1)
        self.assertEqual([one.count().highlight for one in mentioned], [0, 1, 0])
        self.assertIs(mentioned[0].unread, mentioned[2].unread)
        self.assertEqual([one.count().notification for one in spoken], [3, 3, 0])

    async def test_members_are_counted_by_their_own_rules(self) -> None:
        """Members who mute a room or ignore a user are counted separately."""
        account_data = self.server.accounts.account_data
        users = {name: await self.server.user(name) for name in ("carol", "dave", "erin")}
        for user in users.values():
            await self.join(user)
        mute = PushRule("m", default=False, enabled=True, actions=[], conditions=[])
        await self.set_rules(RuleSet().put("override", mute))
        ignored = {"ignored_users": {self.alice.user_id: {}}}
        await account_data.set(users["carol"].user_id, None, "m.ignored_user_list", ignored)
        by_name = {"kind": "contains_display_name"}
        mentioned = PushRule("n", default=False, enabled=True, actions=[], conditions=[by_name])
        rules = RuleSet().put("override", mentioned).content_for(users["dave"].user_id)
        await account_data.set(users["dave"].user_id, None, "m.push_rules", rules)
        await self.server.rooms.sending.set_state(
            users["dave"],
            self.room_id,
            "m.room.member",
            users["dave"].user_id,
            {"membership": "join", "displayname": "Dave"},
        )
        members = self.bob, *users.values()
        await self.counters(*members)

        await self.say(body="For Dave")
        await self.counters(*members)
        await self.say()

        counts = [counter.count().notification for counter in await self.counters(*members)]
        self.assertEqual(counts, [0, 0, 1, 2])

    async def test_sync_has_the_counts(self) -> None:
        """Clients show the server's counts, by thread if they request it."""
        root = await self.mention(self.bob)
        await self.reply("m.thread", root)
        wanted = {"room": {"timeline": {"unread_thread_notifications": True}}}

        plain = await self.server.update(self.bob)
        threaded = await self.server.update(self.bob, wanted=wanted)

        section = plain["rooms"]["join"][self.room_id]
        self.assertEqual(
            section["unread_notifications"], {"notification_count": 2, "highlight_count": 1}
        )
        self.assertNotIn("unread_thread_notifications", section)
        section = threaded["rooms"]["join"][self.room_id]
        self.assertEqual(
            section["unread_notifications"], {"notification_count": 1, "highlight_count": 1}
        )
        self.assertEqual(
            section["unread_thread_notifications"],
            {root: {"notification_count": 1, "highlight_count": 0}},
        )

    async def test_sync_has_new_counts_with_the_event_and_the_receipt(self) -> None:
        """A badge goes up with the message and down on all devices with the receipt."""
        wanted = {"room": {"ephemeral": {"types": []}}}
        since = (await self.server.update(self.bob))["next_batch"]
        event_id = await self.say()
        with_event = await self.server.update(self.bob, since)
        await self.read(event_id)

        with_receipt = await self.server.update(self.bob, with_event["next_batch"])
        without = await self.server.update(self.bob, with_event["next_batch"], wanted)

        self.assertEqual(self._count(with_event), 1)
        self.assertEqual(self._count(with_receipt), 0)
        self.assertEqual(self._count(without), 0)

    def _count(self, response: dict[str, Any]) -> int:
        section = response["rooms"]["join"][self.room_id]
        count: int = section["unread_notifications"]["notification_count"]
        return count
