"""The life of a room between two servers, in every room version.

Spec: https://spec.matrix.org/v1.19/rooms/
"""

import pytest

from homeserver.protocol.room_versions import ROOM_VERSIONS
from tests.federation.convergence import agree
from tests.federation.shared_rooms import shared_room
from tests.support.actors import bodies
from tests.support.sites import Scene
from tests.support.watcher import Watcher, eventually, refused

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

VERSIONS = list(ROOM_VERSIONS)
# Each of these versions changed a rule that is tested with it.
MODERATED = ["1", "3", "10", "11", "12"]
RESTRICTED = ["8", "10", "12"]
KNOCKING = ["7", "11", "12"]
KNOCK_RESTRICTED = ["10", "12"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_users_of_two_servers_share_a_room(scene: Scene, version: str) -> None:
    """They talk, part, come back and move on, and both servers always see the same room."""
    alice, bob = await scene.alice_and_bob()
    room = await alice.create_room(room_version=version, public=True, invite=[bob])

    await bob.becomes(room, "invite")
    await bob.join(room)
    await alice.sees_member(room, bob, "join")
    await bob.hears(room, await alice.say(room, "hello"))
    await alice.hears(room, await bob.say(room, "hello yourself"))
    await alice.ban(room, bob, reason="manners")
    await bob.becomes(room, "leave")
    assert (await refused(bob.join(room, via=[scene.first.name]))).errcode == "M_FORBIDDEN"
    assert (await refused(bob.say(room, "and yet"))).errcode == "M_FORBIDDEN"
    await alice.unban(room, bob)
    await eventually(lambda: bob.join(room, via=[scene.first.name]), "bob may join again")
    await alice.sees_member(room, bob, "join")
    new_room = await alice.upgrade(room, version)
    await bob.sees_state(room, "m.room.tombstone", {"replacement_room": new_room})
    await bob.join(new_room, via=[scene.first.name])
    await bob.hears(new_room, await alice.say(new_room, "here we are"))

    assert bodies(await agree(room, alice, bob)) == ["hello", "hello yourself"]
    create = (await agree(new_room, alice, bob))[0]["content"]
    assert (create.get("room_version", "1"), create["predecessor"]["room_id"]) == (version, room)


@pytest.mark.parametrize("version", MODERATED)
async def test_a_moderator_acts_from_the_other_server(scene: Scene, version: str) -> None:
    """Power given to a user of another server is used there, and no more than was given."""
    alice, bob = await scene.alice_and_bob()
    room = await shared_room(alice, bob, room_version=version)
    said = await alice.say(room, "what nobody should read")
    await bob.hears(room, said)
    assert (await refused(bob.set_state(room, "m.room.topic", {"topic": "mine"}))).status == 403
    levels = await alice.state(room, "m.room.power_levels")

    levels["users"] = {**levels["users"], bob.user_id: 50}
    await alice.set_state(room, "m.room.power_levels", levels)
    await bob.sees_state(room, "m.room.power_levels", {"users": levels["users"]})
    await bob.set_state(room, "m.room.topic", {"topic": "of bob"})
    await alice.sees_state(room, "m.room.topic", {"topic": "of bob"})
    await bob.redact(room, said)

    await eventually(lambda: is_redacted(alice, room, said), "the redaction at alice's server")
    assert await is_redacted(bob, room, said)
    assert (await refused(bob.kick(room, alice))).errcode == "M_FORBIDDEN"
    await agree(room, alice, bob)


@pytest.mark.parametrize("version", RESTRICTED)
async def test_members_of_another_room_may_join(scene: Scene, version: str) -> None:
    """Members of the space join its rooms; the resident server refuses other users."""
    alice, bob = await scene.alice_and_bob()
    space = await alice.create_room(public=True)
    room = await alice.create_room(
        room_version=version,
        initial_state=[join_rules("restricted", allow=[membership_of(space)])],
    )

    refusal = await refused(bob.join(room, via=[scene.first.name]))
    await bob.join(space, via=[scene.first.name])
    await bob.join(room, via=[scene.first.name])

    assert refusal.errcode == "M_FORBIDDEN"
    member = await alice.sees_member(room, bob, "join")
    assert member["content"]["join_authorised_via_users_server"] == alice.user_id
    await agree(room, alice, bob)


@pytest.mark.parametrize("version", KNOCKING)
async def test_a_knock_is_accepted(scene: Scene, version: str) -> None:
    """Members of any server see the knock, and can invite the user."""
    alice, bob = await scene.alice_and_bob()
    room = await alice.create_room(room_version=version, initial_state=[join_rules("knock")])

    await bob.knock(room, via=[scene.first.name], reason="it is cold")

    await bob.becomes(room, "knock")
    assert ("m.room.join_rules", "") in bob.stripped[room]
    knock = await alice.sees_member(room, bob, "knock")
    assert knock["content"]["reason"] == "it is cold"
    await alice.invite(room, bob)
    await bob.becomes(room, "invite")
    await bob.join(room)
    await alice.sees_member(room, bob, "join")
    await agree(room, alice, bob)


@pytest.mark.parametrize("version", KNOCK_RESTRICTED)
async def test_a_room_may_be_open_to_knocks_and_members_of_another(
    scene: Scene, version: str
) -> None:
    """One rule for both: others knock, and members of the space join."""
    alice, bob = await scene.alice_and_bob()
    carol = await scene.user(scene.second, "carol")
    space = await alice.create_room(public=True)
    rules = join_rules("knock_restricted", allow=[membership_of(space)])
    room = await alice.create_room(room_version=version, initial_state=[rules])

    await carol.knock(room, via=[scene.first.name])
    await bob.join(space, via=[scene.first.name])
    await bob.join(room, via=[scene.first.name])

    await alice.sees_member(room, carol, "knock")
    await alice.sees_member(room, bob, "join")
    await agree(room, alice, bob)


async def is_redacted(watcher: Watcher, room: str, event_id: str) -> bool:
    """Whether a user's server shows the event without its content."""
    event = await watcher.event(room, event_id)
    return "body" not in event["content"]


def join_rules(rule: str, **content: object) -> dict[str, object]:
    """The join rules in the initial state of a room."""
    content["join_rule"] = rule
    return {"type": "m.room.join_rules", "state_key": "", "content": content}


def membership_of(room: str) -> dict[str, str]:
    """The condition to be in another room."""
    return {"type": "m.room_membership", "room_id": room}
