"""Importing old messages into a room."""

import pytest
from msgspec.structs import replace
from twisted.internet.defer import Deferred, DeferredList, gatherResults

from homeserver.protocol.errors import (
    BadJson,
    Forbidden,
    InvalidParam,
    LimitExceeded,
    NotFound,
    TooLarge,
    UserSuspended,
)
from homeserver.rooms.events.imported_events import OldMessage
from homeserver.rooms.history_import.history_import import MAX_MESSAGES
from homeserver.rooms.history_import.import_request import ImportRequest
from tests.rooms.history_import.support import (
    BRIDGE,
    GHOST,
    ImportTestCase,
    chosen,
    old,
)
from tests.rooms.support import ALICE, BOB, CAROL, SERVER


class PlaceTests(ImportTestCase):
    async def test_old_messages_come_before_the_first_message(self) -> None:
        """Members page back from what was said here into what was said before the bridge came."""
        await self.say(self.room_id, "new 1")
        await self.say(self.room_id, "new 2")

        await self.put("old 1", "old 2")

        for backwards in (True, False):
            assert await self.all(backwards=backwards) == ["old 1", "old 2", "new 1", "new 2"]

    async def test_later_import_comes_before_an_earlier_one(self) -> None:
        """A bridge imports from the newest batch to the oldest."""
        await self.say(self.room_id, "new")
        await self.put("old 3", "old 4")

        await self.put("old 1", "old 2")

        expected = ["old 1", "old 2", "old 3", "old 4", "new"]
        for size in (1, 2, 50):
            assert await self.all(limit=size) == expected
            assert await self.all(backwards=True, limit=size) == expected

    async def test_old_messages_come_before_a_chosen_event(self) -> None:
        """The history of another room is inserted where that room was merged into this one."""
        await self.say(self.room_id, "new 1")
        point = await self.say(self.room_id, "new 2")

        ids = await self.put("old 1", before=point)
        await self.put("older", before=ids[0])
        await self.put("between", before=point)

        assert await self.all() == ["new 1", "between", "older", "old 1", "new 2"]

    async def test_batch_goes_to_the_end_if_that_is_asked_for(self) -> None:
        """What was missed while the bridge was away follows what is there."""
        await self.say(self.room_id, "new 1")

        await self.put("missed 1", "missed 2", forward=True)
        await self.say(self.room_id, "new 2")
        await self.put("missed 3", forward=True)

        expected = ["new 1", "missed 1", "missed 2", "new 2", "missed 3"]
        for backwards in (True, False):
            assert await self.all(backwards=backwards) == expected

    async def test_first_batch_of_an_empty_room_goes_to_the_end(self) -> None:
        """A room without messages has nothing to come before."""
        await self.put("old 1", forward_if_empty=True)
        await self.put("older", forward_if_empty=True)

        assert await self.all() == ["older", "old 1"]

        self.room_id = await self.create_room(BRIDGE)
        with pytest.raises(InvalidParam):
            await self.put("old 1")

    async def test_nothing_is_inserted_amid_events_that_share_a_place(self) -> None:
        """There the order would not be the requested one."""
        ids = await self.put("old 1", "old 2", forward=True)

        with pytest.raises(InvalidParam):
            await self.put("between", before=ids[1])
        await self.put("before", before=ids[0])

        assert await self.all() == ["before", "old 1", "old 2"]

    async def test_point_is_an_event_of_the_history(self) -> None:
        """Nothing is inserted before the room, or before an event that is not there."""
        room = await self.rooms.get(self.room_id)
        other = await self.say(await self.create_room(BRIDGE), "x", by=BRIDGE)

        for event_id in ("$unknown", "$\x00", other):
            with pytest.raises(NotFound):
                await self.put("old", before=event_id)
        with pytest.raises(InvalidParam):
            await self.put("old", before=room.timeline[0].event.event_id)

    async def test_order_is_the_same_after_a_restart(self) -> None:
        """What is in memory and what is read from the database agree."""
        await self.put("a", "b", forward=True)
        await self.say(self.room_id, "new")
        await self.put("old 1", "old 2")
        before = await self.all()

        self.restart()

        assert await self.all() == before == ["old 1", "old 2", "a", "b", "new"]
        assert await self.all(backwards=True) == before
        await self.say(self.room_id, "newest")
        await self.put("missed", forward=True)
        assert await self.all() == [*before, "newest", "missed"]


