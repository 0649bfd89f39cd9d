"""Third-party networks: users find people and rooms of bridged networks."""

from typing import Any

from twisted.internet.defer import ensureDeferred

from appservices.queries import bounded_requests, third_party_networks
from tests.appservices.fake_bridge import Answer, FakeBridge, never
from tests.appservices.queries.support import BridgedTestCase
from tests.appservices.support import registration
from tests.support.reactor import together, until

NETWORKS = "/_matrix/app/v1/thirdparty"
PROTOCOL = f"{NETWORKS}/protocol/irc"
IRC = {
    "user_fields": ["network", "nickname"],
    "location_fields": ["network", "channel"],
    "icon": "mxc://example.org/irc",
    "field_types": {"network": {"regexp": ".+", "placeholder": "irc.example.org"}},
    "instances": [
        {
            "desc": "Libera",
            "network_id": "libera",
            "fields": {"network": "libera"},
            "bot_user_id": "@_irc_bot:example.org",
        }
    ],
}
OFTC = {**IRC, "instances": [{"desc": "OFTC", "network_id": "oftc", "fields": {}}]}
LOCATION = {"alias": "#_irc_#x:example.org", "protocol": "irc", "fields": {"channel": "#x"}}
USER = {"userid": "@_irc_x:example.org", "protocol": "irc", "fields": {"nickname": "x"}}


