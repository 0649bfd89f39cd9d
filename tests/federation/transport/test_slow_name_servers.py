"""Requests that claim to come from servers whose names cannot be resolved in time.

Anyone can send them, and they cannot be verified before the name is resolved: they may delay each
other, but no other request, and never the end of the process.
"""

import http.client
import os
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from select import select
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred

from homeserver.protocol.signing.signatures import SigningKey
from homeserver.protocol.signing.x_matrix import authorize
from tests.support.organisations import FederationTestCase, Organisation
from tests.support.process import ServerProcess
from tests.support.program import CHECKOUT
from tests.support.reactor import pause, until

ROOMS = "/_matrix/federation/v1/publicRooms"
PASSWORD = "correct horse battery staple"
KEY = SigningKey.from_seed("slow", bytes(32))
FLOOD = 60
SOON = 3.0  # seconds; the fault made it 49
AT_ONCE = 5  # requests of one address whose keys are fetched at the same time
MAY_WAIT = 105  # requests of one address that wait for keys, with those whose keys are fetched


class SlowNameTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.gate = Event()
        self.addCleanup(self.gate.set)
        self.looked_up: list[str] = []
        real = socket.getaddrinfo

        def slow(host: str, *args: Any, **kwargs: Any) -> Any:
            if host.endswith(".slow.example"):
                self.looked_up.append(host)
                self.gate.wait(40)
                raise OSError("no answer")
            return real(host, *args, **kwargs)

        self.patch(socket, "getaddrinfo", slow)
        self.here = await self.organisation(passwords={"hash_cost": "normal"})

    async def test_log_in_does_not_wait_for_names(self) -> None:
        """Users do not notice a flood of invented server names."""
        user = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        await self.here.anybody.post("/register", user)
        flood = [self._begin(f"{number}.slow.example") for number in range(FLOOD)]
        await until(lambda: len(set(self.looked_up)) >= AT_ONCE)
        await pause(0.2)  # in which more of them would begin
        self.assertEqual(len(set(self.looked_up)), AT_ONCE)

        started = time.monotonic()
        await self.here.anybody.post(
            "/login",
            {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": "alice"},
                "password": PASSWORD,
            },
        )
        self.assertLess(time.monotonic() - started, SOON)

        self.gate.set()
        for each in flood:
            self.assertEqual(await each, 401)

    async def test_a_flood_from_one_address_is_refused_alone(self) -> None:
        """A server that is new to this one is served, whatever comes from other addresses."""
        there = await self.organisation()
        flood = [self._begin(f"{number}.slow.example") for number in range(120)]
        await until(lambda: sum(each.called for each in flood) >= 120 - MAY_WAIT)
        await pause(0.2)  # in which more of them would be refused
        refused = [each for each in flood if each.called]
        self.assertEqual({await each for each in refused}, {429})
        self.assertEqual(len(flood) - len(refused), MAY_WAIT)
        fetcher = self.here.server.parts.federation._fetcher

        started = time.monotonic()
        found = await fetcher.from_origin(there.name, address="192.0.2.7")

        self.assertTrue(found)
        self.assertLess(time.monotonic() - started, SOON)
        self.gate.set()
        for each in flood:
            await each

    def _begin(self, origin: str) -> Deferred[int]:
        return ensureDeferred(_send(self.http, self.here, origin))


async def _send(client: Any, here: Organisation, origin: str) -> int:
    header = str(authorize("GET", ROOMS, origin, here.name, None, KEY))
    response = await client.request("GET", here.url + ROOMS, headers={"Authorization": header})
    await response.content()
    return int(response.code)


class _WithHangingNames(ServerProcess):
    @property
    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "PYTHONPATH": str(CHECKOUT / "tests/support/hanging_names")}


@pytest.mark.interop
def test_the_server_stops_in_its_time_whatever_name_servers_do() -> None:
    """An operator who updates a server does not wait for an attacker."""
    with TemporaryDirectory(prefix="homeserver-") as folder, ExitStack() as open_connections:
        Path(folder).chmod(0o755)
        overrides = {"limits": {"shutdown_timeout": 1.0}, "federation": {"allow": ["*.example"]}}
        with _WithHangingNames(Path(folder), overrides=overrides) as server:
            resources = ["client", "federation"]
            listener = {"port": server.port, "bind": "127.0.0.1", "resources": resources}
            server.configure({**overrides, "listeners": [listener]})
            server.start()
            waiting = []
            for number in range(FLOOD):
                connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
                open_connections.callback(connection.close)
                origin = f"{number}.slow.example"
                header = authorize("GET", ROOMS, origin, "localhost", None, KEY)
                connection.request("GET", ROOMS, headers={"Authorization": str(header)})
                waiting.append(connection.sock)
            assert select(waiting, [], [], 2)[0] == []

            started = time.monotonic()
            server.stop()

            assert time.monotonic() - started < 10
