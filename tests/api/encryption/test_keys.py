"""Keys of devices over the API: uploading, querying and claiming them."""

from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, DeferredList, gatherResults

from homeserver.encryption import key_queries, key_uploads, one_time_keys
from homeserver.protocol.errors import Unavailable
from tests.encryption.client_keys import DeviceKeys
from tests.support.actors import Actor
from tests.support.server import ServerTestCase

COUNT, UNUSED = "device_one_time_keys_count", "device_unused_fallback_key_types"
CURVE = "signed_curve25519"


class KeysTestCase(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")
        self.keys = DeviceKeys(self.alice)

    async def query(self, actor: Actor, *users: Actor) -> Any:
        """What an actor receives about all devices of users."""
        return await actor.post(
            "/keys/query", {"device_keys": {each.user_id: [] for each in users}}
        )

    async def claim(self, actor: Actor, of: Actor) -> Any:
        """The key that an actor gets of a device, by its name; empty if there is none."""
        wanted = {of.user_id: {of.device_id: CURVE}}
        answer = await actor.post("/keys/claim", {"one_time_keys": wanted})
        return answer["one_time_keys"].get(of.user_id, {}).get(of.device_id, {})


class IdentityKeyTests(KeysTestCase):
    async def test_everybody_finds_what_a_device_uploaded(self) -> None:
        """With the name of the device, which others see when they verify it."""
        await self.alice.put(f"/devices/{self.alice.device_id}", {"display_name": "Phone"})
        await self.alice.post("/keys/upload", {"device_keys": self.keys.identity})

        found = await self.query(self.bob, self.alice, self.bob)

        shown = {**self.keys.identity, "unsigned": {"device_display_name": "Phone"}}
        self.assertEqual(
            found["device_keys"],
            {self.alice.user_id: {self.alice.device_id: shown}, self.bob.user_id: {}},
        )
        self.assertEqual(found["failures"], {})

    async def test_single_devices_can_be_asked_for(self) -> None:
        """A device that does not exist, or does not encrypt, is left out."""
        tablet = await self.log_in(self.alice)
        other = await self.log_in(self.alice)
        for device in (self.alice, tablet):
            await device.post("/keys/upload", {"device_keys": DeviceKeys(device).identity})

        wanted = {self.alice.user_id: [tablet.device_id, other.device_id, "NEVER"]}
        found = await self.bob.post("/keys/query", {"device_keys": wanted})

        self.assertEqual(list(found["device_keys"][self.alice.user_id]), [tablet.device_id])

    async def test_keys_of_others_are_refused(self) -> None:
        """Neither another user's keys nor another device's can be uploaded."""
        tablet = await self.log_in(self.alice)
        for stranger in (self.bob, tablet):
            keys = DeviceKeys(stranger).identity
            await self.assert_refused(
                "M_INVALID_PARAM", self.alice.post("/keys/upload", {"device_keys": keys}), 400
            )

        found = await self.query(self.bob, self.alice)
        self.assertEqual(found["device_keys"], {self.alice.user_id: {}})

    async def test_malformed_keys_are_refused_and_nothing_is_stored(self) -> None:
        """Not even the valid part of the request."""
        good = self.keys.one_time("A")
        for body, errcode in (
            ({"device_keys": {**self.keys.identity, "keys": {"a": 1}}}, "M_BAD_JSON"),
            ({"device_keys": {**self.keys.identity, "algorithms": None}}, "M_BAD_JSON"),
            ({"device_keys": {**self.keys.identity, "x": 1.5}}, "M_BAD_JSON"),
            ({"device_keys": {**self.keys.identity, "x": 1 << 60}}, "M_BAD_JSON"),
            ({"device_keys": {**self.keys.identity, "x": "x" * 65_536}}, "M_TOO_LARGE"),
            ({"one_time_keys": {"noname": "x"}}, "M_INVALID_PARAM"),
            ({"one_time_keys": {"curve25519:": "x"}}, "M_INVALID_PARAM"),
            ({"one_time_keys": {f"curve25519:{'x' * 300}": "x"}}, "M_INVALID_PARAM"),
            ({"one_time_keys": {"curve25519:a": 1}}, "M_BAD_JSON"),
            ({"one_time_keys": {"curve25519:a": "x" * 5_000}}, "M_TOO_LARGE"),
            ({"fallback_keys": {f"{CURVE}:a": {"key": 1}}}, "M_BAD_JSON"),
            ({"fallback_keys": self.keys.one_time("A", "B")}, "M_INVALID_PARAM"),
        ):
            body["one_time_keys"] = {**good, **body.get("one_time_keys", {})}
            await self.assert_refused(errcode, self.alice.post("/keys/upload", body))

        self.assertEqual((await self.alice.sync())[COUNT], {CURVE: 0})

    async def test_the_keys_of_a_user_are_bounded(self) -> None:
        """A query gets a response of some size; other servers take no more."""
        self.patch(key_uploads, "MAX_LIST_BYTES", 1_500)
        tablet = await self.log_in(self.alice)
        await self.alice.post("/keys/upload", {"device_keys": self.keys.identity})
        large = {**DeviceKeys(tablet).identity, "x": "x" * 1_000}
        await self.assert_refused(
            "M_USER_LIMIT_EXCEEDED", tablet.post("/keys/upload", {"device_keys": large}), 403
        )
        await tablet.post("/keys/upload", {"device_keys": DeviceKeys(tablet).identity})

        found = await self.query(self.bob, self.alice)
        self.assertEqual(len(found["device_keys"][self.alice.user_id]), 2)

    async def test_a_response_and_a_request_are_bounded(self) -> None:
        """No client can make the server gather the keys of everybody at once."""
        await self.alice.post("/keys/upload", {"device_keys": self.keys.identity})
        self.patch(key_queries, "MAX_RESPONSE_BYTES", 100)
        await self.assert_refused("M_TOO_LARGE", self.query(self.bob, self.alice), 413)
        self.patch(key_queries, "MAX_CLAIMS", 0)
        await self.assert_refused("M_TOO_LARGE", self.claim(self.bob, self.alice), 413)

    async def test_keys_go_with_their_device(self) -> None:
        """Nobody encrypts for a device that was removed, or gets its keys for a later namesake."""
        upload = {
            "device_keys": self.keys.identity,
            "one_time_keys": self.keys.one_time("A"),
            "fallback_keys": self.keys.fallback("F"),
        }
        await self.alice.post("/keys/upload", upload)
        await self.alice.post("/logout")

        self.assertEqual(
            (await self.query(self.bob, self.alice))["device_keys"][self.alice.user_id], {}
        )
        self.assertEqual(await self.claim(self.bob, self.alice), {})


class OneTimeKeyTests(KeysTestCase):
    async def test_each_key_is_given_out_once_in_the_order_of_upload(self) -> None:
        """Then the fallback key is, any number of times, and its device is notified."""
        for name in ("Z", "A"):
            await self.alice.post("/keys/upload", {"one_time_keys": self.keys.one_time(name)})
        answer = await self.alice.post("/keys/upload", {"fallback_keys": self.keys.fallback("F")})
        before = await self.alice.sync()

        claimed = [await self.claim(self.bob, self.alice) for _ in range(4)]

        after = await self.alice.sync(before["next_batch"])
        self.assertEqual(answer, {"one_time_key_counts": {CURVE: 2}})
        self.assertEqual(
            claimed,
            [
                self.keys.one_time("Z"),
                self.keys.one_time("A"),
                self.keys.fallback("F"),
                self.keys.fallback("F"),
            ],
        )
        self.assertEqual((before[COUNT], before[UNUSED]), ({CURVE: 2}, [CURVE]))
        self.assertEqual((after[COUNT], after[UNUSED]), ({CURVE: 0}, []))

    async def test_a_new_fallback_key_is_unused(self) -> None:
        """The same one again is not: it has been given out."""
        await self.alice.post("/keys/upload", {"fallback_keys": self.keys.fallback("F")})
        await self.claim(self.bob, self.alice)

        await self.alice.post("/keys/upload", {"fallback_keys": self.keys.fallback("F")})
        self.assertEqual((await self.alice.sync())[UNUSED], [])
        await self.alice.post("/keys/upload", {"fallback_keys": self.keys.fallback("G")})
        self.assertEqual((await self.alice.sync())[UNUSED], [CURVE])

    async def test_claims_of_one_request_get_different_keys(self) -> None:
        """Also those of requests that come at the same time."""
        await self.alice.post(
            "/keys/upload", {"one_time_keys": self.keys.one_time(*map(str, range(40)))}
        )
        claims = [self.claim(self.bob, self.alice) for _ in range(50)]

        answers = await gatherResults([Deferred.fromCoroutine(each) for each in claims])

        names = [name for answer in answers for name in answer]
        self.assertEqual((len(names), len(set(names))), (40, 40))

    async def test_claims_that_fail_can_be_repeated(self) -> None:
        """Each of several clients learns that the database is away; no key is lost."""
        tablet = await self.log_in(self.alice)
        await self.alice.post("/keys/upload", {"one_time_keys": self.keys.one_time("A")})

        async def fail(*_: object) -> None:
            raise Unavailable("The database is away")

        with patch.object(one_time_keys, "take_one_time_keys", fail):
            wanted = {self.alice.user_id: {each.device_id: CURVE for each in (self.alice, tablet)}}
            attempts = [self.bob.post("/keys/claim", {"one_time_keys": wanted}) for _ in range(3)]
            outcomes = await DeferredList(
                [Deferred.fromCoroutine(each) for each in attempts], consumeErrors=True
            )

        self.assertEqual([failure.value.status for _, failure in outcomes], [503] * 3)
        self.assertEqual(await self.claim(self.bob, self.alice), self.keys.one_time("A"))

    async def test_an_upload_may_be_repeated(self) -> None:
        """A key that was claimed meanwhile does not come back; another key of its id is refused."""
        body = {"one_time_keys": self.keys.one_time("A", "B")}
        await self.alice.post("/keys/upload", body)
        first = await self.claim(self.bob, self.alice)

        again = await self.alice.post("/keys/upload", body)
        other = {"one_time_keys": DeviceKeys(self.alice).one_time("B", x=1)}
        refused = await self.assert_refused(
            "M_INVALID_PARAM", self.alice.post("/keys/upload", other), 400
        )

        self.assertEqual(again, {"one_time_key_counts": {CURVE: 1}})
        self.assertNotEqual(await self.claim(self.bob, self.alice), first)
        self.assertIn("already exists", refused.body["error"])

    async def test_a_waiting_client_is_notified_of_a_claim(self) -> None:
        """It can upload more keys before the last one is gone."""
        await self.alice.post("/keys/upload", {"one_time_keys": self.keys.one_time("A", "B")})
        since = (await self.alice.sync())["next_batch"]
        waiting = Deferred.fromCoroutine(self.alice.sync(since, timeout_ms=30_000))
        await self.claim(self.bob, self.alice)

        self.assertEqual((await waiting)[COUNT], {CURVE: 1})

    async def test_keys_survive_a_restart(self) -> None:
        """And no claimed key comes back."""
        await self.alice.post("/keys/upload", {"one_time_keys": self.keys.one_time("A", "B")})
        await self.claim(self.bob, self.alice)
        await self.restart_server(self.alice, self.bob)

        self.assertEqual((await self.alice.sync())[COUNT], {CURVE: 1})
        self.assertEqual(len(await self.claim(self.bob, self.alice)), 1)
        self.assertEqual(await self.claim(self.bob, self.alice), {})


class OwnDeviceTests(KeysTestCase):
    async def test_a_user_in_no_room_hears_of_their_own_devices(self) -> None:
        """A second client shows at once that somebody has logged in."""
        since = (await self.alice.sync())["next_batch"]
        tablet = await self.log_in(self.alice)
        added = await self.alice.sync(since)
        await tablet.post("/logout")
        removed = await self.alice.sync(added["next_batch"])

        for answer in (added, removed):
            self.assertEqual(answer["device_lists"]["changed"], [self.alice.user_id])
        self.assertNotIn("device_lists", await self.alice.sync(removed["next_batch"]))
