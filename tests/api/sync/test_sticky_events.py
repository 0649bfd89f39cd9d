"""Sticky events over the API: who sends them, and who gets them.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4354
"""

import json
from typing import Any

import psycopg

from homeserver.rooms.sticky import room_sticky_events, sticky_events
from homeserver.sync.sections import sticky_sections
from tests.api.sync.sticky_case import (
    DURATION,
    FIELD,
    HOUR_MS,
    TTL,
    StickyTestCase,
    section,
    sticky,
    timeline,
)
from tests.support.actors import CLIENT
from tests.support.reactor import pause


class SendingTests(StickyTestCase):
    async def test_an_event_says_for_how_long_it_sticks(self) -> None:
        """Clients of today know the proposal's own name, later ones the other."""
        for name in (DURATION, "sticky_duration_ms"):
            event_id = await self.stick(self.alice, duration=300_000, name=name)

            event = await self.bob.event(self.room, event_id)

            self.assertEqual(event[FIELD], {"duration_ms": 300_000})
            self.assertEqual(event["sticky"], {"duration_ms": 300_000})
            self.assertTrue(290_000 < event["unsigned"][TTL] <= 300_000)
            self.assertEqual(event["unsigned"]["sticky_duration_ttl_ms"], event["unsigned"][TTL])

    async def test_state_may_be_sticky(self) -> None:
        """A client renews it with the same content, which has no effect otherwise."""
        path = f"{CLIENT}/rooms/{self.room}/state/m.x/key"
        sent = [
            (await self.alice.request("PUT", path, {"a": 1}, query={DURATION: HOUR_MS}))["event_id"]
            for _ in range(2)
        ]

        event = await self.bob.event(self.room, sent[1])

        self.assertNotEqual(*sent)
        self.assertEqual(event[FIELD], {"duration_ms": HOUR_MS})

    async def test_a_duration_is_at_most_an_hour(self) -> None:
        """A client that gets an error knows that its event would be gone too early."""
        for duration in (HOUR_MS + 1, -1, "", "1.5", "x", 2**64, "٣", [1, 2]):
            await self.assert_refused(
                "M_INVALID_PARAM", self.stick(self.alice, duration=duration), 400
            )
        await self.stick(self.alice, duration=0)

    async def test_a_membership_is_not_sticky(self) -> None:
        """Who is in a room is state that everybody gets anyway."""
        path = f"{CLIENT}/rooms/{self.room}/state/m.room.member/{self.alice.user_id}"
        attempt = self.alice.request("PUT", path, {"membership": "join"}, query={DURATION: 1})

        await self.assert_refused("M_INVALID_PARAM", attempt, 400)

    async def test_a_repeated_request_sends_nothing_more(self) -> None:
        """The response may have got lost."""
        first = await self.stick(self.alice, txn_id="same")

        again = await self.stick(self.alice, txn_id="same")

        self.assertEqual(first, again)

    async def test_a_redacted_event_does_not_stick(self) -> None:
        """It says nothing any more, so nobody needs to get it."""
        event_id = await self.stick(self.alice)
        await self.alice.redact(self.room, event_id)
        await self.bury()

        event = await self.bob.event(self.room, event_id)
        response = await self.bob.sync()

        self.assertNotIn(FIELD, event)
        self.assertNotIn(TTL, event["unsigned"])
        self.assertEqual(sticky(response, self.room), [])

    async def test_a_guest_may_send_them(self) -> None:
        """Guests take part in calls, too."""
        guest = await self.register_guest()
        await self.alice.set_state(self.room, "m.room.guest_access", {"guest_access": "can_join"})
        await guest.join(self.room)

        event_id = await self.stick(guest)
        await self.bury()

        self.assertEqual(sticky(await self.bob.sync(), self.room), [event_id])

    async def test_the_flag_is_shown(self) -> None:
        """Clients look for it."""
        versions = await self.anybody.request("GET", "/_matrix/client/versions")

        self.assertTrue(versions["unstable_features"]["org.matrix.msc4354"])


