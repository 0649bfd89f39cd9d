"""Who is found by whom in the user directory."""

import time
from typing import Any, ClassVar

from tests.api.user_directory.directory_server import PATH, UserDirectoryTestCase
from tests.support.actors import Actor
from tests.support.reactor import pause

PUBLIC = {"preset": "public_chat"}


class WhoIsFoundTests(UserDirectoryTestCase):
    async def test_strangers_are_not_found(self) -> None:
        """A user in no room, or in private rooms of others, is nobody's business."""
        await self.meet(self.bob, await self.register("carol"))

        self.assertEqual(await self.found(self.alice, "bob"), [])
        self.assertEqual(await self.found(self.alice, self.bob.user_id), [])

    async def test_member_of_a_shared_room_is_found(self) -> None:
        """Users find those with whom they share a room, until one of them leaves."""
        room = await self.meet(self.alice, self.bob)

        self.assertEqual(await self.found(self.alice, "bob"), ["bob"])
        self.assertEqual(await self.found(self.bob, "ali"), ["alice"])

        await self.bob.leave(room)

        self.assertEqual(await self.found(self.alice, "bob"), [])
        self.assertEqual(await self.found(self.bob, "ali"), [])

    async def test_member_who_is_kicked_or_banned_is_not_found(self) -> None:
        """A user who is removed from the room is not found any more, and found again on return."""
        room = await self.meet(self.alice, self.bob)

        await self.alice.kick(room, self.bob)
        self.assertEqual(await self.found(self.alice, "bob"), [])

        await self.alice.invite(room, self.bob)
        self.assertEqual(await self.found(self.alice, "bob"), [])
        await self.bob.join(room)
        self.assertEqual(await self.found(self.alice, "bob"), ["bob"])

        await self.alice.ban(room, self.bob)
        self.assertEqual(await self.found(self.alice, "bob"), [])

    async def test_member_of_a_public_room_is_found_by_everybody(self) -> None:
        """Everybody could join the room and look."""
        room = await self.bob.create_room(**PUBLIC)

        self.assertEqual(await self.found(self.alice, "bob"), ["bob"])

        await self.bob.leave(room)

        self.assertEqual(await self.found(self.alice, "bob"), [])

    async def test_room_that_becomes_public_shows_all_its_members(self) -> None:
        """The members are found by everybody as long as the room is public."""
        carol = await self.register("carol")
        room = await self.meet(self.bob, carol)

        await self.bob.set_state(room, "m.room.join_rules", {"join_rule": "public"})
        self.assertEqual(await self.found(self.alice, "bob"), ["bob"])
        self.assertEqual(await self.found(self.alice, "carol"), ["carol"])

        await self.bob.set_state(room, "m.room.join_rules", {"join_rule": "invite"})
        self.assertEqual(await self.found(self.alice, "bob"), [])
        self.assertEqual(await self.found(self.alice, "carol"), [])
        self.assertEqual(await self.found(self.bob, "carol"), ["carol"])

    async def test_room_with_a_readable_history_shows_its_members(self) -> None:
        """Everybody may read such a room without joining."""
        room = await self.meet(self.bob)
        visibility = {"history_visibility": "world_readable"}

        await self.bob.set_state(room, "m.room.history_visibility", visibility)
        self.assertEqual(await self.found(self.alice, "bob"), ["bob"])

        visibility = {"history_visibility": "shared"}
        await self.bob.set_state(room, "m.room.history_visibility", visibility)
        self.assertEqual(await self.found(self.alice, "bob"), [])

    async def test_user_in_two_public_rooms_is_found_until_the_last_is_left(self) -> None:
        """One room that becomes private takes away only those who are in no other."""
        first = await self.bob.create_room(**PUBLIC)
        second = await self.bob.create_room(**PUBLIC)

        await self.bob.set_state(first, "m.room.join_rules", {"join_rule": "invite"})
        self.assertEqual(await self.found(self.alice, "bob"), ["bob"])

        await self.bob.leave(second)
        self.assertEqual(await self.found(self.alice, "bob"), [])

    async def test_searcher_is_found_as_by_others(self) -> None:
        """Users see whether strangers find them; a shared room does not mean one's own."""
        await self.meet(self.alice, self.bob)
        self.assertEqual(await self.found(self.alice, "alice"), [])

        await self.alice.create_room(**PUBLIC)

        self.assertEqual(await self.found(self.alice, "alice"), ["alice"])

    async def test_renamed_user_is_found_by_the_new_name_only(self) -> None:
        """The directory follows the profile."""
        await self.meet(self.alice, self.bob)
        await self.rename(self.bob, "Robert Ålund")
        await self.bob.put(
            f"/profile/{self.bob.user_id}/avatar_url", {"avatar_url": "mxc://example.org/bob"}
        )

        answer = await self.search(self.alice, "alu")

        shown = {
            "user_id": self.bob.user_id,
            "display_name": "Robert Ålund",
            "avatar_url": "mxc://example.org/bob",
        }
        self.assertEqual(answer, {"results": [shown], "limited": False})
        await self.rename(self.bob, "Bert")
        self.assertEqual(await self.found(self.alice, "alu"), [])
        self.assertEqual(await self.found(self.alice, "bert"), ["bob"])

    async def test_name_in_a_private_room_is_not_shown_elsewhere(self) -> None:
        """A user's names and avatars in single rooms are for their members: here, for none."""
        await self.bob.create_room(**PUBLIC)
        private = await self.meet(self.bob, await self.register("carol"))
        await self.name_in(private, self.bob, "Secret Agent")

        self.assertEqual(await self.found(self.alice, "secret"), [])
        (shown,) = (await self.search(self.alice, "bob"))["results"]
        self.assertEqual(shown["display_name"], "bob")

    async def test_deactivated_user_is_not_found(self) -> None:
        """Nobody can talk to them any more."""
        await self.meet(self.alice, self.bob)
        await self.bob.create_room(**PUBLIC)
        self.assertEqual(await self.found(self.alice, "bob"), ["bob"])
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "bob"},
            "password": "the password of bob",
        }

        await self.bob.post("/account/deactivate", {"auth": auth, "erase": True})

        self.assertEqual(await self.found(self.alice, "bob"), [])

    async def test_locked_user_is_not_found_and_suspended_one_is(self) -> None:
        """A locked account is as good as gone; a suspended one still reads."""
        admin = await self.register_admin("admin")
        await self.meet(self.alice, self.bob)
        path = f"/_matrix/client/v1/admin/suspend/{self.bob.user_id}"
        await admin.request("PUT", path, {"suspended": True})
        self.assertEqual(await self.found(self.alice, "bob"), ["bob"])
        self.assertEqual(await self.found(self.bob, "alice"), ["alice"])

        path = f"/_matrix/client/v1/admin/lock/{self.bob.user_id}"
        await admin.request("PUT", path, {"locked": True})
        self.assertEqual(await self.found(self.alice, "bob"), [])

        await admin.request("PUT", path, {"locked": False})
        self.assertEqual(await self.found(self.alice, "bob"), ["bob"])

    async def test_guest_may_not_search(self) -> None:
        """The specification does not list the search among what guests may do."""
        guest = await self.register_guest()

        await self.assert_refused(
            "M_GUEST_ACCESS_FORBIDDEN", guest.post(PATH, {"search_term": "a"})
        )


