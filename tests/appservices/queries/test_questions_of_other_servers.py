"""Users of other servers reach the people and rooms of a bridge like those of this server."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from tests.appservices.fake_bridge import TRANSACTIONS, Answer, Asked, FakeBridge
from tests.appservices.queries.support import ROOMS, USERS
from tests.appservices.support import AS_TOKEN, AppserviceUser, registration
from tests.support.organisations import FederationTestCase


class QuestionsOfOtherServersTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.bridge = FakeBridge()
        self.bridge.answers[TRANSACTIONS] = lambda _: Answer()
        self.bridge.listen()
        self.addCleanup(self.bridge.stop)
        folder = Path(self.folder) / "appservices.d"
        folder.mkdir()
        (folder / "irc.yaml").write_text(yaml.safe_dump(registration(url=self.bridge.url)))
        self.bridged = await self.organisation(
            appservices_folder=str(folder),
            rate_limits={"appservice_query": {"per_second": 0.001, "burst": 5}},
        )
        self.other = await self.organisation()
        self.alice = await self.other.register("alice")
        self.carol = f"@_irc_carol:{self.bridged.name}"
        self.bridge.answers[USERS] = self.create_user
        self.bridge.answers[ROOMS] = self.create_room

    def as_user(self, user_id: str) -> AppserviceUser:
        return AppserviceUser(self.http, self.bridged.url, user_id, "", f"{AS_TOKEN} irc")

    async def create_user(self, asked: Asked) -> Answer:
        user_id = asked.path.removeprefix(USERS)
        body = {
            "type": "m.login.application_service",
            "username": user_id[1:].partition(":")[0],
            "inhibit_login": True,
        }
        await self.as_user(user_id).post("/register", body)
        return Answer()

    async def create_room(self, asked: Asked) -> Answer:
        alias = asked.path.removeprefix(ROOMS)
        bot = self.as_user(f"@_irc_bot:{self.bridged.name}")
        await bot.create_room(room_alias_name=alias[1:].partition(":")[0], preset="public_chat")
        return Answer()

    async def invite(self, user_id: str) -> Any:
        room = await self.alice.create_room()
        return await self.alice.post(f"/rooms/{quote(room)}/invite", {"user_id": user_id})

    async def test_an_invite_creates_the_user(self) -> None:
        """A conversation with somebody on IRC begins on any server."""
        await self.invite(self.carol)

        sync = await self.as_user(self.carol).sync()
        self.assertEqual(len(sync["rooms"]["invite"]), 1)

    async def test_an_invite_of_nobody_is_refused(self) -> None:
        """The inviter learns that there is no such person."""
        del self.bridge.answers[USERS]

        await self.assert_refused("M_NOT_FOUND", self.invite(self.carol), 404)

    async def test_a_profile_query_creates_the_user(self) -> None:
        """A name that was typed on another server is found."""
        profile = await self.alice.get(f"/profile/{quote(self.carol)}")

        self.assertEqual(profile, {"displayname": "_irc_carol"})

    async def test_a_join_by_alias_creates_the_room(self) -> None:
        """A channel is joined from any server."""
        alias = f"#_irc_#x:{self.bridged.name}"

        room = (await self.alice.post(f"/join/{quote(alias, safe='')}"))["room_id"]

        self.assertEqual((await self.alice.sync())["rooms"]["join"].keys(), {room})

    async def test_another_server_asks_for_few(self) -> None:
        """No other server has a bridge search for all names of a network."""
        del self.bridge.answers[USERS]
        for number in range(10):
            user_id = f"@_irc_{number}:{self.bridged.name}"
            errcode, status = ("M_NOT_FOUND", 404) if number < 5 else ("M_UNKNOWN", 502)
            with self.subTest(number):
                await self.assert_refused(
                    errcode, self.alice.get(f"/profile/{quote(user_id)}"), status
                )

        self.assertEqual(len(self.bridge.asked(USERS)), 5)