class ThirdPartyNetworksTests(BridgedTestCase):
    more = {"protocols": ["irc"]}  # noqa: RUF012

    def other_bridges(self) -> tuple[dict[str, Any], ...]:
        if not hasattr(self, "other"):
            self.other = FakeBridge()
            self.other.listen()
            self.addCleanup(self.other.stop)
        return (
            registration("oftc", url=self.other.url, protocols=["irc"]),
            registration("xmpp", protocols=["xmpp"]),
        )

    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")

    async def test_protocols_are_merged(self) -> None:
        """Networks of several bridges are shown as one protocol, each with an id of its own."""
        self.bridge.answers[PROTOCOL] = lambda _: Answer(200, IRC)
        self.other.answers[PROTOCOL] = lambda _: Answer(200, OFTC)

        protocols = await self.alice.get("/thirdparty/protocols")

        self.assertEqual(list(protocols), ["irc"])
        instances = protocols["irc"].pop("instances")
        self.assertEqual([each["instance_id"] for each in instances], ["irc|libera", "oftc|oftc"])
        self.assertEqual(instances[0]["bot_user_id"], "@_irc_bot:example.org")
        self.assertEqual({**protocols["irc"], "instances": IRC["instances"]}, IRC)

    async def test_protocols_are_cached(self) -> None:
        """Each client asks at its start, and a bridge need not answer all of them."""
        self.bridge.answers[PROTOCOL] = lambda _: Answer(200, IRC)

        await together(*(self.alice.get("/thirdparty/protocols") for _ in range(5)))
        protocol = await self.alice.get("/thirdparty/protocol/irc")

        self.assertEqual(protocol["instances"][0]["instance_id"], "irc|libera")
        self.assertEqual(len(self.bridge.asked(NETWORKS)), 1)

    async def test_garbage_is_dropped(self) -> None:
        """Nothing that a client could stumble over is passed on."""
        self.other.answers[PROTOCOL] = lambda _: Answer(
            200, {**IRC, "instances": [7, {"desc": 7}, {"desc": "OFTC"}]}
        )
        for garbage in (
            b"\xff{",
            b"[" * 100_000,
            b"x" * 300_000,
            [],
            {"user_fields": "all"},
            {"instances": 7},
            {"field_types": {"network": {}}},
        ):
            self.server.parts.account_core.appservices.replace(
                self.server.parts.account_core.appservices.all
            )
            self.bridge.answers[PROTOCOL] = lambda _, body=garbage: Answer(200, body)

            protocol = await self.alice.get("/thirdparty/protocol/irc")

            self.assertEqual(protocol["instances"], [{"desc": "OFTC"}], garbage)

    async def test_unknown_protocols_are_not_found(self) -> None:
        """No bridge is asked for what none of them bridges."""
        for path in ("protocol/icq", "location/icq", "user/icq", "location/xmpp"):
            await self.assert_refused("M_NOT_FOUND", self.alice.get(f"/thirdparty/{path}"), 404)

        self.assertEqual(self.bridge.requests + self.other.requests, [])

    async def test_users_and_locations_are_found(self) -> None:
        """A client finds the room of a channel, and the user of a nickname; no token is leaked."""
        self.bridge.answers[f"{NETWORKS}/location/irc"] = lambda _: Answer(
            200, [LOCATION, {**LOCATION, "alias": "x"}, {"alias": "#x:y"}, None]
        )
        self.other.answers[f"{NETWORKS}/user/irc"] = lambda _: Answer(
            200, [USER, {**USER, "fields": []}, {**USER, "userid": "nobody"}]
        )

        locations = await self.alice.get("/thirdparty/location/irc", channel="#x&y", network="z")
        users = await self.anybody.get(
            "/thirdparty/user/irc", nickname="x", access_token=self.alice.token
        )

        self.assertEqual(locations, [LOCATION])
        self.assertEqual(users, [USER])
        asked = [*self.bridge.requests, *self.other.requests]
        queries = [each.query for each in asked if each.path.startswith(NETWORKS)]
        self.assertIn({"channel": ["#x&y"], "network": ["z"]}, queries)
        self.assertIn({"nickname": ["x"]}, queries)
        self.assertNotIn("access_token", {name for query in queries for name in query})

    async def test_reverse_look_ups(self) -> None:
        """A client shows the network of a room or a user."""
        self.bridge.answers[f"{NETWORKS}/location"] = lambda _: Answer(200, [LOCATION])
        self.bridge.answers[f"{NETWORKS}/user"] = lambda _: Answer(200, [USER])

        locations = await self.alice.get("/thirdparty/location", alias=LOCATION["alias"])
        users = await self.alice.get("/thirdparty/user", userid=USER["userid"])

        self.assertEqual((locations, users), ([LOCATION], [USER]))
        await self.assert_refused("M_MISSING_PARAM", self.alice.get("/thirdparty/location"), 400)

    async def test_nothing_found_and_nothing_said_differ(self) -> None:
        """A user knows whether it makes sense to try again."""
        self.patch(third_party_networks, "TIMEOUT_SECONDS", 0.3)
        self.bridge.answers[NETWORKS] = never
        await self.assert_refused("M_NOT_FOUND", self.alice.get("/thirdparty/user/irc"), 404)

        await self.other.stop()

        await self.assert_refused("M_UNKNOWN", self.alice.get("/thirdparty/user/irc"), 502)
        self.assertEqual(await self.alice.get("/thirdparty/protocols"), {})

    async def test_bridge_for_which_too_many_wait_hides_no_other(self) -> None:
        """A bridge that hangs makes nobody miss what another one knows."""
        self.patch(bounded_requests, "SLOTS_OF_PARTY", 1)
        self.patch(bounded_requests, "MAX_WAITING_OF_PARTY", 1)
        self.patch(third_party_networks, "TIMEOUT_SECONDS", 2.0)
        path = f"{NETWORKS}/location/irc"
        self.bridge.answers[path] = never
        waiting = [
            ensureDeferred(self.alice.get("/thirdparty/location/irc", channel="y"))
            for _ in range(2)
        ]
        await until(lambda: len(self.bridge.asked(path)) == 1 and len(self.other.asked(path)) == 2)

        await self.assert_refused(
            "M_LIMIT_EXCEEDED", self.alice.get("/thirdparty/location/irc", channel="x"), 429
        )
        self.other.answers[path] = lambda _: Answer(200, [LOCATION])
        found = await self.alice.get("/thirdparty/location/irc", channel="x")

        self.assertEqual(found, [LOCATION])
        self.assertEqual(len(self.bridge.asked(path)), 1)
        for each in waiting:
            await self.assert_refused("M_NOT_FOUND", each, 404)

    async def test_fields_are_bounded(self) -> None:
        """A client does not have this server send megabytes."""
        for query in ({"nick": "x" * 2_000}, {f"field {n}": "x" for n in range(30)}):
            await self.assert_refused(
                "M_INVALID_PARAM", self.alice.get("/thirdparty/user/irc", **query), 400
            )
