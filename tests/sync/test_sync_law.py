"""The law of sync: an initial sync and any increments after it add up to a fresh initial sync."""

from hypothesis import strategies as st

from tests.sync.sync_law import PEOPLE, Action, SyncLawTestCase, Users
from tests.sync.sync_server import SyncServer

people = st.sampled_from(PEOPLE)
room_numbers = st.integers(0, 1)
actions = st.one_of(
    st.tuples(st.just("say"), people, room_numbers),
    st.tuples(st.just("burst"), people, room_numbers, st.integers(8, 15)),
    st.tuples(st.just("join"), people, room_numbers),
    st.tuples(st.just("leave"), people, room_numbers),
    st.tuples(st.just("invite"), people, room_numbers, people),
    st.tuples(st.just("kick"), people, room_numbers, people),
    st.tuples(st.just("ban"), people, room_numbers, people),
    st.tuples(st.just("unban"), people, room_numbers, people),
    st.tuples(st.just("rename"), people, room_numbers, st.integers(0, 3)),
    st.tuples(st.just("note"), people, st.integers(0, 3)),
    st.tuples(st.just("sync"), st.just(None)),
    st.tuples(st.just("restart"), st.just(None)),
)


class SyncLawTests(SyncLawTestCase):
    timeout = 120

    async def test_increments_add_up_to_an_initial_sync(self) -> None:
        """The state of a client never depends on the moments of its syncs."""
        await self.check_law(actions, {})

    async def test_increments_add_up_with_state_after(self) -> None:
        """The same holds for clients that request the state at the end of each timeline."""
        await self.check_law(actions, {"use_state_after": True})

    async def create_rooms(self, server: SyncServer, users: Users) -> list[str]:
        return [
            await server.create_room(users["alice"], version="11", invite=[users["bob"].user_id]),
            await server.create_room(users["bob"], version="12", preset="private_chat"),
        ]

    async def act(self, server: SyncServer, users: Users, rooms: list[str], action: Action) -> None:
        what, user = action[0], users[action[1]]
        members = server.rooms.memberships
        if what == "note":
            await server.accounts.account_data.set(
                user.user_id, None, f"note{action[2]}", {"n": next(self.numbers)}
            )
            return
        room_id = rooms[action[2]]
        if what == "say":
            await server.say(user, room_id, "hello")
        elif what == "burst":
            for body in range(action[3]):
                await server.say(user, room_id, str(body))
        elif what == "join":
            await members.join(user, room_id)
        elif what == "leave":
            await members.leave(user, room_id)
        elif what == "rename":
            name = {"name": f"room {action[3]}"}
            await server.rooms.sending.set_state(user, room_id, "m.room.name", "", name)
        else:
            change = getattr(members, what)
            await change(user, room_id, users[action[3]].user_id)
