"""Unknown users in the namespace of an application service, which creates them."""

import dataclasses
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, DeferredList

from appservices.queries import unknown_names
from homeserver.concurrency.backoff import RetrySchedule
from homeserver.config.sections.limits import RateSettings
from tests.appservices.fake_bridge import Answer, Asked, never
from tests.appservices.queries.support import USERS, BridgedTestCase
from tests.appservices.support import HS_TOKEN
from tests.support.reactor import together
from tests.support.watcher import eventually

OLD = "/users/"
CAROL = "@_irc_carol:example.org"


class UnknownUsersTests(BridgedTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")

    async def invite(self, room: str, user_id: str) -> None:
        await self.alice.post(f"/rooms/{quote(room)}/invite", {"user_id": user_id})

    async def test_an_invite_creates_the_user(self) -> None:
        """All people on IRC can be invited by name."""
        self.bridge.answers[USERS] = self.creates_users()
        room = await self.alice.create_room()

        await self.invite(room, CAROL)

        member = (await self.alice.full_state(room))["m.room.member", CAROL]["content"]
        self.assertEqual(member["membership"], "invite")
        self.assertEqual(member["displayname"], "_irc_carol")
        (asked,) = self.bridge.requests
        self.assertEqual((asked.method, asked.path), ("GET", USERS + CAROL))
        self.assertEqual(asked.token, f"{HS_TOKEN} irc")

    async def test_a_state_event_and_a_new_room_create_the_user(self) -> None:
        """All ways to invite are alike."""
        self.bridge.answers[USERS] = self.creates_users()
        room = await self.alice.create_room(invite=[self.as_user("_irc_dave")])

        await self.alice.set_state(room, "m.room.member", {"membership": "invite"}, CAROL)

        self.assertEqual(len(self.bridge.requests), 2)
        state = await self.alice.full_state(room)
        for user_id in (CAROL, "@_irc_dave:example.org"):
            member = state["m.room.member", user_id]
            self.assertEqual(member["content"]["membership"], "invite")

    async def test_a_profile_query_creates_the_user(self) -> None:
        """A name that was typed into a search field is found."""
        self.bridge.answers[USERS] = self.creates_users()

        profile = await self.anybody.get(f"/profile/{quote(CAROL)}")

        self.assertEqual(profile, {"displayname": "_irc_carol"})

    async def test_concurrent_questions_are_one(self) -> None:
        """A bridge is not asked twice at a time for the same user."""
        self.bridge.answers[USERS] = self.creates_users()

        profiles = await together(*(self.anybody.get(f"/profile/{quote(CAROL)}") for _ in range(5)))

        self.assertEqual(profiles, [{"displayname": "_irc_carol"}] * 5)
        self.assertEqual(len(self.bridge.requests), 1)

    async def test_a_negative_answer_is_remembered(self) -> None:
        """A bridge is not asked again and again for a user who does not exist."""
        room = await self.alice.create_room()

        for _ in range(3):
            await self.assert_refused("M_NOT_FOUND", self.invite(room, CAROL), 404)

        self.assertEqual([each.path for each in self.bridge.requests], [USERS + CAROL, OLD + CAROL])

    async def test_a_user_who_was_registered_meanwhile_exists(self) -> None:
        """A negative answer is forgotten when the bridge creates the user of its own accord."""
        await self.assert_refused("M_NOT_FOUND", self.anybody.get(f"/profile/{quote(CAROL)}"))

        await self.ghost("_irc_carol")

        profile = await self.anybody.get(f"/profile/{quote(CAROL)}")
        self.assertEqual(profile, {"displayname": "_irc_carol"})

    async def test_a_bridge_that_only_says_yes_creates_nobody(self) -> None:
        """An answer is no user."""
        self.bridge.answers[USERS] = lambda _: Answer()

        await self.assert_refused("M_NOT_FOUND", self.anybody.get(f"/profile/{quote(CAROL)}"))

    async def test_others_are_not_asked_for(self) -> None:
        """A bridge learns nothing of users outside of its namespaces, or of its own requests."""
        bot = self.bot()
        room = await bot.create_room()
        for user_id in ("@nobody:example.org", "@_irc_carol:remote.example"):
            await self.assert_refused(
                "M_NOT_FOUND", self.anybody.get(f"/profile/{quote(user_id)}"), 404
            )

        await self.assert_refused(
            "M_NOT_FOUND", bot.post(f"/rooms/{quote(room)}/invite", {"user_id": CAROL}), 404
        )

        self.assertEqual(self.bridge.requests, [])

    async def test_an_old_bridge_is_asked_at_its_old_path(self) -> None:
        """Bridges that know only the paths of old versions work, too."""
        create = self.creates_users()
        self.bridge.answers[OLD] = lambda asked: create(
            dataclasses.replace(asked, path=USERS + asked.path.removeprefix(OLD))
        )

        profile = await self.anybody.get(f"/profile/{quote(CAROL)}")

        self.assertEqual(profile, {"displayname": "_irc_carol"})

    async def test_names_are_quoted(self) -> None:
        """No name of a user reaches another path of the bridge."""
        user_id = "@_irc_a/../../x?y=#z%2f:example.org"

        await self.assert_refused(
            "M_NOT_FOUND", self.anybody.get(f"/profile/{quote(user_id, safe='')}")
        )

        self.assertEqual(self.bridge.requests[0].path, USERS + user_id)
        self.assertEqual(self.bridge.requests[0].query, {})


class BrokenBridgeTests(BridgedTestCase):
    async def setUp(self) -> None:
        self.patch(unknown_names, "TOTAL_SECONDS", 1.5)
        self.patch(unknown_names, "ATTEMPT_SECONDS", 0.5)
        self.patch(unknown_names, "PAUSES", RetrySchedule((0.1,)))
        await super().setUp()

    async def profile(self, user_id: str = CAROL) -> Any:
        return await self.anybody.get(f"/profile/{quote(user_id)}")

    async def test_a_bridge_that_is_away_costs_a_bounded_time(self) -> None:
        """Refused connections, errors, garbage and silence are one: the client may try again."""
        alice = await self.register("alice")
        answers = {
            "silence": never,
            "500": lambda _: Answer(500, b"<html>"),
            "too large": lambda _: Answer(200, b"x" * 10_000_000),
        }
        for number, (name, answer) in enumerate(answers.items()):
            with self.subTest(name):
                self.bridge.answers[USERS] = answer

                await self.assert_refused(
                    "M_UNKNOWN", self.profile(f"@_irc_{number}:example.org"), 408
                )

        await self.bridge.stop()
        await self.assert_refused("M_UNKNOWN", self.profile(), 408)
        await alice.create_room()

    async def test_a_redirect_is_not_followed(self) -> None:
        """The token of this server goes to the bridge's address, and nowhere else."""
        self.bridge.answers[USERS] = lambda _: Answer(
            302, b"", {"Location": f"{self.bridge.url}/remote"}
        )

        await self.assert_refused("M_NOT_FOUND", self.profile(), 404)

        self.assertEqual(self.bridge.asked("/remote"), [])

    async def test_one_failure_is_cured_by_another_attempt(self) -> None:
        """A bridge that is being restarted loses no invite."""
        create = self.creates_users()

        def answer(asked: Asked) -> Any:
            return Answer(502, b"") if len(self.bridge.requests) == 1 else create(asked)

        self.bridge.answers[USERS] = answer

        self.assertEqual(await self.profile(), {"displayname": "_irc_carol"})

    async def test_a_silent_bridge_delays_no_other(self) -> None:
        """The slots of one bridge are not those of another, and one party does not take all."""
        self.bridge.answers[USERS] = never
        names = [f"@_irc_{number}:example.org" for number in range(30)]
        waiting = [Deferred.fromCoroutine(self.profile(name)) for name in names]

        outcomes = await DeferredList(waiting, consumeErrors=True)

        statuses = sorted(failure.value.status for _, failure in outcomes)
        self.assertEqual(set(statuses), {408, 429})
        self.assertLessEqual(len(self.bridge.requests), 3 * 3 * 2)

    async def test_the_server_stops_while_a_bridge_is_silent(self) -> None:
        """No bridge keeps the server from stopping."""
        self.patch(unknown_names, "TOTAL_SECONDS", 100.0)
        self.patch(unknown_names, "ATTEMPT_SECONDS", 100.0)
        self.bridge.answers[USERS] = never
        asking = Deferred.fromCoroutine(self.profile())

        async def is_asked() -> bool:
            return bool(self.bridge.requests)

        await eventually(is_asked, "the bridge is asked")

        stopping = Deferred.fromCoroutine(self.server.stop())

        await self.assert_refused("M_UNKNOWN", asking, 408)
        self.assertTrue(await stopping)


class StrangersTests(BridgedTestCase):
    async def setUp(self) -> None:
        rate = RateSettings(per_second=0.001, burst=2)
        self.patch(unknown_names, "STRANGERS_RATE", rate)
        await super().setUp()

    async def test_strangers_together_ask_for_few(self) -> None:
        """A flood from many addresses does not reach a bridge, and does not stop local users."""
        for number in range(2):
            await self.assert_refused(
                "M_NOT_FOUND", self.anybody.get(f"/profile/@_irc_{number}:example.org"), 404
            )

        await self.assert_refused(
            "M_LIMIT_EXCEEDED", self.anybody.get(f"/profile/{quote(CAROL)}"), 429
        )

        self.bridge.answers[USERS] = self.creates_users()
        alice = await self.register("alice")
        room = await alice.create_room(invite=[self.as_user("_irc_carol")])
        self.assertIn(("m.room.member", CAROL), await alice.full_state(room))


class BoundedPartiesTests(BridgedTestCase):
    settings = {  # noqa: RUF012
        "rate_limits": {"appservice_query": {"per_second": 0.001, "burst": 3}}
    }

    async def test_a_stranger_asks_for_few(self) -> None:
        """Nobody has a bridge search for all names of a network."""
        for number in range(3):
            await self.assert_refused(
                "M_NOT_FOUND", self.anybody.get(f"/profile/@_irc_{number}:example.org"), 404
            )

        await self.assert_refused(
            "M_LIMIT_EXCEEDED", self.anybody.get("/profile/@_irc_3:example.org"), 429
        )

        self.assertEqual(len(self.bridge.asked(USERS)), 3)
