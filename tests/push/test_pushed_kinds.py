"""What is pushed, by the kind of the event and the rules of the user."""

from typing import Any

from tests.push.push_case import PushTestCase
from tests.push.push_gateway import pusher
from tests.support.reactor import pause, until

RING = {"sound": "ring"}


class PushedKindsTests(PushTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.set_pusher()

    async def first(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The first notification, and its tweaks."""
        (notification,) = await self.pushed(1)
        return notification, notification["devices"][0]["tweaks"]

    async def test_an_invite_wakes_the_phone(self) -> None:
        """It says who invites to what, and that it is for the user."""
        room = await self.bob.create_room(invite=[self.alice], name="Cellar")

        notification, tweaks = await self.first()

        shown = {name: notification[name] for name in ("room_id", "room_name", "type")}
        self.assertEqual(shown, {"room_id": room, "room_name": "Cellar", "type": "m.room.member"})
        self.assertEqual(notification["membership"], "invite")
        self.assertIs(notification["user_is_target"], True)
        self.assertEqual(notification["prio"], "high")
        self.assertEqual(tweaks, {"sound": "default"})

    async def test_a_direct_chat_is_named_by_the_other(self) -> None:
        """As in the list of rooms."""
        room = await self.bob.create_room(invite=[self.alice], is_direct=True)
        await self.alice.join(room)
        await self.bob.say(room, "hello")

        notification = (await self.pushed(2))[1]

        self.assertEqual(notification["room_name"], "bob")
        self.assertEqual(notification["devices"][0]["tweaks"], {"sound": "default"})
        self.assertEqual(notification["prio"], "high")

    async def test_an_invite_that_was_answered_at_once_is_not_pushed_later(self) -> None:
        """A gateway that was down does not bring it up again."""
        await self.gateway.stop()
        room = await self.bob.create_room(invite=[self.alice])
        await until(self.is_behind)
        await self.alice.leave(room)
        self.gateway.start()
        await self.set_pusher(lang="de")

        await self.bob.say(self.room, "hello")
        await self.pushed(1)

        self.assertEqual(self.gateway.bodies(), ["hello"])

    async def test_a_knock_is_pushed_where_a_rule_says_so(self) -> None:
        """Administrators can have themselves notified of who wants to come in."""
        conditions = [
            {"kind": "event_match", "key": "type", "pattern": "m.room.member"},
            {"kind": "event_match", "key": "content.membership", "pattern": "knock"},
        ]
        await self.set_rule("override", "knocks", conditions=conditions, actions=["notify"])
        state = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
        room = await self.alice.create_room(initial_state=[state])

        await self.bob.knock(room)

        notification, _ = await self.first()
        self.assertEqual(notification["membership"], "knock")
        self.assertIs(notification["user_is_target"], False)

    async def test_a_call_rings(self) -> None:
        """In a room of two or more."""
        content = {"call_id": "1", "lifetime": 1000, "version": "1", "offer": {}}
        await self.bob.send(self.room, "m.call.invite", content)

        notification, tweaks = await self.first()

        self.assertEqual(tweaks, RING)
        self.assertEqual(notification["prio"], "high")

    async def test_a_tombstone_is_pushed(self) -> None:
        """The room has moved, and nobody is to be left behind."""
        new = await self.bob.upgrade(self.room, "11")

        notification, tweaks = await self.first()

        self.assertEqual(notification["type"], "m.room.tombstone")
        self.assertEqual(notification["content"]["replacement_room"], new)
        self.assertEqual(tweaks, {"highlight": True})

    async def test_a_mention_is_highlighted_for_whom_it_mentions(self) -> None:
        """With a sound, however busy the room is."""
        await self.carol.post("/pushers/set", pusher(self.gateway, "carol"))
        mentions = {"user_ids": [self.alice.user_id]}
        content = {"msgtype": "m.text", "body": "Alice?", "m.mentions": mentions}
        await self.bob.send(self.room, "m.room.message", content)

        received = {each["devices"][0]["pushkey"]: each for each in await self.pushed(2)}

        alice, carol = received["phone"], received["carol"]
        self.assertEqual(alice["devices"][0]["tweaks"], {"sound": "default", "highlight": True})
        self.assertEqual(alice["prio"], "high")
        self.assertEqual(carol["devices"][0]["tweaks"], {})
        self.assertEqual(carol["prio"], "low")

    async def test_what_no_rule_notifies_of_is_not_pushed(self) -> None:
        """Notices, reactions, edits and joins."""
        event_id = await self.alice.say(self.room, "mine")
        await self.bob.send(self.room, "m.room.message", {"msgtype": "m.notice", "body": "beep"})
        relation = {"rel_type": "m.annotation", "event_id": event_id, "key": "👍"}
        await self.bob.send(self.room, "m.reaction", {"m.relates_to": relation})
        dave = await self.register("dave")
        await dave.join(self.room)

        await self.assert_no_more(0)

    async def test_an_edit_is_not_pushed_again(self) -> None:
        """The message was pushed already."""
        event_id = await self.bob.say(self.room, "helo")
        edit = {
            "msgtype": "m.text",
            "body": "* hello",
            "m.new_content": {"msgtype": "m.text", "body": "hello"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": event_id},
        }
        await self.bob.send(self.room, "m.room.message", edit)

        await self.pushed(1)

        await self.assert_no_more(1)
        self.assertEqual(self.gateway.bodies(), ["helo"])

    async def test_an_encrypted_event_is_urgent(self) -> None:
        """The server cannot know whether it is a call."""
        content = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x"}
        await self.bob.send(self.room, "m.room.encrypted", content)

        notification, _ = await self.first()

        self.assertEqual(notification["prio"], "high")
        self.assertEqual(notification["content"], content)

    async def test_a_thread_that_was_read_is_not_pushed(self) -> None:
        """A receipt of the main timeline reads the main timeline alone."""
        self.gateway.answer = lambda request, notification: {}
        root = await self.bob.say(self.room, "root")
        await self.pushed(1)
        await self.gateway.stop()
        relation = {"rel_type": "m.thread", "event_id": root}
        reply = {"msgtype": "m.text", "body": "in thread", "m.relates_to": relation}
        await self.bob.send(self.room, "m.room.message", reply)
        main = await self.bob.say(self.room, "in main")
        await until(self.is_behind)
        await self.alice.post(f"/rooms/{self.room}/receipt/m.read/{main}", {"thread_id": "main"})

        self.gateway.start()
        await self.set_pusher(lang="de")
        await self.pushed(2)

        await pause(0.3)
        self.assertEqual(self.gateway.bodies(), ["root", "in thread"])

    async def test_all_devices_of_a_user_are_notified(self) -> None:
        """One that is in use as well: nobody knows whether somebody looks at it."""
        await self.set_pusher("tablet")
        await self.alice.sync()
        await self.bob.say(self.room, "hello")

        await self.pushed(2)

        self.assertEqual(self.gateway.bodies("phone"), ["hello"])
        self.assertEqual(self.gateway.bodies("tablet"), ["hello"])

    async def test_ignored_users_are_not_pushed(self) -> None:
        """Neither their messages nor their invites."""
        path = f"/user/{self.alice.user_id}/account_data/m.ignored_user_list"
        await self.alice.put(path, {"ignored_users": {self.bob.user_id: {}}})
        await self.bob.say(self.room, "ignored")
        await self.bob.create_room(invite=[self.alice])
        await self.carol.say(self.room, "hello")

        await self.pushed(1)

        await self.assert_no_more(1)
        self.assertEqual(self.gateway.bodies(), ["hello"])

    async def test_filtered_invites_are_not_pushed(self) -> None:
        """The user has asked not to hear of them."""
        path = f"/user/{self.alice.user_id}/account_data/m.invite_permission_config"
        await self.alice.put(path, {"ignored_users": [self.bob.user_id]})
        await self.bob.create_room(invite=[self.alice])
        await self.carol.create_room(invite=[self.alice], name="Cellar")

        (notification,) = await self.pushed(1)

        await self.assert_no_more(1)
        self.assertEqual(notification["room_name"], "Cellar")

    async def test_a_muted_room_is_silent(self) -> None:
        """From the moment on that it was muted, and no longer."""
        await self.bob.say(self.room, "before")
        await self.pushed(1)
        await self.set_rule("room", self.room, actions=[])
        await self.bob.say(self.room, "muted")
        await self.assert_no_more(1)
        await self.alice.delete(f"/pushrules/global/room/{self.room}")

        await self.bob.say(self.room, "after")
        await self.pushed(2)

        self.assertEqual(self.gateway.bodies(), ["before", "after"])

    async def test_a_member_who_left_is_not_notified(self) -> None:
        """Though the event was decided about before."""
        await self.gateway.stop()
        await self.bob.say(self.room, "while in the room")
        await until(self.is_behind)
        await self.alice.leave(self.room)
        await self.bob.say(self.room, "after")
        self.gateway.start()
        await self.set_pusher(lang="de")
        room = await self.bob.create_room(invite=[self.alice])

        await until(lambda: len(self.gateway.received) >= 1)

        self.assertEqual([each["room_id"] for each in self.gateway.received], [room])

    async def test_unread_messages_of_all_rooms_are_counted(self) -> None:
        """Also after a restart, when no count is in memory."""
        other = await self.bob.create_room(public=True)
        await self.alice.join(other)
        await self.bob.say(self.room, "one")
        await self.bob.say(self.room, "two")
        await self.pushed(2)
        await self.restart_server(self.alice, self.bob)

        await self.bob.say(other, "three")

        self.assertEqual((await self.pushed(3))[2]["counts"], {"unread": 3})

    async def test_a_redaction_takes_the_badge_back(self) -> None:
        """What is gone cannot be read."""
        event_id = await self.bob.say(self.room, "hello")
        await self.pushed(1)

        await self.bob.redact(self.room, event_id)
        received = await self.pushed(2)

        self.assertEqual(received[1]["counts"], {"unread": 0})

    async def test_a_large_content_is_left_out(self) -> None:
        """No gateway can pass it on."""
        content = {"msgtype": "m.text", "body": "x" * 20_000}
        await self.bob.send(self.room, "m.room.message", content)

        notification, _ = await self.first()

        self.assertNotIn("content", notification)
