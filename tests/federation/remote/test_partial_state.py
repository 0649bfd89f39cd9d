"""Rooms joined with partial state: usable at once, and correct in the end.

Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from twisted.internet.defer import Deferred

from homeserver.protocol.events import Event
from tests.support.actors import bodies
from tests.support.fake_server.fake_http import NOT_FOUND, always
from tests.support.fake_server.server import FakeServer
from tests.support.reactor import run
from tests.support.room_graph import RoomGraph
from tests.support.sites import LOCAL, Scene, Sites
from tests.support.watcher import Watcher, eventually, refused

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

LAZY = msgspec.json.encode({"room": {"state": {"lazy_load_members": True}}}).decode()
STATE = ("get_room_state_ids", "get_room_state")


@pytest.fixture
def pair(sites: Sites) -> Iterator[Scene]:
    """A local server as both sites of a scene; the scripted server plays the other one."""
    site = sites.get(LOCAL, 0)
    playing = Scene(site, site, sites.authority)
    try:
        yield playing
    finally:
        run(playing.close())


@pytest.fixture
def secretive(fake: FakeServer) -> FakeServer:
    """A server that omits members, and does not send them later either."""
    fake.omits_members = True
    hold_back(fake)
    return fake


def hold_back(fake: FakeServer) -> None:
    """Respond to no request for the state of a room."""
    for operation in STATE:
        fake.answers[operation] = always(NOT_FOUND)


def give_out(fake: FakeServer) -> None:
    """Give it again."""
    for operation in STATE:
        del fake.answers[operation]


async def joined_rooms(watcher: Watcher, **query: Any) -> dict[str, Any]:
    """The rooms of an initial sync."""
    answer = await watcher.sync(**query)
    rooms: dict[str, Any] = answer.get("rooms", {}).get("join", {})
    return rooms


async def has_full_state(watcher: Watcher, room: RoomGraph) -> None:
    """Wait until a client without lazy loading sees the room."""

    async def shows() -> bool:
        return room.room_id in await joined_rooms(watcher)

    await eventually(shows, "the whole room")


async def test_a_room_is_usable_before_its_members_are_known(
    pair: Scene, secretive: FakeServer
) -> None:
    """A user who joins a large room reads and writes at once, and sees the members later."""
    bob = await pair.user(pair.second, "bob")
    room = secretive.create_room()
    crowd = [event.sender for event in room.crowd(8)]

    await bob.join(room.room_id, via=[secretive.name])
    heard = await secretive.hears(await bob.say(room.room_id, "hello"))
    welcome = room.say(crowd[3], "welcome")
    await secretive.send(pair.second.name, [welcome])

    assert heard.content["body"] == "hello"
    section = (await joined_rooms(bob, filter=LAZY))[room.room_id]
    assert bodies(section["timeline"]["events"]) == ["hello", "welcome"]
    members = {
        event["state_key"]
        for event in section["state"]["events"]
        if "membership" in event["content"]
    }
    assert crowd[3] in members
    assert room.room_id not in await joined_rooms(bob)

    give_out(secretive)
    await has_full_state(bob, room)
    everybody = {bob.user_id, secretive.user("mallory"), *crowd}
    assert await bob.members(room.room_id) == dict.fromkeys(everybody, "join")
    section = (await joined_rooms(bob))[room.room_id]
    assert bodies(section["timeline"]["events"]) == ["hello", "welcome"]
    assert section["summary"]["m.joined_member_count"] == len(everybody)


async def test_a_joining_server_gets_the_members_it_needs(pair: Scene, fake: FakeServer) -> None:
    """The response omits all members except the heroes."""
    people = [await pair.user(pair.first, f"user{number}") for number in range(8)]
    alice, others = people[0], people[1:]
    room_id = await alice.create_room(public=True)
    for other in others:
        await other.join(room_id)

    await fake.join(pair.first.name, room_id, fake.user("mallory"), omit_members=True)

    response = fake.join_responses[room_id]
    graph = fake.rooms[room_id]
    state = [Event.from_pdu(graph.version, pdu) for pdu in response["state"]]
    chain = [Event.from_pdu(graph.version, pdu) for pdu in response["auth_chain"]]
    assert response["members_omitted"] is True
    assert response["servers_in_room"] == [pair.first.name]
    members = [event.state_key for event in state if event.type == "m.room.member"]
    assert members == [person.user_id for person in people[:5]]
    ids = [event.event_id for event in (*state, *chain)]
    assert len(ids) == len(set(ids)), "no event is sent twice"
    cited = {each for event in (*state, *chain) for each in event.auth_event_ids}
    assert cited <= set(ids), "what authorises it is there"


async def test_no_members_are_sent_of_a_room_with_a_name(pair: Scene, fake: FakeServer) -> None:
    """Clients show the name, and need no hero."""
    alice, bob = await pair.alice_and_bob()
    room_id = await alice.create_room(public=True, name="Garden")
    await bob.join(room_id)

    await fake.join(pair.first.name, room_id, fake.user("mallory"), omit_members=True)

    response = fake.join_responses[room_id]
    assert [pdu for pdu in response["state"] if pdu["type"] == "m.room.member"] == []
    # Events of the creator cite the creator's member event.
    cited = [pdu["state_key"] for pdu in response["auth_chain"] if pdu["type"] == "m.room.member"]
    assert cited == [alice.user_id]


async def test_without_omit_members_the_full_state_is_sent(pair: Scene, fake: FakeServer) -> None:
    """A server without support for partial state gets the room as always."""
    alice, bob = await pair.alice_and_bob()
    room_id = await alice.create_room(public=True, name="Garden")
    await bob.join(room_id)

    await fake.join(pair.first.name, room_id, fake.user("mallory"))

    response = fake.join_responses[room_id]
    members = {pdu["state_key"] for pdu in response["state"] if pdu["type"] == "m.room.member"}
    assert (response["members_omitted"], members) == (False, {alice.user_id, bob.user_id})


async def test_a_room_that_comes_with_full_state_is_shown_with_it(
    pair: Scene, fake: FakeServer
) -> None:
    """The first sync of the room has its state and members."""
    bob = await pair.user(pair.second, "bob")
    room = fake.create_room()
    crowd = [event.sender for event in room.crowd(3)]
    since = (await bob.sync())["next_batch"]

    await bob.join(room.room_id, via=[fake.name])

    later = await bob.sync(since)
    sections = [later["rooms"]["join"][room.room_id], (await joined_rooms(bob))[room.room_id]]
    for section in sections:
        keys = {(event["type"], event["state_key"]) for event in section["state"]["events"]}
        assert {("m.room.create", ""), ("m.room.join_rules", "")} < keys
        assert {("m.room.member", member) for member in crowd} < keys
        assert ("m.room.member", bob.user_id) not in keys, "the timeline has it"
    lazy = (await joined_rooms(bob, filter=LAZY))[room.room_id]
    assert ("m.room.create", "") in {
        (event["type"], event["state_key"]) for event in lazy["state"]["events"]
    }


async def test_a_user_who_is_banned_meanwhile_is_out(pair: Scene, secretive: FakeServer) -> None:
    """A moderator not known yet can still ban a local user."""
    bob, carol = await pair.alice_and_bob()
    room = secretive.create_room()
    crowd = [event.sender for event in room.crowd(3)]
    await bob.join(room.room_id, via=[secretive.name])
    await carol.join(room.room_id, via=[secretive.name])

    await bob.look()
    ban = room.member(bob.user_id, "ban", sender=secretive.user("mallory"))
    await secretive.send(pair.second.name, [ban])
    await bob.becomes(room.room_id, "leave")
    give_out(secretive)
    await has_full_state(carol, room)

    members = await carol.members(room.room_id)
    assert (members[bob.user_id], members[carol.user_id]) == ("ban", "join")
    assert {*crowd} < members.keys()
    assert (await refused(bob.say(room.room_id, "but"))).errcode == "M_FORBIDDEN"
    assert (await refused(bob.join(room.room_id))).errcode == "M_FORBIDDEN"


async def test_who_was_thrown_out_by_nobody_stays(pair: Scene, secretive: FakeServer) -> None:
    """A ban by somebody who had left long ago is undone when that becomes known."""
    bob, carol = await pair.alice_and_bob()
    former = secretive.user("former")
    users = {secretive.user("mallory"): 100, former: 50}
    room = secretive.create_room("11", levels={"users": users})
    as_member = room.member(former, "join")
    room.member(former, "leave")
    await bob.join(room.room_id, via=[secretive.name])
    await carol.join(room.room_id, via=[secretive.name])
    await bob.look()
    content = {"membership": "ban"}
    names = ("m.room.create", "m.room.power_levels")
    cited = [room.state_event(name) for name in names]
    cited += [as_member, room.state_event("m.room.member", bob.user_id)]
    ban = room.build(
        "m.room.member", content, sender=former, state_key=bob.user_id, auth_events=cited
    )
    room.put(ban)
    await secretive.send(pair.second.name, [ban])
    await bob.becomes(room.room_id, "leave")

    give_out(secretive)
    await has_full_state(carol, room)

    await bob.becomes(room.room_id, "join")
    assert (await carol.members(room.room_id))[bob.user_id] == "join"
    await bob.say(room.room_id, "still here")


async def test_fetching_continues_after_a_crash(pair: Scene, secretive: FakeServer) -> None:
    """A server that is killed before it has the members fetches them after the next start."""
    bob = await pair.user(pair.second, "bob")
    room = secretive.create_room()
    crowd = [event.sender for event in room.crowd(5)]
    await bob.join(room.room_id, via=[secretive.name])
    await secretive.hears(await bob.say(room.room_id, "before"))

    await pair.kill(pair.second)
    give_out(secretive)
    await pair.second.start()

    await has_full_state(bob, room)
    assert {*crowd, bob.user_id} <= (await bob.members(room.room_id)).keys()
    assert bodies(await bob.history(room.room_id)) == ["before"]
    await secretive.hears(await bob.say(room.room_id, "after"))


async def test_messages_of_banned_users_are_withdrawn(pair: Scene, secretive: FakeServer) -> None:
    """Earlier bans become known later; then no client gets those users' messages."""
    bob = await pair.user(pair.second, "bob")
    room = secretive.create_room()
    mallory, troll = secretive.user("mallory"), secretive.user("troll")
    as_member = room.member(troll, "join")
    room.member(troll, "ban", sender=mallory)
    await bob.join(room.room_id, via=[secretive.name])
    join = room.state_event("m.room.member", bob.user_id)
    # It cites the time when the troll was in the room, and follows our join.
    cited = [room.state_event("m.room.power_levels")]
    said = room.build(
        "m.room.message",
        {"msgtype": "m.text", "body": "ha ha"},
        sender=troll,
        after=[join],
        auth_events=[*cited, as_member],
    )
    room.put(said)
    answer = room.say(mallory, "who admitted you", after=[join])
    await secretive.send(pair.second.name, [said, answer])
    section = (await joined_rooms(bob, filter=LAZY))[room.room_id]
    assert bodies(section["timeline"]["events"]) == ["ha ha", "who admitted you"]

    give_out(secretive)
    await has_full_state(bob, room)

    assert (await bob.members(room.room_id))[troll] == "ban"
    assert bodies(await bob.history(room.room_id)) == ["who admitted you"]
    section = (await joined_rooms(bob))[room.room_id]
    assert bodies(section["timeline"]["events"]) == ["who admitted you"]
    heard = await secretive.hears(await bob.say(room.room_id, "never mind"))
    assert heard.prev_event_ids == [answer.event_id]


