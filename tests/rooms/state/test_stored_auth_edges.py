"""Auth edges in the database: written with every state event, added for old ones, repaired."""

import psycopg

from homeserver.cli.doctor.auth_chain_checks import check_auth_chains
from homeserver.cli.doctor.findings import Severity
from homeserver.protocol.event_types import CREATE_KEY, MEMBER
from homeserver.storage.database.migrate import load_migrations
from homeserver.storage.rooms.event_json import unpack_json
from tests.rooms.inbound.remote_events import RemoteEvents
from tests.rooms.inbound.replica import build
from tests.rooms.support import ALICE, BOB, RoomsTestCase

EVE = "@eve:other.example"


class StoredAuthEdgesTests(RoomsTestCase):
    """Rooms of all event formats, made through the writer."""

    async def setUp(self) -> None:
        await super().setUp()
        for version in ("1", "3", "11", "12"):
            room_id = await self.create_room(ALICE, version=version)
            await self.memberships.join(BOB, room_id)
            await self.say(room_id, "hello", BOB)
            topic = {"topic": '"content": [\0]'}
            await self.sending.set_state(ALICE, room_id, "m.room.topic", "", topic)

    def edges(self) -> set[tuple[int, int]]:
        with psycopg.connect(self.dsn) as connection:
            return set(connection.execute("SELECT event, auth_event FROM auth_edges"))

    def check(self, *, repair: bool = False) -> tuple[Severity, str]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            finding = check_auth_chains(connection, repair=repair)
        return finding.severity, finding.text

    async def test_local_events_are_written_with_their_auth_edges(self) -> None:
        """A fork years later is resolved by the edges stored now."""
        verdict, text = self.check()

        assert verdict is Severity.OK
        assert text.startswith("right for ")
        assert len(self.edges()) > 40

    async def test_refused_events_are_written_with_their_auth_edges(self) -> None:
        """The doctor does not cry because another server sent something odd."""
        room_id = await self.create_room(ALICE, version="11")
        remote_events = RemoteEvents(self.rooms, self.storage)
        room = await self.rooms.get(room_id)
        cited = list(
            (await self.rooms.current(room, [CREATE_KEY, (MEMBER, ALICE.user_id)])).values()
        )
        content = {"room_version": "11"}
        events = [each.event for each in cited]
        create = build("11", room_id, "m.room.create", EVE, content, "", events, events, 9, 9)

        stored = await remote_events.receive(create)

        assert "another event" in (stored.status.rejected or "")
        assert {(stored.event_nid, each.event_nid) for each in cited} <= self.edges()
        assert self.check()[0] is Severity.OK

    async def test_migration_makes_the_edges_of_the_events_that_are_there(self) -> None:
        """A server that is upgraded has rooms already."""
        before = self.edges()
        (migration,) = [each for each in load_migrations() if each.name.endswith("auth_chains")]

        with psycopg.connect(self.dsn) as connection:
            # When this migration was new, the JSON of events was stored as it is.
            for event, stored in connection.execute("SELECT event, json FROM events").fetchall():
                plain = "UPDATE events SET json = %s WHERE event = %s"
                connection.execute(plain, (unpack_json(stored), event))
            connection.execute("DROP TABLE auth_edges")
            connection.execute(migration.text.encode())

        assert self.edges() == before

    async def test_doctor_finds_and_repairs_wrong_chains(self) -> None:
        """With wrong chains this server would resolve another state than all others."""
        before = self.edges()
        oldest, *_, other, newest = sorted({event for event, _ in before})
        with psycopg.connect(self.dsn) as connection:
            connection.execute("DELETE FROM auth_edges WHERE event = %s", (newest,))
            connection.execute("INSERT INTO auth_edges VALUES (%s, %s)", (other, oldest))

        assert self.check()[0] is Severity.PROBLEM
        assert self.check(repair=True)[0] is Severity.OK
        assert self.check()[0] is Severity.OK
        assert self.edges() == before