class SyncTests(StickyTestCase):
    async def test_an_initial_sync_has_all_that_stick(self) -> None:
        """A client that shows a call knows who is in it, however much was said since."""
        event_ids = [await self.stick(self.alice, text=f"{number}") for number in range(3)]
        await self.bury()

        response = await self.bob.sync()

        events = section(response, self.room)[FIELD]["events"]
        self.assertEqual(sticky(response, self.room), event_ids)
        self.assertEqual(section(response, self.room)["sticky"]["events"], events)
        self.assertEqual(events[0]["content"], {"body": "0"})
        self.assertEqual(events[0][FIELD], {"duration_ms": HOUR_MS})
        self.assertTrue(HOUR_MS - 60_000 < events[0]["unsigned"][TTL] <= HOUR_MS)
        self.assertNotIn("room_id", events[0])

    async def test_a_timeline_with_the_event_is_enough(self) -> None:
        """Nothing comes twice in one response."""
        event_id = await self.stick(self.alice)

        response = await self.bob.sync()

        self.assertIn(event_id, timeline(response, self.room))
        self.assertNotIn(FIELD, section(response, self.room))
        events = section(response, self.room)["timeline"]["events"]
        self.assertIn(TTL, events[-1]["unsigned"])

    async def test_an_event_comes_once(self) -> None:
        """As in a timeline: a later sync does not have it again."""
        since = (await self.bob.sync())["next_batch"]
        event_id = await self.stick(self.alice)
        await self.bury()

        second = await self.bob.sync(since)
        third = await self.bob.sync(second["next_batch"])
        await self.alice.say(self.room, "more")
        fourth = await self.bob.sync(second["next_batch"])

        self.assertTrue(section(second, self.room)["timeline"]["limited"])
        self.assertEqual(sticky(second, self.room), [event_id])
        self.assertNotIn("rooms", third)
        self.assertEqual(sticky(fourth, self.room), [])

    async def test_a_filter_of_the_timeline_hides_none(self) -> None:
        """Deduplication comes after the filter."""
        since = (await self.bob.sync())["next_batch"]
        event_id = await self.stick(self.alice)
        for wanted in (
            {"timeline": {"types": ["m.room.message"]}},
            {"timeline": {"limit": 0}},
            {"timeline": {"not_rooms": [self.room]}},
        ):
            text = json.dumps({"room": wanted})
            for token in (None, since):
                response = await self.bob.sync(token, filter=text)

                self.assertEqual(sticky(response, self.room), [event_id], (wanted, token))

    async def test_lazy_loading_includes_the_members_who_sent_them(self) -> None:
        """A client shows nobody in a call whom it does not know to be in the room."""
        # The names of five members stand for the room's, and these come in any case.
        members = [await self.register(name) for name in "cdefghi"]
        for member in members:
            await member.join(self.room)
        carol = members[-1]
        text = json.dumps({"room": {"state": {"lazy_load_members": True}}})
        since = (await self.bob.sync(filter=text))["next_batch"]
        await self.stick(carol)
        await self.bury()

        for token in (None, since):
            response = await self.bob.sync(token, filter=text)

            events = section(response, self.room)["state"]["events"]
            keys = [each["state_key"] for each in events if each["type"] == "m.room.member"]
            self.assertEqual(keys.count(carol.user_id), 1, token)
            self.assertNotIn(members[-2].user_id, keys)

    async def test_a_room_that_the_filter_excludes_is_not_there(self) -> None:
        """A client that does not want a room gets nothing of it."""
        await self.stick(self.alice)
        text = json.dumps({"room": {"not_rooms": [self.room]}})

        response = await self.bob.sync(filter=text)

        self.assertEqual(section(response, self.room), {})

    async def test_the_format_and_the_fields_that_a_client_wants_apply(self) -> None:
        """They are those of all events of a response."""
        await self.stick(self.alice)
        await self.bury()
        text = json.dumps({"event_fields": ["content.body"]})

        response = await self.bob.sync(filter=text)

        events = section(response, self.room)[FIELD]["events"]
        self.assertEqual(events, [{"content": {"body": "here"}}])

    async def test_who_joins_gets_all_that_stick(self) -> None:
        """Though they were sent before, and the history is not shared with those who join."""
        await self.alice.set_state(
            self.room, "m.room.history_visibility", {"history_visibility": "joined"}
        )
        event_id = await self.stick(self.alice)
        carol = await self.register("carol")
        since = (await carol.sync())["next_batch"]
        await carol.join(self.room)

        joined = await carol.sync(since)
        initial = await carol.sync()

        for response in (joined, initial):
            self.assertNotIn(event_id, timeline(response, self.room))
            self.assertEqual(sticky(response, self.room), [event_id])

    async def test_who_joins_again_gets_them_again(self) -> None:
        """A client that left has forgotten the room."""
        event_id = await self.stick(self.alice)
        since = (await self.bob.sync())["next_batch"]
        await self.bob.leave(self.room)
        since = (await self.bob.sync(since))["next_batch"]
        await self.bury()
        await self.bob.join(self.room)

        response = await self.bob.sync(since)

        self.assertEqual(sticky(response, self.room), [event_id])

    async def test_who_left_gets_none(self) -> None:
        """Only members see what sticks."""
        await self.stick(self.alice)
        since = (await self.bob.sync())["next_batch"]
        await self.bob.leave(self.room)
        await self.stick(self.alice)

        response = await self.bob.sync(since)

        self.assertNotIn(FIELD, response["rooms"]["leave"][self.room])

    async def test_events_of_ignored_users_are_left_out(self) -> None:
        """As they are in timelines."""
        data = {"ignored_users": {self.alice.user_id: {}}}
        await self.bob.put(f"/user/{self.bob.user_id}/account_data/m.ignored_user_list", data)
        await self.stick(self.alice)
        event_id = await self.stick(self.bob)
        await self.bury(by=self.bob)

        response = await self.bob.sync()

        self.assertEqual(sticky(response, self.room), [event_id])

    async def test_what_has_ended_is_left_out(self) -> None:
        """It is an event like any other then."""
        await self.stick(self.alice, duration=50)
        await self.bury()
        await pause(0.1)

        response = await self.bob.sync()

        self.assertEqual(sticky(response, self.room), [])

    async def test_a_restart_changes_nothing(self) -> None:
        """What sticks is stored with the event."""
        since = (await self.bob.sync())["next_batch"]
        event_ids = [await self.stick(self.alice) for _ in range(2)]
        gone = await self.stick(self.alice)
        await self.alice.redact(self.room, gone)
        await self.bury()

        await self.restart_server(self.alice, self.bob)

        for token in (None, since):
            response = await self.bob.sync(token)
            self.assertEqual(sticky(response, self.room), event_ids)
            after = await self.bob.sync(response["next_batch"])
            self.assertEqual(sticky(after, self.room), [])

    async def test_a_waiting_sync_gets_it_at_once(self) -> None:
        """In its timeline, as any other event."""
        since = (await self.bob.sync())["next_batch"]

        event_id = await self.stick(self.alice)
        response = await self.bob.sync(since, timeout_ms=10_000)

        self.assertEqual(timeline(response, self.room), [event_id])
        self.assertNotIn(FIELD, section(response, self.room))

    async def test_full_state_has_them_once_more_only_if_they_are_new(self) -> None:
        """It concerns the state."""
        await self.stick(self.alice)
        await self.bury()
        since = (await self.bob.sync())["next_batch"]

        response = await self.bob.sync(since, full_state="true")

        self.assertEqual(sticky(response, self.room), [])


