"""Spaces whose rooms are on several servers, and summaries of remote rooms.

Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid
"""

from typing import Any
from urllib.parse import quote

from federation.remote import remote_spaces
from tests.support.actors import CLIENT, Actor
from tests.support.fake_server.fake_http import (
    FAILURE,
    GARBAGE,
    NOT_FOUND,
    Answer,
    Received,
    always,
)
from tests.support.fake_server.server import FakeServer
from tests.support.organisations import FederationTestCase, Organisation
from tests.support.reactor import pause

V1 = CLIENT.replace("v3", "v1")
HIERARCHY = "/_matrix/federation/v1/hierarchy/"
SPACE = {"type": "m.space"}


async def hierarchy(actor: Actor, room: str, **query: Any) -> Any:
    """A page of the tree as a client gets it."""
    return await actor.request("GET", f"{V1}/rooms/{quote(room)}/hierarchy", query=query)


async def summary(actor: Actor, room: str, **query: Any) -> Any:
    """The summary of a room as a client gets it."""
    return await actor.request("GET", f"{V1}/room_summary/{quote(room)}", query=query)


def ids(answer: Any) -> list[str]:
    """The rooms of a page."""
    return [room["room_id"] for room in answer["rooms"]]


async def add(actor: Actor, space: str, room: str, server: str, **content: Any) -> None:
    """Make a room part of a space."""
    await actor.set_state(space, "m.space.child", {"via": [server], **content}, room)


