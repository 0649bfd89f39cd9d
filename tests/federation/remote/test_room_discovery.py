"""Discovering rooms and spaces on another server, of any implementation.

Spec: https://spec.matrix.org/v1.19/server-server-api/#spaces
"""

from typing import Any
from urllib.parse import quote

import pytest

from tests.support.actors import CLIENT
from tests.support.sites import Scene
from tests.support.watcher import Watcher, eventually

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

V1 = CLIENT.replace("v3", "v1")
SPACE = {"type": "m.space"}


async def test_a_space_shows_its_rooms_on_another_server(scene: Scene) -> None:
    """Members of a space see its rooms on other servers, and none that are closed to them."""
    alice, bob = await scene.alice_and_bob()
    club = await alice.create_room(public=True, creation_content=SPACE, name="Club")
    inner = await bob.create_room(public=True, creation_content=SPACE, name="Inner")
    leaf = await bob.create_room(public=True, name="Leaf", topic="Tea")
    secret = await bob.create_room(name="Secret")
    await add(alice, club, inner, scene.second.name)
    for room in (leaf, secret):
        await add(bob, inner, room, scene.second.name)

    answer = await hierarchy(alice, club)

    rooms = {room["room_id"]: room for room in answer["rooms"]}
    assert [*rooms] == [club, inner, leaf]
    assert (rooms[leaf]["name"], rooms[leaf]["topic"]) == ("Leaf", "Tea")
    assert rooms[leaf]["num_joined_members"] == 1
    assert {event["state_key"] for event in rooms[inner]["children_state"]} == {leaf, secret}


async def test_a_room_for_members_of_a_space_shows_to_them(scene: Scene) -> None:
    """And they get in, from whichever server."""
    alice, bob = await scene.alice_and_bob()
    club = await alice.create_room(public=True, creation_content=SPACE)
    await bob.join(club, via=[scene.first.name])
    room = await alice.create_room(name="Members")
    allow = [{"type": "m.room_membership", "room_id": club}]
    await alice.set_state(room, "m.room.join_rules", {"join_rule": "restricted", "allow": allow})
    await add(alice, club, room, scene.first.name)
    content = {"via": [scene.first.name]}
    await bob.sees_state(club, "m.space.child", content, room)

    answer = await hierarchy(bob, club)
    await bob.join(room, via=[scene.first.name])

    assert [entry["room_id"] for entry in answer["rooms"]] == [club, room]
    await alice.sees_member(room, bob, "join")


async def test_a_newcomer_jumps_to_a_day_before_their_server_came(scene: Scene) -> None:
    """To an event that only the other server has, and reads on from there."""
    alice, bob = await scene.alice_and_bob()
    room = await alice.create_room(public=True)
    said = [await alice.say(room, str(number)) for number in range(60)]
    await bob.join(room, via=[scene.first.name])
    await bob.becomes(room, "join")
    wanted = await alice.event(room, said[5])

    async def found() -> Any:
        query = {"ts": wanted["origin_server_ts"], "dir": "f"}
        path = f"{V1}/rooms/{quote(room)}/timestamp_to_event"
        answer = await bob.request("GET", path, query=query)
        return answer if answer["origin_server_ts"] == wanted["origin_server_ts"] else None

    answer = await eventually(found, "the event of that time")
    path = f"/rooms/{quote(room)}/context/{quote(answer['event_id'], safe='')}"
    context = await bob.get(path, limit=4)
    assert context["event"]["event_id"] == answer["event_id"]


async def add(actor: Watcher, space: str, room: str, server: str) -> None:
    """Make a room part of a space."""
    await actor.set_state(space, "m.space.child", {"via": [server]}, room)


async def hierarchy(actor: Watcher, room: str) -> Any:
    """The tree of a space."""
    return await actor.request("GET", f"{V1}/rooms/{quote(room)}/hierarchy")