class LimitTests(StickyTestCase):
    async def test_so_many_events_of_a_user_stick_in_a_room(self) -> None:
        """A client learns when it may send the next one; another user may at once."""
        self.patch(room_sticky_events, "MAX_OF_SENDER", 3)
        self.patch(sticky_events, "MAX_OF_SENDER", 3)
        first = await self.stick(self.alice, duration=60_000, txn_id="same")
        await self.stick(self.alice)
        await self.stick(self.alice)

        refused = await self.assert_refused("M_LIMIT_EXCEEDED", self.stick(self.alice), 429)

        self.assertTrue(0 < refused.body["retry_after_ms"] <= 60_000)
        self.assertEqual(await self.stick(self.alice, txn_id="same"), first)
        other = await self.alice.create_room()
        await self.stick(self.alice, other)
        await self.stick(self.bob)
        await self.stick(self.alice, duration=0)
        await self.alice.redact(self.room, first)
        await self.stick(self.alice)

    async def test_what_does_not_fit_into_a_response_comes_later(self) -> None:
        """In the order of sending, and no more than once each."""
        self.patch(sticky_sections, "MAX_EVENTS", 2)
        other = await self.alice.create_room(public=True)
        await self.bob.join(other)
        event_ids = [
            await self.stick(self.alice, room) for room in (self.room, other) for _ in range(3)
        ]
        for room in (self.room, other):
            await self.bury(room)

        since, found = None, []
        for _ in range(3):
            response = await self.bob.sync(since, timeout_ms=10_000)
            since = response["next_batch"]
            found += sticky(response, self.room) + sticky(response, other)

        self.assertEqual(found, event_ids)
        self.assertNotIn("rooms", await self.bob.sync(since))

    async def test_large_events_come_in_several_responses(self) -> None:
        """A response has a few megabytes of them at most, and one event at least."""
        self.patch(sticky_sections, "MAX_BYTES", 1_000)
        event_ids = [await self.stick(self.alice, text="x" * 2_000) for _ in range(2)]
        await self.bury()

        first = await self.bob.sync()
        second = await self.bob.sync(first["next_batch"])

        self.assertEqual(sticky(first, self.room), event_ids[:1])
        self.assertEqual(sticky(second, self.room), event_ids[1:])

    async def test_rows_are_deleted_when_events_have_ended(self) -> None:
        """Nothing is left of them, but the events themselves."""
        await self.stick(self.alice, duration=1)
        await self.stick(self.alice)

        await pause(0.01)
        await self.server.parts.room_core.sticky_events._end()

        with psycopg.connect(self.dsn) as connection:
            rows = connection.execute("SELECT count(*) FROM sticky_events").fetchone()
        self.assertEqual(rows, (1,))


