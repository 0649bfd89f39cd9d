"""Importing history over the API, as bridges request it."""

from typing import Any
from urllib.parse import quote

from tests.appservices.support import AppserviceTestCase, registration
from tests.support.actors import Actor, bodies
from tests.support.reactor import until

PERMITTED = {"io.homeserver.history_import": True}
PATH = "/_matrix/client/unstable/com.beeper.backfill/rooms/{}/batch_send"


def old(text: str, sender: str = "@_irc_ghost:example.org", **more: Any) -> dict[str, Any]:
    """An old message as mautrix-go encodes it."""
    return {
        "sender": sender,
        "type": "m.room.message",
        "origin_server_ts": 1_500_000_000_000,
        "content": {"msgtype": "m.text", "body": text},
        **more,
    }


class HistoryImportTests(AppserviceTestCase):
    registrations = (registration(**PERMITTED), registration("xmpp"))

    async def setUp(self) -> None:
        await super().setUp()
        self.bridge = self.bot()
        self.alice = await self.register("alice")
        self.room = await self.bridge.create_room(public=True)
        await self.alice.join(self.room)

    async def put(self, body: Any, by: Actor | None = None, room: str | None = None) -> Any:
        path = PATH.format(quote(room or self.room))
        return await (by or self.bridge).request("POST", path, body)

    async def said(self) -> list[str]:
        """The messages that Alice pages back to, the newest first."""
        return bodies((await self.alice.messages(self.room, limit=100))["chunk"])

    async def test_bridge_imports_what_was_said_before_it_came(self) -> None:
        """The requests of mautrix-go: first the newest messages, then older ones."""
        ids = [f"${'x' * 42}{number}:chat.example.com" for number in range(4)]
        events = [
            old(str(number), event_id=event_id, room_id=self.room)
            for number, event_id in enumerate(ids)
        ]
        reaction = {
            **old("", event_id="$reaction:chat.example.com"),
            "type": "m.reaction",
            "content": {
                "m.relates_to": {"rel_type": "m.annotation", "event_id": ids[2], "key": "+"}
            },
        }

        newest = await self.put(
            {
                "forward_if_no_messages": False,
                "forward": True,
                "send_notification": False,
                "mark_read_by": self.alice.user_id,
                "events": events[2:],
            }
        )
        older = await self.put(
            {
                "forward_if_no_messages": True,
                "forward": False,
                "send_notification": False,
                "events": [*events[:2], reaction],
            }
        )

        self.assertEqual(newest, {"event_ids": ids[2:]})
        self.assertEqual(older, {"event_ids": [*ids[:2], reaction["event_id"]]})
        self.assertEqual([text for text in await self.said() if text], ["3", "2", "1", "0"])
        event = await self.alice.event(self.room, ids[0])
        self.assertEqual(event["origin_server_ts"], 1_500_000_000_000)
        path = f"/_matrix/client/v1/rooms/{quote(self.room)}/relations/{quote(ids[2])}"
        children = await self.alice.request("GET", path)
        self.assertEqual([each["event_id"] for each in children["chunk"]], [reaction["event_id"]])

    async def test_requests_that_cannot_be_fulfilled_are_refused(self) -> None:
        """With an error of the specification, and without a trace in the room."""
        await self.alice.say(self.room, "new")
        for errcode, body in (
            ("M_INVALID_PARAM", {"events": [old("x", state_key="")]}),
            ("M_INVALID_PARAM", {"events": [old("x", room_id="!other:example.org")]}),
            ("M_INVALID_PARAM", {"events": [old("x")], "forward": True, "before": "$x"}),
            ("M_NOT_FOUND", {"events": [old("x")], "before": "$x"}),
            ("M_MISSING_PARAM", {"events": [{**old("x"), "origin_server_ts": None}]}),
            ("M_BAD_JSON", {"events": [{**old("x"), "origin_server_ts": "now"}]}),
            ("M_BAD_JSON", {"events": [{**old("x"), "content": []}]}),
            ("M_BAD_JSON", {"events": [{**old("x"), "sender": 5}]}),
            ("M_BAD_JSON", {"events": [5]}),
            ("M_BAD_JSON", {"events": {}}),
            ("M_BAD_JSON", {}),
            ("M_BAD_JSON", {"events": [old("x", event_id="$hash")]}),
            ("M_FORBIDDEN", {"events": [old("x", sender=self.alice.user_id)]}),
            ("M_TOO_LARGE", {"events": [old("x" * 70_000)]}),
            ("M_TOO_LARGE", {"events": [old("x")] * 1_001}),
        ):
            await self.assert_refused(errcode, self.put(body))
        await self.assert_refused("M_FORBIDDEN", self.put({"events": [old("x")]}, self.alice))
        unknown = self.put({"events": [old("x")]}, room="!unknown:example.org")
        await self.assert_refused("M_NOT_FOUND", unknown)

        self.assertEqual(await self.said(), ["new"])
        self.assertEqual(await self.put({"events": []}), {"event_ids": []})

    async def test_application_service_without_permission_imports_nothing(self) -> None:
        """It learns from the versions of the server that it may not."""
        other = self.bot("xmpp")
        room = await other.create_room()
        await other.say(room, "new")
        body = {"events": [old("x", sender=other.user_id)]}

        await self.assert_refused("M_FORBIDDEN", self.put(body, other, room), 403)

        for client, is_offered in ((self.bridge, True), (other, False), (self.alice, False)):
            versions = await client.request("GET", "/_matrix/client/versions")
            features = versions["unstable_features"]
            self.assertEqual(features.get("com.beeper.batch_sending", False), is_offered)

    async def test_permission_ends_with_the_registration(self) -> None:
        """An operator takes it back without a restart."""
        await self.alice.say(self.room, "new")
        file = self._directory / "appservices.d" / "irc.yaml"
        file.write_text(file.read_text().replace("history_import: true", "history_import: false"))

        self.server.reload()
        appservices = self.server.parts.account_core.appservices
        await until(lambda: not any(each.may_import_history for each in appservices.all))

        await self.assert_refused("M_FORBIDDEN", self.put({"events": [old("x")]}), 403)
