"""Pages of history, single events and their surroundings over the API."""

import json
from typing import Any
from urllib.parse import quote

from tests.support.actors import CLIENT, Actor, bodies
from tests.support.server import ServerTestCase

V1 = CLIENT.replace("v3", "v1")
MESSAGES = json.dumps({"types": ["m.room.message"]})


class HistoryTestCase(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")

    async def room_of(self, visibility: str, **body: Any) -> str:
        """A public room of Alice's with this history visibility."""
        content = {"history_visibility": visibility}
        state = {"type": "m.room.history_visibility", "content": content}
        return await self.alice.create_room(public=True, initial_state=[state], **body)

    async def said(self, actor: Actor, room: str, direction: str = "b") -> list[str]:
        """All that the actor finds to have been said, page by page, in the order of the pages."""
        found: list[str] = []
        query: dict[str, Any] = {"limit": 7, "filter": MESSAGES}
        while True:
            page = await actor.messages(room, direction, **query)
            found += bodies(page["chunk"])
            if "end" not in page:
                return found
            query["since"] = page["end"]


class MessagesTests(HistoryTestCase):
    async def test_pages_have_the_whole_history_once(self) -> None:
        """Scrolling back shows every message, and none twice, whichever way one goes."""
        room = await self.alice.create_room()
        texts = [f"message {number}" for number in range(30)]
        for text in texts:
            await self.alice.say(room, text)

        self.assertEqual(await self.said(self.alice, room, "b"), texts[::-1])
        self.assertEqual(await self.said(self.alice, room, "f"), texts)

    async def test_history_is_the_same_after_a_restart(self) -> None:
        """Events from memory and from the database are equal."""
        room = await self.alice.create_room()
        for number in range(5):
            await self.alice.say(room, f"message {number}")
        before = [(await self.alice.messages(room, direction, limit=4)) for direction in ("b", "f")]

        await self.restart_server(self.alice)
        after = [(await self.alice.messages(room, direction, limit=4)) for direction in ("b", "f")]

        for first, second in zip(before, after, strict=True):
            self.assertEqual(
                [event["event_id"] for event in first["chunk"]],
                [event["event_id"] for event in second["chunk"]],
            )
            self.assertEqual(first["end"], second["end"])

    async def test_history_ends_at_the_beginning_of_the_room(self) -> None:
        """A client knows when there is nothing more to scroll to."""
        room = await self.alice.create_room()

        page = await self.alice.messages(room, limit=100)
        exact = await self.alice.messages(room, limit=len(page["chunk"]))

        self.assertEqual(page["chunk"][-1]["type"], "m.room.create")
        self.assertEqual(exact["end"], page["end"])
        for last in (page, exact):
            beyond = await self.alice.messages(room, since=last["end"])
            self.assertEqual(beyond["chunk"], [])
            self.assertNotIn("end", beyond)

    async def test_an_empty_token_is_none(self) -> None:
        """A client that joined just now and has no token yet sends an empty one."""
        room = await self.alice.create_room()
        await self.alice.say(room, "hello")

        for direction in ("b", "f"):
            page = await self.alice.messages(room, direction)
            query = {"dir": direction, "from": "", "to": ""}
            same = await self.alice.get(f"/rooms/{room}/messages", **query)
            self.assertEqual(
                [event["event_id"] for event in same["chunk"]],
                [event["event_id"] for event in page["chunk"]],
            )

    async def test_what_is_said_later_follows_the_newest_page(self) -> None:
        """A client that has read to the end continues from there later."""
        room = await self.alice.create_room()
        await self.alice.say(room, "before")
        newest = await self.alice.messages(room, "f", limit=100)

        await self.alice.say(room, "after")

        page = await self.alice.messages(room, "f", since=newest["end"])
        self.assertEqual(bodies(page["chunk"]), ["after"])

    async def test_page_lies_between_its_tokens(self) -> None:
        """A client fills the gap between what it has and what it has missed, and no more."""
        room = await self.alice.create_room()
        await self.alice.say(room, "old")
        first = await self.alice.messages(room, limit=1)
        for text in ("one", "two", "three"):
            await self.alice.say(room, text)

        gap = await self.alice.messages(room, to=first["start"], filter=MESSAGES)
        again = await self.alice.messages(room, "f", since=first["end"], filter=MESSAGES)
        part = await self.alice.messages(
            room, "f", since=first["end"], to=gap["start"], filter=MESSAGES
        )

        self.assertEqual(bodies(gap["chunk"]), ["three", "two", "one"])
        self.assertEqual(bodies(again["chunk"]), ["old", "one", "two", "three"])
        self.assertEqual(bodies(part["chunk"]), ["old", "one", "two", "three"])

    async def test_sync_token_can_be_paged_from_both_ways(self) -> None:
        """Clients hand the tokens of `/sync` to `/messages`."""
        room = await self.alice.create_room()
        await self.alice.say(room, "before")
        token = (await self.alice.sync())["next_batch"]
        await self.alice.say(room, "after")

        back = await self.alice.messages(room, since=token, filter=MESSAGES)
        forth = await self.alice.messages(room, "f", since=token, filter=MESSAGES)

        self.assertEqual(bodies(back["chunk"]), ["before"])
        self.assertEqual(bodies(forth["chunk"]), ["after"])
        self.assertEqual((back["start"], forth["start"]), (token, token))

    async def test_prev_batch_of_a_first_sync_with_the_whole_room_shows_it_once_more(self) -> None:
        """Some clients always page from there, and show an empty room if they get nothing."""
        room = await self.alice.create_room()
        await self.alice.say(room, "hello")
        timeline = (await self.alice.sync())["rooms"]["join"][room]["timeline"]
        await self.alice.say(room, "later")
        lazy = json.dumps({"lazy_load_members": True})

        page = await self.alice.messages(room, since=timeline["prev_batch"], filter=lazy)
        rest = await self.alice.messages(room, since=page["end"])

        self.assertFalse(timeline["limited"])
        ids = [event["event_id"] for event in timeline["events"]]
        self.assertEqual([event["event_id"] for event in page["chunk"]], ids[::-1])
        self.assertEqual([event["state_key"] for event in page["state"]], [self.alice.user_id])
        self.assertEqual((rest["chunk"], "end" in rest), ([], False))

    async def test_prev_batch_of_sync_continues_where_its_timeline_began(self) -> None:
        """Scrolling up from the newest messages leaves no gap and repeats nothing."""
        room = await self.alice.create_room()
        for number in range(20):
            await self.alice.say(room, str(number))
        wanted = json.dumps({"room": {"timeline": {"limit": 5}}})

        timeline = (await self.alice.sync(filter=wanted))["rooms"]["join"][room]["timeline"]
        page = await self.alice.messages(room, since=timeline["prev_batch"], limit=5)

        self.assertEqual(bodies(timeline["events"]), ["15", "16", "17", "18", "19"])
        self.assertEqual(bodies(page["chunk"]), ["14", "13", "12", "11", "10"])

    async def test_filter_chooses_events(self) -> None:
        """A client asks for files only, or for what one user said."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        await self.alice.say(room, "from Alice")
        await self.bob.send(room, "m.room.message", {"body": "picture", "url": "mxc://x/y"})
        filters = {
            "picture": {"contains_url": True},
            "from Alice": {"senders": [self.alice.user_id], "types": ["m.room.message"]},
        }

        for expected, wanted in filters.items():
            page = await self.alice.messages(room, filter=json.dumps(wanted))
            self.assertEqual(bodies(page["chunk"]), [expected])
        other_rooms = {"rooms": ["!another:example.org"]}
        page = await self.alice.messages(room, filter=json.dumps(other_rooms))
        self.assertEqual(page["chunk"], [])

    async def test_senders_come_along_where_members_are_lazy(self) -> None:
        """A page can be shown with names although the client does not know the members."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        await self.bob.say(room, "Hello")
        lazy = json.dumps({"lazy_load_members": True})

        page = await self.alice.messages(room, limit=1, filter=lazy)
        busy = await self.alice.messages(room, limit=1)

        members = [(event["type"], event["state_key"]) for event in page["state"]]
        self.assertEqual(members, [("m.room.member", self.bob.user_id)])
        self.assertNotIn("state", busy)

    async def test_ignored_users_are_not_heard(self) -> None:
        """Scrolling back does not bring up those whom the user ignores."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        await self.bob.say(room, "you there?")
        ignored = {"ignored_users": {self.bob.user_id: {}}}

        user = quote(self.alice.user_id)
        await self.alice.put(f"/user/{user}/account_data/m.ignored_user_list", ignored)

        self.assertEqual(await self.said(self.alice, room), [])

    async def test_own_messages_are_shown_even_if_the_list_has_the_user(self) -> None:
        """A user who ignores themselves, by a client's error, still sees their own messages."""
        room = await self.alice.create_room()
        ignored = {"ignored_users": {self.alice.user_id: {}}}
        user = quote(self.alice.user_id)
        await self.alice.put(f"/user/{user}/account_data/m.ignored_user_list", ignored)
        since = (await self.alice.sync())["next_batch"]
        root = await self.alice.say(room, "root")
        relation = {"rel_type": "m.thread", "event_id": root}
        reply = await self.alice.send(
            room, "m.room.message", {"body": "reply", "m.relates_to": relation}
        )

        update = await self.alice.sync(since=since)
        whole = await self.alice.sync()
        around = await self.alice.get(f"/rooms/{room}/context/{quote(root, safe='')}")
        related = await self.alice.request(
            "GET", f"{V1}/rooms/{room}/relations/{quote(root, safe='')}"
        )

        for response in (update, whole):
            events = response["rooms"]["join"][room]["timeline"]["events"]
            self.assertEqual(bodies(events), ["root", "reply"])
        self.assertEqual(await self.said(self.alice, room), ["reply", "root"])
        self.assertEqual(bodies(around["events_after"]), ["reply"])
        self.assertEqual([event["event_id"] for event in related["chunk"]], [reply])
        thread = around["event"]["unsigned"]["m.relations"]["m.thread"]
        self.assertEqual(thread["count"], 1)

    async def test_invalid_parameters_are_refused(self) -> None:
        """The client gets an error that says what is wrong."""
        room = await self.alice.create_room()
        path = f"/rooms/{room}/messages"
        queries: list[tuple[str, dict[str, Any]]] = [
            ("M_MISSING_PARAM", {}),
            ("M_INVALID_PARAM", {"dir": "x"}),
            ("M_INVALID_PARAM", {"dir": "b", "from": "nonsense"}),
            ("M_INVALID_PARAM", {"dir": "b", "to": "t1"}),
            ("M_INVALID_PARAM", {"dir": "b", "limit": -1}),
            ("M_INVALID_PARAM", {"dir": "b", "limit": "many"}),
            ("M_INVALID_PARAM", {"dir": "b", "filter": "{"}),
            ("M_BAD_JSON", {"dir": "b", "filter": '{"types": 1}'}),
        ]

        for errcode, query in queries:
            await self.assert_refused(errcode, self.alice.get(path, **query), 400)


class VisibilityTests(HistoryTestCase):
    async def test_newcomer_sees_what_the_room_shares(self) -> None:
        """Each of the visibilities shows a newcomer what it promises, and no more."""
        expected = {
            "world_readable": ["before", "invited", "joined"],
            "shared": ["before", "invited", "joined"],
            "invited": ["invited", "joined"],
            "joined": ["joined"],
        }
        for visibility, seen in expected.items():
            room = await self.room_of(visibility)
            await self.alice.say(room, "before")
            await self.alice.invite(room, self.bob)
            await self.alice.say(room, "invited")
            await self.bob.join(room)
            await self.alice.say(room, "joined")

            self.assertEqual(await self.said(self.bob, room, "f"), seen, visibility)

    async def test_who_left_sees_up_to_their_leave(self) -> None:
        """A user does not see events after they left, unless the room is world-readable."""
        for visibility in ("shared", "invited", "joined"):
            room = await self.room_of(visibility)
            await self.bob.join(room)
            heard = await self.alice.say(room, "with Bob")
            await self.bob.leave(room)
            missed = await self.alice.say(room, "without Bob")

            self.assertEqual(await self.said(self.bob, room, "b"), ["with Bob"], visibility)
            self.assertEqual(await self.said(self.bob, room, "f"), ["with Bob"], visibility)
            await self.bob.event(room, heard)
            await self.assert_refused("M_NOT_FOUND", self.bob.event(room, missed), 404)
            page = await self.bob.messages(room, limit=1)
            self.assertEqual(page["chunk"][0]["content"]["membership"], "leave")

    async def test_stranger_reads_only_what_all_the_world_may(self) -> None:
        """A preview shows a room that wants to be seen."""
        guest = await self.register_guest()
        for visibility in ("shared", "invited", "joined"):
            room = await self.room_of(visibility)
            event_id = await self.alice.say(room, "secret")
            await self.assert_refused("M_FORBIDDEN", self.bob.messages(room), 403)
            await self.assert_refused("M_NOT_FOUND", self.bob.event(room, event_id), 404)
        room = await self.room_of("world_readable")
        await self.alice.say(room, "Hello, world")

        self.assertEqual(await self.said(guest, room), ["Hello, world"])
        await self.alice.set_state(
            room, "m.room.history_visibility", {"history_visibility": "shared"}
        )
        await self.assert_refused("M_FORBIDDEN", guest.messages(room), 403)

    async def test_invited_user_does_not_read_before_joining(self) -> None:
        """An invite is a door, not a window."""
        room = await self.alice.create_room(invite=[self.bob])

        await self.assert_refused("M_FORBIDDEN", self.bob.messages(room), 403)

    async def test_existence_of_rooms_is_not_revealed(self) -> None:
        """An unknown room gets the same error as a private one."""
        await self.assert_refused("M_FORBIDDEN", self.bob.messages("!none:example.org"), 403)


class ContextTests(HistoryTestCase):
    async def test_event_comes_with_its_surroundings(self) -> None:
        """A link to a message opens the conversation around it."""
        room = await self.alice.create_room()
        ids = [await self.alice.say(room, str(number)) for number in range(9)]

        context = await self._context(self.alice, room, ids[4], limit=4)

        self.assertEqual(context["event"]["event_id"], ids[4])
        self.assertEqual(bodies(context["events_before"]), ["3", "2"])
        self.assertEqual(bodies(context["events_after"]), ["5", "6"])
        self.assertIn("m.room.create", {event["type"] for event in context["state"]})
        back = await self.alice.messages(room, since=context["start"], limit=1)
        forth = await self.alice.messages(room, "f", since=context["end"], limit=1)
        self.assertEqual((bodies(back["chunk"]), bodies(forth["chunk"])), (["1"], ["7"]))

    async def test_context_is_refused_outside_of_the_room(self) -> None:
        """A link into a private room says that one has to be let in first."""
        room = await self.alice.create_room()
        event_id = await self.alice.say(room, "secret")

        await self.assert_refused("M_FORBIDDEN", self._context(self.bob, room, event_id), 403)
        nothing = self._context(self.alice, room, "$none")
        await self.assert_refused("M_NOT_FOUND", nothing, 404)

    async def test_context_of_nothing_but_the_event(self) -> None:
        """A client that wants only tokens for a place asks with a limit of 0."""
        room = await self.alice.create_room()
        event_id = await self.alice.say(room, "here")

        context = await self._context(self.alice, room, event_id, limit=0)

        self.assertEqual(context["events_before"] + context["events_after"], [])
        forth = await self.alice.messages(room, "f", since=context["start"], limit=1)
        self.assertEqual(bodies(forth["chunk"]), ["here"])

    async def test_filter_does_not_hide_the_event_itself(self) -> None:
        """The requested event is returned even if the filter excludes it."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        await self.bob.say(room, "first")
        event_id = await self.alice.set_state(room, "m.room.name", {"name": "Tea"})
        wanted = json.dumps({"types": ["m.room.message"], "lazy_load_members": True})

        context = await self._context(self.alice, room, event_id, filter=wanted)

        self.assertEqual(context["event"]["event_id"], event_id)
        self.assertEqual(bodies(context["events_before"]), ["first"])
        members = {event["state_key"] for event in context["state"]}
        self.assertEqual(members, {self.alice.user_id, self.bob.user_id})

    async def test_context_shows_nothing_that_may_not_be_seen(self) -> None:
        """Surroundings obey the same rules as pages."""
        room = await self.room_of("joined")
        hidden = await self.alice.say(room, "before Bob")
        await self.bob.join(room)
        shown = await self.alice.say(room, "with Bob")

        context = await self._context(self.bob, room, shown)

        self.assertEqual(bodies(context["events_before"]), [])
        await self.assert_refused("M_NOT_FOUND", self._context(self.bob, room, hidden), 404)
        await self.assert_refused("M_NOT_FOUND", self._context(self.bob, room, "$none"), 404)

    async def test_event_of_another_room_is_not_found(self) -> None:
        """Being in one room opens no other."""
        room, other = await self.alice.create_room(), await self.alice.create_room()
        event_id = await self.alice.say(other, "in another room")

        await self.assert_refused("M_NOT_FOUND", self.alice.event(room, event_id), 404)

    async def _context(self, actor: Actor, room: str, event_id: str, **query: Any) -> Any:
        return await actor.get(f"/rooms/{room}/context/{quote(event_id, safe='')}", **query)