async def test_shown_again_messages_are_not_the_newest_after_a_restart(
    pair: Scene, secretive: FakeServer
) -> None:
    """A message that was refused wrongly is shown last, but events that follow it are stored."""
    bob = await pair.user(pair.second, "bob")
    room = secretive.create_room()
    mallory, troll, quiet = map(secretive.user, ("mallory", "troll", "quiet"))
    as_members = [room.member(user_id, "join") for user_id in (troll, quiet)]
    levels = room.state_event("m.room.power_levels").content
    levels = levels | {"users": levels.get("users", {}) | {troll: 50}}
    power = room.add("m.room.power_levels", levels, sender=mallory, state_key="")
    room.member(troll, "ban", sender=mallory)
    await bob.join(room.room_id, via=[secretive.name])
    join = room.state_event("m.room.member", bob.user_id)
    banned = room.build(
        "m.room.member",
        {"membership": "ban"},
        sender=troll,
        state_key=quiet,
        after=[join],
        auth_events=[power, *as_members],
    )
    room.put(banned)
    said = room.say(quiet, "may I", after=[join])
    answer = room.say(mallory, "you may", after=[said])
    await secretive.send(pair.second.name, [banned, said, answer])
    assert bodies(await bob.history(room.room_id)) == ["you may"]
    give_out(secretive)
    await has_full_state(bob, room)
    assert sorted(bodies(await bob.history(room.room_id))) == ["may I", "you may"]

    await pair.kill(pair.second)
    await pair.second.start()

    heard = await secretive.hears(await bob.say(room.room_id, "of course"))
    assert heard.prev_event_ids == [answer.event_id]


