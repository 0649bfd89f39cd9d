"""Delayed events when they are sent: permissions, errors, crashes, and what their users see."""

from typing import Any

import psycopg
from twisted.internet.defer import Deferred

from homeserver.protocol.errors import Unavailable
from homeserver.rooms.sending import due_events
from homeserver.rooms.sending.delayed_senders import DelayedSender
from tests.api.calls.delayed_case import LONG_MS, SHORT_MS, V1, DelayedEventsTestCase
from tests.support.actors import Actor
from tests.support.reactor import until


class DelayedSendingTests(DelayedEventsTestCase):
    def set_user(self, actor: Actor, **columns: bool) -> None:
        """Change a user's account, as an administrator does."""
        assignments = ", ".join(f"{name} = {value}" for name, value in columns.items())
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                f"UPDATE users SET {assignments} WHERE user_id = %s", (actor.user_id,)
            )

    async def error_of(self, delay_id: str, by: Actor) -> str:
        """The errcode with which sending failed."""
        delayed = await self.finalised(by, delay_id)
        self.assertNotIn("event_id", delayed)
        errcode: str = delayed["error"]["errcode"]
        return errcode

    async def test_permissions_are_those_of_the_moment(self) -> None:
        """A user who has left, or lost their power, sends nothing more."""
        await self.set_power_of_bob(50)
        topic = await self.schedule(
            self.bob, event_type="m.room.topic", state_key="", content={"topic": "x"}
        )
        said = await self.schedule(self.bob)
        unknown = await self.schedule(self.bob, room="!unknown:example.org")
        await self.set_power_of_bob(0)

        self.let_be_due(topic)
        self.assertEqual(await self.error_of(topic, self.bob), "M_FORBIDDEN")
        await self.bob.leave(self.room)
        self.let_be_due(said, unknown)
        self.assertEqual(await self.error_of(said, self.bob), "M_FORBIDDEN")
        self.assertEqual(await self.error_of(unknown, self.bob), "M_NOT_FOUND")

    async def set_power_of_bob(self, level: int) -> None:
        levels = await self.alice.state(self.room, "m.room.power_levels")
        levels["users"][self.bob.user_id] = level
        await self.alice.set_state(self.room, "m.room.power_levels", levels)

    async def test_suspended_and_locked_users_send_nothing(self) -> None:
        """It would be a way around the suspension."""
        first, second = await self.schedule(self.alice), await self.schedule(self.alice)
        self.set_user(self.alice, is_suspended=True)
        self.let_be_due(first)
        self.assertEqual(await self.error_of(first, self.alice), "M_USER_SUSPENDED")
        self.set_user(self.alice, is_suspended=False)

        self.set_user(self.alice, is_locked=True)
        self.let_be_due(second)
        await until(lambda: self.outcome(second) is not None)
        self.assertIn("M_USER_LOCKED", str(self.outcome(second)))
        self.assertEqual(await self.said_to_bob(), [])

    def outcome(self, delay_id: str) -> str | None:
        """The stored error."""
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute(
                "SELECT error FROM delayed_events WHERE delay_id = %s", (delay_id,)
            ).fetchone()
        return None if row is None or row[0] is None else bytes(row[0]).decode()

    async def said_to_bob(self) -> list[str]:
        history = await self.bob.history(self.room)
        return [each["content"]["body"] for each in history if each["type"] == "m.room.message"]

    async def test_a_suspended_user_schedules_nothing(self) -> None:
        """As they send nothing."""
        self.set_user(self.alice, is_suspended=True)
        self.server.parts.account_core.access_tokens.forget_user(self.alice.user_id)

        attempt = self.schedule(self.alice)

        await self.assert_refused("M_USER_SUSPENDED", attempt, 403)

    async def test_a_deactivated_account_leaves_nothing_behind(self) -> None:
        """Neither scheduled events nor finalised ones."""
        await self.schedule(self.alice, LONG_MS)
        await self.act(self.alice, await self.schedule(self.alice), "cancel")
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.alice.user_id},
            "password": "the password of alice",
        }

        await self.alice.post("/account/deactivate", {"auth": auth})

        with psycopg.connect(self.dsn) as connection:
            rows = connection.execute("SELECT count(*) FROM delayed_events").fetchone()
        self.assertEqual(rows, (0,))

    async def test_only_the_sender_sees_the_delay_id(self) -> None:
        """On each of their devices, and wherever the event is read."""
        since = {actor: (await actor.sync())["next_batch"] for actor in (self.alice, self.bob)}
        delay_id = await self.schedule(self.alice)
        phone = await self.log_in(self.alice)
        await self.act(self.alice, delay_id, "send")
        event_id = (await self.get(self.alice, delay_id))["event_id"]

        for actor, expected in ((self.bob, None), (self.alice, delay_id), (phone, delay_id)):
            reads = [await actor.event(self.room, event_id)]
            reads += [
                each for each in await actor.history(self.room) if each["event_id"] == event_id
            ]
            synced = await actor.sync(since.get(actor, since[self.alice]))
            timeline = synced["rooms"]["join"][self.room]["timeline"]["events"]
            reads += [each for each in timeline if each["event_id"] == event_id]
            self.assertEqual(len(reads), 3)
            for each in reads:
                unsigned = each["unsigned"]
                self.assertEqual(unsigned.get("delay_id"), expected)
                self.assertEqual(unsigned.get("org.matrix.msc4140.delay_id"), expected)
                self.assertNotIn("transaction_id", unsigned)

    async def test_what_was_due_meanwhile_is_sent_after_a_restart(self) -> None:
        """In the order of the times; what is not due yet still waits."""
        for delay_ms, body in ((2_000, "second"), (1_000, "first"), (LONG_MS, "last")):
            await self.schedule(self.alice, delay_ms, content={"msgtype": "m.text", "body": body})
        await self.stop_server()
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "UPDATE delayed_events SET scheduled_ms = scheduled_ms - 10000, due_ms ="
                " due_ms - 10000"
            )
        await self.start_server()
        self.alice.url = self.url

        await self.wait_for_scheduled(1)

        self.assertEqual(await self.said(), ["second", "first"])

    async def wait_for_scheduled(self, number: int) -> None:
        """Wait until only so many are scheduled."""
        await until(lambda: self.number_scheduled() == number)

    def number_scheduled(self) -> int:
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute(
                "SELECT count(*) FROM delayed_events WHERE due_ms IS NOT NULL"
            ).fetchone()
        assert row is not None
        return int(row[0])

    async def test_an_event_is_not_sent_twice_after_a_crash(self) -> None:
        """The crash was after the event, and before the record of it."""
        delay_id = await self.schedule(self.alice)
        await self.act(self.alice, delay_id, "send")
        event_id = (await self.get(self.alice, delay_id))["event_id"]
        await self.stop_server()
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "UPDATE delayed_events SET finalised_ms = NULL, event_id = NULL,"
                " due_ms = scheduled_ms"
            )
        await self.start_server()
        self.alice.url = self.url

        delayed = await self.finalised(self.alice, delay_id)

        self.assertEqual(delayed["event_id"], event_id)
        self.assertEqual(await self.said(), ["later"])

    async def test_an_event_that_was_sent_before_a_crash_is_not_cancelled(self) -> None:
        """The user is not told that others do not see it."""
        delay_id = await self.schedule(self.alice)
        await self.act(self.alice, delay_id, "send")
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "UPDATE delayed_events SET finalised_ms = NULL, event_id = NULL,"
                " due_ms = scheduled_ms + delay_ms"
            )

        attempt = self.act(self.alice, delay_id, "cancel")

        await self.assert_refused("M_UNKNOWN", attempt, 409)

    async def test_a_temporary_error_is_repeated(self) -> None:
        """The room is there again a few seconds later."""
        self.patch(due_events, "AGAIN_MS", 100)
        send, attempts = DelayedSender.send, []

        async def fail_once(sender: DelayedSender, delayed: Any) -> str:
            attempts.append(delayed)
            if len(attempts) == 1:
                raise Unavailable("not now")
            return await send(sender, delayed)

        self.patch(DelayedSender, "send", fail_once)
        delay_id = await self.schedule(self.alice, SHORT_MS)

        delayed = await self.finalised(self.alice, delay_id)

        self.assertIn("event_id", delayed)
        self.assertEqual(len(attempts), 2)

    async def test_a_temporary_error_after_a_long_downtime_is_repeated(self) -> None:
        """The hour in which it is tried again begins with the server."""
        self.patch(due_events, "AGAIN_MS", 100)
        send, attempts = DelayedSender.send, []

        async def fail_once(sender: DelayedSender, delayed: Any) -> str:
            attempts.append(delayed)
            if len(attempts) == 1:
                raise Unavailable("not now")
            return await send(sender, delayed)

        self.patch(DelayedSender, "send", fail_once)
        delay_id = await self.schedule(self.alice)
        with psycopg.connect(self.dsn) as connection:
            connection.execute("UPDATE delayed_events SET scheduled_ms = scheduled_ms - 86400000")

        self.let_be_due(delay_id)

        self.assertIn("event_id", await self.finalised(self.alice, delay_id))

    async def test_postponed_events_are_sent_in_their_order(self) -> None:
        """The last of several states of a call stays."""
        self.patch(due_events, "AGAIN_MS", 100)
        send, attempts = DelayedSender.send, []

        async def fail_at_first(sender: DelayedSender, delayed: Any) -> str:
            attempts.append(delayed)
            if len(attempts) <= 6:
                raise Unavailable("not now")
            return await send(sender, delayed)

        self.patch(DelayedSender, "send", fail_at_first)
        bodies = [f"{number}" for number in range(6)]
        ids = [
            await self.schedule(self.alice, LONG_MS + number, content={"body": body})
            for number, body in enumerate(bodies)
        ]

        self.let_be_due(*ids)
        for each in ids:
            await self.finalised(self.alice, each)

        self.assertEqual((await self.said())[::-1], bodies)

    async def test_a_defect_does_not_stop_the_others(self) -> None:
        """The event fails, and the user finds out."""
        send = DelayedSender.send

        async def fail(sender: DelayedSender, delayed: Any) -> str:
            if delayed.user_id == self.alice.user_id:
                raise ZeroDivisionError
            return await send(sender, delayed)

        self.patch(DelayedSender, "send", fail)
        broken = await self.schedule(self.alice, SHORT_MS)
        good = await self.schedule(self.bob, SHORT_MS)

        self.assertEqual(await self.error_of(broken, self.alice), "M_UNKNOWN")
        self.assertIn("event_id", await self.finalised(self.bob, good))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_an_event_that_takes_long_delays_nobody_else(self) -> None:
        """Another server is asked for it, and does not respond."""
        self.patch(due_events, "WAIT_SECONDS", 0.1)
        self.patch(due_events, "AGAIN_MS", 100)
        send, hanging = DelayedSender.send, Deferred[None]()
        attempts = []

        async def hang(sender: DelayedSender, delayed: Any) -> str:
            attempts.append(delayed.user_id)
            if delayed.user_id == self.alice.user_id:
                await hanging
            return await send(sender, delayed)

        self.patch(DelayedSender, "send", hang)
        slow = await self.schedule(self.alice, SHORT_MS)
        await until(lambda: self.alice.user_id in attempts)

        good = await self.schedule(self.bob, SHORT_MS)

        self.assertIn("event_id", await self.finalised(self.bob, good))
        self.assertEqual(attempts.count(self.alice.user_id), 1)
        hanging.callback(None)
        self.assertIn("event_id", await self.finalised(self.alice, slow))

    async def test_redactions_and_memberships_can_be_delayed(self) -> None:
        """A message that is redacted later, or a user who leaves a room later."""
        said = await self.bob.say(self.room, "for a moment")
        redaction = await self.schedule(
            self.bob, SHORT_MS, event_type="m.room.redaction", content={"redacts": said}
        )
        leaving = await self.schedule(
            self.bob,
            SHORT_MS,
            event_type="m.room.member",
            state_key=self.bob.user_id,
            content={"membership": "leave"},
        )

        await self.finalised(self.bob, redaction)
        await self.finalised(self.bob, leaving)

        self.assertIn("redacted_because", (await self.alice.event(self.room, said))["unsigned"])
        member = await self.alice.state(self.room, "m.room.member", self.bob.user_id)
        self.assertEqual(member["membership"], "leave")


