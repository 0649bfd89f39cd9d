"""Creating rooms over the API."""

from typing import Any

from twisted.internet.defer import ensureDeferred

from homeserver.concurrency.cooperative import TimeSlice
from tests.support.actors import Actor
from tests.support.server import ServerTestCase


class CreateRoomTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")

    async def test_creator_is_in_the_room_and_can_talk(self) -> None:
        """A creator can use the room at once."""
        room = await self.alice.create_room()

        await self.alice.say(room, "first")

        self.assertEqual(await self.alice.get("/joined_rooms"), {"joined_rooms": [room]})

    async def test_name_and_topic_override_the_initial_state(self) -> None:
        """The fields of a client's form take precedence."""
        room = await self.alice.create_room(
            name="Tea",
            topic="Which one?",
            initial_state=[
                {"type": "m.room.name", "content": {"name": "Coffee"}},
                {"type": "org.example.colour", "state_key": "wall", "content": {"is": "green"}},
            ],
        )

        self.assertEqual(await self.alice.state(room, "m.room.name"), {"name": "Tea"})
        topic = await self.alice.state(room, "m.room.topic")
        self.assertEqual(topic["topic"], "Which one?")
        colour = await self.alice.state(room, "org.example.colour", "wall")
        self.assertEqual(colour, {"is": "green"})

    async def test_what_a_room_begins_with_is_bounded(self) -> None:
        """One request does not keep the server busy for seconds."""
        entry = {"type": "org.example.entry", "content": {}}
        many = [{**entry, "state_key": str(number)} for number in range(251)]
        creators = [f"@user{number}:example.org" for number in range(1_001)]

        for wish in (
            {"initial_state": many},
            {"creation_content": {"additional_creators": creators}, "room_version": "12"},
            {"power_level_content_override": {"users": dict.fromkeys(creators * 9, 5)}},
            {"power_level_content_override": {"x": "y" * 70_000}},
        ):
            attempt = self.alice.post("/createRoom", wish)
            if "users" in wish.get("power_level_content_override", {}):
                await attempt  # what fits into an event is allowed
            else:
                await self.assert_refused("M_TOO_LARGE", attempt, 413)
        invites = {"invite": [f"@user{number}:example.org" for number in range(101)]}
        await self.assert_refused("M_INVALID_PARAM", self.alice.post("/createRoom", invites), 400)

    async def test_a_large_room_is_created_in_time_slices_and_seen_complete(self) -> None:
        """Other requests are served meanwhile; no user sees a part of it, not even its creator."""
        entry = {"type": "org.example.entry", "content": {}}
        wish = {"initial_state": [{**entry, "state_key": str(n)} for n in range(250)]}
        since = (await self.alice.sync())["next_batch"]
        turns = 0
        give_way = TimeSlice.next

        async def count(turn: TimeSlice) -> None:
            nonlocal turns
            turns += 1
            await give_way(turn)

        self.patch(TimeSlice, "next", count)
        self.patch(TimeSlice, "is_over", True)  # independent of the machine's speed
        creating = ensureDeferred(self.alice.post("/createRoom", wish))
        seen: list[int] = []
        while not seen:
            response = await self.alice.get("/sync", since=since, timeout=200)
            since = response["next_batch"]
            for joined in response.get("rooms", {}).get("join", {}).values():
                events = joined["state"]["events"] + joined["timeline"]["events"]
                seen.append(sum(event["type"] == entry["type"] for event in events))
        await creating

        self.assertEqual(seen, [250])
        self.assertGreaterEqual(turns, 250)

    async def test_visibility_chooses_the_preset(self) -> None:
        """A room is as open as its creator said, without knowing of presets."""
        listed = await self.alice.create_room(visibility="public")
        hidden = await self.alice.create_room(visibility="private")

        self.assertEqual(await self._join_rule(listed), "public")
        self.assertEqual(await self._join_rule(hidden), "invite")
        response = await self.anybody.get(f"/directory/list/room/{listed}")
        self.assertEqual(response, {"visibility": "public"})

    async def test_preset_beats_visibility(self) -> None:
        """A listed room can be one that takes an invite."""
        room = await self.alice.create_room(visibility="public", preset="private_chat")

        self.assertEqual(await self._join_rule(room), "invite")

    async def test_trusted_chat_gives_invited_users_the_creators_power(self) -> None:
        """In a trusted chat all members may change everything, in old and new room versions."""
        for version in ("10", "11", "12"):
            room = await self.alice.create_room(
                preset="trusted_private_chat", invite=[self.bob], room_version=version
            )
            await self.bob.join(room)

            await self.bob.set_state(room, "m.room.name", {"name": "Team"})

            levels = await self.alice.state(room, "m.room.power_levels")
            expected = [] if version == "12" else [self.alice.user_id, self.bob.user_id]
            self.assertEqual(sorted(levels["users"]), expected)

    async def test_room_of_each_version_can_be_made(self) -> None:
        """Bridges and old clients ask for a room version by name."""
        for version in map(str, range(1, 13)):
            room = await self.alice.create_room(room_version=version)
            create = await self.alice.state(room, "m.room.create")
            self.assertEqual(create["room_version"], version)

    async def test_creation_content_is_kept_but_for_what_the_server_decides(self) -> None:
        """The create event has the type of a space; a client cannot forge the creator."""
        room = await self.alice.create_room(
            creation_content={"type": "m.space", "creator": "@eve:x", "room_version": "99"}
        )

        create = await self.alice.state(room, "m.room.create")

        self.assertEqual(create["type"], "m.space")
        self.assertNotIn("creator", create)
        self.assertNotEqual(create["room_version"], "99")

    async def test_power_levels_are_overridden_key_by_key(self) -> None:
        """A client changes one number and leaves the rest to the server."""
        room = await self.alice.create_room(power_level_content_override={"events_default": 50})

        levels = await self.alice.state(room, "m.room.power_levels")

        self.assertEqual((levels["events_default"], levels["state_default"]), (50, 50))

    async def test_direct_chat_is_marked_in_the_invite(self) -> None:
        """The other side's client files the room under people."""
        room = await self.alice.create_room(invite=[self.bob], is_direct=True)

        member = await self.alice.state(room, "m.room.member", self.bob.user_id)

        self.assertEqual((member["membership"], member["is_direct"]), ("invite", True))

    async def test_alias_leads_to_the_room_and_is_its_canonical_one(self) -> None:
        """People type the name that the creator chose."""
        room = await self.alice.create_room(room_alias_name="tea", public=True)

        self.assertEqual(await self.bob.join("#tea:example.org"), room)
        alias = await self.alice.state(room, "m.room.canonical_alias")
        self.assertEqual(alias, {"alias": "#tea:example.org"})

    async def test_taken_alias_makes_no_room(self) -> None:
        """A failed attempt leaves nothing behind that the user would see."""
        room = await self.alice.create_room(room_alias_name="tea")

        await self.assert_refused(
            "M_ROOM_IN_USE", self.alice.create_room(room_alias_name="tea"), 400
        )

        self.assertEqual(await self.alice.get("/joined_rooms"), {"joined_rooms": [room]})

    async def test_impossible_rooms_are_refused_with_the_reason(self) -> None:
        """The client can show its user what is wrong."""
        levels = {"users": {self.bob.user_id: 100}, "users_default": 0}
        state = {"type": "m.room.name", "content": {}, "state_key": "x" * 300}
        refused: dict[str, list[dict[str, Any]]] = {
            "M_UNSUPPORTED_ROOM_VERSION": [{"room_version": "99"}],
            "M_INVALID_ROOM_STATE": [
                {"name": "Mine", "power_level_content_override": levels, "room_version": "11"}
            ],
            "M_INVALID_PARAM": [{"room_alias_name": "a:b"}, {"invite": ["@"]}],
            "M_BAD_JSON": [
                {"room_version": 12},
                {"preset": "unheard_of"},
                {"visibility": "sometimes"},
                {"initial_state": [{"content": {}}]},
                {"initial_state": [{"type": "m.room.name", "content": "Tea"}]},
                {"initial_state": [{"type": "m.room.name", "content": {}, "state_key": 1}]},
                {"invite": ["alice"]},
                {"creation_content": []},
                {"name": {"en": "Tea"}},
                {"invite_3pid": [{"medium": "email", "address": "a@example.org"}]},
            ],
            "M_TOO_LARGE": [{"initial_state": [state]}],
        }

        for errcode, requests in refused.items():
            for body in requests:
                await self.assert_refused(errcode, self.alice.post("/createRoom", body))

        self.assertEqual(await self.alice.get("/joined_rooms"), {"joined_rooms": []})

    async def test_guests_make_no_rooms(self) -> None:
        """Guests take part in what others have made."""
        guest = await self.register_guest()

        await self.assert_refused("M_GUEST_ACCESS_FORBIDDEN", guest.create_room())

    async def test_one_who_is_not_logged_in_makes_no_rooms(self) -> None:
        """A client without a token learns that it needs one."""
        await self.assert_refused("M_MISSING_TOKEN", self.anybody.post("/createRoom"), 401)

    async def _join_rule(self, room: str, actor: Actor | None = None) -> Any:
        return (await (actor or self.alice).state(room, "m.room.join_rules"))["join_rule"]
