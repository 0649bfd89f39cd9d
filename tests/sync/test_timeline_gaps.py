"""Sync where this server has missed a part of a room: after an outage, or after a rejoin.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from typing import Any

from homeserver.protocol.events import Event
from homeserver.rooms.history.history import PageRequest
from tests.rooms.inbound.replica import ALICE, BOB
from tests.support.postgres import DatabaseTestCase
from tests.sync.client_model import ClientModel
from tests.sync.remote_room import RemoteRoom
from tests.sync.sync_server import SyncServer

LAZY = {"room": {"state": {"lazy_load_members": True}}}
NAME = ("m.room.name", "")


class TimelineGapTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.remote = RemoteRoom()
        self.server = await SyncServer.start(self.db, self.remote)
        self.remote.use(self.server)
        self.carol = await self.server.user("carol")
        self.remote.rename("old")
        await self.remote.join(self.carol)

    async def restart(self) -> None:
        await self.server.stop()
        self.server = await SyncServer.start(self.db, self.remote)
        self.remote.use(self.server)

    async def section(self, since: str | None = None, **options: Any) -> dict[str, Any]:
        response = await self.server.update(self.carol, since, **options)
        found: dict[str, Any] = response["rooms"]["join"][self.remote.room_id]
        return found

    async def end(self) -> str:
        return str((await self.server.update(self.carol))["next_batch"])

    async def outage(self) -> list[Event]:
        """Receive an event, miss several with a new name and a ban, and receive one more."""
        before = self.remote.say("before")
        await self.remote.deliver(before)
        self.missed = [self.remote.say(str(number)) for number in range(5)]
        self.missed += [self.remote.rename("new"), self.remote.member(BOB, "ban", ALICE)]
        after = self.remote.say("after", ALICE)
        await self.remote.deliver(after)
        return [before, after]

    async def test_timeline_begins_after_the_gap(self) -> None:
        """Events before and after an outage are not adjacent, and clients must know."""
        since = await self.end()
        _, after = await self.outage()

        for _ in range(2):
            section = await self.section(since)
            assert _ids(section["timeline"]["events"]) == [after.event_id]
            assert section["timeline"]["limited"]
            await self.restart()

    async def test_first_sync_begins_after_the_gap(self) -> None:
        """The same for an initial sync."""
        _, after = await self.outage()

        for _ in range(2):
            section = await self.section()
            assert _ids(section["timeline"]["events"]) == [after.event_id]
            assert section["timeline"]["limited"]
            await self.restart()

    async def test_state_of_the_gap_is_sent(self) -> None:
        """A missed name and ban are in force, though no event of the timeline has them."""
        since = await self.end()
        client = ClientModel()
        client.apply(await self.server.update(self.carol))
        await self.outage()
        member = ("m.room.member", BOB)
        expected = {NAME: self.missed[-2].event_id, member: self.missed[-1].event_id}

        for known_since, model in ((since, client), (None, ClientModel())):
            model.apply(await self.server.update(self.carol, known_since))
            state = model.state[self.remote.room_id]
            assert {key: state[key] for key in expected} == expected

    async def test_state_after_the_gap_is_sent(self) -> None:
        """The same for a client that wants the state at the end of the timeline."""
        since = await self.end()
        await self.outage()

        section = await self.section(since, use_state_after=True)

        sent = set(_ids(section["state_after"]["events"]))
        assert sent == {each.event_id for each in self.missed[-2:]}

    async def test_client_that_synced_after_the_gap_continues(self) -> None:
        """A gap is reported once."""
        await self.outage()
        since = await self.end()
        more = self.remote.say("more", ALICE)
        await self.remote.deliver(more)

        section = await self.section(since)

        assert _ids(section["timeline"]["events"]) == [more.event_id]
        assert not section["timeline"]["limited"]

    async def test_gap_stays_when_it_is_filled(self) -> None:
        """Backfilled events are in the history then, and in no timeline."""
        since = await self.end()
        before, after = await self.outage()
        page = await self.page((await self.section(since))["timeline"]["prev_batch"])
        assert page == [*(each.event_id for each in reversed(self.missed)), before.event_id]

        for _ in range(2):
            for known_since in (since, None):
                section = await self.section(known_since)
                assert _ids(section["timeline"]["events"]) == [after.event_id]
                assert section["timeline"]["limited"]
            await self.restart()

    async def test_server_that_rejoins_has_a_gap(self) -> None:
        """Neither the user nor this server was in the room between leaving and joining again."""
        dave = await self.server.user("dave")
        await self.server.rooms.memberships.join(dave, self.remote.room_id)
        said = await self.server.say(self.carol, self.remote.room_id, "mine")
        since = await self.end()
        for user in (dave, self.carol):
            await self.server.rooms.memberships.leave(user, self.remote.room_id)
        await self.remote.receive_all_sent()
        missed = [self.remote.rename("new"), self.remote.say("missed")]
        join = await self.remote.join(self.carol)

        for known_since in (since, None):
            client = ClientModel()
            client.apply(await self.server.update(self.carol, known_since))
            assert client.timelines[self.remote.room_id] == [join.event.event_id]
            assert client.state[self.remote.room_id][NAME] == missed[0].event_id
        page = await self.page((await self.section(since))["timeline"]["prev_batch"], 100)
        assert page[:2] == [missed[1].event_id, missed[0].event_id]
        assert said in page

    async def test_server_that_rejoins_with_partial_state_has_a_gap(self) -> None:
        """The members come later, and with them the bans that the server missed."""
        since = await self.end()
        await self.server.rooms.memberships.leave(self.carol, self.remote.room_id)
        await self.remote.receive_all_sent()
        missed = [self.remote.rename("new"), self.remote.member(BOB, "ban", ALICE)]
        join = await self.remote.join_with_partial_state(self.carol)
        said = self.remote.say("after", ALICE)
        await self.remote.deliver(said)
        early = ClientModel()
        early.apply(await self.server.update(self.carol, since, LAZY))
        assert early.timelines[self.remote.room_id] == [join.event.event_id, said.event_id]

        await self.remote.send_members(join)

        early.apply(await self.server.update(self.carol, early.since, LAZY))
        late = ClientModel()
        late.apply(await self.server.update(self.carol, since))
        assert late.timelines[self.remote.room_id] == [join.event.event_id, said.event_id]
        for client in (early, late):
            assert client.state[self.remote.room_id][NAME] == missed[0].event_id
        assert late.state[self.remote.room_id]["m.room.member", BOB] == missed[1].event_id

    async def test_first_join_leaves_no_gap(self) -> None:
        """History before the first join is on other servers, and is no gap."""
        section = await self.section()

        assert not section["timeline"]["limited"]
        assert len(section["timeline"]["events"]) == 1

    async def test_gap_before_a_soft_failed_event_is_one(self) -> None:
        """The event after the missed ones may be one that clients are not shown."""
        since = await self.end()
        await self.remote.deliver(self.remote.say("before"))
        ban = self.remote.member(BOB, "ban", ALICE)
        await self.remote.deliver(ban)
        # Bob's server sends an event that precedes the ban.
        branch = self.remote.say("missed", after=_before(self.remote, ban))
        soft_failed = self.remote.say("soft-failed", after=[branch])
        stored = await self.remote.deliver(soft_failed)
        assert stored.status.soft_failed is not None
        after = self.remote.say("after", ALICE, after=[ban, soft_failed])
        await self.remote.deliver(after)

        section = await self.section(since)

        assert _ids(section["timeline"]["events"]) == [after.event_id]
        assert section["timeline"]["limited"]
        assert branch.event_id in await self.page(section["timeline"]["prev_batch"])

    async def test_gap_before_a_pending_redaction_is_one(self) -> None:
        """A redaction of an unknown event is not shown either."""
        await self._check_before_pending_redaction(is_restarted=False)

    async def test_gap_before_a_pending_redaction_is_one_after_a_restart(self) -> None:
        """The gap is open until the next event."""
        await self._check_before_pending_redaction(is_restarted=True)

    async def _check_before_pending_redaction(self, *, is_restarted: bool) -> None:
        since = await self.end()
        await self.remote.deliver(self.remote.say("before"))
        target = self.remote.say("missed")
        redaction = self.remote.make("m.room.redaction", BOB, {"redacts": target.event_id})
        assert (await self.remote.deliver(redaction)).is_redaction_pending
        if is_restarted:
            await self.restart()
        said = await self.server.say(self.carol, self.remote.room_id, "after")

        section = await self.section(since)

        assert _ids(section["timeline"]["events"]) == [said]
        assert section["timeline"]["limited"]

    async def test_state_that_a_branch_restores_is_sent(self) -> None:
        """No event is missing, but the received event restores an older one."""
        topic = self.remote.make("m.room.topic", ALICE, {"topic": "old"}, "")
        levels = {"users": {ALICE: 100, BOB: 50}}
        fork = self.remote.make("m.room.power_levels", ALICE, levels, "")
        newer = self.remote.make("m.room.topic", BOB, {"topic": "new"}, "")
        for event in (topic, fork, newer):
            await self.remote.deliver(event)
        clients = {lazy: ClientModel() for lazy in (False, True)}
        for lazy, client in clients.items():
            client.apply(await self.server.update(self.carol, None, LAZY if lazy else None))
        # On another branch Bob had lost his power before.
        content = {"users": {ALICE: 100}}
        await self.remote.deliver(
            self.remote.make("m.room.power_levels", ALICE, content, "", after=[fork])
        )

        for lazy, client in clients.items():
            response = await self.server.update(self.carol, client.since, LAZY if lazy else None)
            client.apply(response)
            state = client.state[self.remote.room_id]
            assert state["m.room.topic", ""] == topic.event_id
            assert not response["rooms"]["join"][self.remote.room_id]["timeline"]["limited"]

    async def test_members_of_the_gap_are_sent_with_lazy_loading(self) -> None:
        """A client that knows few members still gets the ban."""
        since = str((await self.server.update(self.carol, wanted=LAZY))["next_batch"])
        await self.outage()

        response = await self.server.update(self.carol, since, LAZY)

        section = response["rooms"]["join"][self.remote.room_id]
        sent = {each["state_key"] for each in section["state"]["events"]}
        assert sent >= {"", BOB, ALICE}

    async def test_members_at_the_start_of_a_timeline_are_those_of_the_received_state(self) -> None:
        """Clients with lazy loading request them, even where this server knew none before."""
        first = (await self.section())["timeline"]["prev_batch"]
        await self.outage()
        second = (await self.section())["timeline"]["prev_batch"]

        found = []
        for at in (first, second):
            reader = self.server.rooms.reader
            members = await reader.members(self.carol.user_id, self.remote.room_id, at=at)
            found.append({each.event.state_key: each.event.content for each in members})

        joined, banned = {"membership": "join"}, {"membership": "ban"}
        assert found[0] == {ALICE: joined, BOB: joined}
        assert found[1][BOB] == banned

    async def page(self, since: str, limit: int = 8) -> list[str]:
        request = PageRequest(backwards=True, since=since, limit=limit)
        page = await self.server.rooms.history.page(
            self.carol.user_id, self.remote.room_id, request
        )
        return [seen.stored.event.event_id for seen in page.chunk]


def _before(remote: RemoteRoom, ban: Event) -> list[Event]:
    return [remote.by_id[each] for each in ban.prev_event_ids]


def _ids(events: list[dict[str, Any]]) -> list[str]:
    return [event["event_id"] for event in events]
