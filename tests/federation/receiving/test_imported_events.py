"""Imported events in a room with members on other servers: these never get or use them."""

from typing import Any
from urllib.parse import quote

from homeserver.protocol.events import Event, build_event
from tests.appservices.test_history_import import PATH, old
from tests.rooms.history_import.support import permit_imports
from tests.support.actors import bodies
from tests.support.organisations import FederationTestCase

V1 = "/_matrix/federation/v1"


class ImportedEventsTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there = await self.fake()
        self.here = await self.organisation()
        permit_imports(self.here.server)
        self.bridge = await self.here.register("bridge")
        self.room_id = await self.bridge.create_room(public=True)
        self.mallory = self.there.user("mallory")
        self.room = await self.there.join(self.here.name, self.room_id, self.mallory)
        self.first = await self.bridge.say(self.room_id, "new")
        await self.there.wait_for_request("send_transaction", self._has(self.first))
        ghost = f"@ghost_1:{self.here.name}"
        self.old, self.missed = [
            (await self._put({"events": [old(text, ghost)], "forward": forward}))["event_ids"][0]
            for text, forward in (("old", False), ("missed", True))
        ]

    async def _put(self, body: Any) -> Any:
        return await self.bridge.request("POST", PATH.format(quote(self.room_id)), body)

    def _has(self, event_id: str) -> Any:
        """Whether a transaction has an event."""

        def has(request: Any) -> bool:
            return event_id in {
                Event.from_pdu(self.room.version, pdu).event_id for pdu in request.body["pdus"]
            }

        return has

    async def ask(self, path: str, **query: Any) -> tuple[int, Any]:
        return await self.there.ask(self.here.name, "GET", V1 + path, query=query)

    async def test_other_servers_get_no_imported_event(self) -> None:
        """They could not verify it, as it is not signed, and has no place in their graph."""
        last = await self.bridge.say(self.room_id, "newest")
        await self.there.wait_for_request("send_transaction", self._has(last))

        sent = [
            pdu
            for request in self.there.received
            if request.operation == "send_transaction"
            for pdu in request.body["pdus"]
        ]
        self.assertTrue(all(pdu["signatures"] and pdu["prev_events"] for pdu in sent))
        texts = [pdu["content"].get("body") for pdu in sent]
        self.assertEqual([text for text in texts if text], ["new", "newest"])
        newest = next(pdu for pdu in sent if pdu["content"].get("body") == "newest")
        self.assertEqual(newest["prev_events"], [self.first])

        room = quote(self.room_id)
        for event_id in (self.old, self.missed):
            for path, query in (
                (f"/event/{quote(event_id)}", {}),
                (f"/event_auth/{room}/{quote(event_id)}", {}),
                (f"/state/{room}", {"event_id": event_id}),
                (f"/state_ids/{room}", {"event_id": event_id}),
            ):
                status, answer = await self.ask(path, **query)
                self.assertEqual((status, answer["errcode"]), (404, "M_NOT_FOUND"), path)
            _, answer = await self.ask(f"/backfill/{room}", v=[event_id], limit=10)
            self.assertEqual(answer["pdus"], [])
        _, answer = await self.ask(f"/backfill/{room}", v=[last], limit=100)
        self.assertEqual(len(answer["pdus"]), len({str(pdu) for pdu in answer["pdus"]}))
        self.assertTrue(all(pdu["signatures"] for pdu in answer["pdus"]))
        path = f"{V1}/get_missing_events/{room}"
        body = {"earliest_events": [], "latest_events": [self.missed, last, self.old], "limit": 50}
        _, answer = await self.there.ask(self.here.name, "POST", path, body)
        self.assertTrue(all(pdu["signatures"] for pdu in answer["events"]))
        _, answer = await self.ask(f"/timestamp_to_event/{room}", ts=0, dir="f")
        self.assertNotIn(answer["event_id"], (self.old, self.missed))

    async def test_event_that_follows_an_imported_one_is_not_accepted(self) -> None:
        """No other server could follow the graph there."""
        good = self.room.say(self.mallory, "good")
        auth_events = [self.room.events[each] for each in good.auth_event_ids]
        for imported in (self.old, self.missed):
            bad = build_event(
                self.room.version,
                room_id=self.room_id,
                type="m.room.message",
                sender=self.mallory,
                content={"msgtype": "m.text", "body": "bad"},
                prev_events=[imported],
                auth_events=auth_events,
                depth=20,
                origin_server_ts=1,
                server_name=self.there.name,
                key=self.there.key,
            )
            await self.there.send(self.here.name, [bad])
        await self.there.send(self.here.name, [good])

        chunk = (await self.bridge.messages(self.room_id, limit=100))["chunk"]
        self.assertEqual(bodies(chunk), ["good", "missed", "new", "old"])

    async def test_redaction_by_another_server_redacts_an_imported_event(self) -> None:
        """A moderator there who names the event may hide it here."""
        content = {"redacts": self.old}
        levels = {"users": {self.mallory: 50}}
        path = f"/_matrix/client/v3/rooms/{quote(self.room_id)}/state/m.room.power_levels/"
        await self.bridge.request("PUT", path, levels)
        sent = await self.there.wait_for_request("send_transaction", self._has_type("power_levels"))
        for pdu in sent.body["pdus"]:
            self.room.put(Event.from_pdu(self.room.version, pdu))
        redaction = self.room.add("m.room.redaction", content, sender=self.mallory)

        await self.there.send(self.here.name, [redaction])

        shown = await self.bridge.event(self.room_id, self.old)
        self.assertEqual(shown["content"], {})

    def _has_type(self, event_type: str) -> Any:
        return lambda request: any(event_type in pdu["type"] for pdu in request.body["pdus"])
