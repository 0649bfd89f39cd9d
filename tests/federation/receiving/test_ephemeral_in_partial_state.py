"""Typing and receipts in a room whose members are still being fetched.

Spec: https://spec.matrix.org/v1.19/server-server-api/#typing-notifications
"""

from typing import Any
from urllib.parse import quote

import msgspec

from federation.receiving import room_access
from tests.support.fake_server.fake_http import NOT_FOUND, always
from tests.support.organisations import FederationTestCase

LAZY = msgspec.json.encode({"room": {"state": {"lazy_load_members": True}}}).decode()


class PartialEphemeralTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there, self.stranger = await self.fake(), await self.fake()
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")
        self.there.omits_members = True
        for operation in ("get_room_state_ids", "get_room_state"):
            self.there.answers[operation] = always(NOT_FOUND)
        self.room = self.there.create_room()
        self.crowd = [event.sender for event in self.room.crowd(3)]
        await self.alice.join(self.room.room_id, via=[self.there.name])

    async def ephemeral(self, kind: str) -> Any:
        """The content of an ephemeral event of the room, as Alice is shown it."""
        joined = (await self.alice.sync(filter=LAZY))["rooms"]["join"][self.room.room_id]
        found = [each for each in joined["ephemeral"]["events"] if each["type"] == kind]
        return found[0]["content"] if found else {}

    def typing(self, user_id: str) -> dict[str, Any]:
        """An EDU of a typing user."""
        content = {"room_id": self.room.room_id, "user_id": user_id, "typing": True}
        return {"edu_type": "m.typing", "content": content}

    async def test_edus_of_unknown_users_are_shown(self) -> None:
        """Those of users not known yet, from servers that are in the room."""
        said = self.room.say(self.room.state_event("m.room.create").sender, "hello")
        receipt = {"m.read": {self.crowd[1]: {"event_ids": [said.event_id], "data": {"ts": 5}}}}
        read = {"edu_type": "m.receipt", "content": {self.room.room_id: receipt}}

        await self.there.send(self.here.name, [said], [self.typing(self.crowd[0]), read])

        self.assertEqual((await self.ephemeral("m.typing"))["user_ids"], [self.crowd[0]])
        receipts = await self.ephemeral("m.receipt")
        self.assertEqual(receipts[said.event_id]["m.read"], {self.crowd[1]: {"ts": 5}})

    async def test_edus_of_strangers_are_not_shown(self) -> None:
        """Nor those about another server's users, or about users known to have left."""
        gone = self.crowd[2]
        await self.there.send(self.here.name, [self.room.member(gone, "leave")])
        away = self.stranger.user("x")

        await self.stranger.send(self.here.name, [], [self.typing(away)])
        await self.there.send(
            self.here.name, [], [self.typing(away), self.typing(gone), self.typing("@no id")]
        )

        self.assertEqual((await self.ephemeral("m.typing")).get("user_ids", []), [])

    async def test_they_are_so_many_at_most(self) -> None:
        """A server can make up any number of names."""
        self.patch(room_access, "MAX_TRUSTED_USERS", 5)
        names = [f"@nobody{number}:{self.there.name}" for number in range(20)]

        await self.there.send(self.here.name, [], [self.typing(name) for name in names])

        self.assertEqual((await self.ephemeral("m.typing"))["user_ids"], names[:5])

    async def test_with_full_state_only_members_are_shown(self) -> None:
        """Once all members are known, EDUs of other users are dropped."""
        for operation in ("get_room_state_ids", "get_room_state"):
            del self.there.answers[operation]
        await self.alice.get(f"/rooms/{quote(self.room.room_id)}/members")
        nobody = self.there.user("nobody")

        await self.there.send(self.here.name, [], [self.typing(nobody), self.typing(self.crowd[0])])

        self.assertEqual((await self.ephemeral("m.typing"))["user_ids"], [self.crowd[0]])
