"""Relations over the API: children, threads, and what is bundled with an event."""

import json
from typing import Any
from urllib.parse import quote

from tests.support.actors import CLIENT, Actor
from tests.support.server import ServerTestCase

V1 = CLIENT.replace("v3", "v1")
MESSAGE = "m.room.message"


def child(event_id: str, rel_type: str, text: str = "child", **more: Any) -> dict[str, Any]:
    """The content of a message that relates to an event."""
    relates_to = {"rel_type": rel_type, "event_id": event_id, **more}
    return {"msgtype": "m.text", "body": text, "m.relates_to": relates_to}


def edit(event_id: str, text: str) -> dict[str, Any]:
    """The content of an edit."""
    content = {"msgtype": "m.text", "body": text}
    return {**child(event_id, "m.replace", f"* {text}"), "m.new_content": content}


def reaction(event_id: str, key: str) -> dict[str, Any]:
    """The content of a reaction."""
    return {"m.relates_to": {"rel_type": "m.annotation", "event_id": event_id, "key": key}}


def ids(events: list[Any]) -> list[str]:
    return [event["event_id"] for event in events]


class RelationsTestCase(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")
        self.room = await self.alice.create_room(public=True)
        await self.bob.join(self.room)

    async def children(
        self, actor: Actor, event_id: str, *kinds: str, **query: Any
    ) -> dict[str, Any]:
        """The answer of `/relations`."""
        path = "/".join(quote(part, safe="") for part in (event_id, *kinds))
        response: dict[str, Any] = await actor.request(
            "GET", f"{V1}/rooms/{self.room}/relations/{path}", query=query
        )
        return response

    async def threads(self, actor: Actor, **query: Any) -> dict[str, Any]:
        """The answer of `/threads`."""
        response: dict[str, Any] = await actor.request(
            "GET", f"{V1}/rooms/{self.room}/threads", query=query
        )
        return response

    async def bundle(self, actor: Actor, event_id: str) -> dict[str, Any]:
        """The aggregations bundled with an event, equal at all endpoints."""
        event = await actor.event(self.room, event_id)
        around = await actor.get(f"/rooms/{self.room}/context/{quote(event_id, safe='')}")
        page = await actor.messages(self.room, limit=100)
        wanted = json.dumps({"room": {"timeline": {"limit": 6}}})
        sync = await actor.sync(filter=wanted)
        timeline = sync["rooms"]["join"][self.room]["timeline"]
        self.assertTrue(timeline["limited"])
        served = [event, around["event"]]
        for events in (page["chunk"], timeline["events"]):
            served += [each for each in events if each["event_id"] == event_id]
        self.assertEqual(len(served), 4)
        bundles = [each["unsigned"].get("m.relations", {}) for each in served]
        for bundle in bundles[1:]:
            self.assertEqual(_without_age(bundle), _without_age(bundles[0]))
        return bundles[0]

    async def ignore(self, actor: Actor, ignored: Actor) -> None:
        content = {"ignored_users": {ignored.user_id: {}}}
        await actor.put(f"/user/{actor.user_id}/account_data/m.ignored_user_list", content)


class BundleTests(RelationsTestCase):
    async def test_latest_edit_comes_with_the_message(self) -> None:
        """A client that has just opened the room shows what the author means to say now."""
        event_id = await self.alice.say(self.room, "one")
        await self.alice.send(self.room, MESSAGE, edit(event_id, "two"))
        latest = await self.alice.send(self.room, MESSAGE, edit(event_id, "three"))

        bundle = await self.bundle(self.bob, event_id)

        self.assertEqual(bundle["m.replace"]["event_id"], latest)
        self.assertEqual(bundle["m.replace"]["content"]["m.new_content"]["body"], "three")
        event = await self.bob.event(self.room, event_id)
        self.assertEqual(event["content"]["body"], "one")

    async def test_edit_that_is_not_valid_does_not_count(self) -> None:
        """A user cannot edit the messages of another user."""
        event_id = await self.alice.say(self.room, "mine")
        good = await self.alice.send(self.room, MESSAGE, edit(event_id, "still mine"))
        await self.bob.send(self.room, MESSAGE, edit(event_id, "hijacked"))
        await self.alice.send(self.room, "org.example.other", edit(event_id, "of another type"))
        await self.alice.send(self.room, MESSAGE, child(event_id, "m.replace", "no new content"))
        await self.alice.send(self.room, MESSAGE, edit(good, "edit of an edit"))

        self.assertEqual((await self.bundle(self.bob, event_id))["m.replace"]["event_id"], good)
        self.assertEqual(await self.bundle(self.bob, good), {})

    async def test_reaction_as_state_does_not_count(self) -> None:
        """A user who may set state reacts no more than once, like all others."""
        event_id = await self.alice.say(self.room, "one")

        for place in ("a", "b"):
            await self.alice.set_state(self.room, "m.reaction", reaction(event_id, "+1"), place)

        self.assertEqual((await self.children(self.bob, event_id))["chunk"], [])

    async def test_redacted_edit_restores_the_one_before(self) -> None:
        """A user who redacts an edit shows the version before it."""
        event_id = await self.alice.say(self.room, "one")
        first = await self.alice.send(self.room, MESSAGE, edit(event_id, "two"))
        second = await self.alice.send(self.room, MESSAGE, edit(event_id, "three"))
        await self.bundle(self.bob, event_id)

        await self.alice.redact(self.room, second)
        self.assertEqual((await self.bundle(self.bob, event_id))["m.replace"]["event_id"], first)
        await self.alice.redact(self.room, first)
        self.assertEqual(await self.bundle(self.bob, event_id), {})

    async def test_redacted_message_is_not_shown_by_its_edits(self) -> None:
        """Redacted content is not visible through another event."""
        event_id = await self.alice.say(self.room, "one")
        await self.alice.send(self.room, MESSAGE, edit(event_id, "two"))

        await self.alice.redact(self.room, event_id)

        self.assertEqual(await self.bundle(self.bob, event_id), {})

    async def test_thread_is_summed_up_at_its_root(self) -> None:
        """The timeline shows that there is a thread, how long it is, and what was said last."""
        root = await self.alice.say(self.room, "root")
        await self.bob.send(self.room, MESSAGE, child(root, "m.thread", "first"))
        last = await self.bob.send(self.room, MESSAGE, child(root, "m.thread", "last"))
        carol = await self.register("carol")
        await carol.join(self.room)

        thread = (await self.bundle(self.alice, root))["m.thread"]

        self.assertEqual((thread["count"], thread["latest_event"]["event_id"]), (2, last))
        self.assertTrue(thread["current_user_participated"])
        self.assertTrue(
            (await self.bundle(self.bob, root))["m.thread"]["current_user_participated"]
        )
        thread = (await self.bundle(carol, root))["m.thread"]
        self.assertFalse(thread["current_user_participated"])

    async def test_latest_event_of_a_thread_has_its_own_aggregations(self) -> None:
        """The preview of a thread shows the corrected text."""
        root = await self.alice.say(self.room, "root")
        last = await self.bob.send(self.room, MESSAGE, child(root, "m.thread", "lsat"))
        correction = await self.bob.send(self.room, MESSAGE, edit(last, "last"))

        thread = (await self.bundle(self.alice, root))["m.thread"]

        inner = thread["latest_event"]["unsigned"]["m.relations"]
        self.assertEqual(inner["m.replace"]["event_id"], correction)

    async def test_references_are_listed(self) -> None:
        """A client finds the answers to a poll without reading the whole room."""
        event_id = await self.alice.say(self.room, "question")
        responses = [
            await actor.send(self.room, MESSAGE, child(event_id, "m.reference"))
            for actor in (self.alice, self.bob)
        ]

        bundle = await self.bundle(self.bob, event_id)

        self.assertEqual(bundle["m.reference"]["chunk"], [{"event_id": each} for each in responses])

    async def test_reactions_and_unknown_types_are_not_bundled(self) -> None:
        """Clients count those themselves."""
        event_id = await self.alice.say(self.room, "nice")
        await self.bob.send(self.room, "m.reaction", reaction(event_id, "👍"))
        await self.bob.send(self.room, MESSAGE, child(event_id, "org.example.other"))

        self.assertEqual(await self.bundle(self.bob, event_id), {})

    async def test_ignored_users_do_not_count(self) -> None:
        """Ignored users are hidden in threads too."""
        root = await self.alice.say(self.room, "root")
        first = await self.alice.send(self.room, MESSAGE, child(root, "m.thread", "mine"))
        await self.bob.send(self.room, MESSAGE, child(root, "m.thread", "spam"))
        await self.bob.send(self.room, MESSAGE, child(root, "m.reference", "spam"))
        await self.ignore(self.alice, self.bob)

        bundle = await self.bundle(self.alice, root)

        self.assertEqual(bundle["m.thread"]["count"], 1)
        self.assertEqual(bundle["m.thread"]["latest_event"]["event_id"], first)
        self.assertNotIn("m.reference", bundle)

    async def test_who_left_does_not_hear_what_is_said_behind_them(self) -> None:
        """An old message does not carry new ones to users who left."""
        root = await self.alice.say(self.room, "root")
        seen = await self.alice.send(self.room, MESSAGE, child(root, "m.thread", "with Bob"))
        await self.bob.leave(self.room)
        await self.alice.send(self.room, MESSAGE, child(root, "m.thread", "without Bob"))
        await self.alice.send(self.room, MESSAGE, edit(root, "without Bob"))

        event = await self.bob.event(self.room, root)

        bundle = event["unsigned"]["m.relations"]
        self.assertEqual(list(bundle), ["m.thread"])
        self.assertEqual(bundle["m.thread"]["count"], 1)
        self.assertEqual(bundle["m.thread"]["latest_event"]["event_id"], seen)

    async def test_relation_to_an_event_of_another_room_is_none(self) -> None:
        """An event of another room has no effect."""
        event_id = await self.alice.say(self.room, "here")
        other_room = await self.bob.create_room()
        await self.bob.send(other_room, MESSAGE, child(event_id, "m.thread", "from outside"))

        self.assertEqual(await self.bundle(self.alice, event_id), {})
        self.assertEqual((await self.children(self.alice, event_id))["chunk"], [])

    async def test_aggregations_outlive_a_restart(self) -> None:
        """Aggregations do not depend on the events in memory."""
        root = await self.alice.say(self.room, "root")
        await self.bob.send(self.room, MESSAGE, child(root, "m.thread"))
        await self.bob.send(self.room, MESSAGE, child(root, "m.reference"))
        await self.alice.send(self.room, MESSAGE, edit(root, "better root"))
        before = await self.bundle(self.bob, root)

        await self.restart_server(self.alice, self.bob)

        self.assertEqual(set(before), {"m.thread", "m.reference", "m.replace"})
        self.assertEqual(_without_age(await self.bundle(self.bob, root)), _without_age(before))


class SendingTests(RelationsTestCase):
    async def test_user_reacts_once_with_the_same_key(self) -> None:
        """A double tap counts once."""
        event_id = await self.alice.say(self.room, "nice")
        first = await self.bob.send(self.room, "m.reaction", reaction(event_id, "👍"), txn_id="a")

        again = self.bob.send(self.room, "m.reaction", reaction(event_id, "👍"))
        await self.assert_refused("M_DUPLICATE_ANNOTATION", again, 400)

        await self.bob.send(self.room, "m.reaction", reaction(event_id, "👎"))
        await self.alice.send(self.room, "m.reaction", reaction(event_id, "👍"))
        repeated = await self.bob.send(
            self.room, "m.reaction", reaction(event_id, "👍"), txn_id="a"
        )
        self.assertEqual(repeated, first)
        await self.bob.redact(self.room, first)
        await self.bob.send(self.room, "m.reaction", reaction(event_id, "👍"))

    async def test_thread_does_not_start_inside_of_a_thread(self) -> None:
        """Threads stay flat, so that every client can show them."""
        root = await self.alice.say(self.room, "root")
        inside = await self.alice.send(self.room, MESSAGE, child(root, "m.thread"))
        reply = await self.alice.send(
            self.room,
            MESSAGE,
            {"body": "reply", "m.relates_to": {"m.in_reply_to": {"event_id": root}}},
        )

        nested = self.bob.send(self.room, MESSAGE, child(inside, "m.thread"))
        await self.assert_refused("M_UNKNOWN", nested, 400)

        await self.bob.send(self.room, MESSAGE, child(reply, "m.thread"))
        await self.bob.send(self.room, MESSAGE, child("$unknown", "m.thread"))

    async def test_relations_of_any_shape_do_no_harm(self) -> None:
        """An event with an invalid relation is an ordinary message."""
        event_id = await self.alice.say(self.room, "parent")
        for relates_to in (
            None,
            7,
            "text",
            {},
            {"event_id": event_id},
            {"rel_type": "m.thread"},
            {"rel_type": 7, "event_id": event_id},
            {"rel_type": "", "event_id": event_id},
            {"rel_type": "m.thread", "event_id": ["$x"]},
            {"rel_type": "m.thread", "event_id": "$" + "x" * 300},
            {"rel_type": "x" * 300, "event_id": event_id},
            {"rel_type": "m.thread\0", "event_id": event_id},
        ):
            content = {"body": "x", "m.relates_to": relates_to}
            await self.alice.send(self.room, MESSAGE, content)
        await self.alice.send(self.room, "m.reaction", reaction(event_id, "a\0b"))
        await self.alice.send(self.room, MESSAGE, child(event_id, "m.annotation", key=7))

        self.assertEqual(len((await self.children(self.alice, event_id))["chunk"]), 2)


class ChildrenTests(RelationsTestCase):
    async def test_children_are_listed_newest_first_page_by_page(self) -> None:
        """A client reads a thread from its end, without a gap and nothing twice."""
        root = await self.alice.say(self.room, "root")
        sent = [
            await self.alice.send(self.room, MESSAGE, child(root, "m.thread", str(number)))
            for number in range(7)
        ]

        first = await self.children(self.bob, root, "m.thread", limit=3)
        second = await self.children(
            self.bob, root, "m.thread", **{"limit": 3, "from": first["next_batch"]}
        )
        third = await self.children(
            self.bob, root, "m.thread", **{"limit": 3, "from": second["next_batch"]}
        )
        forth = await self.children(self.bob, root, "m.thread", limit=100, dir="f")
        between = await self.children(self.bob, root, to=first["next_batch"])

        pages = (first, second, third)
        self.assertEqual([len(page["chunk"]) for page in pages], [3, 3, 1])
        self.assertEqual(
            [ids(page["chunk"]) for page in pages], [sent[:3:-1], sent[3:0:-1], sent[0:1]]
        )
        self.assertNotIn("next_batch", third)
        self.assertNotIn("prev_batch", first)
        self.assertEqual(second["prev_batch"], first["next_batch"])
        self.assertEqual(ids(forth["chunk"]), sent)
        self.assertEqual(ids(between["chunk"]), sent[:3:-1])
        self.assertNotIn("recursion_depth", first)

    async def test_children_are_chosen_by_relation_and_event_type(self) -> None:
        """A client asks for reactions alone, or for edits."""
        event_id = await self.alice.say(self.room, "parent")
        thumb = await self.bob.send(self.room, "m.reaction", reaction(event_id, "👍"))
        other = await self.bob.send(self.room, "org.example.vote", reaction(event_id, "👍"))
        thread = await self.bob.send(self.room, MESSAGE, child(event_id, "m.thread"))

        async def found(*kinds: str) -> list[str]:
            return ids((await self.children(self.alice, event_id, *kinds))["chunk"])

        self.assertEqual(await found(), [thread, other, thumb])
        self.assertEqual(await found("m.annotation"), [other, thumb])
        self.assertEqual(await found("m.annotation", "m.reaction"), [thumb])
        self.assertEqual(await found("m.annotation", "never.seen"), [])
        self.assertEqual(await found("m.replace"), [])
        await self.bob.redact(self.room, thumb)
        self.assertEqual(await found("m.annotation"), [other])

    async def test_children_of_children_come_if_wanted(self) -> None:
        """A client gets a thread with the reactions to what was said in it in one request."""
        root = await self.alice.say(self.room, "root")
        reply = await self.bob.send(self.room, MESSAGE, child(root, "m.thread"))
        thumb = await self.alice.send(self.room, "m.reaction", reaction(reply, "👍"))
        deeper = await self.bob.send(self.room, MESSAGE, child(thumb, "org.example.deep"))
        deepest = await self.bob.send(self.room, MESSAGE, child(deeper, "org.example.deep"))

        direct = await self.children(self.alice, root, recurse="false")
        page = await self.children(self.alice, root, recurse="true")
        of_type = await self.children(self.alice, root, "m.annotation", recurse="true")

        self.assertEqual(ids(direct["chunk"]), [reply])
        self.assertEqual(ids(page["chunk"]), [deeper, thumb, reply])
        self.assertNotIn(deepest, ids(page["chunk"]))
        self.assertEqual(page["recursion_depth"], 3)
        self.assertEqual(of_type["chunk"], [])

    async def test_circle_of_relations_ends(self) -> None:
        """Events that refer to each other do not cause an endless loop."""
        root = await self.alice.say(self.room, "root")
        own = await self.alice.send(self.room, MESSAGE, child(root, "org.example.x"))
        for _ in range(3):
            own = await self.alice.send(self.room, MESSAGE, child(own, "org.example.x"))

        page = await self.children(self.alice, root, recurse="true")

        self.assertEqual(len(page["chunk"]), 3)

    async def test_children_are_seen_only_by_those_who_may(self) -> None:
        """Relations open no door that history visibility keeps shut."""
        root = await self.alice.say(self.room, "root")
        reply = await self.alice.send(self.room, MESSAGE, child(root, "m.thread"))
        await self.bob.leave(self.room)
        await self.alice.send(self.room, MESSAGE, child(root, "m.thread", "behind his back"))
        stranger = await self.register("stranger")

        self.assertEqual(ids((await self.children(self.bob, root))["chunk"]), [reply])
        await self.assert_refused("M_NOT_FOUND", self.children(stranger, root), 404)
        await self.assert_refused("M_NOT_FOUND", self.children(self.alice, "$none"), 404)

    async def test_ignored_users_are_left_out(self) -> None:
        """A thread reads as the reader wants it."""
        root = await self.alice.say(self.room, "root")
        own = await self.alice.send(self.room, MESSAGE, child(root, "m.thread"))
        await self.bob.send(self.room, MESSAGE, child(root, "m.thread"))
        await self.ignore(self.alice, self.bob)

        self.assertEqual(ids((await self.children(self.alice, root))["chunk"]), [own])

    async def test_nonsense_is_refused(self) -> None:
        """A wrong parameter gets an error, and is not guessed."""
        root = await self.alice.say(self.room, "root")

        for query in ({"from": "nonsense"}, {"to": "x"}, {"dir": "up"}, {"limit": "0"}):
            await self.assert_refused("M_INVALID_PARAM", self.children(self.alice, root, **query))


class ThreadsTests(RelationsTestCase):
    async def test_threads_are_listed_by_what_was_said_last(self) -> None:
        """The list of threads begins with the one that is alive."""
        roots = [await self.alice.say(self.room, str(number)) for number in range(5)]
        for root in roots:
            await self.bob.send(self.room, MESSAGE, child(root, "m.thread"))
        await self.bob.send(self.room, MESSAGE, child(roots[1], "m.thread", "again"))
        expected = [roots[1], roots[4], roots[3], roots[2], roots[0]]

        everything = await self.threads(self.alice)
        first = await self.threads(self.alice, limit=2)
        second = await self.threads(self.alice, **{"limit": 2, "from": first["next_batch"]})
        third = await self.threads(self.alice, **{"limit": 2, "from": second["next_batch"]})

        self.assertEqual(ids(everything["chunk"]), expected)
        self.assertEqual(ids(first["chunk"] + second["chunk"] + third["chunk"]), expected)
        self.assertNotIn("next_batch", everything)
        self.assertNotIn("next_batch", third)
        counts = [
            root["unsigned"]["m.relations"]["m.thread"]["count"] for root in everything["chunk"]
        ]
        self.assertEqual(counts, [2, 1, 1, 1, 1])

    async def test_own_threads_are_those_that_one_began_or_wrote_in(self) -> None:
        """A user finds the conversations that they take part in."""
        mine = await self.bob.say(self.room, "mine")
        joined = await self.alice.say(self.room, "joined")
        strange = await self.alice.say(self.room, "strange")
        await self.alice.send(self.room, MESSAGE, child(mine, "m.thread"))
        await self.bob.send(self.room, MESSAGE, child(joined, "m.thread"))
        await self.alice.send(self.room, MESSAGE, child(strange, "m.thread"))

        own = await self.threads(self.bob, include="participated")
        first = await self.threads(self.bob, include="participated", limit=1)

        self.assertEqual(ids(own["chunk"]), [joined, mine])
        self.assertEqual(ids(first["chunk"]), [joined])
        rest = await self.threads(
            self.bob, **{"include": "participated", "from": first["next_batch"]}
        )
        self.assertEqual(ids(rest["chunk"]), [mine])

    async def test_thread_ends_with_its_last_event(self) -> None:
        """A thread whose only reply was deleted is none."""
        root = await self.alice.say(self.room, "root")
        reply = await self.bob.send(self.room, MESSAGE, child(root, "m.thread"))

        await self.bob.redact(self.room, reply)

        self.assertEqual((await self.threads(self.alice))["chunk"], [])

    async def test_root_of_an_ignored_user_is_shown_empty(self) -> None:
        """The thread is there, but not what the ignored user said."""
        root = await self.bob.say(self.room, "spam")
        await self.alice.send(self.room, MESSAGE, child(root, "m.thread"))
        await self.ignore(self.alice, self.bob)

        (found,) = (await self.threads(self.alice))["chunk"]

        self.assertEqual((found["event_id"], found["content"]), (root, {}))
        self.assertEqual(found["unsigned"]["m.relations"]["m.thread"]["count"], 1)

    async def test_strangers_see_no_threads(self) -> None:
        """A room's conversations are for its members."""
        stranger = await self.register("stranger")

        await self.assert_refused("M_FORBIDDEN", self.threads(stranger), 403)
        await self.assert_refused("M_INVALID_PARAM", self.threads(self.alice, **{"from": "x"}), 400)


def _without_age(value: Any) -> Any:
    """The same without what changes from one moment to the next."""
    if isinstance(value, dict):
        return {name: _without_age(each) for name, each in value.items() if name != "age"}
    return value
