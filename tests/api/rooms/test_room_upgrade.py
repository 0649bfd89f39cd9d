"""Room upgrades over the API."""

from typing import Any

from tests.support.actors import Actor
from tests.support.server import ServerTestCase


class UpgradeTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")

    async def upgrade(self, actor: Actor, room: str, version: str, **body: Any) -> str:
        """Upgrade a room; gives the new one's id."""
        response = await actor.post(f"/rooms/{room}/upgrade", {"new_version": version, **body})
        room_id: str = response["replacement_room"]
        return room_id

    async def test_rooms_point_to_each_other(self) -> None:
        """A client leads its user from the old room to the new one, and back to the history."""
        for old_version, new_version in (("1", "2"), ("10", "11"), ("11", "12"), ("12", "12")):
            old = await self.alice.create_room(room_version=old_version)

            new = await self.upgrade(self.alice, old, new_version)

            tombstone = await self._state_event(self.alice, old, "m.room.tombstone")
            self.assertEqual(tombstone["content"]["replacement_room"], new)
            create = await self.alice.state(new, "m.room.create")
            self.assertEqual(create["room_version"], new_version)
            self.assertEqual(create["predecessor"]["room_id"], old)
            if new_version != "12":
                self.assertEqual(create["predecessor"]["event_id"], tombstone["event_id"])

    async def test_state_is_carried_over(self) -> None:
        """The new room looks and behaves like the old one."""
        old = await self.alice.create_room(
            public=True,
            room_version="10",
            name="Tea",
            topic="All about tea",
            creation_content={"type": "m.space", "m.federate": False},
        )
        contents = {
            "m.room.avatar": {"url": "mxc://example.org/tea"},
            "m.room.history_visibility": {"history_visibility": "joined"},
            "m.room.guest_access": {"guest_access": "can_join"},
            "m.room.encryption": {"algorithm": "m.megolm.v1.aes-sha2"},
            "m.room.server_acl": {"allow": ["*"], "deny": ["evil.example"]},
        }
        for event_type, content in contents.items():
            await self.alice.set_state(old, event_type, content)
        await self.alice.set_state(old, "m.space.child", {"via": ["example.org"]}, "!child:x")
        await self.alice.set_state(old, "m.space.child", {}, "!gone:x")
        await self.alice.set_state(old, "org.example.secret", {"by": "Alice"})

        new = await self.upgrade(self.alice, old, "11")

        state = await self._state(self.alice, new)
        for event_type in (*contents, "m.room.name", "m.room.topic", "m.room.join_rules"):
            self.assertEqual(
                state[event_type, ""], await self.alice.state(old, event_type), event_type
            )
        create = state["m.room.create", ""]
        self.assertEqual((create["type"], create["m.federate"]), ("m.space", False))
        self.assertEqual(state["m.space.child", "!child:x"], {"via": ["example.org"]})
        self.assertNotIn(("m.space.child", "!gone:x"), state)
        self.assertNotIn(("org.example.secret", ""), state)

    async def test_banned_stay_out_and_others_are_not_brought_along(self) -> None:
        """An upgrade lifts no bans, and moves no user who did not join the new room."""
        old = await self.alice.create_room(public=True)
        carol = await self.register("carol")
        await self.bob.join(old)
        await carol.join(old)
        await self.alice.ban(old, self.bob, reason="spam")

        new = await self.upgrade(self.alice, old, "12")

        self.assertEqual(
            await self.alice.members(new),
            {self.alice.user_id: "join", self.bob.user_id: "ban"},
        )
        await self.assert_refused("M_FORBIDDEN", self.bob.join(new), 403)
        await carol.join(new)

    async def test_power_levels_are_the_same(self) -> None:
        """Users keep their power levels in the new room."""
        old = await self.alice.create_room(
            public=True,
            room_version="10",
            power_level_content_override={"users": {self.alice.user_id: 500}},
        )
        levels = await self.alice.state(old, "m.room.power_levels")
        levels["users"][self.bob.user_id] = 50
        levels["events"]["org.example.x"] = 7
        await self.alice.set_state(old, "m.room.power_levels", levels)

        new = await self.upgrade(self.alice, old, "11")

        self.assertEqual(await self.alice.state(new, "m.room.power_levels"), levels)

    async def test_moderator_is_a_moderator_afterwards(self) -> None:
        """An upgrade is no way to power, where the room version leaves a choice."""
        old = await self.alice.create_room(public=True, room_version="10", name="Tea")
        await self.bob.join(old)
        levels = await self.alice.state(old, "m.room.power_levels")
        levels["users"][self.bob.user_id] = 50
        levels["events"]["m.room.tombstone"] = 50
        await self.alice.set_state(old, "m.room.power_levels", levels)

        new = await self.upgrade(self.bob, old, "11")

        self.assertEqual(await self.bob.state(new, "m.room.power_levels"), levels)
        self.assertEqual(await self.bob.state(old, "m.room.power_levels"), levels)
        self.assertEqual(await self.bob.state(new, "m.room.name"), {"name": "Tea"})

    async def test_creators_stand_above_power_levels_where_the_version_knows_that(self) -> None:
        """From version 12 on creators have all power, and are not in the list."""
        old = await self.alice.create_room(public=True, room_version="11")
        await self.bob.join(old)
        levels = await self.alice.state(old, "m.room.power_levels")
        levels["users"] |= {self.bob.user_id: 100, "@carol:example.org": 60}
        await self.alice.set_state(old, "m.room.power_levels", levels)

        new = await self.upgrade(self.alice, old, "12", additional_creators=[self.bob.user_id])

        create = await self.alice.state(new, "m.room.create")
        self.assertEqual(create["additional_creators"], [self.bob.user_id])
        new_levels = await self.alice.state(new, "m.room.power_levels")
        self.assertEqual(new_levels["users"], {"@carol:example.org": 60})
        self.assertGreater(new_levels["events"]["m.room.tombstone"], new_levels["state_default"])
        again = await self.upgrade(self.alice, new, "12")
        self.assertNotIn("additional_creators", await self.alice.state(again, "m.room.create"))

    async def test_creators_are_listed_again_in_an_older_version(self) -> None:
        """Creators keep their power in a room of an older version."""
        old = await self.alice.create_room(room_version="12")

        new = await self.upgrade(self.alice, old, "11")

        levels = await self.alice.state(new, "m.room.power_levels")
        self.assertGreaterEqual(levels["users"][self.alice.user_id], 100)
        await self.alice.set_state(new, "m.room.power_levels", levels | {"ban": 99})

    async def test_levels_written_as_text_become_numbers(self) -> None:
        """Rooms from the early days can be upgraded too."""
        old = await self.alice.create_room(room_version="5")
        levels = await self.alice.state(old, "m.room.power_levels")
        levels |= {"ban": " 60 ", "kick": 55.5, "users": {self.alice.user_id: "100"}}
        await self.alice.set_state(old, "m.room.power_levels", levels)
        await self.alice.set_state(old, "m.room.avatar", {"info": {"w": 1.5}})

        new = await self.upgrade(self.alice, old, "11")

        new_levels = await self.alice.state(new, "m.room.power_levels")
        self.assertEqual((new_levels["ban"], new_levels["kick"]), (60, 55))
        self.assertEqual(new_levels["users"], {self.alice.user_id: 100})
        await self.assert_refused("M_NOT_FOUND", self.alice.state(new, "m.room.avatar"))

    async def test_aliases_and_directory_entry_move(self) -> None:
        """A user who follows the old alias gets to the new room."""
        old = await self.alice.create_room(visibility="public", room_alias_name="tea")
        alias = "%23tea:example.org"

        new = await self.upgrade(self.alice, old, "12")

        self.assertEqual((await self.bob.get(f"/directory/room/{alias}"))["room_id"], new)
        canonical = await self.alice.state(new, "m.room.canonical_alias")
        self.assertEqual(canonical, {"alias": "#tea:example.org"})
        self.assertEqual(await self.alice.state(old, "m.room.canonical_alias"), {})
        listed = [room["room_id"] for room in (await self.bob.get("/publicRooms"))["chunk"]]
        self.assertEqual(listed, [new])
        await self.restart_server(self.alice, self.bob)
        listed = [room["room_id"] for room in (await self.bob.get("/publicRooms"))["chunk"]]
        self.assertEqual(listed, [new])

    async def test_old_room_falls_silent(self) -> None:
        """Users do not continue a conversation in the old room."""
        for default, expected in ((0, 50), (80, 81)):
            old = await self.alice.create_room(public=True)
            await self.bob.join(old)
            levels = await self.alice.state(old, "m.room.power_levels")
            await self.alice.set_state(
                old, "m.room.power_levels", levels | {"users_default": default}
            )

            await self.upgrade(self.alice, old, "12")

            levels = await self.alice.state(old, "m.room.power_levels")
            self.assertEqual((levels["events_default"], levels["invite"]), (expected, expected))
            await self.assert_refused("M_FORBIDDEN", self.bob.say(old, "Hello?"), 403)

    async def test_refused_upgrade_changes_nothing(self) -> None:
        """A mistake costs no room."""
        old = await self.alice.create_room(public=True, room_version="11")
        await self.bob.join(old)
        stranger = await self.register("stranger")

        await self.assert_refused(
            "M_UNSUPPORTED_ROOM_VERSION", self.upgrade(self.alice, old, "nonsense"), 400
        )
        await self.assert_refused("M_FORBIDDEN", self.upgrade(self.bob, old, "11"), 403)
        await self.assert_refused("M_FORBIDDEN", self.upgrade(stranger, old, "12"), 403)
        await self.assert_refused("M_NOT_FOUND", self.upgrade(self.alice, "!no:x", "12"), 404)
        creators = ["alice"]
        attempt = self.upgrade(self.alice, old, "12", additional_creators=creators)
        await self.assert_refused("M_INVALID_PARAM", attempt, 400)
        await self.assert_refused("M_BAD_JSON", self.alice.post(f"/rooms/{old}/upgrade"), 400)
        many = [f"@user{number}:example.org" for number in range(1_001)]
        attempt = self.upgrade(self.alice, old, "12", additional_creators=many)
        await self.assert_refused("M_BAD_JSON", attempt, 400)

        await self.assert_refused("M_NOT_FOUND", self.alice.state(old, "m.room.tombstone"))
        joined = await self.bob.get("/joined_rooms")
        self.assertEqual(joined["joined_rooms"], [old])

    async def test_room_can_be_upgraded_after_a_restart(self) -> None:
        """The required data is loaded from the database."""
        old = await self.alice.create_room(public=True, name="Tea")
        await self.alice.ban(old, self.bob)
        await self.restart_server(self.alice, self.bob)

        new = await self.upgrade(self.alice, old, "12")
        await self.restart_server(self.alice, self.bob)

        self.assertEqual(await self.alice.state(new, "m.room.name"), {"name": "Tea"})
        self.assertEqual((await self.alice.members(new))[self.bob.user_id], "ban")

    async def _state(self, actor: Actor, room: str) -> dict[tuple[str, str], Any]:
        events = await actor.get(f"/rooms/{room}/state")
        return {(event["type"], event["state_key"]): event["content"] for event in events}

    async def _state_event(self, actor: Actor, room: str, event_type: str) -> Any:
        events = await actor.get(f"/rooms/{room}/state")
        return next(event for event in events if event["type"] == event_type)