class EventTests(ImportTestCase):
    async def test_event_is_as_the_bridge_describes_it(self) -> None:
        """It has its own sender, time and id."""
        await self.say(self.room_id, "new")

        ids = await self.put(old("old", 123, event_id=chosen("one")))

        assert ids == [chosen("one")]
        seen = await self.reading.event(ALICE.user_id, self.room_id, ids[0])
        event = seen.stored.event
        assert (event.sender, event.origin_server_ts) == (GHOST, 123)
        assert seen.membership == "join"
        shown = seen.stored.client_dict(0)
        assert "io.homeserver.import" not in shown
        assert shown["event_id"] == ids[0]

    async def test_repeated_request_inserts_nothing_twice(self) -> None:
        """A bridge that lost the answer repeats the request, perhaps after a restart."""
        await self.say(self.room_id, "new")
        messages = [old("a"), old("a"), old("b", event_id=chosen("b")), old("a", 2)]

        first = await self.put(*messages)
        again = await self.put(*messages)
        self.restart()
        later = await self.put(*messages)

        assert first == again == later
        assert len(set(first)) == 4
        assert await self.all() == ["a", "a", "b", "a", "new"]

    async def test_concurrent_requests_insert_nothing_twice(self) -> None:
        """The bridge's client repeats a request while the first one is still running."""
        await self.say(self.room_id, "new")
        attempts = [Deferred.fromCoroutine(self.put("a", "b")) for _ in range(3)]
        results = await gatherResults(attempts)

        assert results[0] == results[1] == results[2]
        assert await self.all() == ["a", "b", "new"]

    async def test_requests_that_wait_are_bounded(self) -> None:
        """A bridge that imports all its rooms at once is asked to come back."""
        await self.say(self.room_id, "new")

        attempts = [Deferred.fromCoroutine(self.put(str(number))) for number in range(150)]
        results = await DeferredList(attempts, consumeErrors=True)

        refused = [failure for is_done, failure in results if not is_done]
        assert len(refused) == 48
        assert all(failure.check(LimitExceeded) for failure in refused)
        assert len(await self.all()) == 103

    async def test_id_of_a_bridge_cannot_be_that_of_another_event(self) -> None:
        """Ids of the graph have no colon; nor is one taken twice."""
        await self.say(self.room_id, "new")
        await self.put(old("a", event_id=chosen("a")))

        for event_id in ("$" + "a" * 43, "a:b", "$a:b c", "$a\x00:b", "$a:" + "b" * 255, ""):
            with pytest.raises((BadJson, TooLarge)):
                await self.put(old("b", event_id=event_id))
        with pytest.raises(InvalidParam):
            await self.put(old("b", sender=BRIDGE.user_id, event_id=chosen("a")))
        with pytest.raises(InvalidParam):
            await self.put(*[old(text, event_id=chosen("b")) for text in "bc"])
        assert await self.all() == ["a", "new"]

    async def test_message_that_makes_no_event_is_refused_with_the_whole_batch(self) -> None:
        """The limits of events apply to imported ones."""
        await self.say(self.room_id, "new")
        bad = [
            OldMessage("m.room.message", GHOST, {"body": "x" * 70_000}, 1),
            OldMessage("m.room.message", GHOST, {"number": 1.5}, 1),
            OldMessage("m.room.message", GHOST, {"number": 2**60}, 1),
            OldMessage("m.room.message", GHOST, {}, 2**60),
            OldMessage("t" * 256, GHOST, {}, 1),
            OldMessage("a\x00b", GHOST, {}, 1),
            OldMessage("m.room.message", GHOST, {"body": "\ud800"}, 1),
        ]

        for message in bad:
            with pytest.raises((BadJson, TooLarge)):
                await self.put("good", message)
        with pytest.raises(TooLarge):
            await self.put(*["x"] * (MAX_MESSAGES + 1))
        with pytest.raises(InvalidParam):
            await self.put(OldMessage("m.room.redaction", GHOST, {"redacts": "$x"}, 1))

        assert await self.all() == ["new"]
        assert await self.put() == []

    async def test_full_batch_is_inserted(self) -> None:
        """The greatest request works, in order."""
        await self.say(self.room_id, "new")

        await self.put(*[str(number) for number in range(MAX_MESSAGES)])

        expected = [*map(str, range(MAX_MESSAGES)), "new"]
        assert await self.all(limit=300) == expected
        assert await self.all(limit=300, backwards=True) == expected

    async def test_redaction_hides_an_imported_message(self) -> None:
        """A message that is deleted in the bridged chat is deleted here."""
        await self.say(self.room_id, "new")
        (event_id,) = await self.put("old")

        await self.sending.redact(BRIDGE, self.room_id, event_id, {}, "t1")

        assert await self.all() == ["new"]
        self.restart()
        assert await self.all() == ["new"]


