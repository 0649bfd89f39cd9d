"""Rooms with received events in the database: a restart changes nothing."""

from typing import Any

from homeserver.protocol.errors import NotFound
from homeserver.protocol.events import Event
from homeserver.rooms.history.history import PageRequest
from homeserver.rooms.resolution.resolver import ResolvedState
from homeserver.rooms.room.room import SHORT_TIMELINE, Room
from homeserver.rooms.room.writer import RoomWriter
from homeserver.storage.database.database import Connection
from homeserver.storage.rooms.timeline_pages import (
    event_entered,
    events_between,
    pending_redactions_between,
)
from homeserver.streams.counters import Counters
from tests.rooms.inbound.remote_events import RemoteEvents
from tests.rooms.support import ALICE, BOB, RoomsTestCase

EVE = "@eve:other.example"
MALLORY = "@mallory:other.example"


class StoredTests(RoomsTestCase):
    def build(self, counters: Counters) -> None:
        super().build(counters)
        self.remote = RemoteEvents(self.rooms, self.storage)

    async def room_with_moderator(self) -> str:
        """A room of Alice with Bob, and Eve of another server as a moderator."""
        room_id = await self.create_room()
        await self.memberships.join(BOB, room_id)
        await self.remote.member(room_id, EVE, "join")
        levels = await self.levels(room_id)
        levels["users"][EVE] = 50
        await self.sending.set_state(ALICE, room_id, "m.room.power_levels", "", levels)
        return room_id

    async def levels(self, room_id: str) -> dict[str, Any]:
        state = await self.reading.state_event(ALICE.user_id, room_id, "m.room.power_levels", "")
        return {**state.event.content, "users": dict(state.event.content["users"])}

    async def extremity_ids(self, room_id: str) -> list[str]:
        async with self.rooms.writing(room_id) as writer:
            return [stored.event.event_id for stored in writer.extremities.events]

    async def snapshot(self, room_id: str) -> dict[str, Any]:
        """All that the server knows of a room."""
        async with self.rooms.writing(room_id) as writer:
            known = _entries_of(writer.room, writer)
        room = await self.rooms.get(room_id)
        state = [*room.state.values(), *room.member_events.values()]
        events = await self.events.load_in_order(room.version, sorted(state))
        known["state"] = [stored.event.event_id for stored in events]
        known["timeline"] = [
            (
                stored.event.event_id,
                stored.position,
                stored.topological_depth,
                stored.redaction is None,
            )
            for stored in list(room.timeline)[-SHORT_TIMELINE:]
        ]
        known["memberships"] = await self.db.run(_memberships, room.room_nid)
        for user_id in (ALICE.user_id, BOB.user_id):
            known[user_id] = (await self.user_rooms.of(user_id)).get(room.room_nid)
        known["summary"] = await self.summaries.of(room.room_nid, room.joined_count)
        return known

    async def restarted(self, room_id: str) -> None:
        """Check that all of it is the same after a restart."""
        before = await self.snapshot(room_id)
        await self.log.flush()
        self.clock.advance(1)
        self.restart()
        after = await self.snapshot(room_id)
        for key, value in before.items():
            self.assertEqual(after[key], value, key)

    async def test_ban_on_a_branch_removes_a_member_everywhere(self) -> None:
        """Members, memberships, the user's own list and the count follow the state."""
        room_id = await self.room_with_moderator()
        base = await self.extremity_ids(room_id)
        await self.say(room_id, "meanwhile")

        ban = await self.remote.member(room_id, BOB.user_id, "ban", EVE, after=base)

        room = await self.rooms.get(room_id)
        assert ban.position is not None
        assert room.membership(BOB.user_id) == "ban"
        place = (await self.user_rooms.of(BOB.user_id))[room.room_nid]
        assert (place.membership, place.sender) == ("ban", EVE)
        assert room.joined_count == 2
        assert len(await self.extremity_ids(room_id)) == 2
        await self.restarted(room_id)

    async def test_resolution_brings_a_member_back(self) -> None:
        """A ban by a user who was being demoted does not hold, and the target is a member again."""
        room_id = await self.room_with_moderator()
        base = await self.extremity_ids(room_id)
        await self.remote.member(room_id, BOB.user_id, "ban", EVE, after=base)
        room = await self.rooms.get(room_id)
        assert room.membership(BOB.user_id) == "ban"
        levels = await self.levels(room_id)
        levels["users"].pop(EVE)
        await self.sending.set_state(ALICE, room_id, "m.room.power_levels", "", levels)
        banned = await self.snapshot(room_id)

        # Carol's server received the demotion but not the ban; power decides their order.
        await self.remote.send(
            room_id, "m.room.power_levels", ALICE.user_id, levels, "", after=base
        )

        room = await self.rooms.get(room_id)
        assert banned["members"][BOB.user_id] == "ban"
        assert room.membership(BOB.user_id) == "join"
        place = (await self.user_rooms.of(BOB.user_id))[room.room_nid]
        assert place.membership == "join"
        assert room.joined_count == 3
        await self.restarted(room_id)

    async def test_resolution_forgets_a_member(self) -> None:
        """A join that was possible on a branch only is undone; its user has left."""
        room_id = await self.create_room(version="11")
        await self.remote.member(room_id, EVE, "join")
        base = await self.extremity_ids(room_id)
        rule = {"join_rule": "invite"}
        self.clock.advance(1)
        await self.sending.set_state(ALICE, room_id, "m.room.join_rules", "", rule)
        before = await self.snapshot(room_id)

        late = await self.remote.member(room_id, MALLORY, "join", after=base)
        said = await self.remote.say(room_id, EVE, "hm", after=[late.event.event_id])

        assert late.status.soft_failed is not None
        assert said.position is not None
        room = await self.rooms.get(room_id)
        assert room.membership(MALLORY) != "join"
        assert room.joined_count == before["joined"]
        await self.restarted(room_id)

    async def test_branches_are_the_same_after_a_restart(self) -> None:
        """The next event follows the stored extremities and branches."""
        room_id = await self.room_with_moderator()
        base = await self.extremity_ids(room_id)
        for number in range(4):
            await self.remote.say(room_id, EVE, str(number), after=base)
            topic = {"topic": str(number)}
            await self.remote.send(room_id, "m.room.topic", EVE, topic, "", after=base)
        await self.restarted(room_id)

        extremities = await self.extremity_ids(room_id)
        assert len(extremities) == 8
        await self.say(room_id, "all together")
        assert len(await self.extremity_ids(room_id)) == 1
        await self.restarted(room_id)

    async def test_redaction_and_target_that_are_written_together_stay_together(self) -> None:
        """Both often come in one transaction; the content stays redacted after a restart."""
        for early in (False, True):
            room_id = await self.room_with_moderator()
            base = await self.extremity_ids(room_id)
            said = await self.remote.make(
                room_id, "m.room.message", EVE, {"body": "secret"}, after=base
            )
            content = {"redacts": said.event_id}
            redaction = await self.remote.make(
                room_id, "m.room.redaction", EVE, content, after=base
            )
            async with self.rooms.writing(room_id) as writer:
                for event in (redaction, said) if early else (said, redaction):
                    await self.remote.receiving.receive(writer, event)
            await self.log.flush()
            room = await self.rooms.get(room_id)

            (stored,) = await self.remote.find(room, [said.event_id])
            assert stored.redaction is not None, early
            await self.restarted(room_id)
            (stored,) = await self.remote.find(await self.rooms.get(room_id), [said.event_id])
            assert stored.redaction is not None, early

    async def test_outlier_and_its_place_that_are_written_together_stay_together(self) -> None:
        """The auth events of a transaction are often the events that come next."""
        room_id = await self.room_with_moderator()
        topic = await self.remote.make(room_id, "m.room.topic", EVE, {"topic": "rain"}, "")
        async with self.rooms.writing(room_id) as writer:
            await self.remote.receiving.outliers(writer, [topic])
            await self.remote.receiving.receive(writer, topic)
        await self.log.flush()

        await self.restarted(room_id)

        room = await self.rooms.get(room_id)
        (stored,) = await self.remote.find(room, [topic.event_id])
        assert not stored.status.is_outlier
        assert stored.position is not None
        assert room.state["m.room.topic", ""] == stored.event_nid

    async def test_refused_events_stay_refused_after_a_restart(self) -> None:
        """Rejected and soft-failed events are stored with the rule that they broke."""
        room_id = await self.room_with_moderator()
        base = await self.extremity_ids(room_id)
        rejected = await self.remote.say(room_id, MALLORY, "not in")
        await self.memberships.ban(ALICE, room_id, EVE)
        soft_failed = await self.remote.say(room_id, EVE, "too late", after=base)
        await self.restarted(room_id)

        room = await self.rooms.get(room_id)
        ids = [rejected.event.event_id, soft_failed.event.event_id]
        again = await self.remote.find(room, ids)

        assert [each.status for each in again] == [rejected.status, soft_failed.status]
        assert again[0].status.rejected is not None
        assert again[1].status.soft_failed is not None

    async def test_events_without_a_position_keep_their_place_in_the_log(self) -> None:
        """Whether a user saw an event is decided by its place in the log, whatever its number."""
        room_id = await self.room_with_moderator()
        base = await self.extremity_ids(room_id)
        for _ in range(5):
            self.log.next_event_number()
        await self.memberships.ban(ALICE, room_id, EVE)
        before = self.log.position
        stored = [
            await self.remote.say(room_id, MALLORY, "not in"),
            await self.remote.say(room_id, EVE, "too late", after=base),
        ]
        between = self.log.position
        redaction = await self.sending.redact(ALICE, room_id, "$unknown", {}, "txn")
        places = [each.log_position for each in stored]
        await self.restarted(room_id)

        room = await self.rooms.get(room_id)
        ids = [each.event.event_id for each in stored]
        *refused, pending = await self.remote.find(room, [*ids, redaction])

        assert [each.log_position for each in refused] == places
        assert before < places[0] < places[1] <= between < pending.log_position
        assert pending.log_position <= self.log.position

    async def test_gaps_and_early_redactions_are_the_same_after_a_restart(self) -> None:
        """Missing history can still be backfilled, and pending redactions still take effect."""
        room_id = await self.room_with_moderator()
        unknown = await self.remote.make(room_id, "m.room.message", EVE, {"body": "lost"})
        root = (await self.rooms.get(room_id)).root
        extremities = await self.extremity_ids(room_id)
        event = await self.remote.make(
            room_id, "m.room.redaction", EVE, {"redacts": unknown.event_id}, after=extremities
        )
        hole = type(event).from_pdu(
            event.version, {**event.pdu, "prev_events": [*extremities, unknown.event_id]}
        )

        stored = await self.remote.receive(hole, state_before=ResolvedState(root))

        assert stored.is_redaction_pending
        assert await self.extremity_ids(room_id) == [*extremities, stored.event.event_id][1:]
        await self.restarted(room_id)
        assert (await self.rooms.get(room_id)).backward_extremities == {
            unknown.event_id: stored.topological_depth
        }
        filled = await self.remote.receive(unknown)
        assert filled.redaction is not None
        room = await self.rooms.get(room_id)
        assert room.backward_extremities == {}
        (shown,) = await self.remote.find(room, [hole.event_id])
        assert room.timeline[-1] is shown
        await self.restarted(room_id)

    async def test_room_continues_from_a_withheld_redaction_after_a_restart(self) -> None:
        """Events follow a withheld redaction, or it would be a separate branch permanently."""
        room_id = await self.room_with_moderator()
        base = await self.extremity_ids(room_id)
        await self.say(room_id, "meanwhile")
        content = {"redacts": "$unknown"}

        withheld = await self.remote.send(room_id, "m.room.redaction", EVE, content, after=base)

        assert withheld.is_redaction_pending
        assert len(await self.extremity_ids(room_id)) == 2
        await self.restarted(room_id)
        event_id = await self.say(room_id, "both")
        assert await self.extremity_ids(room_id) == [event_id]
        await self.restarted(room_id)

    async def test_withheld_redaction_is_not_visible(self) -> None:
        """Clients get it neither by id nor in history before its target arrives."""
        room_id = await self.room_with_moderator()
        base = await self.extremity_ids(room_id)
        said = await self.remote.make(room_id, "m.room.message", EVE, {"body": "x"}, after=base)
        content = {"redacts": said.event_id}
        redaction = await self.remote.send(room_id, "m.room.redaction", EVE, content, after=base)
        event_id = redaction.event.event_id
        back = PageRequest(backwards=True, limit=50)

        async def is_there() -> bool:
            page = await self.history.page(ALICE.user_id, room_id, back)
            in_history = event_id in [seen.stored.event.event_id for seen in page.chunk]
            try:
                await self.reading.event(ALICE.user_id, room_id, event_id)
            except NotFound:
                assert not in_history
                return False
            assert in_history
            return True

        assert not await is_there()
        await self.remote.receive(said)
        assert await is_there()

    async def test_all_that_entered_the_graph_is_sent_again_after_a_crash(self) -> None:
        """A process that dies may not have sent what came last, pending redactions included."""
        room_id = await self.room_with_moderator()
        room_nid = (await self.rooms.get(room_id)).room_nid
        sent_upto = self.log.position
        await self.remote.say(room_id, MALLORY, "not in")
        expected = [
            await self.say(room_id, "first"),
            await self.sending.redact(ALICE, room_id, "$unknown", {}, "txn"),
            await self.say(room_id, "last"),
        ]
        await self.restarted(room_id)

        reached = self.log.position
        rows = await self.db.run(events_between, sent_upto, reached)
        rows += await self.db.run(pending_redactions_between, sent_upto, reached)
        rows.sort()

        room = await self.rooms.get(room_id)
        assert {room for _, room, _ in rows} == {room_nid}
        numbers = [number for _, _, number in rows]
        events = await self.events.load_in_order(room.version, numbers)
        assert [stored.event.event_id for stored in events] == expected
        for position, _, number in rows:
            assert await self.db.run(event_entered, room_nid, position) == number
        assert await self.db.run(event_entered, room_nid, self.log.position + 1) is None

    async def test_own_redaction_of_an_unknown_event_is_pending(self) -> None:
        """The rules of other servers' redactions hold for those of our users."""
        room_id = await self.room_with_moderator()
        said = await self.remote.make(room_id, "m.room.message", EVE, {"body": "x"})

        event_id = await self.sending.redact(ALICE, room_id, said.event_id, {}, "txn")

        assert await self.extremity_ids(room_id) == [event_id]
        again = await self.sending.redact(ALICE, room_id, said.event_id, {}, "txn")
        assert again == event_id
        room = await self.rooms.get(room_id)
        (stored,) = await self.remote.find(room, [event_id])
        assert stored.is_redaction_pending
        await self.restarted(room_id)
        target = await self.remote.receive(said)
        assert target.redaction is not None
        assert (await self.rooms.get(room_id)).timeline[-1].event.event_id == event_id
        await self.restarted(room_id)

    async def test_all_branches_outlive_a_restart(self) -> None:
        """Without a local user to merge them there are more than ten, and each may hold a ban."""
        room_id = await self.room_with_moderator()
        levels = {**await self.levels(room_id), "events_default": 50, "state_default": 0}
        levels["users"] = {EVE: 100}
        await self.sending.set_state(ALICE, room_id, "m.room.power_levels", "", levels)
        await self.memberships.leave(ALICE, room_id)
        base = await self.extremity_ids(room_id)
        await self.remote.member(room_id, BOB.user_id, "ban", EVE, after=base)
        for number in range(12):
            await self.remote.send(room_id, "m.room.message", EVE, {"n": number}, after=base)

        room = await self.rooms.get(room_id)
        assert room.membership(BOB.user_id) == "ban"
        assert len(await self.extremity_ids(room_id)) == 13
        await self.restarted(room_id)

    async def test_names_with_nul_are_stored(self) -> None:
        """The state of a room is the same on all servers, whatever their database can store."""
        room_id = await self.room_with_moderator()

        odd = await self.remote.send(room_id, "odd\0type", EVE, {"\0": "\0"}, "\0")
        await self.remote.send(room_id, "odd\0type", MALLORY, {}, "\0")
        await self.restarted(room_id)

        found = await self.reading.state_event(ALICE.user_id, room_id, "odd\0type", "\0")
        assert found.event == odd.event

    async def test_long_names_of_old_rooms_are_stored(self) -> None:
        """Other servers count codepoints in these versions, and later events follow such events."""
        room_id = await self.create_room(version="6")
        long = "@" + 240 * "\N{GRINNING FACE}" + ":other.example"
        invite = await self.remote.make(
            room_id, "m.room.member", ALICE.user_id, {"membership": "ban"}, EVE
        )
        event = Event.from_pdu(invite.version, {**invite.pdu, "state_key": long})

        stored = await self.remote.receive(event)

        assert stored.status.rejected is None
        assert (await self.rooms.get(room_id)).membership(long) == "ban"
        await self.say(room_id, "still here")
        await self.restarted(room_id)

    async def test_redaction_of_anything_does_not_stop_the_server(self) -> None:
        """A target that cannot be a key in the database is ignored, or one event would end the
        process.
        """
        room_id = await self.room_with_moderator()
        long = "".join(chr(0x4E00 + number * 7 % 20_000) for number in range(15_000))

        for target in (f"${long}", "\0", "$\0"):
            content = {"redacts": target}
            stored = await self.remote.send(room_id, "m.room.redaction", EVE, content)
            assert stored.is_redaction_pending
        await self.say(room_id, "still here")


def _entries_of(room: Room, writer: RoomWriter) -> dict[str, Any]:
    return {
        "extremities": [stored.event.event_id for stored in writer.extremities.events],
        "root": (room.root, writer.extremities.root),
        "gaps": (room.backward_extremities, writer.backward_extremities),
        "early": writer.pending_redactions.targets,
        "forked_at": room.forked_at,
        "last_position": room.last_position,
        "members": dict(sorted(room.members.items())),
        "joined": room.joined_count,
        "invited": room.invited_count,
    }


async def _memberships(db: Connection, room: int) -> Any:
    cursor = await db.execute("SELECT * FROM memberships WHERE room = %s ORDER BY member", (room,))
    return await cursor.fetchall()
