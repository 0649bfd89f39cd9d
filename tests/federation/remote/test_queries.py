"""Queries between servers in both directions: profiles, aliases, directories."""

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
        """A contact on another server has a name and an avatar."""
        await self.bob.put(f"/profile/{self.bob.user_id}/displayname", {"displayname": "Bob"})

        profile = await self.alice.get(f"/profile/{self.bob.user_id}")
        name = await self.alice.get(f"/profile/{self.bob.user_id}/displayname")
        avatar = await self.alice.get(f"/profile/{self.bob.user_id}/avatar_url")

        self.assertEqual(profile, {"displayname": "Bob"})
        self.assertEqual((name, avatar), ({"displayname": "Bob"}, {}))

    async def test_an_unknown_remote_user_is_not_found(self) -> None:
        """A mistyped user id gives a not-found error."""
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
        """A user can search the directory of a friend's server."""
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

    async def test_a_denied_server_gets_no_requests_and_no_responses(self) -> None:
        """Operators can block a server completely."""
        strict = await self.organisation(federation={"deny": ["127.*"]})
        carol = await strict.register("carol")

        attempt = carol.get(f"/profile/{self.bob.user_id}")
        await self.assert_refused("M_NOT_FOUND", attempt, 404)
        attempt = self.alice.get(f"/profile/{carol.user_id}")
        await self.assert_refused("M_FORBIDDEN", attempt, 403)

    async def test_an_invalid_server_name_is_refused(self) -> None:
        """No name look-up happens for it."""
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

    async def test_invalid_responses_do_not_reach_clients(self) -> None:
        """A malicious server cannot break clients of users of this one."""
        self.peer.answers[PROFILE] = {"displayname": ["x"], "avatar_url": None, "m.tz": "Mars/Base"}
        self.peer.answers[DIRECTORY] = {"room_id": "not a room", "servers": []}
        good = {
            "room_id": "!room:remote.example",
            "num_joined_members": 1,
            "world_readable": False,
            "guest_can_join": False,
        }
        self.peer.answers[ROOMS] = {"chunk": [{}, 5, {**good, "name": 7}, good], "next_batch": "n"}

        profile = await self.alice.get(f"/profile/{self.user_id}")
        rooms = await self.alice.get("/publicRooms", server=self.peer.name)

        self.assertEqual(profile, {"m.tz": "Mars/Base"})
        self.assertEqual([room["room_id"] for room in rooms["chunk"]], ["!room:remote.example"])
        alias = f"/directory/room/{quote(f'#hall:{self.peer.name}')}"
        await self.assert_refused("M_UNKNOWN", self.alice.get(alias), 502)

    async def test_servers_that_an_alias_names_are_servers(self) -> None:
        """A join goes through them, so what is none is left out, and so are the ten-thousandth."""
        servers = ["a/b", "", f"[{'x' * 300}]", *(f"s{number}.example" for number in range(5_000))]
        self.peer.answers[DIRECTORY] = {"room_id": "!room:remote.example", "servers": servers}

        found = await self.alice.get(f"/directory/room/{quote(f'#hall:{self.peer.name}')}")

        self.assertEqual(found["servers"][0], "s0.example")
        self.assertLessEqual(len(found["servers"]), 100)

    async def test_a_remote_failure_is_reported_as_such(self) -> None:
        """The error names the other server as the cause, and no address."""
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
            self.assertEqual(refused.body["error"], f"{peer.name} could not be reached")

    async def test_a_refusal_of_the_other_server_is_passed_on(self) -> None:
        """Some servers do not publish profiles to others."""
        self.peer.answers[PROFILE] = error(403, "M_FORBIDDEN")

        await self.assert_refused("M_FORBIDDEN", self.alice.get(f"/profile/{self.user_id}"), 403)


class InboundQueryTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")
        self.peer = ScriptedPeer(self.authority)
        self.addCleanup(self.peer.stop)

    async def test_only_local_users_are_answered_for(self) -> None:
        """Queries about other users go to their own servers."""
        for user_id in ("@bob:elsewhere.example", "alice", ""):
            status, answer = await self.ask(f"{PROFILE}?user_id={quote(user_id)}")
            self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"))
        status, answer = await self.ask(PROFILE)
        self.assertEqual((status, answer["errcode"]), (400, "M_MISSING_PARAM"))
        status, answer = await self.ask(f"{PROFILE}?user_id={quote(f'@nobody:{self.here.name}')}")
        self.assertEqual((status, answer["errcode"]), (404, "M_NOT_FOUND"))

    async def test_one_field_is_returned_alone(self) -> None:
        """A server that wants a name need not get the whole profile."""
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

    async def test_aliases_of_other_servers_are_not_answered(self) -> None:
        """A server answers for its own aliases only."""
        alias = quote("#hall:elsewhere.example")
        status, answer = await self.ask(f"{DIRECTORY}?room_alias={alias}")

        self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"))

    async def test_unknown_queries_are_unrecognized(self) -> None:
        """A newer server learns that this one is older."""
        status, answer = await self.ask("/_matrix/federation/v1/query/future")

        self.assertEqual((status, answer["errcode"]), (404, "M_UNRECOGNIZED"))

    async def test_the_version_needs_no_authentication(self) -> None:
        """Tools that check federation start with it."""
        answer = await self.here.anybody.request("GET", "/_matrix/federation/v1/version")

        self.assertEqual(answer["server"]["name"], "homeserver")

    async def ask(self, uri: str) -> tuple[int, object]:
        """The response to a signed request of the peer."""
        return await self.peer.request(self.http, self.here.url, self.here.name, "GET", uri)


def names_in(page: dict) -> set[str]:
    """The names of the rooms on a page."""
    return {room["name"] for room in page["chunk"]}
