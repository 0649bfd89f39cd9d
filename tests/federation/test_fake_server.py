"""The scripted server against real ones: it follows the protocol, so other tests can rely on it.

Spec: https://spec.matrix.org/v1.19/server-server-api/
"""

import pytest

from homeserver.protocol.room_versions import ROOM_VERSIONS
from tests.support.fake_server.fake_http import FAILURE, GARBAGE, Answer, Break, Endless, always
from tests.support.fake_server.server import FakeServer
from tests.support.sites import Scene
from tests.support.watcher import eventually, refused

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

VERSIONS = list(ROOM_VERSIONS)
PROFILE = "/_matrix/federation/v1/query/profile"
STATED = ("m.room.create", "m.room.join_rules", "m.room.power_levels", "m.room.history_visibility")


@pytest.mark.parametrize("version", VERSIONS)
async def test_its_rooms_are_joined_and_talked_in(
    solo: Scene, fake: FakeServer, version: str
) -> None:
    """Its events, hashes and signatures are those of a good server, in all versions."""
    bob = await solo.user(solo.second, "bob")
    room = fake.create_room(version)
    mallory = fake.user("mallory")

    await bob.join(room.room_id, via=[fake.name])
    told = room.say(mallory, "welcome")
    status, answer = await fake.send(solo.second.name, [told])
    said = await bob.say(room.room_id, "thank you")

    assert (status, answer) == (200, {"pdus": {told.event_id: {}}})
    await bob.hears(room.room_id, told.event_id)
    heard = await fake.hears(said)
    assert (heard.sender, heard.content["body"]) == (bob.user_id, "thank you")
    state = await bob.full_state(room.room_id)
    wanted = {(name, ""): room.state_event(name).event_id for name in STATED}
    assert {key: state[key]["event_id"] for key in wanted} == wanted


@pytest.mark.parametrize("version", VERSIONS)
async def test_it_joins_rooms_of_others(solo: Scene, fake: FakeServer, version: str) -> None:
    """Through make_join and send_join, after which both sides talk."""
    alice = await solo.user(solo.first, "alice")
    room_id = await alice.create_room(room_version=version, public=True)
    mallory = fake.user("mallory")

    room = await fake.join(solo.first.name, room_id, mallory)
    said = room.say(mallory, "here I am")
    await fake.send(solo.first.name, [said])
    await alice.hears(room_id, said.event_id)
    answer = await alice.say(room_id, "I see")

    await fake.hears(answer)
    assert room.events[answer].prev_event_ids == [said.event_id]


async def test_invites_go_both_ways(solo: Scene, fake: FakeServer) -> None:
    """An invite needs the signatures of both servers."""
    alice = await solo.user(solo.first, "alice")
    own = fake.create_room(join_rule="invite")
    room_id = await alice.create_room()

    await fake.invite(solo.first.name, own, fake.user("mallory"), alice.user_id)
    await alice.becomes(own.room_id, "invite")
    await alice.join(own.room_id)
    await alice.request(
        "POST", f"/_matrix/client/v3/rooms/{room_id}/invite", {"user_id": fake.user("mallory")}
    )

    assert set(fake.invites[room_id].signatures) == {solo.first.name, fake.name}
    assert own.state_event("m.room.member", alice.user_id).content["membership"] == "join"


async def test_missing_events_are_requested(solo: Scene, fake: FakeServer) -> None:
    """A server that lacks previous events of an event requests them from its sender."""
    bob = await solo.user(solo.second, "bob")
    room = fake.create_room()
    await bob.join(room.room_id, via=[fake.name])
    lost = [room.say(fake.user("mallory"), f"lost {number}") for number in range(3)]
    last = room.say(fake.user("mallory"), "last")

    await fake.send(solo.second.name, [last])

    await bob.hears(room.room_id, last.event_id)
    for event in lost:
        await bob.hears(room.room_id, event.event_id)
    received_request = await fake.wait_for_request("get_missing_previous_events")
    assert received_request.body["latest_events"] == [last.event_id]


@pytest.mark.parametrize("version", ["1", "2", "11", "12"])
async def test_a_fork_of_its_making_is_resolved_as_here(
    solo: Scene, fake: FakeServer, version: str
) -> None:
    """Two branches that change the same things come to the state that our rules come to."""
    bob = await solo.user(solo.second, "bob")
    room = fake.create_room(version)
    mallory, trent = fake.user("mallory"), fake.user("trent")
    await bob.join(room.room_id, via=[fake.name])
    room.member(trent, "join")
    fork = room.ends

    for branch in ("one", "other"):
        after = fork
        for content in ({"topic": branch}, {"topic": f"{branch} again"}):
            choices = {"sender": mallory, "state_key": "", "after": after}
            after = [room.add("m.room.topic", content, **choices)]
    room.member(trent, "ban", sender=mallory)
    last = room.say(mallory, "one again")
    await fake.send(solo.second.name, [*room.events.values()][-7:])

    await bob.hears(room.room_id, last.event_id)
    state = await bob.full_state(room.room_id)
    assert {key: event["event_id"] for key, event in state.items()} == room.state_after([last])


@pytest.mark.parametrize(
    "answer",
    [GARBAGE, FAILURE, Answer(200, {}), Break(), Endless()],
    ids=lambda one: type(one).__name__,
)
async def test_a_failing_server_admits_no_user(
    solo: Scene, fake: FakeServer, answer: Answer
) -> None:
    """The user gets an error at once, and joins when the server works again."""
    bob = await solo.user(solo.second, "bob")
    room = fake.create_room()
    # If the connection breaks at its first key request, the peer skips the request for a while.
    await fake.ask(solo.second.name, "GET", PROFILE, query={"user_id": bob.user_id})

    fake.answers["make_join"] = always(answer)
    refusal = await refused(bob.join(room.room_id, via=[fake.name]))
    del fake.answers["make_join"]

    assert refusal.errcode
    await eventually(lambda: bob.join(room.room_id, via=[fake.name]), "the join")


async def test_forged_events_are_not_shown(solo: Scene, fake: FakeServer) -> None:
    """Neither one that was changed after it was signed, nor one of another server's user."""
    bob = await solo.user(solo.second, "bob")
    room = fake.create_room()
    await bob.join(room.room_id, via=[fake.name])
    mallory = fake.user("mallory")
    good = room.build("m.room.message", {"msgtype": "m.text", "body": "true"}, sender=mallory)
    changed = {**good.pdu, "content": {"msgtype": "m.text", "body": "false"}}
    stolen = room.build(
        "m.room.message", {"msgtype": "m.text", "body": "stolen"}, sender=bob.user_id
    )
    last = room.say(mallory, "the last")

    status, answer = await fake.send(solo.second.name, [changed, stolen, last])

    assert status == 200
    assert "error" in answer["pdus"][stolen.event_id]
    await bob.hears(room.room_id, last.event_id)
    shown = [event["content"].get("body") for event in bob.timeline[room.room_id]]
    assert "false" not in shown
    assert "stolen" not in shown


async def test_a_crowd_of_its_making_is_joined(solo: Scene, fake: FakeServer) -> None:
    """A big room costs a test little: the members are only written down."""
    bob = await solo.user(solo.second, "bob")
    room = fake.create_room()
    room.crowd(1000)

    await bob.join(room.room_id, via=[fake.name])

    async def all_there() -> bool:
        answer = await bob.get(f"/rooms/{room.room_id}/joined_members")
        return len(answer["joined"]) == 1002

    await eventually(all_there, "all members")
