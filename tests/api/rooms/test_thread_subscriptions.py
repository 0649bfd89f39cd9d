"""Subscriptions to threads over the API."""

import psycopg
from twisted.internet.defer import Deferred, gatherResults

from homeserver.push import thread_subscriptions
from tests.api.rooms.threads_case import UNSTABLE, ThreadsTestCase
from tests.support.refused import Refused
from tests.support.server import ServerTestCase

NOT_IN_THREAD = "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD"
CONFLICT = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION"


class ThreadSubscriptionTests(ThreadsTestCase):
    async def test_manual_subscription(self) -> None:
        """It begins and ends, and is only the user's own."""
        self.assertIsNone(await self.subscription(self.alice))

        self.assertEqual(await self.subscribe(self.alice), {})
        self.assertEqual(await self.subscription(self.alice), {"automatic": False})
        self.assertIsNone(await self.subscription(self.bob))

        self.assertEqual(await self.unsubscribe(self.alice), {})
        self.assertEqual(await self.unsubscribe(self.alice), {})
        self.assertIsNone(await self.subscription(self.alice))

    async def test_manual_subscription_takes_precedence(self) -> None:
        """A mention does not make it automatic, and it makes an automatic one manual."""
        cause = await self.reply(self.bob)

        await self.subscribe(self.alice, cause)
        self.assertEqual(await self.subscription(self.alice), {"automatic": True})
        await self.subscribe(self.alice)
        await self.subscribe(self.alice, cause)

        self.assertEqual(await self.subscription(self.alice), {"automatic": False})

    async def test_event_from_before_the_unsubscription_has_no_effect(self) -> None:
        """Neither a dormant device nor a restart undoes what the user decided."""
        cause = await self.reply(self.bob)
        await self.subscribe(self.alice, cause)
        await self.unsubscribe(self.alice)

        await self.assert_refused(CONFLICT, self.subscribe(self.alice, cause), 409)
        await self.restart_server(self.alice, self.bob)
        await self.assert_refused(CONFLICT, self.subscribe(self.alice, cause), 409)

        self.assertIsNone(await self.subscription(self.alice))
        await self.subscribe(self.alice, await self.reply(self.bob))
        self.assertEqual(await self.subscription(self.alice), {"automatic": True})

    async def test_cause_lies_in_the_thread(self) -> None:
        """Its root, another thread, another room and what is unknown are refused."""
        other = await self.bob.create_room()
        causes = [
            self.root,
            await self.reply(self.bob, await self.bob.say(self.room, "another")),
            await self.bob.say(other, "hidden"),
            "$unknown",
            "garbage",
        ]

        for cause in causes:
            await self.assert_refused(NOT_IN_THREAD, self.subscribe(self.alice, cause), 400)

        self.assertIsNone(await self.subscription(self.alice))

    async def test_thread_that_cannot_be_seen(self) -> None:
        """It looks like one that does not exist, whatever is asked."""
        stranger = await self.register("stranger")
        inner = await self.reply(self.bob)
        attempts = [(stranger, self.root), (self.alice, "$unknown"), (self.alice, inner)]
        attempts += [(self.alice, "garbage"), (self.alice, "x" * 300)]

        for by, root in attempts:
            for call in (self.subscribe(by, root=root), self.unsubscribe(by, root)):
                await self.assert_refused("M_NOT_FOUND", call, 404)
            self.assertIsNone(await self.subscription(by, root))

    async def test_bodies_that_make_no_sense(self) -> None:
        """They are errors of the client, and nothing is stored."""
        for body in ({"automatic": 5}, {"automatic": True}, [], b"{"):
            with self.assertRaises(Refused) as refused:
                await self.alice.request("PUT", self.path(), body)
            self.assertEqual(refused.exception.status, 400)

        self.assertIsNone(await self.subscription(self.alice))

    async def test_changes_are_paged_backwards(self) -> None:
        """The latest change of each thread comes once, and stamps grow with the changes."""
        roots = [await self.alice.say(self.room, f"root {number}") for number in range(4)]
        for root in roots:
            await self.subscribe(self.alice, root=root)
        await self.unsubscribe(self.alice, roots[1])

        first = await self.changes(self.alice, limit=2)
        second = await self.changes(self.alice, limit=2, **{"from": first["end"]})

        stamp = first["unsubscribed"][self.room][roots[1]]["bump_stamp"]
        latest = first["subscribed"][self.room][roots[3]]
        self.assertEqual(latest, {"automatic": False, "bump_stamp": latest["bump_stamp"]})
        self.assertLess(latest["bump_stamp"], stamp)
        self.assertLess(stamp, 2**53)
        self.assertEqual({*second["subscribed"][self.room]}, {roots[0], roots[2]})
        self.assertNotIn("unsubscribed", second)
        self.assertNotIn("end", second)
        self.assertEqual(await self.changes(self.bob), {})

    async def test_changes_since_a_token(self) -> None:
        """A client gets what it missed, and no more."""
        await self.subscribe(self.alice)
        since = (await self.alice.sync())["next_batch"]
        self.assertEqual(await self.changes(self.alice, to=since), {})
        later = await self.alice.say(self.room, "later")
        await self.subscribe(self.alice, root=later)

        changes = await self.changes(self.alice, to=since)

        self.assertEqual([*changes["subscribed"][self.room]], [later])
        for query in ({"dir": "f"}, {"limit": 0}, {"from": "x"}, {"to": "x"}):
            with self.assertRaises(Refused) as refused:
                await self.changes(self.alice, **query)
            self.assertEqual(refused.exception.status, 400)

    async def test_number_is_bounded(self) -> None:
        """One user cannot fill the database; what they have can still be changed."""
        self.patch(thread_subscriptions, "MAX_OF_USER", 1)
        await self.subscribe(self.alice)
        other = await self.bob.say(self.room, "another")

        await self.assert_refused(
            "M_USER_LIMIT_EXCEEDED", self.subscribe(self.alice, root=other), 403
        )
        await self.unsubscribe(self.alice)
        await self.subscribe(self.alice)
        await self.subscribe(self.bob, root=other)

        self.assertIsNone(await self.subscription(self.alice, other))

    async def test_concurrent_requests(self) -> None:
        """All devices of a user do the same at once: that is one change."""
        cause = await self.reply(self.bob)
        attempts = [Deferred.fromCoroutine(self.subscribe(self.alice, cause)) for _ in range(8)]

        await gatherResults(attempts)

        stamp = (await self.changes(self.alice))["subscribed"][self.room][self.root]["bump_stamp"]
        await self.subscribe(self.alice, cause)
        again = (await self.changes(self.alice))["subscribed"][self.room][self.root]["bump_stamp"]
        self.assertEqual(again, stamp)

    async def test_user_who_left(self) -> None:
        """They may end what they began while they saw the thread; a banned user sees nothing."""
        await self.subscribe(self.bob)
        await self.bob.leave(self.room)
        await self.unsubscribe(self.bob)
        await self.alice.ban(self.room, self.bob)

        await self.assert_refused("M_NOT_FOUND", self.subscribe(self.bob), 404)

    async def test_nothing_is_left_of_an_erased_user(self) -> None:
        """What they followed is private."""
        await self.subscribe(self.bob)
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "bob"},
            "password": "the password of bob",
        }

        await self.bob.post("/account/deactivate", {"erase": True, "auth": auth})

        with psycopg.connect(self.dsn) as connection:
            rows = connection.execute("SELECT count(*) FROM thread_subscriptions").fetchone()
        self.assertEqual(rows, (0,))

    async def test_feature_is_announced(self) -> None:
        """Clients look for its flag, and for its push rules."""
        flags = (await self.alice.request("GET", "/_matrix/client/versions"))["unstable_features"]
        rules = await self.alice.get("/pushrules/global/postcontent/")

        self.assertTrue(flags["org.matrix.msc4306"])
        self.assertEqual(
            [rule["rule_id"] for rule in rules],
            [
                ".io.element.msc4306.rule.unsubscribed_thread",
                ".io.element.msc4306.rule.subscribed_thread",
            ],
        )

    async def test_nobody_makes_rules_of_this_kind(self) -> None:
        """But a user may switch its rules off, and on again."""
        path = "/pushrules/global/postcontent/"
        rule = f"{path}.io.element.msc4306.rule.unsubscribed_thread"
        body = {"actions": ["notify"], "conditions": []}

        await self.assert_refused("M_INVALID_PARAM", self.alice.put(f"{path}own", body), 400)
        await self.alice.put(f"{rule}/enabled", {"enabled": False})

        self.assertEqual(await self.alice.get(f"{rule}/enabled"), {"enabled": False})
        await self.restart_server(self.alice)
        self.assertEqual(await self.alice.get(f"{rule}/enabled"), {"enabled": False})


class WithoutThreadSubscriptionsTests(ServerTestCase):
    async def test_nothing_of_it_is_there(self) -> None:
        """Threads notify as the specification says, for clients that know nothing else."""
        alice = await self.register("alice")

        flags = (await alice.request("GET", "/_matrix/client/versions"))["unstable_features"]
        rules = await alice.get("/pushrules/")

        self.assertNotIn("org.matrix.msc4306", flags)
        self.assertNotIn("postcontent", rules["global"])
        path = f"{UNSTABLE}/io.element.msc4308/thread_subscriptions"
        await self.assert_refused(
            "M_UNRECOGNIZED", alice.request("GET", path, query={"dir": "b"}), 404
        )
