"""Joining, inviting, leaving, kicking, banning and knocking over the API."""

from tests.support.server import ServerTestCase


class MembershipTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")
        self.carol = await self.register("carol")

    async def test_invited_user_joins_and_is_a_member(self) -> None:
        """The everyday way into a private room."""
        room = await self.alice.create_room()
        await self.alice.invite(room, self.bob, reason="Tea")

        joined = await self.bob.post(f"/rooms/{room}/join", {"reason": "Thanks"})

        self.assertEqual(joined, {"room_id": room})
        member = await self.alice.state(room, "m.room.member", self.bob.user_id)
        self.assertEqual((member["membership"], member["reason"]), ("join", "Thanks"))

    async def test_body_of_a_join_is_in_the_member_event(self) -> None:
        """A client adds fields of its own, but cannot forge authorisation or names."""
        room = await self.alice.create_room(public=True)
        chosen = {"reason": "They asked me to", "org.example.source": "poster"}
        not_for_choice = {
            "membership": "ban",
            "displayname": "Alice",
            "avatar_url": 1,
            "join_authorised_via_users_server": self.alice.user_id,
            "third_party_invite": {},
        }

        await self.bob.join(room, **chosen, **not_for_choice)

        content = await self.bob.state(room, "m.room.member", self.bob.user_id)
        self.assertEqual(content, {"membership": "join", "displayname": "bob", **chosen})

    async def test_join_that_is_none_is_refused(self) -> None:
        """A client with a fault hears of it."""
        room = await self.alice.create_room(public=True)

        for body in ({"reason": 1}, {"third_party_signed": "x"}, []):
            await self.assert_refused("M_BAD_JSON", self.bob.post(f"/rooms/{room}/join", body))
            await self.assert_refused("M_BAD_JSON", self.bob.post(f"/join/{room}", body))

    async def test_private_room_needs_an_invite(self) -> None:
        """Knowing the id of a room is not enough."""
        room = await self.alice.create_room()

        await self.assert_refused("M_FORBIDDEN", self.bob.join(room), 403)

    async def test_joining_twice_is_joining_once(self) -> None:
        """A client that repeats a request which got lost does no harm."""
        room = await self.alice.create_room(public=True)

        await self.bob.join(room)
        await self.bob.join(room)

        self.assertEqual(await self.bob.get("/joined_rooms"), {"joined_rooms": [room]})

    async def test_unknown_room_cannot_be_joined(self) -> None:
        """Without federation no other server can admit the user."""
        await self.assert_refused("M_NOT_FOUND", self.bob.join("!missing:example.org"), 404)
        await self.assert_refused("M_NOT_FOUND", self.bob.join("#missing:example.org"), 404)
        await self.assert_refused("M_NOT_FOUND", self.bob.knock("!missing:example.org"), 404)

    async def test_leaving_ends_membership_and_turns_down_invites(self) -> None:
        """Both are the same button in a client."""
        room = await self.alice.create_room(invite=[self.bob, self.carol])
        await self.bob.join(room)

        await self.bob.leave(room, reason="Bye")
        await self.carol.leave(room)

        members = await self.alice.members(room)
        self.assertEqual(members[self.bob.user_id], "leave")
        self.assertEqual(members[self.carol.user_id], "leave")
        await self.assert_refused("M_FORBIDDEN", self.bob.say(room, "still there?"))

    async def test_who_has_left_may_leave_again(self) -> None:
        """A client that had no answer tries again; there is nothing more to do, and no error."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        await self.bob.leave(room)
        since = (await self.alice.sync())["next_batch"]

        await self.bob.leave(room, reason="Really")

        self.assertNotIn("rooms", await self.alice.sync(since))

    async def test_who_was_kicked_may_leave_and_who_is_banned_may_not(self) -> None:
        """A kick is a departure; a ban is not for the user to end."""
        room = await self.alice.create_room(public=True)
        for actor in (self.bob, self.carol):
            await actor.join(room)
        await self.alice.kick(room, self.bob)
        await self.alice.ban(room, self.carol)

        await self.bob.leave(room)
        await self.assert_refused("M_FORBIDDEN", self.carol.leave(room), 403)

    async def test_who_was_never_there_cannot_leave(self) -> None:
        """A user cannot add member events to a foreign room."""
        room = await self.alice.create_room()

        await self.assert_refused("M_FORBIDDEN", self.bob.leave(room), 403)

    async def test_kicked_user_may_come_back_and_banned_one_may_not(self) -> None:
        """Moderators have a mild and a strong measure."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        await self.alice.kick(room, self.bob, reason="Enough")
        await self.bob.join(room)

        await self.alice.ban(room, self.bob)

        await self.assert_refused("M_FORBIDDEN", self.bob.join(room), 403)
        await self.alice.unban(room, self.bob)
        await self.bob.join(room)

    async def test_only_the_powerful_kick_ban_and_unban(self) -> None:
        """Members without power cannot throw each other out."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        await self.carol.join(room)
        dave = await self.register("dave")
        await self.alice.ban(room, dave)

        await self.assert_refused("M_FORBIDDEN", self.bob.kick(room, self.carol), 403)
        await self.assert_refused("M_FORBIDDEN", self.bob.ban(room, self.carol), 403)
        await self.assert_refused("M_FORBIDDEN", self.bob.unban(room, dave), 403)

        self.assertEqual((await self.alice.members(room))[self.carol.user_id], "join")

    async def test_kicking_who_is_not_there_is_refused(self) -> None:
        """A moderator who mistypes a name gets an error."""
        room = await self.alice.create_room()

        await self.assert_refused("M_FORBIDDEN", self.alice.kick(room, self.bob), 403)
        await self.assert_refused("M_BAD_STATE", self.alice.unban(room, self.bob))

    async def test_invites_are_refused_where_they_make_no_sense(self) -> None:
        """Members, banned users, strangers and outsiders are not invited, or do not invite."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        path = f"/rooms/{room}/invite"

        await self.assert_refused("M_FORBIDDEN", self.alice.invite(room, self.bob), 403)
        await self.assert_refused("M_FORBIDDEN", self.carol.invite(room, self.bob), 403)
        remote = {"user_id": "@dave:elsewhere.example"}
        await self.assert_refused("M_FORBIDDEN", self.alice.post(path, remote))
        third_party = {"id_server": "x", "medium": "email", "address": "a@example.org"}
        await self.assert_refused("M_BAD_JSON", self.alice.post(path, third_party))
        await self.assert_refused("M_BAD_JSON", self.alice.post(path, {}))
        await self.assert_refused("M_BAD_JSON", self.alice.post(path, {"user_id": "bob"}))
        await self.assert_refused("M_INVALID_PARAM", self.alice.post(path, {"user_id": "@"}))

    async def test_room_is_forgotten_only_after_leaving(self) -> None:
        """Forgetting is no way to leave, and what is forgotten cannot be read any more."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)

        await self.assert_refused("M_UNKNOWN", self.bob.forget(room), 400)
        await self.bob.leave(room)
        await self.bob.messages(room)
        await self.bob.forget(room)

        await self.assert_refused("M_FORBIDDEN", self.bob.messages(room), 403)

    async def test_knock_is_answered_by_an_invite(self) -> None:
        """A user who knocks can be invited."""
        room = await self.alice.create_room()
        await self.assert_refused("M_FORBIDDEN", self.bob.knock(room), 403)
        await self.alice.set_state(room, "m.room.join_rules", {"join_rule": "knock"})

        await self.bob.knock(room, reason="May I?")
        self.assertEqual((await self.alice.members(room))[self.bob.user_id], "knock")
        await self.alice.invite(room, self.bob)
        await self.bob.join(room)

    async def test_restricted_room_admits_members_of_the_other_room(self) -> None:
        """Members of the space can join its rooms, other users cannot."""
        space = await self.alice.create_room(public=True)
        rule = {
            "join_rule": "restricted",
            "allow": [{"type": "m.room_membership", "room_id": space}],
        }
        room = await self.alice.create_room(
            initial_state=[{"type": "m.room.join_rules", "content": rule}]
        )

        await self.assert_refused("M_FORBIDDEN", self.bob.join(room), 403)
        await self.bob.join(space)
        await self.bob.join(room)

    async def test_guests_join_only_where_they_may(self) -> None:
        """A room says itself whether it takes guests, by whichever path they come."""
        guest = await self.register_guest()
        room = await self.alice.create_room(public=True)
        joining = {"membership": "join"}

        await self.assert_refused("M_GUEST_ACCESS_FORBIDDEN", guest.join(room), 403)
        await self.assert_refused(
            "M_GUEST_ACCESS_FORBIDDEN",
            guest.set_state(room, "m.room.member", joining, guest.user_id),
        )
        await self.alice.set_state(room, "m.room.guest_access", {"guest_access": "can_join"})
        await guest.join(room)

        await guest.say(room, "Hello")
        await guest.leave(room)

    async def test_membership_can_be_set_as_state(self) -> None:
        """Bridges invite and kick by sending the state event itself."""
        room = await self.alice.create_room()
        invited, gone = {"membership": "invite"}, {"membership": "leave"}

        await self.alice.set_state(room, "m.room.member", invited, self.bob.user_id)
        await self.bob.join(room)
        await self.alice.set_state(room, "m.room.member", gone, self.bob.user_id)

        self.assertEqual((await self.alice.members(room))[self.bob.user_id], "leave")
        await self.assert_refused(
            "M_FORBIDDEN",
            self.alice.set_state(room, "m.room.member", invited, "@dave:elsewhere.example"),
        )

    async def test_body_may_be_left_out(self) -> None:
        """Old clients send no body where nothing in it is required."""
        room = await self.alice.create_room(public=True)

        await self.bob.request("POST", f"/_matrix/client/v3/rooms/{room}/join")
        await self.bob.request("POST", f"/_matrix/client/r0/rooms/{room}/leave")
