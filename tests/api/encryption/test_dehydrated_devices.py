"""Dehydrated devices over the API: keys for a user who has no client."""

from typing import Any

from tests.encryption.client_keys import DeviceKeys
from tests.support.actors import Actor
from tests.support.refused import Refused
from tests.support.server import ServerTestCase

PATH = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
DATA = {"algorithm": "m.dehydration.v2", "device_pickle": "secret", "nonce": "n", "x": 1.5}


class DehydratedDeviceTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")
        self.sent = 0

    def device(self, name: str, **parts: Any) -> dict[str, Any]:
        """A request for a dehydrated device."""
        ghost = Actor(self._http, self.url, self.alice.user_id, name, "")
        keys = DeviceKeys(ghost)
        return {
            "device_id": name,
            "device_data": DATA,
            "initial_device_display_name": "Spare",
            "device_keys": {**keys.identity, "dehydrated": True},
            "one_time_keys": keys.one_time("A"),
            "fallback_keys": keys.fallback("F"),
            **parts,
        }

    async def put(self, name: str, **parts: Any) -> Any:
        """Store a dehydrated device of Alice."""
        return await self.alice.request("PUT", PATH, self.device(name, **parts))

    async def keys_of_alice(self) -> list[str]:
        """The devices for which Bob encrypts."""
        found = await self.bob.post("/keys/query", {"device_keys": {self.alice.user_id: []}})
        return list(found["device_keys"][self.alice.user_id])

    async def send(self, *names: str, count: int = 1) -> None:
        """Send messages from Bob to devices of Alice."""
        for number in range(count):
            body = {self.alice.user_id: {name: {"number": number} for name in names}}
            self.sent += 1
            await self.bob.put(f"/sendToDevice/m.x/{self.sent}", {"messages": body})

    async def events(self, name: str, since: str | None = None) -> Any:
        """A batch of the messages that a device received."""
        query = {} if since is None else {"from": since}
        return await self.alice.request("GET", f"{PATH}/{name}/events", query=query)

    async def test_a_device_receives_keys_while_its_user_is_away(self) -> None:
        """The next client decrypts it, and reads all messages, as often as it needs."""
        await self.assert_refused("M_NOT_FOUND", self.alice.request("GET", PATH), 404)
        self.assertEqual(await self.put("a/b+c"), {"device_id": "a/b+c"})
        self.assertEqual(await self.keys_of_alice(), ["a/b+c"])
        await self.send("a/b+c", count=130)
        await self.restart_server(self.alice, self.bob)

        stored = await self.alice.request("GET", PATH)
        first = await self.events("a%2Fb%2Bc")
        second = await self.events("a%2Fb%2Bc", first["next_batch"])
        again = await self.events("a%2Fb%2Bc")

        self.assertEqual(stored, {"device_id": "a/b+c", "device_data": DATA})
        self.assertEqual(len(first["events"]), 100)
        self.assertEqual(first, again)
        self.assertNotIn("next_batch", second)
        numbers = [each["content"]["number"] for each in first["events"] + second["events"]]
        self.assertEqual(numbers, list(range(130)))

    async def test_deployed_clients_ask_until_there_are_no_more_events(self) -> None:
        """They send the token in a body, and expect one in each response."""
        await self.put("SPARE")
        await self.send("SPARE", count=3)

        first = await self.alice.request("POST", f"{PATH}/SPARE/events", {})
        last = await self.alice.request(
            "POST", f"{PATH}/SPARE/events", {"next_batch": first["next_batch"]}
        )

        self.assertEqual((len(first["events"]), last["events"]), (3, []))

    async def test_a_new_device_replaces_the_old_one(self) -> None:
        """With all that was for it; the same one again keeps its messages."""
        await self.put("ONE")
        await self.send("ONE")
        await self.put("ONE")
        kept = await self.events("ONE")
        await self.put("TWO")

        self.assertEqual(len(kept["events"]), 1)
        self.assertEqual(await self.keys_of_alice(), ["TWO"])
        await self.assert_refused("M_FORBIDDEN", self.events("ONE"), 403)
        self.assertEqual(await self.events("TWO"), {"events": []})

    async def test_removal(self) -> None:
        """By its own endpoint, without a password, or with all other devices."""
        await self.put("ONE")
        self.assertEqual(await self.alice.request("DELETE", PATH), {"device_id": "ONE"})
        await self.assert_refused("M_NOT_FOUND", self.alice.request("DELETE", PATH), 404)
        self.assertEqual(await self.keys_of_alice(), [])

        await self.put("TWO")
        await self.alice.post("/logout/all")

        self.assertEqual(await self.keys_of_alice(), [])
        phone = await self.log_in(self.alice)
        await self.assert_refused("M_NOT_FOUND", phone.request("GET", PATH), 404)

    async def test_refused_devices(self) -> None:
        """None of them leaves anything behind, and the previous device stays."""
        await self.put("ONE")
        phone = self.alice.device_id
        for name, parts, errcode in (
            (phone, {}, "M_INVALID_PARAM"),
            ("", {}, "M_INVALID_PARAM"),
            ("TWO", {"device_data": 1}, "M_INVALID_PARAM"),
            ("TWO", {"device_data": {"x": "x" * 70_000}}, "M_TOO_LARGE"),
            ("TWO", {"device_keys": self.device("THREE")["device_keys"]}, "M_INVALID_PARAM"),
            ("TWO", {"one_time_keys": {"x": 1}}, "M_INVALID_PARAM"),
        ):
            with self.subTest(name=name, errcode=errcode):
                await self.assert_refused(errcode, self.put(name, **parts))
        body = self.device("TWO")
        del body["device_keys"]
        await self.assert_refused("M_BAD_JSON", self.alice.request("PUT", PATH, body))

        self.assertEqual((await self.alice.request("GET", PATH))["device_id"], "ONE")

    async def test_no_other_user_reads_the_messages(self) -> None:
        """Nor does anybody read those of an ordinary device in this way."""
        await self.put("ONE")
        for actor, name in ((self.bob, "ONE"), (self.alice, self.alice.device_id)):
            for method in ("GET", "POST"):
                attempt = actor.request(
                    method, f"{PATH}/{name}/events", {} if method == "POST" else None
                )
                with self.assertRaises(Refused) as caught:
                    await attempt
                self.assertEqual(caught.exception.errcode, "M_FORBIDDEN")
        await self.assert_refused("M_INVALID_PARAM", self.events("ONE", "x"), 400)
