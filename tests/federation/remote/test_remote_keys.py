"""Keys of users of another server: finding and claiming them, in both directions.

Spec: https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption
"""

from typing import Any
from urllib.parse import quote

from homeserver.encryption import key_queries
from tests.encryption.client_keys import DeviceKeys
from tests.support.actors import Actor
from tests.support.fake_server.fake_http import FAILURE, GARBAGE, Answer, Stall, always
from tests.support.organisations import FederationTestCase
from tests.support.watcher import eventually

CURVE = "signed_curve25519"
PASSWORD = "correct horse battery"
USER = "/_matrix/federation/v1/user"
CLAIM = "claim_user_encryption_keys"


async def claim(actor: Actor, **claims: dict[str, str]) -> Any:
    """The response to a client's claim; the names of `claims` are those of users."""
    return await actor.post("/keys/claim", {"one_time_keys": claims})


class TwoServersTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.first, self.second = await self.organisation(), await self.organisation()
        self.alice = await self.first.register("alice")
        body = {"username": "bob", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        self.bob = self.actor(await self.second.anybody.post("/register", body))
        self.keys = DeviceKeys(self.bob)

    async def found(self) -> Any:
        """Bob's devices, as Alice finds them."""
        answer = await self.alice.post("/keys/query", {"device_keys": {self.bob.user_id: []}})
        self.assertEqual(answer["failures"], {})
        return answer["device_keys"].get(self.bob.user_id)

    async def share_a_room(self) -> str:
        room: str = await self.alice.create_room(public=True)
        await self.bob.join(room, via=[self.first.name])
        return room

    async def test_keys_of_a_stranger_are_found(self) -> None:
        """As they are at each moment, with the name of the device."""
        before = await self.found()
        await self.bob.put(f"/devices/{self.bob.device_id}", {"display_name": "Phone"})
        await self.bob.post("/keys/upload", {"device_keys": self.keys.identity})

        shown = {**self.keys.identity, "unsigned": {"device_display_name": "Phone"}}
        self.assertEqual(before, {})
        self.assertEqual(await self.found(), {self.bob.device_id: shown})

    async def test_keys_of_a_member_are_found(self) -> None:
        """The list that is stored is the same."""
        await self.bob.post("/keys/upload", {"device_keys": self.keys.identity})
        await self.share_a_room()

        for _ in range(2):
            shown = {**self.keys.identity, "unsigned": {}}
            self.assertEqual(await self.found(), {self.bob.device_id: shown})

    async def test_changes_of_a_member_arrive(self) -> None:
        """New keys, new names, devices that log out: each is seen, with the client notified."""
        await self.bob.post("/keys/upload", {"device_keys": self.keys.identity})
        await self.share_a_room()
        await self.found()
        tablet = await self.log_in_again()
        keys, phone = DeviceKeys(tablet), f"/devices/{self.bob.device_id}"

        for change, devices, name in (
            (tablet.post("/keys/upload", {"device_keys": keys.identity}), 2, {}),
            (self.bob.put(phone, {"display_name": "Phone"}), 2, {"device_display_name": "Phone"}),
            (tablet.post("/logout"), 1, {"device_display_name": "Phone"}),
        ):
            since = (await self.alice.sync())["next_batch"]
            await change

            async def is_known(devices: int = devices, name: Any = name) -> bool:
                found = await self.found()
                return len(found) == devices and found[self.bob.device_id]["unsigned"] == name

            await eventually(is_known, "a change")
            changed = (await self.alice.sync(since))["device_lists"]["changed"]
            self.assertEqual(changed, [self.bob.user_id])

    async def log_in_again(self) -> Actor:
        """Another device of Bob's."""
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.bob.user_id},
            "password": PASSWORD,
        }
        return self.actor(await self.second.anybody.post("/login", body))

    def actor(self, answer: Any) -> Actor:
        """Bob with the device of a response."""
        names = answer["user_id"], answer["device_id"], answer["access_token"]
        return Actor(self.http, self.second.url, *names)

    async def test_each_key_is_claimed_once(self) -> None:
        """Then the fallback key is, as for local users."""
        await self.bob.post(
            "/keys/upload",
            {
                "one_time_keys": self.keys.one_time("A", "B"),
                "fallback_keys": self.keys.fallback("F"),
            },
        )
        wanted = {self.bob.user_id: {self.bob.device_id: CURVE, "NONE": CURVE}}

        claimed = [
            (await claim(self.alice, **wanted))["one_time_keys"][self.bob.user_id] for _ in range(3)
        ]

        self.assertEqual(
            claimed,
            [
                {self.bob.device_id: self.keys.one_time("A")},
                {self.bob.device_id: self.keys.one_time("B")},
                {self.bob.device_id: self.keys.fallback("F")},
            ],
        )


