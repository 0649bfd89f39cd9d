"""The accepted form of sliding sync, with the examples of the proposal."""

from typing import Any

from tests.api.sync.sliding.sliding_client import ACCEPTED_PATH, DEPLOYED_PATH, SlidingTestCase
from tests.support.actors import Actor

LIST = {"timeline_limit": 10, "required_state": {"include": [{}]}, "range": [0, 19]}


class AcceptedFormTests(SlidingTestCase):
    async def sync(self, actor: Actor, **body: Any) -> Any:
        return await actor.request("POST", ACCEPTED_PATH, body)

    async def test_example_request(self) -> None:
        """The request of the proposal's example is understood as a whole."""
        room = await self.alice.create_room(name="Alice and Bob")
        direct = await self.alice.create_room()
        path = f"/user/{self.alice.user_id}/account_data/m.direct"
        await self.alice.put(path, {self.bob.user_id: [direct]})
        await self.alice.say(room, "A")
        await self.alice.say(room, "B")

        response = await self.sync(
            self.alice,
            conn_id="main",
            lists={
                "foo-list": {
                    "range": [0, 99],
                    "required_state": {
                        "include": [{"type": "m.room.create", "state_key": ""}],
                        "lazy_members": True,
                    },
                    "timeline_limit": 10,
                    "filters": {"is_dm": True},
                }
            },
            room_subscriptions={room: {"required_state": {"include": [{}]}, "timeline_limit": 10}},
        )

        self.assertEqual(response["lists"], {"foo-list": {"count": 1}})
        shown = response["rooms"][room]
        self.assertEqual(shown["name"], "Alice and Bob")
        self.assertEqual(shown["membership"], "join")
        self.assertTrue(shown["initial"])
        self.assertEqual(shown["joined_count"], 1)
        self.assertNotIn("lists", shown)
        self.assertNotIn("notification_count", shown)
        self.assertEqual(len(shown["required_state"]), len(await self.alice.full_state(room)))
        types = {event["type"] for event in response["rooms"][direct]["required_state"]}
        self.assertEqual(types, {"m.room.create", "m.room.member"})
        self.assertEqual(response["rooms"][direct]["lists"], ["foo-list"])
        self.assertEqual(response["extensions"], {})

    async def test_examples_of_required_state(self) -> None:
        """A client names the state that it wants, or what it does not want."""
        room = await self.alice.create_room(public=True, name="Tea")
        await self.bob.join(room)
        create = {"type": "m.room.create", "state_key": ""}
        everything = {tuple(key) for key in await self.alice.full_state(room)}
        members = {key for key in everything if key[0] == "m.room.member"}
        for wanted, expected in (
            ({"include": [create]}, {("m.room.create", "")}),
            ({"include": [{}], "exclude": [create]}, everything - {("m.room.create", "")}),
            ({"include": [{}], "lazy_members": True}, everything),
            ({"include": [{"type": "m.room.member"}]}, members),
            ({"include": [{"state_key": self.bob.user_id}]}, {("m.room.member", self.bob.user_id)}),
            ({}, set()),
        ):
            body = {"timeline_limit": 50, "required_state": wanted}

            response = await self.sync(self.alice, lists={"a": body})

            state = response["rooms"][room].get("required_state", [])
            self.assertEqual({(e["type"], e["state_key"]) for e in state}, expected, wanted)

    async def test_members_are_left_out_unless_they_are_needed(self) -> None:
        """Lazy loading leaves out who has said nothing, but for those who are named."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        await self.alice.say(room, "hello")
        wanted: dict[str, Any] = {"include": [{}], "lazy_members": True}
        body = {"timeline_limit": 1, "required_state": wanted}

        response = await self.sync(self.alice, lists={"a": body})
        wanted["include"].append({"type": "m.room.member", "state_key": self.bob.user_id})
        named = await self.sync(self.alice, lists={"a": body})

        def members(answer: Any) -> set[str]:
            state = answer["rooms"][room]["required_state"]
            return {event["state_key"] for event in state if event["type"] == "m.room.member"}

        self.assertEqual(members(response), {self.alice.user_id})
        self.assertEqual(members(named), {self.alice.user_id, self.bob.user_id})

    async def test_list_without_range_has_all_rooms(self) -> None:
        """A bot needs no window."""
        rooms = {await self.alice.create_room() for _ in range(3)}
        body = {"timeline_limit": 1, "required_state": {}}

        response = await self.sync(self.alice, lists={"a": body})

        self.assertEqual(set(response["rooms"]), rooms)

    async def test_invite_has_stripped_state(self) -> None:
        """The accepted form has another name for the state of an invite, and of a filter."""
        room = await self.alice.create_room(invite=[self.bob])
        body = LIST | {"filters": {"is_invited": True}}

        response = await self.sync(self.bob, lists={"a": body})

        shown = response["rooms"][room]
        self.assertEqual(shown["membership"], "invite")
        self.assertEqual(shown["stripped_state"][-1]["state_key"], self.bob.user_id)

    async def test_garbage_is_refused(self) -> None:
        """Whatever a client sends, it gets an error that says what is wrong."""
        room = {"timeline_limit": 1, "required_state": {}}
        invalid: list[dict[str, Any]] = [
            {"lists": {str(number): LIST for number in range(101)}},
            {"room_subscriptions": {f"!{number}:x": room for number in range(101)}},
            {"set_presence": "asleep"},
            {"lists": {"not an opaque id": LIST}},
            {"lists": {"a": LIST | {"range": [5, 1]}}},
            {"lists": {"a": LIST | {"range": [-1, 1]}}},
            {"lists": {"a": LIST | {"timeline_limit": -1}}},
            {"conn_id": "x" * 256},
            {"extensions": {"to_device": {"enabled": True, "limit": 0}}},
        ]
        for body in invalid:
            await self.assert_refused("M_INVALID_PARAM", self.sync(self.alice, **body), 400)
        malformed: list[dict[str, Any]] = [
            {"lists": []},
            {"lists": {"a": {}}},
            {"lists": {"a": LIST | {"range": [1]}}},
            {"lists": {"a": LIST | {"required_state": []}}},
            {"lists": {"a": LIST | {"filters": {"tags": "x"}}}},
            {"timeout": "soon"},
            {"conn_id": "\0"},
            {"extensions": {"e2ee": 1}},
        ]
        for body in malformed:
            await self.assert_refused("M_BAD_JSON", self.sync(self.alice, **body), 400)
        await self.assert_refused("M_UNKNOWN_POS", self.sync(self.alice, pos="s1"), 400)

    async def test_garbage_in_the_deployed_form_is_refused(self) -> None:
        """The other form is as strict."""
        bodies: list[tuple[str, Any]] = [
            ("M_BAD_JSON", {"lists": {"a": {"required_state": [["m.room.name"]]}}}),
            ("M_BAD_JSON", {"lists": {"a": {"ranges": [[0]]}}}),
            ("M_INVALID_PARAM", {"lists": {"a": {"ranges": [[3, 0]]}}}),
            ("M_INVALID_PARAM", {"lists": {"a": {"ranges": [[0, 1]] * 101}}}),
            ("M_INVALID_PARAM", {"lists": {"a": {"required_state": [["a", "b"]] * 501}}}),
            ("M_INVALID_PARAM", {"lists": {"a": {"filters": {"tags": ["x"] * 501}}}}),
        ]
        for errcode, body in bodies:
            attempt = self.alice.request("POST", DEPLOYED_PATH, body)
            await self.assert_refused(errcode, attempt, 400)
        for query in ({"timeout": "soon"}, {"set_presence": "asleep"}):
            attempt = self.alice.request("POST", DEPLOYED_PATH, {}, query)
            await self.assert_refused("M_INVALID_PARAM", attempt, 400)
        await self.assert_refused(
            "M_MISSING_TOKEN", self.anybody.request("POST", DEPLOYED_PATH, {}), 401
        )

    async def test_feature_is_announced(self) -> None:
        """Clients look for the flag before they use it."""
        versions = await self.anybody.request("GET", "/_matrix/client/versions")

        self.assertIs(versions["unstable_features"]["org.matrix.simplified_msc3575"], True)

    async def test_request_without_anything_is_answered(self) -> None:
        """A request may be empty in both forms."""
        await self.alice.create_room()

        accepted = await self.sync(self.alice)
        deployed = await self.alice.request("POST", DEPLOYED_PATH, {"txn_id": "t"})

        self.assertEqual((accepted["rooms"], accepted["lists"]), ({}, {}))
        self.assertEqual((deployed["rooms"], deployed["lists"]), ({}, {}))
        # It would tell older clients that the server remembers their parameters.
        self.assertNotIn("txn_id", deployed)
