"""Encrypted chat in a large room: querying keys, claiming them, and messages to devices."""

import itertools
import json
import statistics
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from benchmarks.load.figures import Figure
from benchmarks.load.loop import fetch_all, request
from benchmarks.load.population import CLIENT, CONNECTIONS, Account, Population, post
from tests.clients.plain_client import password_of

MEMBERS = 1_000
DEVICES = 3  # of each member
QUERIES = 10
CLAIMS = 10_000
MESSAGES = 10_000
OFFLINE = 100  # devices to which messages are sent
RECIPIENTS = 20  # devices of one request that sends messages
KEY = "A" * 43
SIGNATURE = "s" * 86


@dataclass
class Device:
    """A device of a member, with its token."""

    user_id: str
    device_id: str
    token: str
    since: str = ""


class EncryptedRoom:
    """A room of many members whose devices have uploaded their keys."""

    def __init__(self, population: Population, size: float) -> None:
        self._population = population
        self._numbers = itertools.count()
        members = population.accounts(max(int(MEMBERS * size), 2))
        population.group(members)
        self.devices = self._log_in(members)
        uploads = [upload(device, claimable=10) for device in self.devices[: len(members)]]
        uploads += [upload(device, claimable=0) for device in self.devices[len(members) :]]
        population.fetch(uploads)

    def query(self) -> list[float]:
        """The seconds that each of several queries for all members takes."""
        wanted: dict[str, list[str]] = {device.user_id: [] for device in self.devices}
        query = post(f"{CLIENT}/keys/query", self.devices[0].token, {"device_keys": wanted})
        return [self._timed([query]) for _ in range(QUERIES)]

    def claim(self, count: int) -> float:
        """The seconds that claims of one key each take, from many clients at once."""
        claims = []
        for device in itertools.islice(itertools.cycle(self._with_keys()), count):
            body = {"one_time_keys": {device.user_id: {device.device_id: "signed_curve25519"}}}
            claims.append(post(f"{CLIENT}/keys/claim", self.devices[0].token, body))
        return self._timed(claims)

    def send(self, count: int) -> float:
        """The seconds that it takes to send so many messages to devices that are offline."""
        since = self._population.present()
        for device in self._offline():
            device.since = since
        requests = []
        recipients = itertools.cycle(self._offline())
        for _ in range(count // RECIPIENTS):
            body: dict[str, Any] = {}
            for device in itertools.islice(recipients, RECIPIENTS):
                content = {"algorithm": "m.olm.v1.curve25519-aes-sha2", "ciphertext": "x" * 500}
                body.setdefault(device.user_id, {})[device.device_id] = content
            path = f"{CLIENT}/sendToDevice/m.room.encrypted/{next(self._numbers)}"
            data = json.dumps({"messages": body}).encode()
            requests.append(request("PUT", path, self.devices[0].token, data))
        return self._timed(requests)

    def pick_up(self) -> float:
        """The seconds until these devices have their messages."""
        nothing = quote('{"room":{"rooms":[]},"presence":{"types":[]}}')
        path = f"{CLIENT}/sync?timeout=0&filter={nothing}&since="
        requests = [request("GET", path + each.since, each.token) for each in self._offline()]
        return self._timed(requests)

    def _offline(self) -> list[Device]:
        return self.devices[-OFFLINE:]

    def _with_keys(self) -> list[Device]:
        return self.devices[: len(self.devices) // DEVICES]

    def _log_in(self, members: list[Account]) -> list[Device]:
        devices = []
        for _ in range(DEVICES):
            answers = self._population.fetch([log_in(member) for member in members])
            devices += [
                Device(answer["user_id"], answer["device_id"], answer["access_token"])
                for answer in answers
            ]
        return devices

    def _timed(self, requests: list[bytes]) -> float:
        began = time.perf_counter()
        fetch_all(self._population.loop, self._population.server.port, requests, CONNECTIONS)
        return time.perf_counter() - began


def measure(population: Population, size: float) -> list[Figure]:
    """The figures; `size` scales the room and the counts."""
    room = EncryptedRoom(population, size)
    first, *others = room.query()
    claims, messages = int(CLAIMS * size), int(MESSAGES * size)
    claiming, sending = room.claim(claims), room.send(messages)
    picking_up = room.pick_up()
    devices = f"{len(room.devices)} devices"
    return [
        Figure("key query, first of the room", first * 1000, "ms", note=devices),
        Figure(
            "key query, all of the room",
            statistics.median(others) * 1000,
            "ms",
            60,
            at_most=True,
            note=f"median of {len(others)}, {devices}",
        ),
        Figure("keys claimed, one a request", claims / claiming, "/s", 2_000),
        Figure(
            "messages sent to devices offline",
            messages / sending,
            "/s",
            4_000,
            note=f"{RECIPIENTS} a request",
        ),
        Figure(
            "messages picked up", messages / picking_up, "/s", 10_000, note=f"{OFFLINE} devices"
        ),
    ]


def log_in(member: Account) -> bytes:
    """The request that logs a member in to one more device."""
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": member.user_id},
        "password": password_of(member.user_id[1:].partition(":")[0]),
    }
    return post(f"{CLIENT}/login", None, body)


def upload(device: Device, claimable: int) -> bytes:
    """The request that uploads a device's keys, with so many one-time keys."""
    signatures = {device.user_id: {f"ed25519:{device.device_id}": SIGNATURE}}
    identity = {
        "user_id": device.user_id,
        "device_id": device.device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {f"{kind}:{device.device_id}": KEY for kind in ("curve25519", "ed25519")},
        "signatures": signatures,
    }
    keys = {
        f"signed_curve25519:{number}": {"key": KEY, "signatures": signatures}
        for number in range(claimable)
    }
    body = {"device_keys": identity, "one_time_keys": keys}
    return post(f"{CLIENT}/keys/upload", device.token, body)