async def test_a_waiting_client_gets_the_room_once(pair: Scene, secretive: FakeServer) -> None:
    """Without lazy loading the room appears with full state; with it the counts follow."""
    bob = await pair.user(pair.second, "bob")
    room = secretive.create_room()
    crowd = [event.sender for event in room.crowd(5)]
    since = (await bob.sync())["next_batch"]
    lazy_since = (await bob.sync(filter=LAZY))["next_batch"]
    await bob.join(room.room_id, via=[secretive.name])
    answer = await bob.sync(since)
    assert "join" not in answer.get("rooms", {})
    since = answer["next_batch"]
    answer = await bob.sync(lazy_since, filter=LAZY)
    assert room.room_id in answer["rooms"]["join"]
    lazy_since = answer["next_batch"]

    give_out(secretive)
    answer = await bob.sync(since, timeout_ms=30_000)
    while "join" not in answer.get("rooms", {}):
        answer = await bob.sync(answer["next_batch"], timeout_ms=30_000)
    section = answer["rooms"]["join"][room.room_id]
    members = {event["state_key"] for event in section["state"]["events"]}
    assert {*crowd, secretive.user("mallory")} <= members
    assert section["timeline"]["events"][-1]["state_key"] == bob.user_id
    again = await bob.sync(answer["next_batch"])
    assert "join" not in again.get("rooms", {})

    answer = await bob.sync(lazy_since, filter=LAZY, timeout_ms=30_000)
    section = answer["rooms"]["join"][room.room_id]
    assert section["summary"]["m.joined_member_count"] == len(crowd) + 2
    assert set(section["summary"]["m.heroes"]) < {*crowd, secretive.user("mallory")}


