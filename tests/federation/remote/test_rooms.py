"""Users of two servers in and around rooms of the default version.

Spec: https://spec.matrix.org/v1.19/server-server-api/
"""

from urllib.parse import quote

import pytest

from tests.federation.convergence import agree, agree_on_state
from tests.federation.shared_rooms import shared_room
from tests.support.reactor import together
from tests.support.sites import Scene
from tests.support.watcher import eventually, refused

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

MANY = 60


async def test_a_room_is_joined_by_its_alias(scene: Scene) -> None:
    """An alias is enough for a user to find a room of another server."""
    alice, bob = await scene.alice_and_bob()
    name = f"room-of-{alice.user_id[1:].partition(':')[0]}"
    room = await alice.create_room(public=True, room_alias_name=name)

    joined = await bob.join(f"#{name}:{scene.first.name}")

    assert joined == room
    await alice.sees_member(room, bob, "join")
    await alice.hears(room, await bob.say(room, "found you"))
    unknown = await refused(bob.join(f"#nothing-here:{scene.first.name}"))
    assert unknown.errcode == "M_NOT_FOUND"


async def test_an_invite_shows_its_room(scene: Scene) -> None:
    """Before joining, the invited user sees the room's name and the inviter, with a reason."""
    alice, bob = await scene.alice_and_bob()
    room = await alice.create_room(name="Garden", topic="Roses")

    await alice.invite(room, bob, reason="bring tools")

    await bob.becomes(room, "invite")
    stripped = bob.stripped[room]
    invite = stripped["m.room.member", bob.user_id]
    assert stripped["m.room.name", ""]["content"] == {"name": "Garden"}
    assert (invite["sender"], invite["content"]["membership"]) == (alice.user_id, "invite")
    assert invite["content"]["reason"] == "bring tools"


async def test_an_invite_is_rejected(scene: Scene) -> None:
    """Those in the room see that it was declined, and the invited are rid of it."""
    alice, bob = await scene.alice_and_bob()
    room = await alice.create_room(invite=[bob])
    await bob.becomes(room, "invite")

    await bob.leave(room, reason="no time")

    await bob.becomes(room, "leave")
    declined = await alice.sees_member(room, bob, "leave")
    assert declined["content"]["reason"] == "no time"
    assert (await refused(bob.join(room, via=[scene.first.name]))).errcode == "M_FORBIDDEN"


async def test_an_invite_is_taken_back(scene: Scene) -> None:
    """The invited no longer see it."""
    alice, bob = await scene.alice_and_bob()
    room = await alice.create_room(invite=[bob])
    await bob.becomes(room, "invite")

    await alice.kick(room, bob)

    await bob.becomes(room, "leave")
    assert (await refused(bob.join(room, via=[scene.first.name]))).errcode == "M_FORBIDDEN"


async def test_a_kicked_user_may_be_invited_again(scene: Scene) -> None:
    """A kick is not permanent; the user's own server shows it with its reason."""
    alice, bob = await scene.alice_and_bob()
    room = await shared_room(alice, bob)

    await alice.kick(room, bob, reason="manners")
    await bob.becomes(room, "leave")
    kick = bob.state_seen[room]["m.room.member", bob.user_id]
    refusal = await refused(bob.join(room, via=[scene.first.name]))
    await alice.invite(room, bob)
    await bob.becomes(room, "invite")
    await bob.join(room)

    assert (kick["sender"], kick["content"]["reason"]) == (alice.user_id, "manners")
    assert refusal.errcode == "M_FORBIDDEN"
    await alice.sees_member(room, bob, "join")
    await agree(room, alice, bob)


async def test_a_user_who_rejoins_misses_nothing(scene: Scene) -> None:
    """A server without members in the room for a while gets the messages sent meanwhile."""
    alice, bob = await scene.alice_and_bob()
    room = await shared_room(alice, bob, preset="public_chat")
    await bob.leave(room)
    await alice.sees_member(room, bob, "leave")
    for number in range(5):
        await alice.say(room, f"without bob {number}")

    await bob.join(room, via=[scene.first.name])

    await alice.sees_member(room, bob, "join")
    await bob.hears(room, await alice.say(room, "again with bob"))
    events = await agree(room, alice, bob)
    assert sum(event["type"] == "m.room.message" for event in events) == 6


async def test_a_private_room_is_closed_to_strangers(scene: Scene) -> None:
    """A room id alone gives no access."""
    alice, bob = await scene.alice_and_bob()
    room = await alice.create_room()

    refusals = [
        await refused(bob.join(room, via=[scene.first.name])),
        await refused(bob.knock(room, via=[scene.first.name])),
    ]

    assert [refusal.errcode for refusal in refusals] == ["M_FORBIDDEN"] * 2


