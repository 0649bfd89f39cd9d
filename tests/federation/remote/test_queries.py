"""What users see of other servers, and what other servers see: profiles, aliases, directories."""

from urllib.parse import quote

from tests.support.fake_server.scripted_peer import ScriptedPeer, error, plain
from tests.support.organisations import FederationTestCase

PROFILE = "/_matrix/federation/v1/query/profile"
DIRECTORY = "/_matrix/federation/v1/query/directory"
ROOMS = "/_matrix/federation/v1/publicRooms"


class TwoServersTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.here = await self.organisation()
        self.there = await self.organisation()
        self.alice = await self.here.register("alice")
        self.bob = await self.there.register("bob")

    async def test_a_profile_is_seen_from_another_server(self) -> None:
        """Whom one writes to has a name and a face."""
        await self.bob.put(f"/profile/{self.bob.user_id}/displayname", {"displayname": "Bob"})

        profile = await self.alice.get(f"/profile/{self.bob.user_id}")
        name = await self.alice.get(f"/profile/{self.bob.user_id}/displayname")
        avatar = await self.alice.get(f"/profile/{self.bob.user_id}/avatar_url")

        self.assertEqual(profile, {"displayname": "Bob"})
        self.assertEqual((name, avatar), ({"displayname": "Bob"}, {}))

    async def test_a_user_who_does_not_exist_elsewhere_is_not_found(self) -> None:
        """A typing error is answered as one."""
        nobody = f"@nobody:{self.there.name}"

        await self.assert_refused("M_NOT_FOUND", self.alice.get(f"/profile/{nobody}"), 404)
        field = f"/profile/{self.bob.user_id}/org.example.field"
        await self.assert_refused("M_NOT_FOUND", self.alice.get(field), 404)

    async def test_an_alias_of_another_server_leads_to_its_room(self) -> None:
        """People give each other the names of rooms."""
        room_id = await self.bob.create_room(room_alias_name="hall", public=True)

        found = await self.alice.get(f"/directory/room/{quote(f'#hall:{self.there.name}')}")

        self.assertEqual(found, {"room_id": room_id, "servers": [self.there.name]})
        missing = f"/directory/room/{quote(f'#attic:{self.there.name}')}"
        await self.assert_refused("M_NOT_FOUND", self.alice.get(missing), 404)

    async def test_the_directory_of_another_server_can_be_read_and_searched(self) -> None:
        """Where friends of mine meet, I can look for a room of my interest."""
        for name in ("Gardening", "Chess"):
            await self.bob.create_room(name=name, visibility="public", preset="public_chat")

        whole = await self.alice.get("/publicRooms", server=self.there.name)
        page = await self.alice.get("/publicRooms", server=self.there.name, limit=1)
        next_page = await self.alice.get(
            "/publicRooms", server=self.there.name, limit=1, since=page["next_batch"]
        )
        wanted = {"filter": {"generic_search_term": "chess", "room_types": [None]}}
        found = await self.alice.post("/publicRooms", wanted, server=self.there.name)

        self.assertEqual(names_in(whole), {"Gardening", "Chess"})
        self.assertEqual(whole["total_room_count_estimate"], 2)
        self.assertEqual(names_in(page) | names_in(next_page), {"Gardening", "Chess"})
        self.assertEqual(names_in(found), {"Chess"})

    async def test_a_server_shows_its_directory_only_if_it_wants_to(self) -> None:
        """Without the setting, a private community stays one."""
        closed = await self.organisation(room_directory={"over_federation": False})

        attempt = self.alice.get("/publicRooms", server=closed.name)

        await self.assert_refused("M_FORBIDDEN", attempt, 403)

    async def test_a_denied_server_is_neither_asked_nor_answered(self) -> None:
        """Operators can cut all ties."""
        strict = await self.organisation(federation={"deny": ["127.*"]})
        carol = await strict.register("carol")

        attempt = carol.get(f"/profile/{self.bob.user_id}")
        await self.assert_refused("M_NOT_FOUND", attempt, 404)
        attempt = self.alice.get(f"/profile/{carol.user_id}")
        await self.assert_refused("M_FORBIDDEN", attempt, 403)

    async def test_what_is_no_name_of_a_server_is_refused(self) -> None:
        """Nothing is looked up for it."""
        attempt = self.alice.get("/publicRooms", server="no name")
        await self.assert_refused("M_INVALID_PARAM", attempt, 400)


class MisbehavingPeerTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")
        self.peer = ScriptedPeer(self.authority)
        self.addCleanup(self.peer.stop)
        self.user_id = f"@user:{self.peer.name}"

    async def test_senseless_answers_do_not_reach_clients(self) -> None:
        """A malicious server cannot break the apps of people elsewhere."""
        self.peer.answers[PROFILE] = {"displayname": ["x"], "avatar_url": None, "m.tz": "Mars/Base"}
        self.peer.answers[DIRECTORY] = {"room_id": "not a room", "servers": []}
        good = {
            "room_id": "!room:elsewhere.example",
            "num_joined_members": 1,
            "world_readable": False,
            "guest_can_join": False,
        }
        self.peer.answers[ROOMS] = {"chunk": [{}, 5, {**good, "name": 7}, good], "next_batch": "n"}

        profile = await self.alice.get(f"/profile/{self.user_id}")
        rooms = await self.alice.get("/publicRooms", server=self.peer.name)

        self.assertEqual(profile, {"m.tz": "Mars/Base"})
        self.assertEqual([room["room_id"] for room in rooms["chunk"]], ["!room:elsewhere.example"])
        alias = f"/directory/room/{quote(f'#hall:{self.peer.name}')}"
        await self.assert_refused("M_UNKNOWN", self.alice.get(alias), 502)

    async def test_servers_that_an_alias_names_are_servers(self) -> None:
        """A join goes through them, so what is none is left out, and so are the ten-thousandth."""
        servers = ["a/b", "", f"[{'x' * 300}]", *(f"s{number}.example" for number in range(5_000))]
        self.peer.answers[DIRECTORY] = {"room_id": "!room:elsewhere.example", "servers": servers}

        found = await self.alice.get(f"/directory/room/{quote(f'#hall:{self.peer.name}')}")

        self.assertEqual(found["servers"][0], "s0.example")
        self.assertLessEqual(len(found["servers"]), 100)

    async def test_a_failure_over_there_is_not_one_here(self) -> None:
        """The app says that the other server is at fault, and no address is told."""
        for behaviour in (
            plain(500, b"<html>"),
            error(500, "M_UNKNOWN"),
            plain(200, b"[]"),
            plain(200, b'{"displayname": "' + b"x" * 200_000 + b'"}'),
            plain(302, b"", Location="https://127.0.0.1/"),
        ):
            peer = ScriptedPeer(self.authority)
            self.addCleanup(peer.stop)
            peer.answers[PROFILE] = behaviour
            attempt = self.alice.get(f"/profile/@user:{peer.name}")
            refused = await self.assert_refused("M_UNKNOWN", attempt, 502)
            self.assertEqual(refused.body["error"], f"{peer.name} could not be asked")

    async def test_an_unwilling_server_is_quoted(self) -> None:
        """Some servers tell no profiles to others; that is an answer."""
        self.peer.answers[PROFILE] = error(403, "M_FORBIDDEN")

        await self.assert_refused("M_FORBIDDEN", self.alice.get(f"/profile/{self.user_id}"), 403)


class InboundQueryTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")
        self.peer = ScriptedPeer(self.authority)
        self.addCleanup(self.peer.stop)

    async def test_only_users_of_this_server_are_told_about(self) -> None:
        """Who asks has to ask the right server."""
        for user_id in ("@bob:elsewhere.example", "alice", ""):
            status, answer = await self.ask(f"{PROFILE}?user_id={quote(user_id)}")
            self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"))
        status, answer = await self.ask(PROFILE)
        self.assertEqual((status, answer["errcode"]), (400, "M_MISSING_PARAM"))
        status, answer = await self.ask(f"{PROFILE}?user_id={quote(f'@nobody:{self.here.name}')}")
        self.assertEqual((status, answer["errcode"]), (404, "M_NOT_FOUND"))

    async def test_one_field_is_told_alone(self) -> None:
        """Who wants a name need not be sent the rest."""
        await self.alice.put(f"/profile/{self.alice.user_id}/displayname", {"displayname": "Alice"})
        await self.alice.put(f"/profile/{self.alice.user_id}/m.tz", {"m.tz": "Europe/London"})
        user = quote(self.alice.user_id)

        whole = await self.ask(f"{PROFILE}?user_id={user}")
        name = await self.ask(f"{PROFILE}?user_id={user}&field=displayname")
        avatar = await self.ask(f"{PROFILE}?user_id={user}&field=avatar_url")
        status, answer = await self.ask(f"{PROFILE}?user_id={user}&field=org.example.none")

        self.assertEqual(whole, (200, {"displayname": "Alice", "m.tz": "Europe/London"}))
        self.assertEqual(name, (200, {"displayname": "Alice"}))
        self.assertEqual(avatar, (200, {}))
        self.assertEqual((status, answer["errcode"]), (404, "M_NOT_FOUND"))

    async def test_aliases_of_others_are_not_told(self) -> None:
        """A server speaks for its own names only."""
        alias = quote("#hall:elsewhere.example")
        status, answer = await self.ask(f"{DIRECTORY}?room_alias={alias}")

        self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"))

    async def test_unknown_queries_are_unrecognized(self) -> None:
        """A newer server learns that this one is older."""
        status, answer = await self.ask("/_matrix/federation/v1/query/future")

        self.assertEqual((status, answer["errcode"]), (404, "M_UNRECOGNIZED"))

    async def test_anybody_may_ask_for_the_version(self) -> None:
        """Tools that check a federation start with this."""
        answer = await self.here.anybody.request("GET", "/_matrix/federation/v1/version")

        self.assertEqual(answer["server"]["name"], "homeserver")

    async def ask(self, uri: str) -> tuple[int, object]:
        """The answer to a signed request of the peer."""
        return await self.peer.request(self.http, self.here.url, self.here.name, "GET", uri)


def names_in(page: dict) -> set[str]:
    """The names of the rooms on a page."""
    return {room["name"] for room in page["chunk"]}
