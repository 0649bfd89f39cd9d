"""Accounts, rooms and the requests that a benchmark makes for them."""

import itertools
import json
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from benchmarks.load.loop import LoadFailed, Loop, fetch_all, request
from benchmarks.load.processes import cpu_seconds
from tests.clients.plain_client import registration
from tests.support.process import SHARED_SECRET, ServerProcess

CLIENT = "/_matrix/client/v3"
REGISTER = "/_synapse/admin/v1/register"
CONNECTIONS = 16
IDLE_SECONDS = 2.0
IDLE_CPU = 0.05  # of a processor
GIVE_UP_SECONDS = 120.0
# Part of the body of each message, so that deliveries can be counted without decoding.
MARK = b"benchmark-message"
NEXT_BATCH = re.compile(rb'"next_batch"\s*:\s*"([^"]+)"')


@dataclass
class Account:
    """A registered user with one device, and how far it has synced."""

    user_id: str
    token: str
    since: str = ""


class Population:
    """Makes accounts and rooms on a running server, many at a time."""

    def __init__(self, server: ServerProcess, loop: Loop) -> None:
        self.server = server
        self.loop = loop
        self._names = itertools.count()
        self._transactions = itertools.count()

    def fetch(self, requests: list[bytes], connections: int = CONNECTIONS) -> list[Any]:
        """Decoded responses to many requests."""
        bodies = fetch_all(self.loop, self.server.port, requests, connections)
        return [json.loads(body) for body in bodies]

    def accounts(self, count: int) -> list[Account]:
        """So many new accounts."""
        nonces = self.fetch([request("GET", REGISTER)] * count)
        bodies = [
            registration(SHARED_SECRET, response["nonce"], f"user{next(self._names)}")
            for response in nonces
        ]
        responses = self.fetch([post(REGISTER, None, body) for body in bodies])
        return [Account(response["user_id"], response["access_token"]) for response in responses]

    def rooms(self, owners: list[Account]) -> list[str]:
        """A new public room of each owner."""
        body = {"preset": "public_chat"}
        path = f"{CLIENT}/createRoom"
        responses = self.fetch([post(path, owner.token, body) for owner in owners])
        return [response["room_id"] for response in responses]

    def join(self, joins: list[tuple[Account, str]]) -> None:
        """Have users join rooms."""
        self.fetch([post(f"{CLIENT}/join/{quote(room)}", one.token, {}) for one, room in joins])

    def group(self, members: list[Account]) -> str:
        """A room of all these members."""
        room = self.rooms(members[:1])[0]
        self.join([(member, room) for member in members[1:]])
        return room

    def sync(self, accounts: list[Account]) -> None:
        """Bring accounts up to date, so that their next poll waits."""
        responses = self.fetch([poll(account, 0) for account in accounts])
        for account, response in zip(accounts, responses, strict=True):
            account.since = response["next_batch"]

    def present(self) -> str:
        """A sync token of this moment, which is valid for any user."""
        newcomer = self.accounts(1)
        self.sync(newcomer)
        return newcomer[0].since

    def wait_until_idle(self) -> None:
        """Let the readers of the log and the background jobs end what was begun before.

        Else an answer would be measured together with the rest of the work that made its rooms.
        """
        pids, deadline = [self.server.pid], time.perf_counter() + GIVE_UP_SECONDS
        while time.perf_counter() < deadline:
            before = cpu_seconds(pids)
            self.loop.run_for(IDLE_SECONDS)
            if cpu_seconds(pids) - before < IDLE_CPU * IDLE_SECONDS:
                return
        raise LoadFailed("the server does not come to rest")

    def message(self, sender: Account, room: str) -> bytes:
        """The request that sends one more text message."""
        number = next(self._transactions)
        path = f"{CLIENT}/rooms/{quote(room)}/send/m.room.message/{number}"
        body = b'{"msgtype":"m.text","body":"%s %d of many"}' % (MARK, number)
        return request("PUT", path, sender.token, body)


def poll(account: Account, timeout_ms: int) -> bytes:
    """The request of a `/sync` from where the account is."""
    since = f"&since={quote(account.since)}" if account.since else ""
    return request("GET", f"{CLIENT}/sync?timeout={timeout_ms}{since}", account.token)


def take_next_batch(account: Account, body: bytes) -> None:
    """Continue from the end of a `/sync` response."""
    found = NEXT_BATCH.search(body)
    if found is None:
        raise ValueError(f"no next_batch: {body[:200]!r}")
    account.since = found[1].decode()


def post(path: str, token: str | None, body: Any) -> bytes:
    """The request that POSTs a body as JSON."""
    return request("POST", path, token, json.dumps(body).encode())