class PermissionTests(ImportTestCase):
    async def test_only_a_permitted_application_service_imports(self) -> None:
        """Nobody else inserts words into other people's history."""
        await self.say(self.room_id, "new")

        with pytest.raises(Forbidden):
            await self.imports.insert(ALICE, self.room_id, ImportRequest([old("x")]))
        for sender in (ALICE.user_id, "@ghost_1:other.example", "@ghost_\x00:example.org", "x"):
            with pytest.raises(Forbidden):
                await self.put(old("x", sender=sender))
        assert await self.all() == ["new"]

    async def test_importer_is_a_moderator_of_the_room(self) -> None:
        """A bridge does not insert history into rooms that it has merely joined."""
        self.room_id = await self.create_room(ALICE)
        await self.say(self.room_id, "new")

        with pytest.raises(Forbidden):
            await self.put("old")
        await self.memberships.join(BRIDGE, self.room_id)
        with pytest.raises(Forbidden):
            await self.put("old")
        levels = {"users": {BRIDGE.user_id: 50}}
        await self.sending.set_state(ALICE, self.room_id, "m.room.power_levels", "", levels)
        await self.put("old")

        assert await self.all() == ["old", "new"]

    async def test_importer_that_was_removed_while_it_waited_imports_nothing(self) -> None:
        """A ban holds from the moment at which it is there."""
        self.room_id = await self.create_room(ALICE)
        await self.say(self.room_id, "new")
        await self.memberships.join(BRIDGE, self.room_id)
        levels = {"users": {BRIDGE.user_id: 50}}
        await self.sending.set_state(ALICE, self.room_id, "m.room.power_levels", "", levels)
        async with self.rooms.writing(self.room_id) as writer:
            lock = writer.inbound.lock
        await lock.acquire()
        attempts = [Deferred.fromCoroutine(self.put("old", forward=end)) for end in (False, True)]
        await self.memberships.kick(ALICE, self.room_id, BRIDGE.user_id)
        lock.release()

        for attempt in attempts:
            with pytest.raises(Forbidden):
                await attempt

        assert await self.all() == ["new"]

    async def test_suspended_importer_imports_nothing(self) -> None:
        """It may not write in any other way, either."""
        request = ImportRequest([old("x")], forward=True)

        with pytest.raises(UserSuspended):
            await self.imports.insert(replace(BRIDGE, is_suspended=True), self.room_id, request)

    async def test_old_room_versions_have_no_imports(self) -> None:
        """There an event with a chosen id could be one of the graph."""
        for version in ("1", "2", "3", "5", "6", "10", "12"):
            self.room_id = await self.create_room(BRIDGE, version=version)
            await self.say(self.room_id, "new", by=BRIDGE)
            if version in ("1", "2"):
                with pytest.raises(InvalidParam):
                    await self.put("old")
            else:
                await self.put("old")
                assert await self.all(BRIDGE) == ["old", "new"]

    async def test_reader_must_be_a_local_member(self) -> None:
        """A bridge moves the receipts of members alone."""
        for reader in (BOB.user_id, "@alice:other.example", "x"):
            with pytest.raises(InvalidParam):
                await self.put("old", forward=True, mark_read_by=reader)

        ids = await self.put("old", forward=True, mark_read_by=ALICE.user_id)

        room = await self.rooms.get(self.room_id)
        (receipt,) = await self.receipts.of_user(room, ALICE.user_id)
        assert (receipt.event_id, receipt.receipt_type) == (ids[0], "m.read.private")


class VisibilityTests(ImportTestCase):
    async def test_import_is_visible_like_a_message_of_its_moment(self) -> None:
        """Who left before it does not see it; who joins later does where history is shared."""
        await self.memberships.join(BOB, self.room_id)
        await self.say(self.room_id, "new")
        await self.memberships.leave(BOB, self.room_id)

        (event_id,) = await self.put("old")
        await self.memberships.join(CAROL, self.room_id)

        assert await self.all(BOB) == ["new"]
        with pytest.raises(NotFound):
            await self.reading.event(BOB.user_id, self.room_id, event_id)
        assert await self.all(CAROL) == ["old", "new"]

    async def test_import_is_hidden_from_those_who_join_later_where_history_is(self) -> None:
        """The history visibility of the room holds for it, too."""
        visibility = {"history_visibility": "joined"}
        key = "m.room.history_visibility"
        await self.sending.set_state(BRIDGE, self.room_id, key, "", visibility)
        await self.say(self.room_id, "new")

        await self.put("old")
        await self.memberships.join(CAROL, self.room_id)

        assert await self.all(ALICE) == ["old", "new"]
        assert await self.all(CAROL) == []

    async def test_sender_need_not_be_a_member(self) -> None:
        """People who left the bridged chat long ago have said something, too."""
        await self.say(self.room_id, "new")

        await self.put(old("old", sender=f"@ghost_2:{SERVER}"))

        assert await self.all() == ["old", "new"]
