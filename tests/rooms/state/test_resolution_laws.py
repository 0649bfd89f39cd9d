"""Resolving stored states gives the result of the definition for whole states and chains."""

import random
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.state_resolution.resolution import StateMap, resolve
from homeserver.rooms.inbound.receiver import PduReceiver
from homeserver.rooms.resolution import auth_difference
from homeserver.rooms.resolution.auth_index import StoredAuthIndex
from homeserver.rooms.resolution.resolver import RUN_IN_THREAD_ABOVE, StateResolver
from homeserver.rooms.room.changes import EventsStored, StateKey
from homeserver.rooms.room.draft_senders import NoPolicyServers
from homeserver.rooms.room.extremities import ForwardExtremities
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.writer import RoomWriter
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.storage.rooms.auth_edges import auth_edge_rows
from tests.rooms.inbound.replica import ALICE, BOB, CAROL, DAVE, Graph, Replica
from tests.rooms.inbound.test_event_graph_laws import WHOLE, forked_graphs
from tests.rooms.support import RoomsTestCase


def resolve_whole(replica: Replica, states: list[StateMap]) -> dict[StateKey, str]:
    """The resolution by its definition, of a replica that has everything in memory."""
    references = list(replica.stores.events._by_nid.values())
    stored = [each for reference in references if (each := reference()) is not None]
    return resolve(
        replica.room.version,
        states,
        {each.event.event_id: each.event for each in stored},
        {each.event.event_id for each in stored if each.status.rejected is not None},
    )


@WHOLE
@given(forked_graphs(), st.data(), st.sampled_from([0, 2, 60]), st.sampled_from([1, 150]))
def test_resolution_by_the_index_is_that_by_the_definition(
    graph: Graph, data: st.DataObject, look_ups: int, descendants: int
) -> None:
    """Short cuts may save time, but no server may come to another state by them."""
    roots = {graph.stored(event).state_after for event in graph.events} - {EMPTY}
    some = data.draw(st.sets(st.sampled_from(sorted(roots)), min_size=1, max_size=5))

    with (
        patch.object(auth_difference, "MAX_LOOKUPS", look_ups),
        patch.object(auth_difference, "DESCENDANTS", descendants),
    ):
        resolved = graph.run(StateResolver(graph.stores).resolve(graph.room, some))

    states = [graph.state_at(root) for root in some]
    assert graph.state_at(resolved.root) == resolve_whole(graph, states)


def some_room(version: str, choice: random.Random) -> Graph:
    """A room with branches on which people did what came to their minds."""
    graph = Graph(version)
    graph.public()
    people = (ALICE, BOB, CAROL, DAVE)
    graph.levels(users={ALICE: 100, BOB: 50, CAROL: 50})
    for _ in range(30):
        after = choice.sample(graph.events[-6:], k=min(choice.randint(1, 2), len(graph.events)))
        how: dict[str, Any] = {"after": after, "at": choice.randint(0, 30)}
        by, target = choice.choice(people), choice.choice(people)
        match choice.randrange(6):
            case 0:
                graph.member(target, choice.choice(["leave", "ban", "invite"]), by, **how)
            case 1:
                users = {who: choice.randint(0, 100) for who in (BOB, CAROL)}
                graph.levels(by, users={ALICE: 100} | users, **how)
            case 2:
                rule = {"join_rule": choice.choice(["public", "invite"])}
                graph.send("m.room.join_rules", by, rule, "", **how)
            case 3:
                graph.send("m.room.topic", by, {"topic": str(len(graph.events))}, "", **how)
            case _:
                graph.join(by, **how)
    return graph


class StoredResolutionTests(RoomsTestCase):
    """The same over the tables of a real database."""

    async def test_resolution_of_stored_states_equals_that_of_states_in_memory(self) -> None:
        """A server that was restarted resolves the same state."""
        for version in ROOM_VERSIONS:
            choice = random.Random(version)
            graph = some_room(version, choice)
            room = await self._receive(graph)
            await self.log.flush()
            for at_once in (RUN_IN_THREAD_ABOVE, -1):
                self.restart()
                # As if every conflict were a large one, decided in a thread.
                with patch("homeserver.rooms.resolution.resolver.RUN_IN_THREAD_ABOVE", at_once):
                    for _ in range(10):
                        await self._compare(graph, room, choice)

    async def test_events_that_are_being_written_count(self) -> None:
        """Two events that come right after each other are checked as if there had been a pause."""
        stores = self.storage
        index = StoredAuthIndex(
            stores, Room(1, "!r:one.example", ROOM_VERSIONS["11"], EMPTY), EMPTY, {}
        )
        auth_event, event = self.log.next_event_number(), self.log.next_event_number()
        entry = EventsStored(self.log.next_position(), 1, [], {})

        done = self.log.append(entry, auth_edge_rows(event, [auth_event]))
        citing = await index.citing([auth_event], 10)

        self.assertEqual(citing, {auth_event: {event}})
        await done

    async def _receive(self, graph: Graph) -> Room:
        """Receive the events of a room that is not in the registry; returns it."""
        stores = self.storage
        resolver = StateResolver(stores)
        number = await self.names.nid(graph.room.room_id)
        room = Room(number, graph.room.room_id, graph.room.version, EMPTY)
        writer = RoomWriter(room, ForwardExtremities((), EMPTY), self.origin, stores)
        for event in graph.events:
            await PduReceiver(stores, resolver, NoPolicyServers()).receive(writer, event)
        return room

    async def _compare(self, graph: Graph, room: Room, choice: random.Random) -> None:
        stores = self.storage
        some = choice.sample(graph.events, k=choice.randint(2, 5))
        ids = [event.event_id for event in some]
        found = await stores.events.find_many(room.version, room.room_nid, room.room_id, ids)
        states = [graph.state_at(graph.stored(event).state_after) for event in some]

        resolved = await StateResolver(stores).resolve(
            room, [found[event_id].state_after for event_id in ids]
        )

        entries = await stores.states.load(resolved.root)
        names = await self.names.names({nid for key in entries for nid in key})
        events = await stores.events.load(room.version, list(entries.values()))
        state = {
            (names[key[0]], names[key[1]]): events[number].event.event_id
            for key, number in entries.items()
        }
        self.assertEqual(state, resolve_whole(graph, states))
