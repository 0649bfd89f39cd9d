"""Delayed events over the API, in the form of the proposal."""

from typing import Any

import psycopg

from homeserver.rooms.sending import delayed_events
from homeserver.storage.accounts import delayed_events as storage
from tests.api.calls.delayed_case import LONG_MS, SHORT_MS, V1, DelayedEventsTestCase


class SchedulingTests(DelayedEventsTestCase):
    async def test_an_event_is_sent_after_its_delay(self) -> None:
        """Not before, and then once."""
        delay_id = await self.schedule(self.alice, SHORT_MS)

        delayed = await self.finalised(self.alice, delay_id)

        event = await self.alice.event(self.room, delayed["event_id"])
        self.assertEqual(event["content"]["body"], "later")
        self.assertGreaterEqual(event["origin_server_ts"], delayed["scheduled_at"] + SHORT_MS)
        self.assertGreaterEqual(delayed["finalised_ts"], delayed["scheduled_at"] + SHORT_MS)
        self.assertNotIn("error", delayed)
        self.assertEqual(await self.said(), ["later"])
        self.assertEqual(await self.scheduled(self.alice), [])

    async def test_a_state_event_has_a_state_key(self) -> None:
        """The end of one's part in a call is state."""
        content = {"left": True}
        delay_id = await self.schedule(
            self.alice, SHORT_MS, event_type="org.example", state_key="me", content=content
        )

        await self.finalised(self.alice, delay_id)

        self.assertEqual(await self.alice.state(self.room, "org.example", "me"), content)

    async def test_what_is_scheduled_is_listed_for_its_user(self) -> None:
        """In the order in which it will be sent."""
        last = await self.schedule(self.alice, LONG_MS)
        first = await self.schedule(
            self.alice, 30_000, event_type="m.x", state_key="", content={"a": 1}
        )

        self.assertEqual(await self.scheduled(self.alice), [first, last])
        self.assertEqual(await self.scheduled(self.bob), [])
        delayed = await self.get(self.alice, first)
        self.assertIsInstance(delayed.pop("scheduled_at"), int)
        self.assertEqual(
            delayed,
            {
                "delay_id": first,
                "room_id": self.room,
                "type": "m.x",
                "state_key": "",
                "delay_ms": 30_000,
                "content": {"a": 1},
            },
        )
        self.assertNotIn("state_key", await self.get(self.alice, last))

    async def test_a_repeated_request_schedules_once(self) -> None:
        """A client that got no response asks once more, with another delay at most."""
        first = await self.schedule(self.alice, txn_id="same")

        self.assertEqual(await self.schedule(self.alice, 5_000, txn_id="same"), first)
        self.assertNotEqual(await self.schedule(self.alice, event_type="m.x", txn_id="same"), first)
        self.assertNotEqual(await self.schedule(self.bob, txn_id="same"), first)
        self.assertEqual(len(await self.scheduled(self.alice)), 2)

    async def test_guests_schedule_events(self) -> None:
        """They take part in calls, too."""
        await self.alice.set_state(self.room, "m.room.guest_access", {"guest_access": "can_join"})
        guest = await self.register_guest()
        await guest.join(self.room)
        delay_id = await self.schedule(guest, SHORT_MS)

        delayed = await self.finalised(guest, delay_id)

        self.assertIn("event_id", delayed)

    async def test_nonsense_is_refused(self) -> None:
        """With the errors of the specification, and nothing is stored."""
        for body, errcode, status in (
            ({"delay_ms": 0}, "M_INVALID_PARAM", 400),
            ({"delay_ms": -5}, "M_INVALID_PARAM", 400),
            ({"delay_ms": 1.5}, "M_BAD_JSON", 400),
            ({"delay_ms": "1"}, "M_BAD_JSON", 400),
            ({"content": []}, "M_BAD_JSON", 400),
            ({"state_key": 1}, "M_BAD_JSON", 400),
            ({"state_key": "x" * 256}, "M_TOO_LARGE", 413),
            ({"state_key": "\0"}, "M_BAD_JSON", 400),
            ({"event_type": "m.%00"}, "M_INVALID_PARAM", 400),
            ({"room": "!" + "x" * 300}, "M_TOO_LARGE", 413),
            ({"content": {"body": "x" * 66_000}}, "M_TOO_LARGE", 413),
        ):
            attempt = self.schedule(self.alice, **{"delay_ms": LONG_MS, **body})
            await self.assert_refused(errcode, attempt, status)
        for path in ("x" * 300, "unknown"):
            await self.assert_refused("M_NOT_FOUND", self.get(self.alice, path), 404)
            await self.assert_refused("M_NOT_FOUND", self.act(self.alice, path, "cancel"), 404)
        unknown = self.act(self.alice, "unknown", "explode")
        await self.assert_refused("M_UNRECOGNIZED", unknown, 404)

        self.assertEqual(await self.scheduled(self.alice), [])


