"""Receipts and read markers, on a real database."""

from typing import Any

import msgspec
from twisted.internet.defer import Deferred, gatherResults

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.account_data import AccountDataChanged
from homeserver.protocol.errors import Forbidden, InvalidParam, MatrixError, NotFound
from homeserver.rooms.ephemeral import receipts
from homeserver.rooms.ephemeral.read_markers import ReadMarkers
from homeserver.rooms.ephemeral.receipts import Receipts
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_receipts import Receipt, ReceiptsChanged, RoomReceipts
from tests.support.postgres import DatabaseTestCase
from tests.sync.sync_server import SyncServer

READ, PRIVATE, FULLY_READ = "m.read", "m.read.private", "m.fully_read"


class ReceiptsTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.start()
        self.alice = await self.server.user("alice")
        self.bob = await self.server.user("bob")
        self.room_id = await self.server.create_room(self.alice)
        await self.server.rooms.memberships.join(self.bob, self.room_id)
        self.first = await self.server.say(self.alice, self.room_id, "first")
        self.second = await self.server.say(self.alice, self.room_id, "second")

    async def clean_up(self) -> None:
        await self.server.stop()
        await super().clean_up()

    async def start(self) -> None:
        """Start a server on the database, or another one after the first."""
        self.server = await SyncServer.start(self.db)
        core, log = self.server.core, self.server.log
        self.receipts = Receipts(self.db, log, core.names)
        self.markers = ReadMarkers(
            core.registry, core.events, self.receipts, self.server.accounts.account_data
        )
        self.server.log.subscribe(self.receipts.apply)

    async def room(self) -> Room:
        return await self.server.core.registry.get(self.room_id)

    async def read(self, reader: Requester, event_id: str, kind: str = READ, **thread: Any) -> None:
        await self.markers.mark(reader, self.room_id, kind, event_id, **thread)

    async def seen_by(self, caller: Requester, since: int | None = None) -> dict[str, Any]:
        """Content of the `m.receipt` event that a user would get."""
        event = await self.receipts.events_since(await self.room(), caller.user_id, since)
        if event is None:
            return {}
        decoded = msgspec.json.decode(event)
        assert decoded["type"] == "m.receipt"
        content: dict[str, Any] = decoded["content"]
        return content

    async def refusal(self, kind: type[MatrixError], done: Any) -> None:
        await self.assertFailure(Deferred.fromCoroutine(done), kind)

    async def fully_read(self, caller: Requester) -> Any:
        stored = await self.server.accounts.account_data.content(
            caller.user_id, FULLY_READ, self.room_id
        )
        return None if stored is None else msgspec.json.decode(stored)["event_id"]

    async def reply(self, relation: str, parent: str) -> str:
        content = {"body": "…", "m.relates_to": {"rel_type": relation, "event_id": parent}}
        return await self.server.rooms.sending.send_message(
            self.alice, self.room_id, "m.room.message", content, f"{relation}{parent}"
        )

    async def test_other_members_see_how_far_a_user_has_read(self) -> None:
        """Clients show the reader's avatar next to a message."""
        before = self.server.log.position

        await self.read(self.bob, self.first)

        seen = await self.seen_by(self.alice, before)
        self.assertEqual(list(seen), [self.first])
        self.assertEqual(list(seen[self.first][READ]), [self.bob.user_id])
        self.assertGreater(seen[self.first][READ][self.bob.user_id]["ts"], 1_600_000_000_000)

    async def test_receipts_are_not_sent_again(self) -> None:
        """A long poll returns for new receipts only."""
        await self.read(self.bob, self.first)

        self.assertEqual(await self.seen_by(self.alice, self.server.log.position), {})

    async def test_receipt_moves_forward_only(self) -> None:
        """A slow second device does not make read messages unread."""
        await self.read(self.bob, self.second)
        before = self.server.log.position

        await self.read(self.bob, self.first)
        await self.read(self.bob, self.second)

        self.assertEqual(list(await self.seen_by(self.alice)), [self.second])
        self.assertEqual(self.server.log.position, before)

    async def test_concurrent_receipts_end_at_the_later_event(self) -> None:
        """Two devices that read at the same moment do not undo each other's work."""
        sent = [self.read(self.bob, event) for event in (self.second, self.first)]

        await gatherResults([Deferred.fromCoroutine(done) for done in sent])

        self.assertEqual(list(await self.seen_by(self.alice)), [self.second])

    async def test_private_receipt_is_seen_by_its_user_alone(self) -> None:
        """A user can clear their notifications without notifying other members."""
        before = self.server.log.position

        await self.read(self.bob, self.first, PRIVATE)

        self.assertEqual(await self.seen_by(self.alice, before), {})
        self.assertEqual(await self.seen_by(self.alice), {})
        self.assertEqual(list((await self.seen_by(self.bob, before))[self.first]), [PRIVATE])

    async def test_public_receipt_may_lag_behind_the_private_one(self) -> None:
        """Both are stored, as the specification says, and both are shown to their user."""
        await self.read(self.bob, self.second, PRIVATE)

        await self.read(self.bob, self.first)

        self.assertEqual(list(await self.seen_by(self.alice)), [self.first])
        self.assertEqual(set(await self.seen_by(self.bob)), {self.first, self.second})

    async def test_threads_have_receipts_of_their_own(self) -> None:
        """To have read a thread is not to have read the room."""
        in_thread = await self.reply("m.thread", self.first)

        await self.read(self.bob, self.first)
        await self.read(self.bob, in_thread, thread_id=self.first)
        await self.read(self.bob, self.second, thread_id="main")

        seen = await self.seen_by(self.alice)
        threads = {
            event_id: seen[event_id][READ][self.bob.user_id].get("thread_id") for event_id in seen
        }
        self.assertEqual(threads, {self.first: None, in_thread: self.first, self.second: "main"})

    async def test_receipt_of_the_room_replaces_that_of_a_thread_at_one_event(self) -> None:
        """An event has one receipt for each user; the wider one wins."""
        await self.read(self.bob, self.first)
        await self.read(self.bob, self.first, thread_id="main")

        seen = await self.seen_by(self.alice)

        self.assertNotIn("thread_id", seen[self.first][READ][self.bob.user_id])

    async def test_thread_must_fit_the_event(self) -> None:
        """A receipt in the wrong thread would leave the right one unread permanently."""
        in_thread = await self.reply("m.thread", self.first)
        reaction = await self.reply("m.annotation", in_thread)
        edit = await self.reply("m.replace", self.second)

        for event_id, thread in (
            (in_thread, "main"),
            (in_thread, self.second),
            (reaction, "main"),
            (self.second, self.first),
            (edit, self.first),
        ):
            await self.refusal(InvalidParam, self.read(self.bob, event_id, thread_id=thread))
        for event_id, thread in (
            (in_thread, self.first),
            (reaction, self.first),
            (self.first, self.first),
            (self.first, "main"),
            (edit, "main"),
        ):
            await self.read(self.bob, event_id, thread_id=thread)

    async def test_threads_that_do_not_exist_are_bounded(self) -> None:
        """Another server can name any thread, but not fill the disk with them."""
        self.patch(receipts, "MAX_OF_USER", 3)
        room = await self.room()

        def read(thread: str | None, event: str = "$unknown") -> Receipt:
            return Receipt(self.bob.user_id, READ, thread, event, None, 0)

        await self.receipts.move(room, [read("$thread0")])
        threads = [read(f"$thread{number}") for number in range(1, 5)]
        self.assertEqual(await self.receipts.move(room, threads), threads[2:])
        self.assertEqual(await self.receipts.move(room, [read("$thread3")]), [read("$thread3")])

        others = [read("$thread2", "$later"), read(None)]
        self.assertEqual(await self.receipts.move(room, others), [])
        self.assertEqual(len(await self.receipts.of_user(room, self.bob.user_id)), 4)

    async def test_thread_that_is_none_is_refused(self) -> None:
        """The client's author learns of the mistake."""
        for thread in ("", None, 5, ["main"], "Main", "x" * 300):
            await self.refusal(InvalidParam, self.read(self.bob, self.first, thread_id=thread))
        await self.refusal(
            InvalidParam, self.read(self.bob, self.first, FULLY_READ, thread_id="main")
        )

    async def test_receipt_names_a_known_type_and_an_event_of_a_joined_room(self) -> None:
        """A user cannot store receipts that no client will read."""
        stranger = await self.server.user("stranger")
        other_room = await self.server.create_room(self.alice)
        other = await self.server.say(self.alice, other_room, "other")

        await self.refusal(InvalidParam, self.read(self.bob, self.first, "m.seen"))
        await self.refusal(NotFound, self.read(self.bob, "$unknown"))
        await self.refusal(NotFound, self.read(self.bob, "\0"))
        await self.refusal(NotFound, self.read(self.bob, other))
        await self.refusal(Forbidden, self.read(stranger, self.first))
        await self.refusal(Forbidden, self.markers.mark(self.bob, "!unknown:x", READ, self.first))

    async def test_receipts_survive_a_restart(self) -> None:
        """After an update of the server no user's rooms are unread again."""
        before = self.server.log.position
        await self.read(self.bob, self.first)
        await self.read(self.bob, self.second, PRIVATE)
        public, own = await self.seen_by(self.alice), await self.seen_by(self.bob)
        await self.server.stop()

        await self.start()

        number = (await self.room()).room_nid
        self.assertEqual(await self.seen_by(self.alice), public)
        self.assertEqual(await self.seen_by(self.bob), own)
        self.assertEqual(await self.receipts.changed_rooms([number, 99], before), {number})
        self.assertEqual(
            await self.receipts.changed_rooms([number], self.server.log.position), set()
        )
        await self.read(self.bob, self.first, PRIVATE)
        self.assertEqual(await self.seen_by(self.bob), own)

    async def test_rooms_with_new_receipts_are_known_without_loading(self) -> None:
        """A sync of all rooms does not load rooms without changes."""
        before = self.server.log.position
        await self.read(self.bob, self.first)
        number, runs = (await self.room()).room_nid, self.db.runs

        changed = await self.receipts.changed_rooms([number, 99], before)

        self.assertEqual((changed, self.db.runs), ({number}, runs))

    async def test_readers_share_encoded_receipts(self) -> None:
        """A receipt in a large room is encoded once, not for each of its members."""
        await self.read(self.bob, self.first)
        room = await self.room()

        events = [await self.receipts.events_since(room, name, 0) for name in ("@a:b", "@c:d")]

        self.assertIs(events[0], events[1])

    async def test_receipts_of_one_user_are_found_whatever_they_are(self) -> None:
        """Notification counts are made of all of them."""
        await self.read(self.bob, self.first)
        await self.read(self.bob, self.second, PRIVATE)
        await self.read(self.alice, self.second)

        mine = await self.receipts.of_user(await self.room(), self.bob.user_id)

        self.assertEqual(
            [(receipt.receipt_type, receipt.event_id) for receipt in mine],
            [(READ, self.first), (PRIVATE, self.second)],
        )

    async def test_fully_read_marker_moves_forward_only(self) -> None:
        """The line between old and new messages does not jump back up."""
        await self.read(self.bob, self.second, FULLY_READ)

        await self.read(self.bob, self.first, FULLY_READ)

        self.assertEqual(await self.fully_read(self.bob), self.second)
        self.assertEqual(await self.seen_by(self.bob), {})

    async def test_concurrent_markers_end_at_the_later_event(self) -> None:
        """The same for two devices at the same moment."""
        sent = [self.read(self.bob, event, FULLY_READ) for event in (self.second, self.first)]

        await gatherResults([Deferred.fromCoroutine(done) for done in sent])

        self.assertEqual(await self.fully_read(self.bob), self.second)

    async def test_several_markers_move_together_or_not_at_all(self) -> None:
        """One request instead of three, and no half of it."""
        wanted = {FULLY_READ: self.first, READ: self.first, PRIVATE: self.second}
        batches: list[list[type]] = []
        self.server.log.subscribe(lambda entries: batches.append([*map(type, entries)]))

        await self.refusal(
            NotFound,
            self.markers.mark_all(self.bob, self.room_id, {**wanted, PRIVATE: "$unknown"}),
        )
        self.assertEqual(
            (await self.seen_by(self.bob), await self.fully_read(self.bob)), ({}, None)
        )

        await self.markers.mark_all(self.bob, self.room_id, wanted)
        self.assertEqual(set(await self.seen_by(self.bob)), {self.first, self.second})
        self.assertEqual(await self.fully_read(self.bob), self.first)
        self.assertEqual(batches, [[AccountDataChanged, ReceiptsChanged]])


def test_change_that_was_loaded_before_has_no_effect() -> None:
    """A receipt that was published while its room was being read is in what was read."""
    room = RoomReceipts()
    private = Receipt("@a:b", PRIVATE, None, "$1", 1, 0)
    thread = Receipt("@a:b", PRIVATE, "main", "$2", 2, 0)
    room.put(5, private)
    room.put(7, thread)

    room.apply(ReceiptsChanged(5, 1, (private,)))

    assert len(room) == 2
    assert room.event("@a:b", 6) is not None
    assert room.event("@a:b", 7) is None
    assert room.has_moved("@a:b", 6)
    assert not room.has_moved("@a:b", 7)