class OwnKeysTests(FederationTestCase):
    """What this server tells others about its users."""

    async def setUp(self) -> None:
        await super().setUp()
        self.there, self.here = await self.fake(), await self.organisation()
        self.alice = await self.here.register("alice")
        self.keys = DeviceKeys(self.alice)

    async def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Another server's request."""
        method = "GET" if body is None else "POST"
        return await self.there.ask(self.here.name, method, f"{USER}/{path}", body)

    async def test_only_existing_local_users_are_in_the_response(self) -> None:
        """With all devices, or those that were named."""
        await self.alice.post("/keys/upload", {"device_keys": self.keys.identity})
        users = {
            self.alice.user_id: [],
            f"@nobody:{self.here.name}": [],
            self.there.user("x"): [],
            "no id": [],
        }

        every = await self.ask("keys/query", {"device_keys": users})
        none = await self.ask("keys/query", {"device_keys": {self.alice.user_id: ["X"]}})
        status, _ = await self.ask("keys/query", {"device_keys": {self.alice.user_id: 1}})

        shown = {self.alice.device_id: {**self.keys.identity, "unsigned": {}}}
        rest = {"master_keys": {}, "self_signing_keys": {}}
        self.assertEqual(every, (200, {"device_keys": {self.alice.user_id: shown}, **rest}))
        self.assertEqual(none, (200, {"device_keys": {self.alice.user_id: {}}, **rest}))
        self.assertEqual(status, 400)

    async def test_a_device_list_has_the_devices_that_encrypt(self) -> None:
        """Its stream id grows with each change."""
        path = f"devices/{quote(self.alice.user_id)}"
        empty = await self.ask(path)
        await self.alice.post("/keys/upload", {"device_keys": self.keys.identity})
        first = await self.ask(path)
        await self.alice.put(f"/devices/{self.alice.device_id}", {"display_name": "Phone"})
        second = await self.ask(path)

        user = {"user_id": self.alice.user_id}
        listed = {"device_id": self.alice.device_id, "keys": self.keys.identity}
        named = {**listed, "device_display_name": "Phone"}
        self.assertEqual(empty, (200, {**user, "stream_id": 0, "devices": []}))
        ids = [answer["stream_id"] for _, answer in (empty, first, second)]
        self.assertEqual(first, (200, {**user, "stream_id": ids[1], "devices": [listed]}))
        self.assertEqual(second, (200, {**user, "stream_id": ids[2], "devices": [named]}))
        self.assertEqual(ids, sorted({*ids}))

    async def test_lists_of_others_are_not_given(self) -> None:
        """Nor of users who do not exist."""
        for user_id, status in (
            (f"@nobody:{self.here.name}", 404),
            (self.there.user("x"), 400),
            ("no id", 400),
        ):
            self.assertEqual((await self.ask(f"devices/{quote(user_id)}"))[0], status, user_id)

    async def test_only_local_keys_are_claimed(self) -> None:
        """This server asks no other one for a third."""
        await self.alice.post("/keys/upload", {"one_time_keys": self.keys.one_time("A")})
        other = self.there.user("x")
        claims = {self.alice.user_id: {self.alice.device_id: CURVE}, other: {"D": CURVE}}

        first = await self.ask("keys/claim", {"one_time_keys": claims})
        second = await self.ask("keys/claim", {"one_time_keys": claims})

        key = {self.alice.user_id: {self.alice.device_id: self.keys.one_time("A")}}
        self.assertEqual(first, (200, {"one_time_keys": key}))
        self.assertEqual(second, (200, {"one_time_keys": {}}))
        self.assertEqual(
            [each.operation for each in self.there.received if each.operation == CLAIM], []
        )

    async def test_requests_and_responses_are_bounded(self) -> None:
        """Nothing is claimed by a request that is refused."""
        self.patch(key_queries, "MAX_CLAIMS", 2)
        await self.alice.post(
            "/keys/upload",
            {"device_keys": self.keys.identity, "one_time_keys": self.keys.one_time("A")},
        )
        claims = {self.alice.user_id: dict.fromkeys((self.alice.device_id, "B", "C"), CURVE)}

        refused = await self.ask("keys/claim", {"one_time_keys": claims})
        self.patch(key_queries, "MAX_RESPONSE_BYTES", 10)
        too_large = await self.ask("keys/query", {"device_keys": {self.alice.user_id: []}})

        self.assertEqual((refused[0], refused[1]["errcode"]), (413, "M_TOO_LARGE"))
        self.assertEqual((too_large[0], too_large[1]["errcode"]), (413, "M_TOO_LARGE"))
        sync = await self.alice.sync()
        self.assertEqual(sync["device_one_time_keys_count"], {CURVE: 1})

    async def test_an_unsigned_request_gets_nothing(self) -> None:
        """Nobody may claim keys as another server."""
        evil = await self.fake()
        body = {"one_time_keys": {self.alice.user_id: {self.alice.device_id: CURVE}}}

        status, _ = await self.there.ask(
            self.here.name, "POST", f"{USER}/keys/claim", body, key=evil.key
        )

        self.assertEqual(status, 401)


class RemoteClaimTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there, self.here = await self.fake(), await self.organisation()
        self.alice = await self.here.register("alice")
        self.mallory = self.there.user("mallory")

    async def claimed(self, body: Any) -> Any:
        """The keys that Alice gets of Mallory's devices, if the server responds with a body."""
        self.there.answers[CLAIM] = always(Answer(200, body))
        wanted = {self.mallory: {"D": CURVE, "E": CURVE}}
        return (await claim(self.alice, **wanted))["one_time_keys"]

    async def test_only_what_was_asked_for_is_used(self) -> None:
        """Of the algorithm, for the device, with the shape of a key."""
        key = {f"{CURVE}:A": {"key": "k", "signatures": {self.mallory: {"ed25519:D": "s"}}}}
        for devices, usable in (
            ({"D": key, "X": key}, {"D": key}),
            ({"D": key, "E": {"curve25519:A": "k"}}, {"D": key}),
            ({"D": key, "E": {f"{CURVE}:A": {"key": 1}}}, {"D": key}),
            ({"D": key, "E": {f"{CURVE}:A": "x" * 5_000}}, {"D": key}),
            ({"D": key, "E": 1}, {"D": key}),
            ({"D": key, "E": {}}, {"D": key}),
        ):
            body = {"one_time_keys": {self.mallory: devices, self.alice.user_id: {"D": key}}}
            self.assertEqual(await self.claimed(body), {self.mallory: usable}, devices)
        for body in ({"one_time_keys": {self.mallory: 1}}, {"one_time_keys": {}}):
            self.assertEqual(await self.claimed(body), {}, body)

    async def test_a_server_that_gives_none_is_named(self) -> None:
        """The keys of the other servers' users are in the response."""
        good = await self.fake()
        bob, key = good.user("bob"), {f"{CURVE}:A": "k"}
        good.answers[CLAIM] = always(Answer(200, {"one_time_keys": {bob: {"D": key}}}))
        for answer in (FAILURE, GARBAGE, Answer(200, {}), Stall()):
            self.there.answers[CLAIM] = always(answer)
            self.here.server._parts.federation.destinations.succeeded(self.there.name)
            wanted = {self.mallory: {"D": CURVE}, bob: {"D": CURVE}}

            found = await self.alice.post("/keys/claim", {"one_time_keys": wanted, "timeout": 500})

            self.assertEqual(found["one_time_keys"], {bob: {"D": key}}, answer.body)
            self.assertEqual(found["failures"].keys(), {self.there.name}, answer.body)
