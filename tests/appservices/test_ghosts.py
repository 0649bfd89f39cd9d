"""Ghosts do what other users do: an application service acts as them everywhere."""

from typing import Any
from urllib.parse import quote

from tests.appservices.support import AppserviceTestCase, AppserviceUser, registration
from tests.support.actors import bodies


class GhostTests(AppserviceTestCase):
    async def _set_up(self) -> tuple[Any, AppserviceUser, str]:
        alice = await self.register("alice")
        ghost = await self.ghost("_irc_bob")
        room = await alice.create_room(public=True)
        await ghost.join(room)
        return alice, ghost, room

    async def test_a_ghost_syncs_without_a_device(self) -> None:
        """A bridge may follow what one of its users sees."""
        alice, ghost, room = await self._set_up()

        first = await ghost.sync()
        await alice.say(room, "hello")
        own = await ghost.say(room, "hi", txn_id="1")
        later = await ghost.sync(first["next_batch"])

        timeline = later["rooms"]["join"][room]["timeline"]["events"]
        self.assertEqual(bodies(timeline), ["hello", "hi"])
        self.assertEqual(timeline[1]["event_id"], own)
        self.assertEqual(timeline[1]["unsigned"]["transaction_id"], "1")
        self.assertEqual(later.get("to_device", {"events": []}), {"events": []})
        events = await ghost.get("/events", **{"from": first["next_batch"], "timeout": 0})
        self.assertEqual(len(events["chunk"]), 2)
        await ghost.get("/initialSync", limit=1)

    async def test_others_see_what_a_ghost_does(self) -> None:
        """Typing, receipts, read markers, presence and the profile."""
        alice, ghost, room = await self._set_up()
        event_id = await alice.say(room, "hello")
        since = (await alice.sync())["next_batch"]

        await ghost.type(room)
        await ghost.read(room, event_id)
        await ghost.post(f"/rooms/{quote(room)}/read_markers", {"m.fully_read": event_id})
        await ghost.put(
            f"/profile/{quote(ghost.user_id)}/displayname", {"displayname": "Bob (IRC)"}
        )
        await ghost.put(f"/profile/{quote(ghost.user_id)}/avatar_url", {"avatar_url": "mxc://a/b"})

        update = await alice.sync(since)
        ephemeral = update["rooms"]["join"][room]["ephemeral"]["events"]
        self.assertEqual({each["type"] for each in ephemeral}, {"m.typing", "m.receipt"})
        profile = await alice.get(f"/profile/{quote(ghost.user_id)}")
        self.assertEqual(profile, {"displayname": "Bob (IRC)", "avatar_url": "mxc://a/b"})
        await ghost.set_presence("unavailable", status_msg="away")
        presence = await alice.get(f"/presence/{quote(ghost.user_id)}/status")
        self.assertEqual((presence["presence"], presence["status_msg"]), ("unavailable", "away"))

    async def test_a_ghost_has_account_data_and_filters(self) -> None:
        """Bridges keep what they know of a user there."""
        _, ghost, room = await self._set_up()
        mine = f"/user/{quote(ghost.user_id)}"

        await ghost.put(f"{mine}/account_data/m.direct", {"@a:b": [room]})
        await ghost.put(f"{mine}/rooms/{quote(room)}/tags/m.favourite", {"order": 0.5})
        filter_id = (await ghost.post(f"{mine}/filter", {"room": {"timeline": {"limit": 1}}}))[
            "filter_id"
        ]

        self.assertEqual(await ghost.get(f"{mine}/account_data/m.direct"), {"@a:b": [room]})
        synced = await ghost.sync(filter=filter_id)
        self.assertEqual(len(synced["rooms"]["join"][room]["timeline"]["events"]), 1)
        other = f"/user/{quote('@alice:example.org')}/account_data/m.direct"
        await self.assert_refused("M_FORBIDDEN", ghost.put(other, {}), 403)

    async def test_a_device_of_a_ghost_receives_messages(self) -> None:
        """A bridge that encrypts may sync as its device."""
        alice, ghost, _ = await self._set_up()
        await ghost.put("/devices/BRIDGE", {})
        device = self.as_user("_irc_bob")
        device.device_id = "BRIDGE"

        body = {"messages": {ghost.user_id: {"BRIDGE": {"said": "hello"}}}}
        await alice.put("/sendToDevice/m.test/1", body)

        received = (await device.sync())["to_device"]["events"]
        self.assertEqual([each["content"] for each in received], [{"said": "hello"}])

    async def test_a_locked_or_suspended_ghost_is_restricted_like_a_user(self) -> None:
        """Moderators act on bridged users with the same means."""
        _, ghost, room = await self._set_up()
        admin = await self.register_admin("admin")
        path = f"/_matrix/client/v1/admin/{{}}/{quote(ghost.user_id)}"

        await admin.request("PUT", path.format("suspend"), {"suspended": True})
        await self.assert_refused("M_USER_SUSPENDED", ghost.say(room, "hello"), 403)
        await admin.request("PUT", path.format("suspend"), {"suspended": False})
        await ghost.say(room, "hello")
        await admin.request("PUT", path.format("lock"), {"locked": True})
        await self.assert_refused("M_USER_LOCKED", ghost.say(room, "hello"), 401)
        login = {
            "type": "m.login.application_service",
            "identifier": {"type": "m.id.user", "user": ghost.user_id},
        }
        await self.assert_refused("M_USER_LOCKED", self.bot().post("/login", login), 401)

    async def test_a_deactivated_ghost_leaves_and_is_erased(self) -> None:
        """As other users; and the bridge cannot act as it any more."""
        alice, ghost, room = await self._set_up()
        await ghost.say(room, "hello")

        await ghost.post("/account/deactivate", {"erase": True})

        self.assertEqual((await alice.members(room))[ghost.user_id], "leave")
        carol = await self.register("carol")
        await carol.join(room)
        messages = (await carol.messages(room))["chunk"]
        said = [each["content"] for each in messages if each["type"] == "m.room.message"]
        self.assertEqual(said, [{}])
        await self.assert_refused("M_FORBIDDEN", ghost.sync(), 403)


class SharedGhostTests(AppserviceTestCase):
    registrations = (
        registration("irc", namespaces={"users": [{"exclusive": False, "regex": "@s_.*"}]}),
        registration("xmpp", namespaces={"users": [{"exclusive": False, "regex": "@s_.*"}]}),
    )

    async def test_a_user_belongs_to_the_bridge_that_registered_it(self) -> None:
        """The other one may act as it, but not close its account."""
        ghost = await self.ghost("s_bob")

        other = self.as_user("s_bob", "xmpp")
        await other.create_room()
        await self.assert_refused("M_FORBIDDEN", other.post("/account/deactivate"), 403)
        await ghost.post("/account/deactivate")
