"""A server with a user, and a scripted server whose user's devices the former follows.

Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.internet.task import deferLater

from homeserver.protocol.signing.unpadded_base64 import encode_base64
from tests.support.actors import Actor
from tests.support.fake_server.fake_http import (
    Answer,
    Received,
)
from tests.support.organisations import FederationTestCase
from tests.support.watcher import eventually

LAZY = msgspec.json.encode({"room": {"state": {"lazy_load_members": True}}}).decode()
DEVICES, QUERY = "get_user_devices", "query_user_encryption_keys"


def device_keys(user_id: str, device_id: str, key: str = "a") -> dict[str, Any]:
    """Identity keys."""
    return {
        "user_id": user_id,
        "device_id": device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": {f"ed25519:{device_id}": key},
        "signatures": {user_id: {f"ed25519:{device_id}": "signed"}},
    }


def cross_signing_key(user_id: str, usage: str, seed: str = "m") -> dict[str, Any]:
    """A public cross-signing key."""
    key = encode_base64(sha256(seed.encode()).digest())
    return {"user_id": user_id, "usage": [usage], "keys": {f"ed25519:{key}": key}}


class RemoteListsTestCase(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there = await self.fake()
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")
        self.mallory = self.there.user("mallory")
        self.devices: dict[str, Any] = {"D": device_keys(self.mallory, "D")}
        self.cross_signing: dict[str, Any] = {}
        self.stream_id = 1
        self.there.answers[DEVICES] = self.list_devices
        self.there.answers[QUERY] = self.query_keys

    async def share(self) -> None:
        """Share a room with Mallory."""
        self.room_id = await self.alice.create_room(public=True)
        self.room = await self.there.join(self.here.name, self.room_id, self.mallory)
        self.since = (await self.alice.sync())["next_batch"]

    def list_devices(self, request: Received) -> Answer:
        """The devices as the other server has them."""
        user_id = request.path["user_id"]
        listed = [{"device_id": each, "keys": keys} for each, keys in self.devices.items()]
        body = {"user_id": user_id, "stream_id": self.stream_id, "devices": listed}
        return Answer(200, {**body, **self.cross_signing})

    def query_keys(self, request: Received) -> Answer:
        """The same for a query."""
        return Answer(
            200, {"device_keys": dict.fromkeys(request.body["device_keys"], self.devices)}
        )

    async def query(self, user_id: str = "", actor: Actor | None = None, **options: Any) -> Any:
        """The response to a query for all devices of a user, Mallory by default."""
        wanted = {"device_keys": {user_id or self.mallory: []}, **options}
        return await (actor or self.alice).post("/keys/query", wanted)

    async def found(self, user_id: str = "") -> Any:
        """The public keys that Alice finds by device; `None` if she finds no list at all."""
        answer = await self.query(user_id)
        devices = answer["device_keys"].get(user_id or self.mallory)
        return (
            None
            if devices is None
            else {each: next(iter(keys["keys"].values())) for each, keys in devices.items()}
        )

    def requests(self, operation: str = DEVICES) -> int:
        """The number of requests that the other server got."""
        return len([each for each in self.there.received if each.operation == operation])

    async def changed(self) -> set[str]:
        """The users whose devices changed, as Alice sees them in one sync."""
        answer = await self.alice.sync(self.since)
        self.since = answer["next_batch"]
        return {*answer.get("device_lists", {}).get("changed", [])}

    async def sees_change(self) -> None:
        """Wait until Alice has to look up Mallory's devices."""

        async def is_named() -> bool:
            return self.mallory in await self.changed()

        await eventually(is_named, "a change of the list")

    async def send_update(self, stream_id: Any, *previous: int, **members: Any) -> None:
        """Send an EDU for the device D, after the devices were changed."""
        content = {
            "user_id": self.mallory,
            "device_id": "D",
            "stream_id": stream_id,
            "prev_id": [*previous],
            "keys": self.devices.get("D"),
            **members,
        }
        await self.send_edu("m.device_list_update", content)

    async def send_edu(self, kind: str, content: Mapping[str, Any]) -> None:
        """Send an EDU."""
        await self.there.send(self.here.name, [], [{"edu_type": kind, "content": content}])

    async def restart(self) -> None:
        """Stop the server, and start it with the same data."""
        await self._pool.closeCachedConnections()
        await self.here.stop()
        await self.here.start()
        self.alice.url = self.here.url


class Late(Answer):
    """A response that takes its time."""

    def __init__(self, answer: Answer, seconds: float) -> None:
        super().__init__(answer.status, answer.body)
        self._seconds = seconds

    def write(self, request: Any) -> None:
        deferLater(reactor, self._seconds, super().write, request)