class DelayedTests(StickyTestCase):
    async def test_a_delayed_event_sticks_from_its_sending_on(self) -> None:
        """As a client schedules its leaving of a call."""
        query: dict[str, Any] = {"org.matrix.msc4140.delay": 60_000, DURATION: 600_000}
        path = f"{CLIENT}/rooms/{self.room}/send/m.rtc.member/t"
        delay_id = (await self.alice.request("PUT", path, {"left": True}, query=query))["delay_id"]
        manage = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events"
        before = await self.bob.sync()
        await self.restart_server(self.alice, self.bob)

        await self.anybody.request("POST", f"{manage}/{delay_id}/send", {})

        await self.bury()
        response = await self.bob.sync()
        events = section(response, self.room)[FIELD]["events"]
        self.assertEqual(sticky(before, self.room), [])
        self.assertEqual(events[0]["content"], {"left": True})
        self.assertEqual(events[0][FIELD], {"duration_ms": 600_000})
        self.assertTrue(590_000 < events[0]["unsigned"][TTL] <= 600_000)

    async def test_delayed_state_may_be_sticky(self) -> None:
        """Whatever endpoint it was scheduled by."""
        path = f"{CLIENT}/rooms/{self.room}/delayed_event/m.x/t"
        body = {"delay_ms": 60_000, "content": {"a": 1}, "state_key": "k"}
        scheduled = await self.alice.request("PUT", path, body, query={DURATION: 600_000})

        manage = CLIENT.replace("v3", "v1") + f"/delayed_events/{scheduled['delay_id']}/send"
        await self.alice.request("POST", manage, {})

        await self.bury()
        response = await self.bob.sync()
        self.assertEqual(section(response, self.room)[FIELD]["events"][0]["state_key"], "k")

    async def test_a_wrong_duration_is_refused_at_once(self) -> None:
        """Nobody would see the error later."""
        path = f"{CLIENT}/rooms/{self.room}/send/m.rtc.member/t"
        query: dict[str, Any] = {"org.matrix.msc4140.delay": 60_000, DURATION: HOUR_MS + 1}

        await self.assert_refused(
            "M_INVALID_PARAM", self.alice.request("PUT", path, {}, query=query)
        )
