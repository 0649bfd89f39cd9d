"""The history that another server may see: all that any of its users may see."""

import pytest

from homeserver.protocol.events import Event
from homeserver.protocol.history_visibility import VISIBILITIES, may_server_see_event
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.streams.counters import Counters
from tests.rooms.inbound.remote_events import RemoteEvents
from tests.rooms.inbound.replica import build
from tests.rooms.support import ALICE, BOB, RoomsTestCase

EVE = "@eve:other.example"
FRED = "@fred:other.example"
THERE = "other.example"
SECRET = {"msgtype": "m.text", "body": "secret"}


def message(
    event_type: str = "m.room.message", state_key: str | None = None, **content: str
) -> Event:
    return build(
        "11", "!r:example.org", event_type, ALICE.user_id, dict(content), state_key, [], [], 1, 1
    )


@pytest.mark.parametrize("visibility", VISIBILITIES)
@pytest.mark.parametrize("membership", ["join", "invite", "leave", None])
@pytest.mark.parametrize("joined_later", [True, False])
def test_server_sees_the_events_that_one_of_its_users_sees(
    visibility: str, membership: str | None, joined_later: bool
) -> None:
    """A server gets an event if one of its users may see it."""
    may_see = may_server_see_event(
        message(),
        THERE,
        visibility=visibility,
        memberships=[] if membership is None else [membership, "leave"],
        joined_later=joined_later,
    )

    assert may_see is (
        visibility == "world_readable"
        or membership == "join"
        or (visibility == "shared" and joined_later)
        or (visibility == "invited" and membership == "invite")
    )


def test_events_that_open_the_history_or_admit_a_user_are_seen() -> None:
    """The state before or after such an event may allow it."""
    opens = message("m.room.history_visibility", "", history_visibility="world_readable")
    joins = message("m.room.member", EVE, membership="join")
    admits_another_server = message("m.room.member", "@x:third.example", membership="join")

    seen = [
        may_server_see_event(event, THERE, visibility="joined", memberships=[], joined_later=False)
        for event in (opens, joins, admits_another_server)
    ]

    assert seen == [True, True, False]