class AllUsersTests(UserDirectoryTestCase):
    settings: ClassVar[dict[str, Any]] = {"user_directory": {"search_all_users": True}}

    async def find_later(self, actor: Actor, term: str, found: list[str]) -> None:
        """Accounts enter the directory within seconds."""
        end = time.monotonic() + 20
        while (now := await self.found(actor, term)) != found:
            self.assertLess(time.monotonic(), end, f"{now} were found")
            await pause(0.05)

    async def test_all_users_of_the_server_are_found(self) -> None:
        """Where it is so configured, users find each other without a common room."""
        await self.find_later(self.alice, "bob", ["bob"])
        await self.rename(self.bob, "Robert")

        self.assertEqual(await self.found(self.alice, "rob"), ["bob"])
        self.assertEqual(await self.found(self.alice, "@bob:exa"), ["bob"])

    async def test_guests_and_deactivated_users_are_not_found(self) -> None:
        """Neither is somebody whom one looks for by name."""
        guest = await self.register_guest()
        await guest.put(f"/profile/{guest.user_id}/displayname", {"displayname": "Greta"})
        await self.find_later(self.alice, "bob", ["bob"])
        self.assertEqual(await self.found(self.alice, "greta"), [])
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "bob"},
            "password": "the password of bob",
        }

        await self.bob.post("/account/deactivate", {"auth": auth})

        self.assertEqual(await self.found(self.alice, "bob"), [])


class DisabledTests(UserDirectoryTestCase):
    settings: ClassVar[dict[str, Any]] = {"user_directory": {"enabled": False}}

    async def test_nobody_is_found(self) -> None:
        """Clients get an empty result rather than an error for what the operator has decided."""
        await self.meet(self.alice, self.bob)

        answer = await self.alice.post(PATH, {"search_term": "bob"})

        self.assertEqual(answer, {"results": [], "limited": False})
