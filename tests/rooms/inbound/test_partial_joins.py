"""Joins with partial state in the log: the room shows what was published, on every process."""

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.rooms.inbound.remote_join import RemoteJoin
from homeserver.rooms.room.changes import (
    EventAppended,
    PartialRoomJoined,
    PartialRoomLeft,
    PartialRoomReplaced,
)
from homeserver.rooms.room.room import Room
from homeserver.rooms.state.node_codec import EMPTY
from tests.rooms.inbound.replica import ALICE, ENTRY_CODEC, Graph
from tests.rooms.inbound.test_completion_laws import ZOE, LateServer

SERVERS = ["one.example"]


def test_room_has_partial_state_once_the_join_is_durable() -> None:
    """A reader never waits for the members of a room that a crash may still undo."""
    late = late_server()
    room, writer = late.replica.room, late.replica.writer

    done = join(late, SERVERS)

    assert room.partial is None
    assert writer.inbound.partial_join == late.join.event_id, "the next event is checked by it"
    late.replica.publish()
    assert done.called
    assert room.partial is not None
    assert (room.partial.join_id, room.partial.servers) == (late.join.event_id, ("one.example",))


def test_partial_state_is_published_right_after_its_join() -> None:
    """In one commit: no process shows the room without its members as if it had all of them."""
    late = late_server()

    join(late, SERVERS)
    late.replica.publish()

    *_, appended, partial = [ENTRY_CODEC.decode(data) for data in late.replica.published]
    assert isinstance(appended, EventAppended)
    assert appended.stored.event.event_id == late.join.event_id
    assert isinstance(partial, PartialRoomJoined)
    assert partial.join_id == late.join.event_id


def test_join_with_full_state_replaces_partial_state() -> None:
    """The requests that wait for the members go on."""
    late = late_server()
    join(late, SERVERS)
    late.replica.publish()
    room, writer = late.replica.room, late.replica.writer
    waiting = Deferred.fromCoroutine(room.wait_for_full_state(Clock()))
    assert not waiting.called

    join(late, None)

    assert writer.inbound.partial_join is None
    assert room.partial is not None
    late.replica.publish()
    assert room.partial is None
    assert waiting.called
    assert isinstance(ENTRY_CODEC.decode(late.replica.published[-1]), PartialRoomReplaced)


def test_join_with_full_state_publishes_nothing_else() -> None:
    """An ordinary join costs no entry."""
    late = late_server()

    join(late, None)
    late.replica.publish()

    assert isinstance(ENTRY_CODEC.decode(late.replica.published[-1]), EventAppended)


def test_refused_join_leaves_the_state_as_it_was() -> None:
    """Events are not checked by a partial state that never began."""
    graph = Graph()
    graph.join(ALICE)
    late = LateServer(graph, graph.join(ZOE))

    outcome: list[Any] = []
    join(late, SERVERS).addBoth(outcome.append)
    late.replica.publish()

    assert "do not allow the join" in str(outcome[0])
    assert late.replica.writer.inbound.partial_join is None
    assert late.replica.room.partial is None


def test_end_of_an_earlier_join_does_not_end_a_later_one() -> None:
    """The last user left, and another one joined while that was written down."""
    room = Room(1, "!room:one.example", ROOM_VERSIONS["11"], EMPTY)
    room.follow(PartialRoomJoined(1, 1, "$first", ("one.example",)))
    room.follow(PartialRoomJoined(2, 1, "$second", ("two.example",)))

    room.follow(PartialRoomLeft(3, 1, "$first"))

    assert room.partial is not None
    assert room.partial.join_id == "$second"
    assert not room.was_left_partial

    room.follow(PartialRoomLeft(4, 1, "$second"))

    assert room.partial is None
    assert room.was_left_partial

    room.follow(PartialRoomReplaced(5, 1))

    assert not room.was_left_partial


def test_writer_forgets_the_join_that_ended_only() -> None:
    """As the room, but with what is queued: a later join may have been."""
    inbound = late_server().replica.writer.inbound
    inbound.set_partial_join("$second")

    inbound.end_partial("$first")

    assert inbound.partial_join == "$second"

    inbound.end_partial("$second")

    assert inbound.partial_join is None


def late_server() -> LateServer:
    """A server that is about to join a public room."""
    graph = Graph()
    graph.public()
    return LateServer(graph, graph.join(ZOE))


def join(late: LateServer, servers: Sequence[str] | None) -> "Deferred[Any]":
    """Admit the join with the state that is known; the join is queued, and not yet durable."""
    joining: RemoteJoin = late.remote_join
    before = late.graph.events[: late.graph.events.index(late.join)]
    known = [*{(event.type, event.state_key): event for event in before}.values()]
    late.keep(known)
    return Deferred.fromCoroutine(joining.admit(late.join, known, (), servers))
