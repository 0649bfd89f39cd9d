"""Delayed events as deployed clients of calls use them, before the proposal was accepted."""

from typing import Any

from homeserver.web import server as server_module
from tests.api.calls.delayed_case import LONG_MS, SHORT_MS, UNSTABLE, DelayedEventsTestCase
from tests.support.actors import CLIENT, Actor

DELAY = "org.matrix.msc4140.delay"


class DeployedClientTests(DelayedEventsTestCase):
    settings = {"delayed_events": {"max_delay": 3_600}}  # noqa: RUF012  # as in the base class

    async def send_later(self, by: Actor, txn_id: str = "t", **query: Any) -> Any:
        """`/send` with a delay in the query."""
        path = f"{CLIENT}/rooms/{self.room}/send/m.room.message/{txn_id}"
        content = {"msgtype": "m.text", "body": "later"}
        return await by.request("PUT", path, content, query={DELAY: LONG_MS, **query})

    async def leave_later(self, by: Actor, delay_ms: int = LONG_MS) -> str:
        """`/state` with a delay in the query, as a client schedules its leaving of a call."""
        path = f"{CLIENT}/rooms/{self.room}/state/org.matrix.msc3401.call.member/me"
        response = await by.request("PUT", path, {}, query={DELAY: delay_ms})
        delay_id: str = response["delay_id"]
        return delay_id

    async def act_unstable(self, delay_id: str, action: str, by: Any = None) -> Any:
        """An action, without an access token unless `by` is given."""
        path = f"{UNSTABLE}/delayed_events/{delay_id}/{action}"
        return await (by or self.anybody).request("POST", path, {})

    async def listed(self, **query: Any) -> Any:
        return await self.alice.request("GET", f"{UNSTABLE}/delayed_events", query=query)

    async def test_a_delay_in_the_query_is_not_ignored(self) -> None:
        """Or a client would leave its call by joining it."""
        response = await self.send_later(self.alice)
        left = await self.leave_later(self.alice)

        self.assertEqual(set(response), {"delay_id"})
        self.assertEqual(await self.said(), [])
        self.assertEqual(await self.scheduled(self.alice), [response["delay_id"], left])
        self.assertEqual(await self.send_later(self.alice), response)

    async def test_a_message_with_the_same_transaction_id_is_sent(self) -> None:
        """A delayed request is another one."""
        await self.send_later(self.alice, "same")

        await self.alice.say(self.room, "now", txn_id="same")

        self.assertEqual(await self.said(), ["now"])

    async def test_the_server_of_a_call_ends_a_membership(self) -> None:
        """It has no account, only the delay id."""
        delay_id = await self.leave_later(self.alice)

        await self.act_unstable(delay_id, "restart")
        await self.act_unstable(delay_id, "send")
        await self.act_unstable(delay_id, "send")

        left = await self.alice.state(self.room, "org.matrix.msc3401.call.member", "me")
        self.assertEqual(left, {})

    async def test_delay_ids_are_not_logged(self) -> None:
        """A reader of the access log could send or cancel the events of others."""
        events: list[Any] = []
        self.patch(server_module.log, "observer", events.append)
        delay_id = await self.leave_later(self.alice)

        await self.act_unstable(delay_id, "restart")
        await self.act(self.alice, delay_id, "cancel")

        paths = [each["path"] for each in events if "path" in each]
        self.assertIn(f"{UNSTABLE}/delayed_events/{{delay_id}}/restart", paths)
        self.assertNotIn(delay_id, str(events))

    async def test_finalised_events_are_not_found(self) -> None:
        """A client that was away schedules another one then, and gives up at any other error."""
        delay_id = await self.leave_later(self.alice, SHORT_MS)
        await self.finalised(self.alice, delay_id)

        for by in (None, self.alice):
            for action in ("restart", "cancel"):
                attempt = self.act_unstable(delay_id, action, by)
                await self.assert_refused("M_NOT_FOUND", attempt, 404)

    async def test_the_first_form_of_the_actions_needs_a_token(self) -> None:
        """The action is in the body."""
        delay_id = await self.leave_later(self.alice)
        path = f"{UNSTABLE}/delayed_events/{delay_id}"

        for client, errcode in ((self.anybody, "M_MISSING_TOKEN"), (self.bob, "M_NOT_FOUND")):
            attempt = client.request("POST", path, {"action": "cancel"})
            await self.assert_refused(errcode, attempt)
        attempt = self.alice.request("POST", path, {"action": "explode"})
        await self.assert_refused("M_BAD_JSON", attempt, 400)
        await self.alice.request("POST", path, {"action": "cancel"})

        self.assertEqual(await self.scheduled(self.alice), [])

    async def test_lists_have_both_forms(self) -> None:
        """A client reads the one that it knows."""
        scheduled = await self.leave_later(self.alice)
        cancelled = await self.leave_later(self.alice)
        await self.act(self.alice, cancelled, "cancel")
        sent = await self.leave_later(self.alice)
        await self.act(self.alice, sent, "send")

        listed = await self.listed()

        (item,) = listed["scheduled"]
        self.assertEqual((item["delay_id"], item["delay"]), (scheduled, LONG_MS))
        self.assertIn("running_since", item)
        self.assertEqual([each["delay_id"] for each in listed["delayed_events"]], [scheduled])
        outcomes = [
            (each["delayed_event"]["delay_id"], each["outcome"], each["reason"])
            for each in listed["finalised"]
        ]
        self.assertEqual(
            sorted(outcomes),
            sorted([(sent, "send", "action"), (cancelled, "cancel", "action")]),
        )
        self.assertNotIn("finalised", await self.listed(status="scheduled"))
        self.assertNotIn("scheduled", await self.listed(status="finalised"))

    async def test_errors_have_the_names_of_deployed_servers(self) -> None:
        """A client with too long a delay takes the longest that is allowed."""
        refused = await self.assert_refused(
            "M_UNKNOWN", self.send_later(self.alice, **{DELAY: 3_600_001}), 400
        )

        self.assertEqual(refused.body["org.matrix.msc4140.errcode"], "M_MAX_DELAY_EXCEEDED")
        self.assertEqual(refused.body["org.matrix.msc4140.max_delay"], 3_600_000)
        for delay in ("", "-1", "0", "1e3", "x", "9" * 30):
            attempt = self.send_later(self.alice, **{DELAY: delay})
            await self.assert_refused("M_INVALID_PARAM", attempt, 400)
        parent = self.send_later(self.alice, **{"org.matrix.msc4140.parent_delay_id": "x"})
        await self.assert_refused("M_INVALID_PARAM", parent, 400)
        self.assertEqual(await self.said(), [])

    async def test_scheduling_under_the_unstable_path(self) -> None:
        """The form of the proposal, at the path before it was accepted."""
        delay_id = await self.schedule(self.alice, SHORT_MS, prefix=UNSTABLE)

        delayed = await self.finalised(self.alice, delay_id)

        self.assertIn("event_id", delayed)
