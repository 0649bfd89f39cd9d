"""Several homeservers in one process, each with its users, that reach each other over real TLS."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from homeserver.app import Homeserver
from homeserver.config.settings import Settings
from tests.support.actors import Actor, Client
from tests.support.certificates import CertificateAuthority
from tests.support.fake_server.server import FakeServer
from tests.support.logs import transcoding
from tests.support.postgres import drop_database, fresh_database
from tests.support.process import free_port
from tests.support.refused import Refused


class Organisation:
    """One homeserver with a database of its own.

    `name` is its server name, which other servers reach it by; `url` is for its users, and `server`
    the running server. If it `transcodes`, subscribers of its log see decoded entries.
    """

    def __init__(
        self,
        authority: CertificateAuthority,
        http: HTTPClient,
        folder: Path,
        settings: dict[str, Any],
        *,
        transcodes: bool = False,
    ) -> None:
        self._http = http
        self._transcodes = transcodes
        self._folder = folder
        self.dsn = fresh_database()
        port = free_port()
        files = authority.issue("127.0.0.1", file_name=f"organisation-{port}")
        self.name = f"127.0.0.1:{port}"
        federation = {
            "port": port,
            "bind": "127.0.0.1",
            "tls": {
                "certificate": str(files.certificate),
                "private_key": str(files.private_key),
            },
            "resources": ["federation"],
        }
        users = {"port": 0, "bind": "127.0.0.1", "resources": ["client", "federation"]}
        self._values: dict[str, Any] = {
            "server_name": self.name,
            "data_dir": str(folder),
            "listeners": [users, federation],
            "database": {"dsn": self.dsn, "pool_size": 4},
            "registration": {"enabled": True},
            "passwords": {"hash_cost": "lowest"},
            "rate_limits": {"enabled": False},
            "room_directory": {"over_federation": True},
            **settings,
            "federation": {
                "ca_file": str(authority.path),
                "allow_private_addresses": True,
                **settings.get("federation", {}),
            },
        }

    async def start(self) -> None:
        """Start the server; again after `stop`, with the same data."""
        settings = msgspec.convert(self._values, Settings, dec_hook=_decode_path)
        self.server = Homeserver(
            settings, reactor, transcode=transcoding(is_wanted=self._transcodes)
        )
        await self.server.start()
        self.url = f"http://127.0.0.1:{self.server.ports[0]}"
        self.anybody = Client(self._http, self.url)

    async def stop(self) -> None:
        """Stop the server."""
        await self.server.stop()

    async def register(self, name: str) -> Actor:
        """A new account with one device."""
        body = {"username": name, "auth": {"type": "m.login.dummy"}}
        answer = await self.anybody.post("/register", body)
        return Actor(
            self._http, self.url, answer["user_id"], answer["device_id"], answer["access_token"]
        )


class FederationTestCase(TestCase):
    """A test with any number of servers: `await self.organisation()`."""

    timeout = 60
    transcodes = False  # whether subscribers of their logs see decoded entries

    async def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="homeserver-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.authority = CertificateAuthority(self.folder)
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self.http = HTTPClient(Agent(reactor, pool=self._pool))
        self.addCleanup(self._pool.closeCachedConnections)

    async def organisation(self, **settings: Any) -> Organisation:
        """A running server; `settings` replace sections of its configuration."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        organisation = Organisation(
            self.authority, self.http, folder, settings, transcodes=self.transcodes
        )
        self.addCleanup(drop_database, organisation.dsn)

        async def stop() -> None:
            await self._pool.closeCachedConnections()
            await organisation.stop()

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        await organisation.start()
        return organisation

    async def fake(self) -> FakeServer:
        """A scripted server, running."""
        server = FakeServer(self.authority)
        await server.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        return server

    async def assert_refused(self, errcode: str, attempt: Any, status: int) -> Refused:
        """The attempt fails with this errcode and HTTP status."""
        error = await self.assertFailure(ensureDeferred(attempt), Refused)
        self.assertEqual((error.errcode, error.status), (errcode, status), str(error))
        return error


def _decode_path(type_: type, value: object) -> object:
    return Path(str(value)) if type_ is Path else value