def described(room_id: str, children: list[Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A room as another server may describe it."""
    return {
        "room_id": room_id,
        "num_joined_members": 1,
        "world_readable": False,
        "guest_can_join": False,
        "join_rule": "public",
        "children_state": children or [],
        **fields,
    }


def declares(room_id: str, *via: str, **content: Any) -> dict[str, Any]:
    """A stripped event that makes a room part of a space."""
    return {
        "type": "m.space.child",
        "state_key": room_id,
        "sender": "@mallory:remote.example",
        "content": {"via": list(via), **content},
        "origin_server_ts": 1,
    }


class TwoServersTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.here = await self.organisation()
        self.there = await self.organisation()
        self.alice = await self.here.register("alice")
        self.bob = await self.there.register("bob")

    async def test_a_tree_spans_several_servers(self) -> None:
        """A space on one server shows the rooms that its members run on others."""
        top = await self.alice.create_room(public=True, creation_content=SPACE)
        theirs = await self.bob.create_room(public=True, creation_content=SPACE, name="Theirs")
        leaf = await self.bob.create_room(public=True, name="Leaf")
        secret = await self.bob.create_room()
        await add(self.alice, top, theirs, self.there.name)
        for room in (leaf, secret):
            await add(self.bob, theirs, room, self.there.name)

        answer = await hierarchy(self.alice, top)

        self.assertEqual(ids(answer), [top, theirs, leaf])
        _, space, room = answer["rooms"]
        self.assertEqual((space["name"], space["room_type"]), ("Theirs", "m.space"))
        self.assertEqual(len(space["children_state"]), 2)
        self.assertEqual((room["name"], room["num_joined_members"]), ("Leaf", 1))

    async def test_a_room_for_members_of_the_space_is_shown_to_them(self) -> None:
        """Only this server knows whether a user is in the room that admits them."""
        top = await self.alice.create_room(public=True, creation_content=SPACE)
        allow = [{"type": "m.room_membership", "room_id": top}]
        room = await self.bob.create_room()
        rule = {"join_rule": "restricted", "allow": allow}
        await self.bob.join(top, via=[self.here.name])
        await self.bob.set_state(room, "m.room.join_rules", rule)
        await add(self.alice, top, room, self.there.name)
        stranger = await self.here.register("stranger")

        member, outsider = await hierarchy(self.alice, top), await hierarchy(stranger, top)

        self.assertEqual(ids(member), [top, room])
        self.assertEqual(ids(outsider), [top])

    async def test_a_remote_space_is_previewed_before_joining(self) -> None:
        """By an alias a user finds a space, its description and its rooms."""
        space = await self.bob.create_room(
            public=True, creation_content=SPACE, name="Club", room_alias_name="club"
        )
        room = await self.bob.create_room(public=True)
        await add(self.bob, space, room, self.there.name)
        invited = await self.bob.create_room(creation_content=SPACE, invite=[self.alice])

        seen = await summary(self.alice, f"#club:{self.there.name}")
        by_id = await summary(self.alice, space, via=[self.there.name])
        inside = await hierarchy(self.alice, invited)
        own = await summary(self.alice, invited)

        self.assertEqual((seen["room_id"], seen["name"]), (space, "Club"))
        self.assertEqual((seen["room_type"], seen["join_rule"]), ("m.space", "public"))
        self.assertNotIn("children_state", seen)
        self.assertEqual(by_id, seen)
        self.assertEqual(ids(inside), [invited])
        self.assertEqual(own["membership"], "invite")

    async def test_a_secret_remote_room_stays_secret(self) -> None:
        """Its id alone reveals nothing, on any server."""
        secret = await self.bob.create_room(name="Secret")

        attempt = summary(self.alice, secret, via=[self.there.name])
        await self.assert_refused("M_NOT_FOUND", attempt, 404)
        await self.assert_refused("M_FORBIDDEN", hierarchy(self.alice, secret), 403)


class RemoteAnswersTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there = await self.fake()
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")
        self.top = await self.alice.create_room(public=True, creation_content=SPACE)

    async def test_invalid_rooms_are_left_out(self) -> None:
        """A malicious server breaks no client, and shows nothing under names of other servers."""
        inner, good = "!inner:elsewhere.example", "!good:elsewhere.example"
        own = await self.alice.create_room(name="Secret")
        await add(self.alice, self.top, inner, self.there.name)
        broken: list[Any] = [{}, 5, None, described(good, name=7), described("no id")]
        children = [declares(good, self.there.name), declares(own, self.here.name), "junk", {}]
        children.append({**declares("!other:x", "x"), "origin_server_ts": "now"})
        self.answer(
            room=described(inner, children, room_type="m.space", membership="join"),
            children=[*broken, described(good), described(own), described("!stray:x.example")],
            inaccessible_children=[5, None],
        )
        bob = await self.here.register("bob")

        answer = await hierarchy(bob, self.top)

        self.assertEqual(ids(answer), [self.top, inner, good])
        space = answer["rooms"][1]
        self.assertEqual({each["state_key"] for each in space["children_state"]}, {good, own})
        self.assertNotIn("membership", space)

    async def test_a_room_that_cannot_be_learnt_of_is_left_out(self) -> None:
        """The rest of the space shows all the same, without waiting for long."""
        room = await self.alice.create_room(public=True)
        for number, answer in enumerate((NOT_FOUND, GARBAGE, FAILURE, Answer(200, {}))):
            name = f"!lost{number}:remote.example"
            await add(self.alice, self.top, name, self.there.name)
            self.there.answers["get_space_hierarchy"] = always(answer)
            self.assertEqual(ids(await hierarchy(self.alice, self.top)), [self.top])
        another = described("!another:remote.example")
        await add(self.alice, self.top, "!lost:remote.example", self.there.name)
        self.answer(room=another, children=[], inaccessible_children=[])
        await add(self.alice, self.top, room, self.here.name)

        self.assertEqual(ids(await hierarchy(self.alice, self.top)), [self.top, room])

    async def test_a_published_room_is_shown_soon(self) -> None:
        """A user who publishes a room and checks it need not wait for minutes."""
        self.patch(remote_spaces, "INACCESSIBLE_SECONDS", 0.3)
        inner, leaf, lost = (f"!{name}:remote.example" for name in ("inner", "leaf", "lost"))
        for each in (inner, lost):
            await add(self.alice, self.top, each, self.there.name)
        space = described(inner, [declares(leaf, self.there.name)], room_type="m.space")

        def answer(request: Received) -> Answer:
            if request.path["room_id"] != inner:
                return NOT_FOUND
            return Answer(200, {"room": space, "children": [], "inaccessible_children": [leaf]})

        self.there.answers["get_space_hierarchy"] = answer
        self.assertEqual(ids(await hierarchy(self.alice, self.top)), [self.top, inner])
        await pause(0.4)

        def opened(request: Received) -> Answer:
            if request.path["room_id"] != inner:
                return Answer(200, {"room": described(lost), "children": []})
            return Answer(200, {"room": space, "children": [described(leaf)]})

        self.there.answers["get_space_hierarchy"] = opened
        self.assertEqual(
            {*ids(await hierarchy(self.alice, self.top))}, {self.top, inner, leaf, lost}
        )

    async def test_a_response_is_cached(self) -> None:
        """Rooms of a large space are not requested at every look, nor are unreachable ones."""
        inner, leaf, closed = (f"!{name}:elsewhere.example" for name in ("inner", "leaf", "closed"))
        await add(self.alice, self.top, inner, self.there.name)
        children = [declares(each, self.there.name) for each in (leaf, closed)]
        self.answer(
            room=described(inner, children, room_type="m.space"),
            children=[described(leaf)],
            inaccessible_children=[closed],
        )

        for _ in range(3):
            answer = await hierarchy(self.alice, self.top)
            self.assertEqual(ids(answer), [self.top, inner, leaf])

        requests = [one for one in self.there.received if one.operation == "get_space_hierarchy"]
        self.assertEqual([one.path["room_id"] for one in requests], [inner])

    def answer(self, **body: Any) -> None:
        """The other server's response about any room."""
        self.there.answers["get_space_hierarchy"] = always(Answer(200, body))


class AskingServerTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there: FakeServer = await self.fake()
        self.here: Organisation = await self.organisation()
        self.alice = await self.here.register("alice")

    async def test_a_server_gets_the_rooms_its_users_could_join(self) -> None:
        """And those that they could not, so that it need not ask another server."""
        space = await self.alice.create_room(public=True, creation_content=SPACE, name="Club")
        public = await self.alice.create_room(public=True)
        secret = await self.alice.create_room()
        unknown = "!unknown:remote.example"
        await add(self.alice, space, public, self.here.name, suggested=True)
        for room in (secret, unknown):
            await add(self.alice, space, room, self.here.name)

        status, answer = await self.ask(space)
        _, suggested = await self.ask(space, suggested_only="true")

        self.assertEqual(status, 200)
        self.assertEqual((answer["room"]["name"], answer["room"]["room_type"]), ("Club", "m.space"))
        self.assertEqual(len(answer["room"]["children_state"]), 3)
        self.assertEqual([room["room_id"] for room in answer["children"]], [public])
        self.assertEqual(answer["inaccessible_children"], [secret])
        self.assertEqual(len(suggested["room"]["children_state"]), 1)
        self.assertEqual(suggested["inaccessible_children"], [])

    async def test_a_members_only_room_is_shown_to_servers_with_a_member(self) -> None:
        """Such a server may show it to that user."""
        space = await self.alice.create_room(public=True, creation_content=SPACE)
        room = await self.alice.create_room()
        allow = [{"type": "m.room_membership", "room_id": space}]
        rule = {"join_rule": "restricted", "allow": allow}
        await self.alice.set_state(room, "m.room.join_rules", rule)
        await add(self.alice, space, room, self.here.name)

        _, before = await self.ask(space)
        await self.there.join(self.here.name, space, self.there.user("mallory"))
        _, after = await self.ask(space)

        self.assertEqual((before["children"], before["inaccessible_children"]), ([], [room]))
        (child,) = after["children"]
        self.assertEqual((child["room_id"], child["allowed_room_ids"]), (room, [space]))

    async def test_a_server_gets_nothing_of_rooms_closed_to_it(self) -> None:
        """Neither secret rooms, nor those whose access list excludes it."""
        secret = await self.alice.create_room()
        kept_out = await self.alice.create_room(public=True)
        rules = {"allow": ["*"], "deny": [], "allow_ip_literals": False}
        await self.alice.set_state(kept_out, "m.room.server_acl", rules)

        for room in (secret, kept_out, "!unknown:remote.example"):
            status, answer = await self.ask(room)
            self.assertEqual((status, answer["errcode"]), (404, "M_NOT_FOUND"))

    async def ask(self, room: str, **query: Any) -> tuple[int, Any]:
        """The response to the other server."""
        return await self.there.ask(self.here.name, "GET", HIERARCHY + quote(room), query=query)