async def test_member_requests_wait(pair: Scene, secretive: FakeServer) -> None:
    """Clients would take a partial list of members for the full one, and encrypt for it."""
    bob = await pair.user(pair.second, "bob")
    room = secretive.create_room()
    crowd = [event.sender for event in room.crowd(5)]
    await bob.join(room.room_id, via=[secretive.name])

    waiting = [
        Deferred.fromCoroutine(attempt)
        for attempt in (
            bob.members(room.room_id),
            bob.get(f"/rooms/{quote(room.room_id)}/joined_members"),
            bob.full_state(room.room_id),
            bob.state(room.room_id, "m.room.member", crowd[0]),
        )
    ]
    await bob.say(room.room_id, "hello")
    assert not any(each.called for each in waiting)
    give_out(secretive)

    members, joined, state, member = [await each for each in waiting]
    assert {*crowd} < members.keys()
    assert {*crowd} < joined["joined"].keys()
    assert ("m.room.member", crowd[4]) in state
    assert member["membership"] == "join"


async def test_a_second_user_joins_meanwhile(pair: Scene, secretive: FakeServer) -> None:
    """The server that knows all members decides; then both users talk."""
    bob, carol = await pair.alice_and_bob()
    room = secretive.create_room()
    room.crowd(5)
    await bob.join(room.room_id, via=[secretive.name])

    await carol.join(room.room_id, via=[secretive.name])

    sent = [each for each in secretive.received if each.operation == "send_join_v2"]
    assert len(sent) == 2
    said = await carol.say(room.room_id, "me too")
    assert (await secretive.hears(said)).sender == carol.user_id
    give_out(secretive)
    await has_full_state(carol, room)
    members = await bob.members(room.room_id)
    assert len(members) == 8
    assert (members[bob.user_id], members[carol.user_id]) == ("join", "join")


async def test_a_room_may_be_left_before_it_has_full_state(
    pair: Scene, secretive: FakeServer
) -> None:
    """Other servers get the leave; fetching ends; and the user may rejoin."""
    bob = await pair.user(pair.second, "bob")
    room = secretive.create_room()
    crowd = [event.sender for event in room.crowd(5)]
    await bob.join(room.room_id, via=[secretive.name])

    await bob.leave(room.room_id)

    async def has_left() -> bool:
        return room.state_event("m.room.member", bob.user_id).content["membership"] == "leave"

    await eventually(has_left, "the leave")
    give_out(secretive)
    await bob.join(room.room_id, via=[secretive.name])
    await has_full_state(bob, room)
    assert {*crowd} < (await bob.members(room.room_id)).keys()


async def test_other_servers_get_no_partial_state(pair: Scene, secretive: FakeServer) -> None:
    """They request the state, or join, through another server until this one has full state."""
    bob = await pair.user(pair.second, "bob")
    room = secretive.create_room()
    await bob.join(room.room_id, via=[secretive.name])
    said = await bob.say(room.room_id, "hello")
    at = {"event_id": [said]}
    place, someone = quote(room.room_id), quote(secretive.user("someone"))
    asked: list[tuple[str, Any]] = [
        (f"/_matrix/federation/v1/state_ids/{place}", at),
        (f"/_matrix/federation/v1/state/{place}", at),
        (f"/_matrix/federation/v1/make_join/{place}/{someone}", {"ver": [room.version.identifier]}),
    ]

    for path, query in asked:
        status, answer = await secretive.ask(pair.second.name, "GET", path, query=query)
        assert (status, answer["errcode"]) == (404, "M_UNABLE_DUE_TO_PARTIAL_STATE"), path

    path = f"/_matrix/federation/v1/event/{quote(said, safe='')}"
    status, answer = await secretive.ask(pair.second.name, "GET", path)
    assert (status, answer["pdus"][0]["content"]["body"]) == (200, "hello")
    give_out(secretive)
    await has_full_state(bob, room)
    for path, query in asked:
        status, answer = await secretive.ask(pair.second.name, "GET", path, query=query)
        assert status == 200, path
