"""The room directory, and summaries of rooms, over the API."""

from typing import Any
from urllib.parse import quote

from homeserver.client_api.rooms.room_summary import PATH
from homeserver.protocol.proposals.unstable_names import ROOM_SUMMARIES
from tests.support.server import ServerTestCase


class DirectoryTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")

    async def test_listed_room_shows_what_it_is(self) -> None:
        """People choose a room by what the directory says of it."""
        room = await self._listed("tea", topic="Which one?")
        await self.bob.join(room)

        response = await self.alice.get("/publicRooms")

        self.assertEqual(
            response["chunk"],
            [
                {
                    "room_id": room,
                    "name": "tea",
                    "topic": "Which one?",
                    "canonical_alias": "#tea:example.org",
                    "num_joined_members": 2,
                    "world_readable": False,
                    "guest_can_join": False,
                    "join_rule": "public",
                }
            ],
        )
        self.assertEqual(response["total_room_count_estimate"], 1)

    async def test_changes_are_seen_at_once(self) -> None:
        """A new name, and a room that is taken out, show with the next look."""
        room = await self._listed("tea")
        await self.alice.get("/publicRooms")

        await self.alice.set_state(room, "m.room.name", {"name": "Coffee"})
        self.assertEqual(await self._names(), ["Coffee"])
        await self.alice.put(f"/directory/list/room/{room}", {"visibility": "private"})
        self.assertEqual(await self._names(), [])
        await self.alice.put(f"/directory/list/room/{room}", {})
        self.assertEqual(await self._names(), ["Coffee"])

    async def test_rooms_are_found_by_text_and_type(self) -> None:
        """A search looks at name, topic and alias, and can look for spaces only."""
        await self._listed("tea", topic="Hot leaves")
        await self._listed("juice", creation_content={"type": "m.space"})

        self.assertEqual(await self._search(generic_search_term="LEAVES"), ["tea"])
        self.assertEqual(await self._search(generic_search_term="#jui"), ["juice"])
        self.assertEqual(await self._search(generic_search_term="coffee"), [])
        self.assertEqual(await self._search(room_types=["m.space"]), ["juice"])
        self.assertEqual(await self._search(room_types=[None]), ["tea"])
        self.assertEqual(len(await self._search(room_types=[None, "m.space"])), 2)
        self.assertEqual(len(await self._search()), 2)

    async def test_directory_is_paged_in_both_directions(self) -> None:
        """A long list comes in pages, the largest rooms first."""
        names = [await self._listed(f"room{number}") and f"room{number}" for number in range(5)]
        last = (await self.alice.get("/publicRooms"))["chunk"][-1]
        await self.bob.join(last["room_id"])
        await self.restart_server(self.alice, self.bob)

        first = await self.alice.get("/publicRooms", limit=2)
        second = await self.alice.get("/publicRooms", limit=2, since=first["next_batch"])
        third = await self.alice.get("/publicRooms", limit=2, since=second["next_batch"])
        back = await self.alice.get("/publicRooms", limit=2, since=third["prev_batch"])

        shown = [room["name"] for page in (first, second, third) for room in page["chunk"]]
        self.assertEqual(sorted(shown), names)
        self.assertEqual(shown[0], last["name"])
        self.assertEqual(back["chunk"], second["chunk"])
        self.assertNotIn("prev_batch", first)
        self.assertNotIn("next_batch", third)

    async def test_room_is_listed_by_who_has_the_power(self) -> None:
        """A member cannot expose a room, an administrator can take any out."""
        room = await self._listed("tea")
        await self.bob.join(room)
        path = f"/directory/list/room/{room}"
        hidden = {"visibility": "private"}

        await self.assert_refused("M_FORBIDDEN", self.bob.put(path, hidden), 403)
        carol = await self.register("carol")
        await self.assert_refused("M_FORBIDDEN", carol.put(path, hidden), 403)
        await self.assert_refused("M_BAD_JSON", self.alice.put(path, {"visibility": "x"}), 400)
        await (await self.register_admin("admin")).put(path, hidden)

        self.assertEqual(await self.anybody.get(path), {"visibility": "private"})

    async def test_unknown_room_is_not_found(self) -> None:
        """A client learns that it has the wrong id."""
        path = "/directory/list/room/!none:example.org"

        await self.assert_refused("M_NOT_FOUND", self.anybody.get(path), 404)
        await self.assert_refused("M_NOT_FOUND", self.alice.put(path, {}), 404)

    async def test_senseless_questions_are_refused(self) -> None:
        """Invalid tokens, and directories of unknown servers, get an error."""
        await self.assert_refused("M_INVALID_PARAM", self.alice.get("/publicRooms", since="x"))
        await self.assert_refused("M_INVALID_PARAM", self.alice.get("/publicRooms", limit=-1))
        await self.assert_refused("M_BAD_JSON", self.alice.post("/publicRooms", {"limit": "1"}))
        await self.assert_refused(
            "M_NOT_FOUND", self.alice.get("/publicRooms", server="elsewhere.example")
        )
        self.assertEqual(await self._names(server="example.org"), [])
        bridged = await self.alice.post("/publicRooms", {"third_party_instance_id": "irc"})
        self.assertEqual(bridged["chunk"], [])

    async def test_list_is_for_people_who_are_logged_in(self) -> None:
        """Crawlers get no list of rooms, unless the server is configured to show it."""
        await self.assert_refused("M_MISSING_TOKEN", self.anybody.get("/publicRooms"), 401)
        await self.assert_refused("M_MISSING_TOKEN", self.anybody.post("/publicRooms"), 401)

    async def _listed(self, name: str, **body: Any) -> str:
        return await self.alice.create_room(
            visibility="public", name=name, room_alias_name=name, **body
        )

    async def _names(self, **query: Any) -> list[str]:
        response = await self.alice.get("/publicRooms", **query)
        return [room["name"] for room in response["chunk"]]

    async def _search(self, **wanted: Any) -> list[str]:
        response = await self.bob.post("/publicRooms", {"filter": wanted})
        return [room["name"] for room in response["chunk"]]


