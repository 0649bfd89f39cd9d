"""Rooms that are entered without their members: of use at once, and right in the end.

Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
"""

from collections.abc import Iterator

import pytest

from homeserver.protocol.events import Event
from tests.support.fake_server import FakeServer
from tests.support.reactor import run
from tests.support.sites import OURS, Scene, Sites

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]


@pytest.fixture
def ours(sites: Sites) -> Iterator[Scene]:
    """A server of ours, as both sites of a scene: the scripted server plays the other one."""
    site = sites.get(OURS, 0)
    playing = Scene(site, site, sites.authority)
    try:
        yield playing
    finally:
        run(playing.close())


async def test_who_joins_gets_what_they_cannot_do_without(ours: Scene, fake: FakeServer) -> None:
    """A joining server is spared the members, but for those after whom the room is called."""
    people = [await ours.user(ours.first, f"user{number}") for number in range(8)]
    alice, others = people[0], people[1:]
    room_id = await alice.create_room(public=True)
    for other in others:
        await other.join(room_id)

    await fake.join(ours.first.name, room_id, fake.user("mallory"), omit_members=True)

    told = fake.told[room_id]
    graph = fake.rooms[room_id]
    state = [Event.from_pdu(graph.version, pdu) for pdu in told["state"]]
    chain = [Event.from_pdu(graph.version, pdu) for pdu in told["auth_chain"]]
    assert told["members_omitted"] is True
    assert told["servers_in_room"] == [ours.first.name]
    members = [event.state_key for event in state if event.type == "m.room.member"]
    assert members == [person.user_id for person in people[:5]]
    ids = [event.event_id for event in (*state, *chain)]
    assert len(ids) == len(set(ids)), "nothing is told twice"
    cited = {each for event in (*state, *chain) for each in event.auth_event_ids}
    assert cited <= set(ids), "what authorises it is there"


async def test_of_a_room_with_a_name_no_members_are_told(ours: Scene, fake: FakeServer) -> None:
    """A name is shown as soon as the room is joined, and nobody need be known for it."""
    alice, bob = await ours.alice_and_bob()
    room_id = await alice.create_room(public=True, name="Garden")
    await bob.join(room_id)

    await fake.join(ours.first.name, room_id, fake.user("mallory"), omit_members=True)

    told = fake.told[room_id]
    assert [pdu for pdu in told["state"] if pdu["type"] == "m.room.member"] == []
    # Who made the room is cited by what they sent.
    cited = [pdu["state_key"] for pdu in told["auth_chain"] if pdu["type"] == "m.room.member"]
    assert cited == [alice.user_id]


async def test_without_being_asked_for_less_all_is_told(ours: Scene, fake: FakeServer) -> None:
    """A server that knows nothing of partial state gets the room as it always did."""
    alice, bob = await ours.alice_and_bob()
    room_id = await alice.create_room(public=True, name="Garden")
    await bob.join(room_id)

    await fake.join(ours.first.name, room_id, fake.user("mallory"))

    told = fake.told[room_id]
    members = {pdu["state_key"] for pdu in told["state"] if pdu["type"] == "m.room.member"}
    assert (told["members_omitted"], members) == (False, {alice.user_id, bob.user_id})