class LimitTests(DelayedEventsTestCase):
    settings = {  # noqa: RUF012  # as in the base class
        "delayed_events": {"max_delay": 3_600, "max_scheduled": 3}
    }

    async def test_the_capability_says_what_is_allowed(self) -> None:
        """Clients look for it by both names."""
        capabilities = (await self.alice.get("/capabilities"))["capabilities"]

        allowed = {"max_delay_ms": 3_600_000, "max_scheduled": 3}
        self.assertEqual(capabilities["m.delayed_events"], allowed)
        self.assertEqual(capabilities["org.matrix.msc4140.delayed_events"], allowed)

    async def test_a_delay_is_bounded(self) -> None:
        """The longest one is allowed."""
        await self.schedule(self.alice, 3_600_000)

        refused = await self.assert_refused(
            "M_FORBIDDEN", self.schedule(self.alice, 3_600_001), 403
        )

        self.assertEqual(refused.body["org.matrix.msc4140.max_delay"], 3_600_000)

    async def test_the_number_of_a_user_is_bounded(self) -> None:
        """The error says when the next one is sent; what is finalised does not count."""
        ids = [await self.schedule(self.alice, LONG_MS + number) for number in range(3)]

        refused = await self.assert_refused("M_LIMIT_EXCEEDED", self.schedule(self.alice), 429)

        self.assertLessEqual(refused.body["retry_after_ms"], LONG_MS)
        self.assertGreater(refused.body["retry_after_ms"], LONG_MS - 20_000)
        await self.schedule(self.bob)
        await self.act(self.alice, ids[0], "cancel")
        await self.schedule(self.alice)

    async def test_the_bytes_of_a_user_are_bounded(self) -> None:
        """A few large events are as much as many small ones."""
        self.patch(delayed_events, "MAX_SCHEDULED_BYTES", 1_000)
        await self.schedule(self.alice, content={"body": "x" * 600})

        attempt = self.schedule(self.alice, content={"body": "x" * 600})

        await self.assert_refused("M_LIMIT_EXCEEDED", attempt, 429)

    async def test_what_is_finalised_is_bounded(self) -> None:
        """By number and bytes of a user, and by age."""
        self.patch(delayed_events, "MAX_FINALISED", 2)
        ids = []
        for _ in range(4):
            ids.append(await self.schedule(self.alice))
            await self.act(self.alice, ids[-1], "cancel")
        ids.append(await self.schedule(self.alice))
        self.assertEqual(self.stored(), set(ids[2:]))

        self.patch(delayed_events, "MAX_FINALISED_BYTES", 150)
        large = await self.schedule(self.alice, content={"body": "x" * 99})
        await self.act(self.alice, large, "cancel")
        ids.append(await self.schedule(self.alice))
        self.assertEqual(self.stored(), {large, *ids[3:]})

        self.patch(storage, "RETENTION_MS", -1_000)
        other = await self.schedule(self.bob)
        await self.schedule(self.bob)
        await self.act(self.bob, other, "cancel")
        cleanup = self.server.parts.accounts._expiry
        await cleanup.clean_up()
        self.assertNotIn(other, self.stored())
        self.assertEqual(len(self.stored()), 3)  # they are scheduled

    def stored(self) -> set[str]:
        """The delay ids in the database."""
        with psycopg.connect(self.dsn) as connection:
            rows = connection.execute("SELECT delay_id FROM delayed_events").fetchall()
        return {row[0] for row in rows}


