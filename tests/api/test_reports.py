"""Reporting users, rooms and events over the API."""

from typing import Any

import psycopg

from tests.support.actors import Actor
from tests.support.server import ServerTestCase


class ReportTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")
        self.room = await self.alice.create_room(public=True)
        self.event = await self.alice.say(self.room, "something awful")

    def stored(self) -> list[tuple[Any, ...]]:
        """The stored reports: reporter, room, event, user and reason."""
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(
                "SELECT reporter, room_id, event_id, user_id, reason FROM reports ORDER BY id"
            ).fetchall()

    async def report_event(self, by: Actor, event_id: str, **body: Any) -> None:
        await by.post(f"/rooms/{self.room}/report/{event_id}", body)

    async def test_a_member_reports_an_event(self) -> None:
        """The administrators learn who said it, where, and what was wrong with it."""
        await self.bob.join(self.room)

        await self.report_event(self.bob, self.event, reason="this makes me sad", score=-100)
        await self.report_event(self.bob, self.event)

        ids = (self.bob.user_id, self.room, self.event, self.alice.user_id)
        self.assertEqual(self.stored(), [(*ids, "this makes me sad"), (*ids, "")])

    async def test_hidden_events_get_the_error_of_unknown_ones(self) -> None:
        """A user cannot find out by reporting which events exist."""
        stranger = self.report_event(self.bob, self.event, reason="")
        await self.assert_refused("M_NOT_FOUND", stranger, 404)
        content = {"history_visibility": "joined"}
        await self.alice.set_state(self.room, "m.room.history_visibility", content)
        hidden = await self.alice.say(self.room, "before Bob")
        await self.bob.join(self.room)

        for event_id in (hidden, "$missing"):
            attempt = self.report_event(self.bob, event_id, reason="")
            await self.assert_refused("M_NOT_FOUND", attempt, 404)

        self.assertEqual(self.stored(), [])

    async def test_user_who_left_cannot_report_events(self) -> None:
        """The specification requires membership; a room can still be reported."""
        await self.bob.join(self.room)
        await self.bob.leave(self.room)

        attempt = self.report_event(self.bob, self.event, reason="")

        await self.assert_refused("M_NOT_FOUND", attempt, 404)

    async def test_non_member_reports_a_room(self) -> None:
        """A user sees a room in the directory, or is invited, without being in it."""
        await self.bob.post(f"/rooms/{self.room}/report", {"reason": "spam"})

        self.assertEqual(self.stored(), [(self.bob.user_id, self.room, None, None, "spam")])

    async def test_an_unknown_room_gets_the_same_response(self) -> None:
        """A user cannot find out by reporting which rooms exist."""
        response = await self.bob.post("/rooms/!missing:example.org/report", {"reason": "spam"})

        self.assertEqual(response, {})
        self.assertEqual(self.stored(), [])

    async def test_user_reports_any_user(self) -> None:
        """The reported user may be local or remote, in a shared room or not."""
        await self.bob.post(f"/users/{self.alice.user_id}/report", {"reason": "rude"})
        await self.bob.post("/users/@eve:elsewhere.example/report", {"reason": ""})

        self.assertEqual(
            self.stored(),
            [
                (self.bob.user_id, None, None, self.alice.user_id, "rude"),
                (self.bob.user_id, None, None, "@eve:elsewhere.example", ""),
            ],
        )

    async def test_reports_that_make_no_sense_are_refused(self) -> None:
        """A client learns what is wrong with them."""
        user, room = f"/users/{self.alice.user_id}/report", f"/rooms/{self.room}/report"
        missing = self.bob.post("/users/@nobody:example.org/report", {"reason": ""})
        await self.assert_refused("M_NOT_FOUND", missing, 404)
        invalid = self.bob.post("/users/nobody/report", {"reason": ""})
        await self.assert_refused("M_INVALID_PARAM", invalid, 400)
        for path in (user, room):
            for body in ({}, {"reason": 7}):
                await self.assert_refused("M_BAD_JSON", self.bob.post(path, body), 400)
            endless = self.bob.post(path, {"reason": "x" * 4_001})
            await self.assert_refused("M_INVALID_PARAM", endless, 400)

        self.assertEqual(self.stored(), [])