class OpenDirectoryTests(ServerTestCase):
    settings = {"room_directory": {"allow_publishing": False, "public_without_login": True}}  # noqa: RUF012

    async def test_configuration_opens_the_list_and_limits_who_lists(self) -> None:
        """A community shows selected rooms without log-in."""
        alice, admin = await self.register("alice"), await self.register_admin("admin")
        room = await alice.create_room(public=True)
        path = f"/directory/list/room/{room}"

        await self.assert_refused("M_FORBIDDEN", alice.create_room(visibility="public"), 403)
        await self.assert_refused("M_FORBIDDEN", alice.put(path, {}), 403)
        await admin.put(path, {})

        response = await self.anybody.get("/publicRooms")
        self.assertEqual([entry["room_id"] for entry in response["chunk"]], [room])


class SummaryTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")

    async def test_summary_describes_the_room(self) -> None:
        """A link to a room shows its name before one joins."""
        room = await self.alice.create_room(
            public=True,
            name="Tea",
            room_alias_name="tea",
            initial_state=[
                {
                    "type": "m.room.encryption",
                    "content": {"algorithm": "m.megolm.v1.aes-sha2"},
                }
            ],
        )

        summary = await self._summary("#tea:example.org")

        self.assertEqual((summary["room_id"], summary["name"]), (room, "Tea"))
        self.assertEqual(summary["encryption"], "m.megolm.v1.aes-sha2")
        self.assertEqual(summary["num_joined_members"], 1)
        self.assertIn("room_version", summary)
        self.assertNotIn("membership", summary)
        await self.bob.join(room)
        self.assertEqual((await self._summary(room))["membership"], "join")

    async def test_private_room_is_known_only_to_those_concerned(self) -> None:
        """A summary gives nothing away; an invite and a way in do."""
        space = await self.alice.create_room(public=True)
        rule = {
            "join_rule": "restricted",
            "allow": [{"type": "m.room_membership", "room_id": space}],
        }
        within = await self.alice.create_room(
            initial_state=[{"type": "m.room.join_rules", "content": rule}]
        )
        private = await self.alice.create_room()

        await self.assert_refused("M_NOT_FOUND", self._summary(private), 404)
        await self.assert_refused("M_NOT_FOUND", self._summary(within), 404)
        await self.assert_refused("M_NOT_FOUND", self._summary("!none:example.org"), 404)
        await self.alice.invite(private, self.bob)
        await self.bob.join(space)

        self.assertEqual((await self._summary(private))["membership"], "invite")
        self.assertEqual((await self._summary(within))["allowed_room_ids"], [space])

    async def test_clients_of_the_proposal(self) -> None:
        """Element Web and others still look at rooms through the paths of the proposal."""
        room = await self.alice.create_room(public=True, name="Tea")
        private = await self.alice.create_room()

        for path in ROOM_SUMMARIES:
            summary = await self._summary(room, path)
            version = summary.pop("im.nheko.summary.room_version")

            self.assertEqual(summary, await self._summary(room))
            self.assertEqual(version, summary["room_version"])
            self.assertNotIn("im.nheko.summary.encryption", summary)
            await self.assert_refused("M_NOT_FOUND", self._summary(private, path), 404)

    async def _summary(self, room: str, path: str = PATH) -> Any:
        return await self.bob.request("GET", path.format(room_id_or_alias=quote(room)))