class SwitchedOffTests(DelayedEventsTestCase):
    settings = {"delayed_events": {"max_scheduled": 0}}  # noqa: RUF012  # as in the base class

    async def test_nothing_can_be_scheduled(self) -> None:
        """Clients find that in `/versions` and in the capability, or get an error."""
        features = (await self.anybody.request("GET", "/_matrix/client/versions"))[
            "unstable_features"
        ]
        capabilities: Any = (await self.alice.get("/capabilities"))["capabilities"]

        self.assertNotIn("org.matrix.msc4140", features)
        self.assertEqual(capabilities["m.delayed_events"]["max_scheduled"], 0)
        await self.assert_refused("M_FORBIDDEN", self.schedule(self.alice), 403)


class ActionTests(DelayedEventsTestCase):
    async def test_a_cancelled_event_is_not_sent(self) -> None:
        """A second request is as good as the first; other actions conflict."""
        delay_id, other = await self.schedule(self.alice), await self.schedule(self.alice)

        await self.act(self.alice, delay_id, "cancel")
        await self.act(self.alice, delay_id, "cancel")

        delayed = await self.get(self.alice, delay_id)
        self.assertIn("finalised_ts", delayed)
        self.assertNotIn("event_id", delayed)
        self.assertNotIn("error", delayed)
        for action in ("send", "restart"):
            attempt = self.act(self.alice, delay_id, action)
            await self.assert_refused("M_UNKNOWN", attempt, 409)
        self.let_be_due(delay_id, other)
        await self.finalised(self.alice, other)
        self.assertEqual(await self.said(), ["later"])

    async def test_an_event_is_sent_at_once(self) -> None:
        """Once, however often the client asks."""
        delay_id = await self.schedule(self.alice)

        await self.act(self.alice, delay_id, "send")
        await self.act(self.alice, delay_id, "send")

        delayed = await self.get(self.alice, delay_id)
        self.assertLess(delayed["finalised_ts"], delayed["scheduled_at"] + LONG_MS)
        self.assertEqual(await self.said(), ["later"])
        for action in ("cancel", "restart"):
            attempt = self.act(self.alice, delay_id, action)
            await self.assert_refused("M_UNKNOWN", attempt, 409)

    async def test_a_restarted_delay_begins_again(self) -> None:
        """As long as the client is there, the event is not sent."""
        delay_id = await self.schedule(self.alice)
        before = (await self.get(self.alice, delay_id))["scheduled_at"]

        await self.act(self.alice, delay_id, "restart")

        delayed = await self.get(self.alice, delay_id)
        self.assertGreater(delayed["scheduled_at"], before)
        with psycopg.connect(self.dsn) as connection:
            due = connection.execute("SELECT due_ms FROM delayed_events").fetchone()
        self.assertEqual(due, (delayed["scheduled_at"] + LONG_MS,))

    async def test_others_cannot_touch_it(self) -> None:
        """Nor can they find out whether it exists."""
        delay_id = await self.schedule(self.alice)

        for action in ("send", "cancel", "restart"):
            attempt = self.act(self.bob, delay_id, action)
            await self.assert_refused("M_NOT_FOUND", attempt, 404)
        await self.assert_refused("M_NOT_FOUND", self.get(self.bob, delay_id), 404)
        path = f"{V1}/delayed_events/{delay_id}/cancel"
        attempt = self.anybody.request("POST", path, {})
        await self.assert_refused("M_MISSING_TOKEN", attempt, 401)

        self.assertEqual(await self.scheduled(self.alice), [delay_id])

    async def test_an_error_of_sending_leaves_it_scheduled(self) -> None:
        """The user may get the permission in time."""
        delay_id = await self.schedule(
            self.bob, event_type="m.room.topic", state_key="", content={"topic": "x"}
        )

        attempt = self.act(self.bob, delay_id, "send")
        await self.assert_refused("M_FORBIDDEN", attempt, 403)

        self.assertEqual(await self.scheduled(self.bob), [delay_id])
        levels = await self.alice.state(self.room, "m.room.power_levels")
        levels["users"][self.bob.user_id] = 50
        await self.alice.set_state(self.room, "m.room.power_levels", levels)
        await self.act(self.bob, delay_id, "send")
        self.assertEqual((await self.alice.state(self.room, "m.room.topic"))["topic"], "x")
