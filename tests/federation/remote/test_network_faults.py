"""Failing servers and networks: afterwards both sides have the same events and state.

Nothing is lost and no event is doubled, whatever was in progress.

Spec: https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.web.client import ResponseNeverReceived

from homeserver.streams.durable_readers import STORE_SECONDS
from tests.federation.convergence import agree, agree_on_state
from tests.federation.shared_rooms import exchange_messages, server_of, shared_room
from tests.support.actors import bodies
from tests.support.fake_server.fake_http import Stall, always
from tests.support.fake_server.server import FakeServer
from tests.support.proxy import Mode
from tests.support.reactor import in_thread, pause, together
from tests.support.sites import LOCAL, Scene, Sites
from tests.support.watcher import Watcher

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

WAYS = [Mode.REFUSE, Mode.STALL]
MESSAGES = 30
# Between them they have all ways in which state is resolved, and all rules that are resolved by.
FORKED = ["1", "2", "6", "11", "12"]
NOT_NOW = (ConnectError, ConnectionDone, ConnectionLost, ResponseNeverReceived)


@pytest.mark.parametrize("way", WAYS, ids=lambda mode: mode.value)
async def test_messages_from_during_a_network_cut_arrive(scene: Scene, way: Mode) -> None:
    """Both sides continue to write, and later read what the others wrote."""
    alice, bob = await scene.alice_and_bob()
    room = await shared_room(alice, bob)

    scene.cut(way)
    for number in range(5):
        await together(alice.say(room, f"alice {number}"), bob.say(room, f"bob {number}"))
    await scene.heal()
    await exchange_messages(room, alice, bob)

    said = bodies(await agree(room, alice, bob))
    wanted = [f"{name} {number}" for name in ("alice", "bob") for number in range(5)]
    assert sorted(text for text in said if text != "again") == wanted


async def test_forks_resolve_to_the_same_state_on_both_sides(scene: Scene) -> None:
    """Moderators who acted on both sides of a network cut see the same room afterwards."""
    alice, bob = await scene.alice_and_bob()
    carol = await scene.user(scene.second, "carol")
    rooms = {name: await moderated_room(alice, bob, carol, name) for name in FORKED}

    scene.cut()
    await together(*[fork(room, alice, bob, carol) for room in rooms.values()])
    await scene.heal()
    for room in rooms.values():
        await exchange_messages(room, alice, bob)

    for name, room in rooms.items():
        await agree(room, alice, bob)
        topic = await alice.state(room, "m.room.topic")
        assert topic["topic"] in {"of alice", "of bob"}, name


async def test_a_ban_beats_actions_of_the_banned_user(scene: Scene) -> None:
    """A user who is banned during a network cut gains nothing by acting on their own side."""
    # In the first version a ban is no stronger than a topic.
    versions = [name for name in FORKED if name != "1"]
    alice, bob = await scene.alice_and_bob()
    carol = await scene.user(scene.second, "carol")
    rooms = {name: await moderated_room(alice, bob, carol, name) for name in versions}

    scene.cut()
    for room in rooms.values():
        await alice.ban(room, bob)
        await bob.set_state(room, "m.room.topic", {"topic": "of bob"})
    await scene.heal()
    for room in rooms.values():
        await exchange_messages(room, alice, carol)

    # Not on all events: bob's are soft-failed where the ban was known, and not shown to clients.
    for name, room in rooms.items():
        await agree_on_state(room, alice, carol)
        assert (await carol.members(room))[bob.user_id] == "ban", name
        assert (await alice.state(room, "m.room.topic"))["topic"] == "of the room", name


@pytest.mark.parametrize("number", [0, 1], ids=["sender", "receiver"])
async def test_a_server_that_is_killed_loses_nothing(scene: Scene, number: int) -> None:
    """Messages under way between servers survive a crash of either, exactly once."""
    alice, bob = await scene.alice_and_bob()
    room = await shared_room(alice, bob)
    victim = scene.both[number]

    arriving = scene.second.proxy.next_bytes()
    saying = Deferred.fromCoroutine(keep_saying(room, alice))
    await in_thread(arriving.result, 20)
    await scene.kill(victim)
    await scene.heal()
    await saying
    await exchange_messages(room, alice, bob)

    said = bodies(await agree(room, alice, bob))
    assert [text for text in said if text != "again"] == [f"{n}" for n in range(MESSAGES)]


async def test_a_server_that_is_killed_while_joining_joins_afterwards(scene: Scene) -> None:
    """Half a join is none: the user tries again and is in the room, with all its history."""
    alice, bob = await scene.alice_and_bob()
    room = await alice.create_room(public=True)
    for number in range(MESSAGES):
        await alice.say(room, f"{number}")

    request_sent = scene.first.proxy.next_bytes()
    joining = Deferred.fromCoroutine(bob.join(room, via=[scene.first.name]))
    joining.addErrback(lambda _: None)
    await in_thread(request_sent.result, 20)
    await scene.kill(scene.second)
    await joining
    await scene.heal()
    await bob.join(room, via=[scene.first.name])

    await exchange_messages(room, alice, bob)
    said = bodies(await agree(room, alice, bob))
    assert [text for text in said if text != "again"] == [f"{n}" for n in range(MESSAGES)]


async def test_typing_and_receipts_continue_after_a_cut(scene: Scene) -> None:
    """EDUs that were lost in the cut do not stop later ones."""
    alice, bob = await scene.alice_and_bob()
    room = await shared_room(alice, bob)

    scene.cut()
    for typist in (alice, bob):
        await typist.type(room)
    await scene.heal()
    said = await alice.say(room, "can you hear me")
    await bob.hears(room, said)
    await bob.read(room, said)
    await alice.sees_receipt(room, said, bob)

    # Continued typing is sent again only after a while: they begin again.
    for typist in (alice, bob):
        await typist.type(room, False)
    for typist, reader in ((alice, bob), (bob, alice)):
        await reader.sees_typing(room)
        await typist.type(room)
        await reader.sees_typing(room, typist)
        await typist.type(room, False)


async def moderated_room(alice: Watcher, bob: Watcher, carol: Watcher, version: str) -> str:
    """A room with Alice, Bob who is a moderator, and Carol who is not."""
    room = await alice.create_room(room_version=version, public=True, topic="of the room")
    await bob.join(room, via=[server_of(alice)])
    await carol.join(room, via=[server_of(alice)])
    levels = await alice.state(room, "m.room.power_levels")
    levels["users"] = {**levels["users"], bob.user_id: 50}
    await alice.set_state(room, "m.room.power_levels", levels)
    await bob.sees_state(room, "m.room.power_levels", {"users": levels["users"]})
    await alice.sees_member(room, carol, "join")
    return room


async def fork(room: str, alice: Watcher, bob: Watcher, carol: Watcher) -> None:
    """Both sides change what the other changes too, neither knowing of the other."""
    await alice.set_state(room, "m.room.topic", {"topic": "of alice"})
    await bob.set_state(room, "m.room.topic", {"topic": "of bob"})
    await alice.say(room, "on the one side")
    await bob.say(room, "on the other side")
    await alice.set_state(room, "m.room.name", {"name": "of alice"})
    await bob.kick(room, carol)
    await alice.set_state(room, "m.room.join_rules", {"join_rule": "invite"})
    await bob.set_state(room, "org.example.colour", {"colour": "blue"}, "a")
    await alice.set_state(room, "org.example.colour", {"colour": "red"}, "b")


async def keep_saying(room: str, watcher: Watcher) -> None:
    """Send messages one after the other, each until it is acknowledged, as a good client does."""
    for number in range(MESSAGES):
        acknowledged = False
        while not acknowledged:
            try:
                await watcher.say(room, f"{number}", txn_id=f"numbered{number}")
                acknowledged = True
            except NOT_NOW:
                await pause(0.1)


@pytest.mark.parametrize("solo", [LOCAL], indirect=True)
async def test_a_join_through_a_server_is_sent_after_it_was_killed(
    solo: Scene, fake: FakeServer, sites: Sites
) -> None:
    """The resident server sends another server's join to the other servers in the room."""
    other = FakeServer(sites.authority)
    await other.start()
    try:
        bob = await solo.user(solo.second, "bob")
        room_id = await bob.create_room(public=True)
        witnessed = await fake.join(solo.second.name, room_id, fake.user("trent"))
        await pause(1.5 * STORE_SECONDS)
        fake.answers["send_transaction"] = always(Stall())
        room = await other.join(solo.second.name, room_id, other.user("mallory"))

        await solo.kill(solo.second)
        fake.answers.clear()
        await solo.second.start()

        joined = room.state_event("m.room.member", other.user("mallory"))
        assert (await fake.hears(joined.event_id)).sender == other.user("mallory")
        assert joined.event_id in witnessed.events
    finally:
        await other.stop()
