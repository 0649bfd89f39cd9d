"""New accounts are called by their localparts, in profiles and in rooms."""

import hashlib
import hmac
from typing import Any, ClassVar

from tests.support.actors import Actor
from tests.support.server import ServerTestCase

SECRET = "the secret of the tools"
PATH = "/_synapse/admin/v1/register"
REGISTRATION = {"enabled": True, "guests": True, "shared_secret": SECRET}


class FirstProfileTests(ServerTestCase):
    settings: ClassVar[dict[str, Any]] = {"registration": REGISTRATION}

    async def with_secret(self, username: str, **more: str) -> Actor:
        """An account that the tool of an administrator makes."""
        nonce = (await self.anybody.request("GET", PATH))["nonce"]
        signed = f"{nonce}\0{username}\0correct horse\0notadmin".encode()
        mac = hmac.new(SECRET.encode(), signed, hashlib.sha1).hexdigest()
        body = {"nonce": nonce, "username": username, "password": "correct horse", "mac": mac}
        return self._actor(await self.anybody.request("POST", PATH, body | more))

    async def profile_of(self, actor: Actor) -> Any:
        """The public profile of a user."""
        return await self.anybody.get(f"/profile/{actor.user_id}")

    async def test_a_registered_user_has_the_localpart_as_name(self) -> None:
        """Clients do not show the full user ID as a name."""
        alice = await self.register("alice")

        self.assertEqual(await self.profile_of(alice), {"displayname": "alice"})

    async def test_the_name_is_in_the_rooms(self) -> None:
        """Member events carry it from the first room on, and what the user chooses replaces it."""
        alice = await self.register("alice")
        room = await alice.create_room()

        first = await alice.state(room, "m.room.member", alice.user_id)
        await alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": "Alice"})
        second = await alice.state(room, "m.room.member", alice.user_id)
        await self.restart_server(alice)

        self.assertEqual((first["displayname"], second["displayname"]), ("alice", "Alice"))
        self.assertEqual(await self.profile_of(alice), {"displayname": "Alice"})

    async def test_the_shared_secret_names_too_unless_a_name_is_given(self) -> None:
        """The tools of administrators make accounts like all others."""
        bob = await self.with_secret("bob")
        carol = await self.with_secret("carol", displayname="Carol")

        self.assertEqual(await self.profile_of(bob), {"displayname": "bob"})
        self.assertEqual(await self.profile_of(carol), {"displayname": "Carol"})

    async def test_a_guest_has_the_name_that_the_guest_chose(self) -> None:
        """A number is no name, and the user that a guest becomes keeps what rooms know."""
        guest = await self.register_guest()
        before = await self.profile_of(guest)
        username = guest.user_id[1:].partition(":")[0]
        body = {
            "username": username,
            "password": "correct horse",
            "guest_access_token": guest.token,
            "auth": {"type": "m.login.dummy"},
        }
        await self.anybody.post("/register", body)

        self.assertEqual(before, {})
        self.assertEqual(await self.profile_of(guest), {})


class WithoutNamesTests(ServerTestCase):
    settings: ClassVar[dict[str, Any]] = {
        "registration": {**REGISTRATION, "localpart_as_display_name": False}
    }

    async def test_a_server_may_leave_the_name_to_the_user(self) -> None:
        """An operator can configure empty profiles."""
        alice = await self.register("alice")

        self.assertEqual(await self.anybody.get(f"/profile/{alice.user_id}"), {})
