"""Alice with two devices, Bob who shares a room with her, and Carol who does not."""

from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from tests.encryption.client_keys import CrossSigningKeys, DeviceKeys
from tests.support.actors import Actor
from tests.support.server import ServerTestCase

KEYS, SIGNATURES = "/keys/device_signing/upload", "/keys/signatures/upload"


class CrossSigningTestCase(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.tablet = await self.log_in(self.alice)
        self.bob = await self.register("bob")
        self.carol = await self.register("carol")
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        for device in (self.alice, self.tablet, self.bob):
            await device.post("/keys/upload", {"device_keys": DeviceKeys(device).identity})
        self.keys, self.bobs = CrossSigningKeys(self.alice), CrossSigningKeys(self.bob)
        self.tokens: dict[Actor, str] = {}

    @property
    def everybody(self) -> list[Actor]:
        """The devices of all users."""
        return [self.alice, self.tablet, self.bob, self.carol]

    async def restart(self) -> None:
        """Stop the server and start it again."""
        await self.restart_server(*self.everybody)

    async def note_tokens(self) -> None:
        """Sync everybody: changes are those from now on."""
        for actor in self.everybody:
            self.tokens[actor] = (await actor.sync())["next_batch"]

    async def changed(self) -> list[set[str]]:
        """The users whose devices changed since `note_tokens`, for each of everybody.

        `/sync` and `/keys/changes` must agree.
        """
        found = []
        for actor in self.everybody:
            since = self.tokens[actor]
            answer = await actor.sync(since)
            lists = answer.get("device_lists", {}).get("changed", [])
            changes = await actor.get("/keys/changes", **{"from": since}, to=answer["next_batch"])
            self.assertEqual(set(changes["changed"]), set(lists))
            found.append(set(lists))
        return found

    async def next_changed(self, actor: Actor) -> list[str]:
        """The users whose devices changed, as soon as `/sync` names any."""
        since, changed = self.tokens[actor], None
        while not changed:
            answer = await actor.sync(since, timeout_ms=30_000)
            since, changed = answer["next_batch"], answer.get("device_lists", {}).get("changed")
        found: list[str] = changed
        return found

    async def query(self, actor: Actor, of: Actor) -> Any:
        """What an actor finds of all keys of a user, without their user id."""
        answer = await actor.post("/keys/query", {"device_keys": {of.user_id: []}})
        return {kind: found.get(of.user_id) for kind, found in answer.items()}

    async def sign(self, actor: Actor, of: Actor, **keys: Any) -> Any:
        """Upload signed keys of a user, given by key id; the failures."""
        answer = await actor.post(SIGNATURES, {of.user_id: keys})
        return answer["failures"].get(of.user_id, {})

    def rows(self, table: str) -> int:
        """The number of rows that a table has."""
        with psycopg.connect(self.dsn) as connection:
            query = SQL("SELECT count(*) FROM {}").format(Identifier(table))
            row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def password(self, actor: Actor, **auth: Any) -> dict[str, Any]:
        """The member `auth` with which a user authenticates."""
        name = actor.user_id[1:].partition(":")[0]
        identifier = {"type": "m.id.user", "user": actor.user_id}
        secret = f"the password of {name}"
        stage = {"type": "m.login.password", "identifier": identifier, "password": secret}
        return {"auth": {**stage, **auth}}

    async def log_in_as(self, actor: Actor, device_id: str) -> Actor:
        """Another device of the same user, with this id."""
        body = {**self.password(actor)["auth"], "device_id": device_id}
        return self._actor(await self.anybody.post("/login", body))
