"""The visibility of events for each membership and history visibility, at each endpoint.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility
"""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from tests.support.actors import CLIENT, Actor, bodies
from tests.support.refused import Refused
from tests.support.server import ServerTestCase

V1 = CLIENT.replace("v3", "v1")
VISIBILITIES = ("world_readable", "shared", "invited", "joined")
SAID = ("first", "invited", "here", "gone", "last")
VISIBILITY = "m.room.history_visibility"

# The messages of a room of one visibility that a user can read whose membership got as far as the
# name says: they were invited after "first", joined after "invited" and left after "here".
PATHS: dict[str, dict[str, tuple[str, ...]]] = {
    "world_readable": dict.fromkeys(
        ("stranger", "invited", "member", "left", "invited again", "banned", "forgotten"), SAID
    ),
    "shared": {
        "member": SAID,
        "left": ("first", "invited", "here"),
        "invited again": ("first", "invited", "here"),
    },
    "invited": {
        "invited": ("invited", "here", "gone", "last"),
        "member": ("invited", "here", "gone", "last"),
        "left": ("invited", "here"),
        "invited again": ("invited", "here", "last"),
    },
    "joined": {
        "member": ("here", "gone", "last"),
        "left": ("here",),
        "invited again": ("here",),
    },
}


class ReadingTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.people = {
            name: await self.register(f"u{number}")
            for number, name in enumerate(PATHS["world_readable"])
        }

    async def room_with_a_past(self, visibility: str) -> tuple[str, list[str]]:
        """A room in which each of the people has come as far as their name says."""
        state = {"type": VISIBILITY, "content": {"history_visibility": visibility}}
        room = await self.alice.create_room(public=True, initial_state=[state])
        people = self.people
        early = [people[name] for name in people if name != "stranger"]
        came = [actor for actor in early if actor is not people["invited"]]
        ids = [await self.alice.say(room, "first")]
        for actor in early:
            await self.alice.invite(room, actor)
        ids.append(await self.alice.say(room, "invited"))
        for actor in came:
            await actor.join(room)
        ids.append(await self.alice.say(room, "here"))
        for name in ("left", "invited again", "forgotten"):
            await people[name].leave(room)
        await self.alice.ban(room, people["banned"])
        await people["forgotten"].forget(room)
        ids.append(await self.alice.say(room, "gone"))
        await self.alice.invite(room, people["invited again"])
        ids.append(await self.alice.say(room, "last"))
        await self.alice.set_state(room, "m.room.topic", {"topic": "now"})
        return room, ids

    async def test_users_see_the_history_that_they_may(self) -> None:
        """Pages in both directions, single events, and events with their surroundings."""
        for visibility in VISIBILITIES:
            room, ids = await self.room_with_a_past(visibility)
            for name, actor in self.people.items():
                seen = list(PATHS[visibility].get(name, ()))
                about = f"{name} under {visibility}"
                back, forth = await self._pages(actor, room)
                self.assertEqual((back, forth), (seen[::-1], seen), about)
                found = [await self._sees(actor.event(room, event_id)) for event_id in ids]
                self.assertEqual(found, [body in seen for body in SAID], about)
                around = [await self._sees(self._context(actor, room, each)) for each in ids]
                self.assertEqual(around, found, about)
                timed = await self._sees(actor.request("GET", *self._timestamp(room)))
                self.assertEqual(timed, bool(seen), about)

    async def test_users_read_the_state_that_they_may(self) -> None:
        """Of now, who may see what happens now; of then, who has left."""
        now = {
            "world_readable": set(PATHS["world_readable"]),
            "shared": {"member"},
            "invited": {"member", "invited", "invited again"},
            "joined": {"member"},
        }
        for visibility in VISIBILITIES:
            room, _ = await self.room_with_a_past(visibility)
            for name, actor in self.people.items():
                about = f"{name} under {visibility}"
                is_now = name in now[visibility]
                is_then = name in PATHS[visibility] and not is_now
                for read in (self._state, self._full_state, self._members, self._snapshot):
                    found = await self._read(read, actor, room)
                    expected = "now" if is_now else "then" if is_then else "nothing"
                    self.assertEqual(found, expected, f"{about}: {read.__name__}")

    async def test_members_see_no_less_than_strangers_when_a_room_opens(self) -> None:
        """Hidden events stay hidden; later ones are visible to all users."""
        for before in ("shared", "invited", "joined"):
            room, _ = await self.room_with_a_past(before)
            opened = {"history_visibility": "world_readable"}
            await self.alice.set_state(room, VISIBILITY, opened)
            await self.alice.say(room, "to the world")

            for name, actor in self.people.items():
                back, forth = await self._pages(actor, room)
                # They read of the past what they could read then, even if they were banned later.
                as_known = "left" if name in ("banned", "forgotten") else name
                past = list(PATHS[before].get(as_known, ()))
                self.assertEqual(forth, [*past, "to the world"], f"{name} after {before}")
                self.assertEqual(back, forth[::-1])
                self.assertEqual(await self._read(self._state, actor, room), "now")

    async def test_what_is_closed_again_is_closed_for_strangers(self) -> None:
        """Former members read up to their leave; other users read nothing."""
        room, _ = await self.room_with_a_past("world_readable")
        await self.alice.set_state(room, VISIBILITY, {"history_visibility": "joined"})
        await self.alice.say(room, "among us")

        for name, actor in self.people.items():
            expected: list[str] = []
            if name == "member":
                expected = [*SAID, "among us"]
            elif name in ("left", "invited again"):
                expected = ["first", "invited", "here"]
            back, forth = await self._pages(actor, room)
            self.assertEqual((back, forth), (expected[::-1], expected), name)

    async def _pages(self, actor: Actor, room: str) -> tuple[list[str], list[str]]:
        try:
            back = await actor.messages(room, "b", limit=100)
            forth = await actor.messages(room, "f", limit=100)
        except Refused as refused:
            self.assertEqual((refused.status, refused.errcode), (403, "M_FORBIDDEN"))
            return [], []
        return bodies(back["chunk"]), bodies(forth["chunk"])

    async def _sees(self, request: Awaitable[Any]) -> bool:
        try:
            await request
        except Refused as refused:
            self.assertIn(refused.status, (403, 404))
            return False
        return True

    def _context(self, actor: Actor, room: str, event_id: str) -> Awaitable[Any]:
        return actor.get(f"/rooms/{quote(room)}/context/{quote(event_id, safe='')}")

    def _timestamp(self, room: str) -> tuple[str, Any, Any]:
        return f"{V1}/rooms/{quote(room)}/timestamp_to_event", None, {"ts": 0, "dir": "f"}

    async def _read(
        self, read: Callable[[Actor, str], Awaitable[bool]], actor: Actor, room: str
    ) -> str:
        try:
            return "now" if await read(actor, room) else "then"
        except Refused as refused:
            if refused.status == 404:
                return "then"
            self.assertEqual((refused.status, refused.errcode), (403, "M_FORBIDDEN"))
            return "nothing"

    async def _state(self, actor: Actor, room: str) -> bool:
        return bool(await actor.state(room, "m.room.topic"))

    async def _full_state(self, actor: Actor, room: str) -> bool:
        return ("m.room.topic", "") in await actor.full_state(room)

    async def _members(self, actor: Actor, room: str) -> bool:
        members = await actor.members(room)
        return members[self.people["invited again"].user_id] == "invite"

    async def _snapshot(self, actor: Actor, room: str) -> bool:
        snapshot = await actor.get(f"/rooms/{quote(room)}/initialSync")
        return "m.room.topic" in {event["type"] for event in snapshot["state"]}
