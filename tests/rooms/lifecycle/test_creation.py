"""Creating rooms: which events, in which order, and all of them or none."""

from typing import Any

import psycopg
import pytest
from twisted.internet.defer import Deferred, gatherResults

from homeserver.protocol.errors import BadJson, InvalidRoomState, MatrixError, RoomInUse
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.rooms.lifecycle.first_events import (
    RoomRequest,
    StateDraft,
    create_content,
    first_events,
    power_levels_content,
)
from homeserver.storage.rooms import room_aliases as storage
from tests.rooms.support import ALICE, BOB, RoomsTestCase

V11, V12 = ROOM_VERSIONS["11"], ROOM_VERSIONS["12"]


def request(**values: Any) -> RoomRequest:
    return RoomRequest(**{"version": "12", "preset": "private_chat", **values})


def test_events_come_in_the_order_of_the_specification() -> None:
    """Each event is allowed by those before it, and later ones override earlier ones."""
    wanted = request(
        name="Tea",
        topic="Which one?",
        initial_state=[StateDraft("m.room.avatar", {}), StateDraft("m.room.join_rules", {})],
    )

    drafts = first_events(ALICE.user_id, V12, wanted, "#tea:example.org", {"membership": "join"})

    assert [draft.type for draft in drafts] == [
        "m.room.member",
        "m.room.power_levels",
        "m.room.canonical_alias",
        "m.room.history_visibility",
        "m.room.guest_access",
        "m.room.avatar",
        "m.room.join_rules",
        "m.room.name",
        "m.room.topic",
    ]


def test_tombstone_takes_more_power_than_other_state() -> None:
    """From room version 12 on, the power to set state does not suffice to upgrade a room."""
    levels = power_levels_content(ALICE.user_id, V12, request())

    assert levels["events"]["m.room.tombstone"] > levels["state_default"]


def test_creator_is_listed_only_where_the_version_requires_it() -> None:
    """Creators of new rooms outrank all levels; those of old rooms have 100."""
    old = power_levels_content(ALICE.user_id, V11, request())
    new = power_levels_content(ALICE.user_id, V12, request())

    assert (old["users"], new["users"]) == ({ALICE.user_id: 100}, {})


def test_additional_creators_are_those_named_and_those_trusted() -> None:
    """Every invited user of a trusted chat is a creator, listed once."""
    wanted = request(
        preset="trusted_private_chat",
        creation_content={"additional_creators": [BOB.user_id, "@dave:x"]},
        invite=[BOB.user_id, ALICE.user_id],
    )

    content = create_content(ALICE, V12, wanted)

    assert content["additional_creators"] == [BOB.user_id, "@dave:x"]


def test_additional_creators_must_be_a_list() -> None:
    """A client that sends another type gets an error instead of a room without them."""
    wanted = request(
        preset="trusted_private_chat", creation_content={"additional_creators": "@dave:x"}
    )

    with pytest.raises(BadJson):
        create_content(ALICE, V12, wanted)


class CreationTests(RoomsTestCase):
    async def test_refused_room_leaves_nothing_behind(self) -> None:
        """No incomplete room is in a user's list, not even after a restart."""
        with pytest.raises(InvalidRoomState):
            await self.create_room(
                version="11", name="Tea", power_levels={"users": {}, "users_default": 0}
            )

        assert self.count("rooms") == self.count("events") == self.count("room_aliases") == 0
        assert await self.reading.joined_rooms(ALICE.user_id) == []

    async def test_rooms_made_in_the_same_instant_are_two(self) -> None:
        """A double click makes two rooms, not one with two beginnings."""
        rooms = await gatherResults([Deferred.fromCoroutine(self.create_room()) for _ in range(3)])

        assert len(set(rooms)) == 3
        assert sorted(await self.reading.joined_rooms(ALICE.user_id)) == sorted(rooms)

    async def test_alias_that_is_being_added_is_taken(self) -> None:
        """If two users request one alias at once, one of them gets an error."""
        other = await self.create_room()
        gate: Deferred[None] = Deferred()
        insert, append = storage.add_alias, self.creation._append

        async def insert_late(*row: Any) -> bool:
            await gate
            return await insert(*row)

        async def append_later(*parts: Any) -> None:
            gate.callback(None)
            await adding
            await append(*parts)

        self.patch(storage, "add_alias", insert_late)
        self.patch(self.creation, "_append", append_later)
        adding = Deferred.fromCoroutine(self.aliases.add(ALICE, "#tea:example.org", other))
        with pytest.raises(RoomInUse):
            await self.create_room(alias_name="tea")

        gate.callback(None)
        await adding
        assert (await self.aliases.resolve("#tea:example.org")).room_id == other

    async def test_refused_room_leaves_its_alias_free(self) -> None:
        """The second, corrected, attempt gets the name."""
        with pytest.raises(MatrixError):
            await self.create_room(alias_name="tea", initial_state=[StateDraft("x" * 300, {})])

        room_id = await self.create_room(alias_name="tea")

        assert (await self.aliases.resolve("#tea:example.org")).room_id == room_id

    async def test_created_room_is_the_same_after_a_restart(self) -> None:
        """Everything that the creator set up is durable when the response is sent."""
        room_id = await self.create_room(name="Tea", invite=[BOB.user_id], published=True)
        before = await self.rooms.get(room_id)

        self.restart()

        after = await self.rooms.get(room_id)
        assert after is not before
        assert after.state == before.state
        assert after.members == before.members == {ALICE.user_id: "join", BOB.user_id: "invite"}
        assert (after.joined_count, after.invited_count) == (1, 1)
        assert after.published
        assert list(await self.user_rooms.of(BOB.user_id)) == [after.room_nid]

    def count(self, table: str) -> int:
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
        assert row is not None
        number: int = row[0]
        return number