class ServerVisibilityTests(RoomsTestCase):
    def build(self, counters: Counters) -> None:
        super().build(counters)
        self.remote = RemoteEvents(self.rooms, self.storage)

    async def room(self, visibility: str) -> str:
        room_id = await self.create_room(version="11")
        key = ("m.room.history_visibility", "")
        content = {"history_visibility": visibility}
        await self.sending.set_state(ALICE, room_id, *key, content)
        return room_id

    async def stored(self, room_id: str, *event_ids: str) -> list[StoredEvent]:
        return await self.remote.find(await self.rooms.get(room_id), event_ids)

    async def seen(self, room_id: str, server_name: str, *event_ids: str) -> list[bool]:
        """For each of some messages, whether a server gets the original."""
        room = await self.rooms.get(room_id)
        events = await self.stored(room_id, *event_ids)
        given = await self.visibility.shown_to_server(room, server_name, events)
        assert [event.event_id for event in given] == list(event_ids)
        for event, stored in zip(given, events, strict=True):
            assert event in (stored.event, stored.event.redacted())
        return ["body" in event.content for event in given]

    async def test_members_of_a_server_come_and_go(self) -> None:
        """Each visibility gives a server the time for which it was made."""
        expected = {
            "world_readable": [True, True, True, True],
            "shared": [True, True, True, False],
            "invited": [False, True, True, False],
            "joined": [False, False, True, False],
        }
        for visibility, seen in expected.items():
            self.clock.advance(1)
            room_id = await self.room(visibility)
            said = [await self.say(room_id, "before")]
            await self.remote.member(room_id, EVE, "invite", ALICE.user_id)
            said.append(await self.say(room_id, "invited"))
            await self.remote.member(room_id, EVE, "join")
            said.append(await self.say(room_id, "joined"))
            await self.remote.member(room_id, EVE, "leave")
            said.append(await self.say(room_id, "left"))

            assert await self.seen(room_id, THERE, *said) == seen, visibility
            stranger = [visibility == "world_readable"] * 4
            assert await self.seen(room_id, "third.example", *said) == stranger

    async def test_any_user_of_the_server_counts(self) -> None:
        """A server sees what one of its users sees."""
        room_id = await self.room("joined")
        await self.remote.member(room_id, EVE, "join")
        await self.remote.member(room_id, FRED, "join")
        await self.remote.member(room_id, EVE, "leave")
        said = await self.say(room_id, "Fred is here")

        assert await self.seen(room_id, THERE, said) == [True]

    async def test_redacted_events_are_sent_in_redacted_form(self) -> None:
        """Other servers do not get redacted content."""
        room_id = await self.room("shared")
        await self.remote.member(room_id, EVE, "join")
        said = await self.say(room_id, "oops")
        await self.sending.redact(ALICE, room_id, said, {}, "r1")

        assert await self.seen(room_id, THERE, said) == [False]

    async def test_messages_of_erased_users_are_sent_to_no_server(self) -> None:
        """The content of erased users is not sent even to servers that were in the room."""
        await self.memberships.join(BOB, room_id := await self.room("world_readable"))
        await self.remote.member(room_id, EVE, "join")
        said = [await self.say(room_id, "mine", by=BOB), await self.say(room_id, "yours")]
        topic = await self.sending.set_state(ALICE, room_id, "m.room.topic", "", {"topic": "t"})
        assert await self.seen(room_id, THERE, *said) == [True, True]

        await self.erased.deactivated(BOB.user_id, erase=True)

        assert await self.seen(room_id, THERE, *said) == [False, True]
        assert await self.seen(room_id, "third.example", *said) == [False, True]
        await self.erased.deactivated(ALICE.user_id, erase=True)
        room, (stored,) = await self.rooms.get(room_id), await self.stored(room_id, topic)
        assert await self.visibility.shown_to_server(room, THERE, [stored]) == [stored.event]
        assert await self.visibility.seen_by_server(room, THERE, [stored]) == [True]

    async def test_shared_history_is_checked_without_reading_members(self) -> None:
        """Backfill of a large room costs no more than of a small one."""
        room_id = await self.room("shared")
        for number in range(30):
            await self.remote.member(room_id, f"@u{number}:{THERE}", "join")
        said = await self.say(room_id, "hello")
        before = self.events.recent.hits + self.events.recent.misses

        assert await self.seen(room_id, THERE, said) == [True]

        assert self.events.recent.hits + self.events.recent.misses - before < 5

    async def test_members_who_have_not_changed_are_not_read(self) -> None:
        """Where membership decides, only members whose membership changed are read."""
        room_id = await self.room("joined")
        for number in range(30):
            await self.remote.member(room_id, f"@u{number}:{THERE}", "join")
        said = await self.say(room_id, "hello")
        await self.memberships.join(BOB, room_id)
        before = self.events.recent.hits + self.events.recent.misses

        assert await self.seen(room_id, THERE, said) == [True]

        assert self.events.recent.hits + self.events.recent.misses - before < 5

    async def test_outliers_are_sent_unredacted_if_they_are_state(self) -> None:
        """Servers need auth events for their checks; the visibility of other outliers is open."""
        room_id = await self.room("joined")
        topic = await self.remote.make(room_id, "m.room.topic", ALICE.user_id, {"topic": "t"}, "")
        said = await self.remote.make(room_id, "m.room.message", ALICE.user_id, SECRET)
        async with self.rooms.writing(room_id) as writer:
            outliers, done = await self.remote.receiving.outliers(writer, [topic, said])
        assert done is not None
        await done
        room = await self.rooms.get(room_id)

        given = await self.visibility.shown_to_server(room, THERE, outliers)

        assert given == [topic, said.redacted()]
