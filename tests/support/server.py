"""A whole homeserver in the test's process, on a real socket, with a separate database."""

import shutil
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from homeserver.app import Homeserver
from homeserver.config.settings import Settings
from tests.support.actors import Actor, Client
from tests.support.logs import transcoding
from tests.support.postgres import drop_database, fresh_database
from tests.support.refused import Refused


class ServerTestCase(TestCase):
    """A test with its own server.

    `settings` replace sections of the configuration. `alice`, `bob` and the like come from
    `register`; `anybody` has no account.
    """

    timeout = 60
    settings: dict[str, Any] = {}  # noqa: RUF012  # replaced by subclasses, never changed
    transcodes = False  # whether subscribers of the log see decoded entries

    async def setUp(self) -> None:
        self.dsn = fresh_database()
        self.addCleanup(drop_database, self.dsn)
        self._directory = Path(tempfile.mkdtemp(prefix="homeserver-"))
        self.addCleanup(shutil.rmtree, self._directory)
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = 20
        self._http = HTTPClient(Agent(reactor, pool=self._pool))
        # Trial runs clean-ups before `tearDown`, so there is none: the server goes before its data.
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stop_server()))
        await self.start_server()

    async def start_server(self) -> None:
        """Start the server; again after `stop_server`, with the same data."""
        self.server = Homeserver(
            self._settings(), reactor, transcode=transcoding(is_wanted=self.transcodes)
        )
        await self.server.start()
        self.url = f"http://127.0.0.1:{self.server.ports[0]}"
        self.anybody = Client(self._http, self.url)

    async def stop_server(self) -> None:
        """Stop the server. Actors are of the server that ran when they were made."""
        await self._pool.closeCachedConnections()
        await self.server.stop()

    async def restart_server(self, *actors: Actor) -> None:
        """Stop the server and start it again; the actors continue with the new one."""
        await self.stop_server()
        await self.start_server()
        for actor in actors:
            actor.url = self.url

    async def register(self, name: str) -> Actor:
        """A new account with one device."""
        answer = await self.anybody.post(
            "/register",
            {
                "username": name,
                "password": f"the password of {name}",
                "auth": {"type": "m.login.dummy"},
            },
        )
        return self._actor(answer)

    async def register_admin(self, name: str) -> Actor:
        """A new account that may administrate the server."""
        actor = await self.register(name)
        # The token was not used yet, so the server has not cached the account.
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "UPDATE users SET is_admin = true WHERE user_id = %s", (actor.user_id,)
            )
        return actor

    async def register_guest(self) -> Actor:
        """A new guest."""
        return self._actor(await self.anybody.post("/register", {}, kind="guest"))

    async def log_in(self, actor: Actor) -> Actor:
        """Another device of the same user."""
        name = actor.user_id[1:].partition(":")[0]
        identifier = {"type": "m.id.user", "user": actor.user_id}
        body = {
            "type": "m.login.password",
            "identifier": identifier,
            "password": f"the password of {name}",
        }
        return self._actor(await self.anybody.post("/login", body))

    async def assert_refused(
        self, errcode: str, attempt: Awaitable[Any], status: int | None = None
    ) -> Refused:
        """The attempt fails with this errcode, and with this HTTP status if it is given."""
        try:
            answer = await attempt
        except Refused as error:
            refused = error
        else:
            self.fail(f"{errcode} was expected, but the answer is {answer}")
        self.assertEqual(refused.errcode, errcode, str(refused))
        if status is not None:
            self.assertEqual(refused.status, status, str(refused))
        return refused

    def _actor(self, answer: Any) -> Actor:
        return Actor(
            self._http, self.url, answer["user_id"], answer["device_id"], answer["access_token"]
        )

    def _settings(self) -> Settings:
        values: dict[str, Any] = {
            "server_name": "example.org",
            "data_dir": str(self._directory),
            "listeners": [{"port": 0, "bind": "127.0.0.1", "resources": ["client"]}],
            "database": {"dsn": self.dsn, "pool_size": 4},
            "registration": {"enabled": True, "guests": True},
            "passwords": {"hash_cost": "lowest"},
            "rate_limits": {"enabled": False},
            # No test goes out to the internet.
            "federation": {"deny": ["*"]},
        }
        return msgspec.convert({**values, **self.settings}, Settings, dec_hook=_decode_path)


def _decode_path(type_: type, value: object) -> object:
    return Path(str(value)) if type_ is Path else value