async def test_history_from_before_is_fetched(scene: Scene) -> None:
    """A newcomer scrolls up through what was said before their server was in the room."""
    alice, bob = await scene.alice_and_bob()
    room = await alice.create_room(public=True)
    said = [await alice.say(room, f"{number}") for number in range(120)]

    await bob.join(room, via=[scene.first.name])

    async def bodies_of_history() -> list[str]:
        events = await bob.history(room)
        return [event["event_id"] for event in events if event["type"] == "m.room.message"]

    await eventually(lambda: _is(bodies_of_history(), said[::-1]), "the whole history")
    await agree(room, alice, bob)


async def test_earlier_history_is_hidden_where_the_room_says_so(scene: Scene) -> None:
    """A server that joins later does not get messages for members only."""
    alice, bob = await scene.alice_and_bob()
    visibility = {"history_visibility": "joined"}
    room = await alice.create_room(
        public=True,
        initial_state=[
            {"type": "m.room.history_visibility", "state_key": "", "content": visibility}
        ],
    )
    secret = await alice.say(room, "among us")

    await bob.join(room, via=[scene.first.name])

    await bob.hears(room, await alice.say(room, "welcome"))
    assert secret not in [event["event_id"] for event in await bob.history(room)]
    assert (await refused(bob.event(room, secret))).status in (403, 404)


async def test_rooms_of_another_server_are_listed(scene: Scene) -> None:
    """A user looks through the room directory of another server."""
    alice, bob = await scene.alice_and_bob()
    name = f"Library of {alice.user_id}"
    room = await alice.create_room(public=True, name=name, topic="Books", visibility="public")

    async def found() -> object:
        body = {"limit": 50, "filter": {"generic_search_term": name}}
        answer = await bob.post("/publicRooms", body, server=scene.first.name)
        return next((entry for entry in answer["chunk"] if entry["room_id"] == room), None)

    entry = await eventually(found, "the room in the directory")
    assert (entry["name"], entry["topic"], entry["num_joined_members"]) == (name, "Books", 1)


async def test_profiles_of_another_server_are_read(scene: Scene) -> None:
    """A user sees the name of a user before inviting them."""
    alice, bob = await scene.alice_and_bob()
    await alice.put(f"/profile/{quote(alice.user_id)}/displayname", {"displayname": "Alice A."})

    profile = await bob.get(f"/profile/{quote(alice.user_id)}")

    assert profile["displayname"] == "Alice A."
    nobody = await refused(bob.get(f"/profile/{quote('@nobody:' + scene.first.name)}"))
    assert nobody.errcode == "M_NOT_FOUND"


async def test_a_changed_name_is_seen_in_shared_rooms(scene: Scene) -> None:
    """Members of a room keep their current names on all servers."""
    alice, bob = await scene.alice_and_bob()
    room = await shared_room(alice, bob)

    await bob.put(f"/profile/{quote(bob.user_id)}/displayname", {"displayname": "Robert"})

    content = {"membership": "join", "displayname": "Robert"}
    await alice.sees_state(room, "m.room.member", content, bob.user_id)


async def test_a_server_is_excluded_by_the_rooms_access_list(scene: Scene) -> None:
    """Moderators block a whole server, and the room gets no more of its events."""
    alice, bob = await scene.alice_and_bob()
    room = await shared_room(alice, bob)
    await alice.hears(room, await bob.say(room, "before"))
    # Both servers have the same address; the list knows no ports, so one is kept out by itself.
    rules = {"allow": ["*"], "deny": ["127.0.0.1"], "allow_ip_literals": True}

    await alice.set_state(room, "m.room.server_acl", rules)
    await alice.say(room, "last words")
    late = await bob.say(room, "after")
    witness = await shared_room(alice, bob)
    await alice.hears(witness, await bob.say(witness, "in another room"))

    await alice.look()
    assert late not in [event["event_id"] for event in alice.timeline[room]]


async def test_a_room_with_many_members_is_joined(scene: Scene) -> None:
    """A new member sees all others, and talks as in a small room."""
    alice, bob = await scene.alice_and_bob()
    room = await alice.create_room(public=True)
    crowd = [
        user
        for _ in range(MANY // 10)
        for user in await together(*[scene.user(scene.first, "crowd") for _ in range(10)])
    ]
    for begin in range(0, MANY, 10):
        await together(*[user.join(room) for user in crowd[begin : begin + 10]])

    await bob.join(room, via=[scene.first.name])

    await bob.hears(room, await crowd[0].say(room, "hello"))
    await alice.hears(room, await bob.say(room, "hello all"))
    state = await agree_on_state(room, alice, bob)
    joined = {key[1] for key in state if key[0] == "m.room.member"}
    assert joined == {user.user_id for user in (alice, bob, *crowd)}


async def _is(asked: object, wanted: object) -> bool:
    return await asked == wanted  # type: ignore[misc]