class LimitedSendingTests(DelayedEventsTestCase):
    settings = {  # noqa: RUF012  # as in the base class
        "rate_limits": {"message": {"per_second": 0.001, "burst": 4}}
    }

    async def test_sending_is_rate_limited(self) -> None:
        """Many events that are due at the same moment are a flood like any other."""
        self.patch(due_events, "AGAIN_MS", 100)
        self.patch(due_events, "GIVE_UP_MS", 300 - LONG_MS)
        ids = [await self.schedule(self.alice) for _ in range(3)]

        self.let_be_due(*ids)
        outcomes = [await self.finalised(self.alice, each) for each in ids]

        errors = [each["error"]["errcode"] for each in outcomes if "error" in each]
        self.assertEqual(errors, ["M_LIMIT_EXCEEDED"] * 2)

    async def test_limited_events_wait(self) -> None:
        """A client that has disappeared cannot repeat the event with which it leaves a call."""
        self.patch(due_events, "AGAIN_MS", 100)
        ids = [await self.schedule(self.alice) for _ in range(3)]
        self.let_be_due(*ids)
        await self.finalised(self.alice, ids[0])

        limits = self.server.parts.rooms.delayed_events._sender._rate_limits
        limits.override(self.alice.user_id, None)
        outcomes = [await self.finalised(self.alice, each) for each in ids]

        self.assertEqual(["event_id" in each for each in outcomes], [True] * 3)

    async def test_sending_at_once_is_rate_limited(self) -> None:
        """The event stays scheduled, and can be sent later."""
        ids = [await self.schedule(self.alice) for _ in range(3)]
        await self.act(self.alice, ids[0], "send")

        attempt = self.act(self.alice, ids[1], "send")

        await self.assert_refused("M_LIMIT_EXCEEDED", attempt, 429)
        listed = await self.alice.request("GET", f"{V1}/delayed_events")
        self.assertEqual(len(listed["delayed_events"]), 2)
