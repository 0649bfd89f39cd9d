"""Devices of ghosts, which need no log-in and no confirmation."""

from typing import Any

from tests.appservices.support import AppserviceTestCase
from tests.support.actors import CLIENT


class DeviceTests(AppserviceTestCase):
    async def test_a_device_is_created_without_a_log_in(self) -> None:
        """An encrypting bridge works where its users cannot log in."""
        bob = await self.ghost("_irc_bob")

        first = await self._put(bob, "BRIDGE", {"display_name": "Bridge"})
        second = await self._put(bob, "BRIDGE", {"display_name": "New name"})

        self.assertEqual((first, second), (201, 200))
        (device,) = (await bob.get("/devices"))["devices"]
        self.assertEqual((device["device_id"], device["display_name"]), ("BRIDGE", "New name"))
        bob.device_id = "BRIDGE"
        who = await bob.get("/account/whoami")
        self.assertEqual(who, {"user_id": bob.user_id, "device_id": "BRIDGE", "is_guest": False})
        (device,) = (await bob.get("/devices"))["devices"]
        self.assertEqual(device["last_seen_ip"], "127.0.0.1")

    async def test_invalid_devices_are_refused(self) -> None:
        """The same rules as for log-in."""
        bob = await self.ghost("_irc_bob")

        for device_id in ("x" * 256, "%1Firc"):
            await self.assert_refused("M_INVALID_PARAM", bob.put(f"/devices/{device_id}", {}), 400)
        named = bob.put("/devices/A", {"display_name": "x" * 2000})
        await self.assert_refused("M_INVALID_PARAM", named, 400)
        self.assertEqual(await bob.get("/devices"), {"devices": []})

    async def test_others_create_no_devices(self) -> None:
        """A client gets devices by logging in."""
        alice = await self.register("alice")

        await self.assert_refused("M_NOT_FOUND", alice.put("/devices/NEW", {}), 404)

    async def test_devices_are_deleted_without_confirmation(self) -> None:
        """Ghosts have no password to confirm with."""
        bob = await self.ghost("_irc_bob")
        for device_id in ("A", "B", "C"):
            await bob.put(f"/devices/{device_id}", {})
        gone = self.as_user("_irc_bob")
        gone.device_id = "A"
        await gone.get("/account/whoami")

        await bob.request("DELETE", f"{CLIENT}/devices/A", {})
        await bob.post("/delete_devices", {"devices": ["B"]})

        (device,) = (await bob.get("/devices"))["devices"]
        self.assertEqual(device["device_id"], "C")
        await self.assert_refused("M_UNKNOWN_DEVICE", gone.get("/account/whoami"), 400)

    async def test_cross_signing_keys_are_replaced_without_confirmation(self) -> None:
        """A bridge that lost its keys verifies itself again."""
        bob = await self.ghost("_irc_bob")

        for name in ("first", "second"):
            key = self._master_key(bob.user_id, name)
            await bob.post("/keys/device_signing/upload", {"master_key": key})

        found = await bob.post("/keys/query", {"device_keys": {bob.user_id: []}})
        self.assertEqual(found["master_keys"][bob.user_id], key)

    async def test_keys_are_uploaded_for_the_device_that_is_named(self) -> None:
        """And for no device if none is named."""
        bob = await self.ghost("_irc_bob")
        await bob.put("/devices/BRIDGE", {})
        keys = {"one_time_keys": {"signed_curve25519:AAAA": {"key": "x", "signatures": {}}}}

        await self.assert_refused("M_INVALID_PARAM", bob.post("/keys/upload", keys), 400)
        bob.device_id = "BRIDGE"
        counts = await bob.post("/keys/upload", keys)

        self.assertEqual(counts["one_time_key_counts"]["signed_curve25519"], 1)

    async def _put(self, actor: Any, device_id: str, body: Any) -> int:
        response = await self._http.put(
            f"{self.url}{CLIENT}/devices/{device_id}",
            params={"user_id": actor.user_id},
            json=body,
            headers={"Authorization": f"Bearer {actor.token}"},
        )
        await response.content()
        code: int = response.code
        return code

    def _master_key(self, user_id: str, name: str) -> dict[str, Any]:
        public = name.ljust(43, "A")
        return {"user_id": user_id, "usage": ["master"], "keys": {f"ed25519:{public}": public}}
