"""Reading and setting a room's state, and its members, over the API."""

from typing import Any

from tests.support.actors import Actor
from tests.support.server import ServerTestCase

WITH_MANY = '{"room":{"timeline":{"limit":50}}}'


class StateTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")
        self.room = await self.alice.create_room(public=True)

    async def test_state_is_set_and_read_with_and_without_key(self) -> None:
        """Most state has the empty key, which clients write in three ways."""
        base = f"/rooms/{self.room}/state/org.example.thing"

        await self.alice.put(base, {"n": 1})
        self.assertEqual(await self.alice.get(base), {"n": 1})
        await self.alice.put(f"{base}/", {"n": 2})
        self.assertEqual(await self.alice.get(f"{base}/"), {"n": 2})
        await self.alice.put(f"{base}/a%2Fb", {"n": 3})

        self.assertEqual(await self.alice.get(base), {"n": 2})
        self.assertEqual(await self.alice.get(f"{base}/a%2Fb"), {"n": 3})

    async def test_member_event_is_about_a_user(self) -> None:
        """Other servers refuse some of the rest, and no client can do anything with it."""
        for version in ("1", "6", "10", "12"):
            room = await self.alice.create_room(room_version=version)
            for key in ("nobody", "@nobody", "nobody:example.org", "", "@a:b c"):
                for membership in ("ban", "leave", "invite", "join"):
                    attempt = self.alice.set_state(
                        room, "m.room.member", {"membership": membership}, key
                    )
                    await self.assert_refused("M_INVALID_PARAM", attempt, 400)

    async def test_join_rule_is_a_string(self) -> None:
        """With another type no user could join any more."""
        for rule in (5, None, {}, ["public"]):
            attempt = self.alice.set_state(self.room, "m.room.join_rules", {"join_rule": rule})
            await self.assert_refused("M_BAD_JSON", attempt, 400)

        await self.bob.join(self.room)

    async def test_whole_event_is_returned_on_request(self) -> None:
        """A client wants to know who named the room, and when."""
        event_id = await self.alice.set_state(self.room, "m.room.name", {"name": "Tea"})

        event = await self.alice.get(f"/rooms/{self.room}/state/m.room.name", format="event")

        self.assertEqual(event["event_id"], event_id)
        self.assertEqual(event["sender"], self.alice.user_id)
        self.assertEqual((event["content"], event["state_key"]), ({"name": "Tea"}, ""))

    async def test_same_state_again_makes_no_new_event(self) -> None:
        """A bridge that sets everything at each start does not flood the room."""
        first = await self.alice.set_state(self.room, "m.room.name", {"name": "Tea"})
        again = await self.alice.set_state(self.room, "m.room.name", {"name": "Tea"})
        other = await self.alice.set_state(self.room, "m.room.name", {"name": "Coffee"})

        self.assertEqual(first, again)
        self.assertNotEqual(first, other)

    async def test_only_the_powerful_set_state(self) -> None:
        """A member cannot rename the room, nor a stranger anything."""
        await self.assert_refused(
            "M_FORBIDDEN", self.bob.set_state(self.room, "org.example.thing", {}), 403
        )
        await self.bob.join(self.room)
        await self.assert_refused(
            "M_FORBIDDEN", self.bob.set_state(self.room, "m.room.name", {"name": "Mine"}), 403
        )
        await self.assert_refused(
            "M_FORBIDDEN", self.alice.set_state(self.room, "m.room.create", {}), 403
        )

    async def test_state_of_others_keys_is_theirs(self) -> None:
        """A key that is a user id belongs to that user."""
        await self.assert_refused(
            "M_FORBIDDEN",
            self.alice.set_state(self.room, "org.example.thing", {}, self.bob.user_id),
            403,
        )

    async def test_missing_state_is_not_found(self) -> None:
        """A client that asks for the topic learns that there is none."""
        await self.assert_refused("M_NOT_FOUND", self.alice.state(self.room, "m.room.topic"), 404)
        await self.assert_refused(
            "M_INVALID_PARAM",
            self.alice.get(f"/rooms/{self.room}/state/m.room.name", format="xml"),
        )

    async def test_whole_state_is_a_list_of_events(self) -> None:
        """A client that joins gets all of it in one answer."""
        events = await self.alice.get(f"/rooms/{self.room}/state")

        keys = {(event["type"], event["state_key"]) for event in events}
        self.assertLessEqual(
            {
                ("m.room.create", ""),
                ("m.room.power_levels", ""),
                ("m.room.join_rules", ""),
                ("m.room.member", self.alice.user_id),
            },
            keys,
        )
        self.assertEqual({event["room_id"] for event in events}, {self.room})

    async def test_stranger_reads_no_state(self) -> None:
        """Neither the list, nor one event, nor the members, and rooms that are not there alike."""
        for room in (self.room, "!none:example.org"):
            await self.assert_refused("M_FORBIDDEN", self.bob.get(f"/rooms/{room}/state"), 403)
            await self.assert_refused("M_FORBIDDEN", self.bob.state(room, "m.room.create"), 403)
            await self.assert_refused("M_FORBIDDEN", self.bob.members(room), 403)
            await self.assert_refused("M_FORBIDDEN", self._joined(self.bob, room), 403)

    async def test_guest_reads_the_state_of_a_readable_room(self) -> None:
        """A preview shows the name of the room."""
        guest = await self.register_guest()
        readable = {"history_visibility": "world_readable"}
        await self.alice.set_state(self.room, "m.room.history_visibility", readable)

        create = await guest.state(self.room, "m.room.create")
        events = await guest.get(f"/rooms/{self.room}/state")

        self.assertIn("room_version", create)
        self.assertIn("m.room.create", {event["type"] for event in events})

    async def test_who_left_reads_the_state_of_then(self) -> None:
        """Leaving keeps what one knew, and adds nothing."""
        carol = await self.register("carol")
        await self.alice.set_state(self.room, "m.room.name", {"name": "Then"})
        await self.bob.join(self.room)
        await self.bob.leave(self.room)
        await self.alice.set_state(self.room, "m.room.name", {"name": "Now"})
        await self.alice.set_state(self.room, "m.room.topic", {"topic": "Bob"})
        await carol.join(self.room)

        self.assertEqual(await self.bob.state(self.room, "m.room.name"), {"name": "Then"})
        await self.assert_refused("M_NOT_FOUND", self.bob.state(self.room, "m.room.topic"))
        events = await self.bob.get(f"/rooms/{self.room}/state")
        names = [event["content"] for event in events if event["type"] == "m.room.name"]
        self.assertEqual(names, [{"name": "Then"}])
        members = await self.bob.members(self.room)
        self.assertEqual(members, {self.alice.user_id: "join", self.bob.user_id: "leave"})
        await self.assert_refused("M_FORBIDDEN", self._joined(self.bob, self.room), 403)

    async def test_who_was_banned_reads_no_state(self) -> None:
        """A banned user does not read the state until they can join again."""
        await self.bob.join(self.room)
        await self.alice.ban(self.room, self.bob)

        path = f"/rooms/{self.room}/state"
        await self.assert_refused("M_FORBIDDEN", self.bob.get(path), 403)

        await self.alice.unban(self.room, self.bob)
        self.assertTrue(await self.bob.get(path))

    async def test_members_are_chosen_by_membership(self) -> None:
        """A member list shows the joined, an admin's the banned."""
        carol = await self.register("carol")
        await self.bob.join(self.room)
        await self.alice.ban(self.room, carol)
        alice, bob = self.alice.user_id, self.bob.user_id

        joined = await self.alice.members(self.room, membership="join")
        others = await self.alice.members(self.room, not_membership="join")
        either = await self.alice.members(self.room, membership="ban", not_membership="leave")

        self.assertEqual(joined, {alice: "join", bob: "join"})
        self.assertEqual(others, {carol.user_id: "ban"})
        self.assertEqual(either, {alice: "join", bob: "join", carol.user_id: "ban"})
        await self.assert_refused(
            "M_INVALID_PARAM", self.alice.members(self.room, membership="owner")
        )

    async def test_members_of_an_earlier_moment(self) -> None:
        """A client asks for the members at the start of its timeline."""
        await self.bob.join(self.room)
        token = (await self.alice.sync())["next_batch"]
        place = (await self.alice.messages(self.room, limit=1))["end"]
        await self.bob.leave(self.room)

        now = await self.alice.members(self.room)
        then = await self.alice.members(self.room, at=token)
        earlier = await self.alice.members(self.room, at=place)

        self.assertEqual(now[self.bob.user_id], "leave")
        self.assertEqual(then[self.bob.user_id], "join")
        self.assertNotIn(self.bob.user_id, earlier)
        await self.assert_refused("M_INVALID_PARAM", self.alice.members(self.room, at="x"))

    async def test_members_at_the_beginning_are_those_of_the_creation(self) -> None:
        """A timeline that begins with the room has a token before it; so the creator is there."""
        before = (await self.alice.sync())["next_batch"]
        room = await self.alice.create_room(invite=[self.bob])
        section = (await self.alice.sync(since=before, filter=WITH_MANY))["rooms"]["join"][room]
        self.assertEqual(section["timeline"]["events"][0]["type"], "m.room.create")
        await self.bob.join(room)

        for token in (section["timeline"]["prev_batch"], "s0"):
            members = await self.alice.members(room, at=token)
            self.assertEqual(members, {self.alice.user_id: "join"})

    async def test_joined_members_have_names(self) -> None:
        """A bridge learns the names of a room in one request."""
        await self.bob.put(f"/profile/{self.bob.user_id}/displayname", {"displayname": "Bob!"})
        await self.bob.join(self.room)

        joined = await self._joined(self.alice, self.room)

        self.assertEqual(
            joined,
            {
                self.alice.user_id: {"display_name": "alice", "avatar_url": None},
                self.bob.user_id: {"display_name": "Bob!", "avatar_url": None},
            },
        )

    async def test_canonical_alias_must_lead_to_the_room(self) -> None:
        """A room does not adorn itself with the name of another one."""
        await self.alice.create_room(room_alias_name="other")
        await self.alice.put("/directory/room/%23tea:example.org", {"room_id": self.room})

        await self._set_alias({"alias": "#tea:example.org"})

        await self.assert_refused("M_BAD_ALIAS", self._set_alias({"alias": "#other:example.org"}))
        await self.assert_refused("M_BAD_ALIAS", self._set_alias({"alias": "#none:example.org"}))
        await self.assert_refused("M_INVALID_PARAM", self._set_alias({"alt_aliases": ["tea"]}))
        await self.assert_refused("M_BAD_JSON", self._set_alias({"alias": 1}))
        # What stands there already is not looked at again; what was deleted stands there no more.
        await self._set_alias({"alias": "#tea:example.org", "alt_aliases": []})
        await self.alice.delete("/directory/room/%23tea:example.org")
        await self.assert_refused("M_BAD_ALIAS", self._set_alias({"alias": "#tea:example.org"}))
        await self._set_alias({})

    async def _set_alias(self, content: Any) -> str:
        return await self.alice.set_state(self.room, "m.room.canonical_alias", content)

    async def _joined(self, actor: Actor, room: str) -> Any:
        return (await actor.get(f"/rooms/{room}/joined_members"))["joined"]
