"""The law of sync where events of other servers arrive on branches of the graph.

An initial sync and any increments after it add up to a fresh initial sync. For clients that request
the state at the end of each timeline this holds for all plans. Other clients take every state event
of a timeline for the room's state from then on, and the protocol cannot express "this one lost":
for them the law holds as long as all state that comes on branches wins. So their plans have
messages on branches, and state only after the forward extremities.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from hypothesis import strategies as st

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.events import Event
from tests.sync.sync_law import PEOPLE, Action, SyncLawTestCase, Users
from tests.sync.sync_server import SyncServer

EVE, MALLORY = "@eve:other.example", "@mallory:third.example"

people = st.sampled_from(PEOPLE)
remote_users = st.sampled_from([EVE, MALLORY])
back = st.integers(0, 8)
local = st.one_of(
    st.tuples(st.just("say"), people),
    st.tuples(st.just("burst"), people, st.integers(8, 15)),
    st.tuples(st.just("join"), people),
    st.tuples(st.just("leave"), people),
    st.tuples(st.just("kick"), people, people),
    st.tuples(st.just("ban"), people, people),
    st.tuples(st.just("unban"), people, people),
    st.tuples(st.just("rename"), people, st.integers(0, 3)),
    st.tuples(st.just("power"), st.integers(0, 100)),
    st.tuples(st.just("sync")),
    st.tuples(st.just("restart")),
)
# `back` is the number of events before the newest where the branch begins; 0 to follow all.
remote_messages = st.one_of(
    st.tuples(st.just("they say"), remote_users, back, st.integers(1, 3)),
    st.tuples(st.just("they redact"), remote_users, back),
    # The target of the redaction arrives later, if at all.
    st.tuples(st.just("they redact early"), remote_users, back),
    st.tuples(st.just("they catch up"), remote_users, back),
)
remote_state = st.one_of(
    st.tuples(st.just("they rename"), remote_users, back, st.integers(0, 3)),
    st.tuples(st.just("they go"), remote_users, back, st.sampled_from(["join", "leave"])),
    st.tuples(
        st.just("they move"),
        remote_users,
        back,
        people,
        st.sampled_from(["ban", "leave", "invite"]),
    ),
    st.tuples(st.just("they let in"), remote_users, back, st.sampled_from(["public", "invite"])),
)
at_the_extremities = remote_state.map(lambda action: (*action[:2], 0, *action[3:]))


class SyncLawWithForksTests(SyncLawTestCase):
    timeout = 240
    max_examples = 30
    max_actions = 25
    may_lose_state = True

    async def test_members_whom_a_resolution_leaves_out(self) -> None:
        """Of two joins on branches none may be left, where another branch closes the room."""
        plan: list[Action] = [("sync",), ("they go", EVE, 4, "join")]
        plan += [("they move", EVE, 0, "alice", "ban"), *[("say", "alice")] * 3] * 2
        plan += [("they rename", EVE, 5, 0), ("they let in", MALLORY, 4, "invite")]
        await self._play(plan, {"use_state_after": True})

    async def test_increments_add_up_with_state_after_whatever_the_branches_bring(self) -> None:
        """Members and settings that win or lose a resolution are shown as finally resolved."""
        actions = st.one_of(local, remote_messages, remote_state)
        await self.check_law(actions, {"use_state_after": True})

    async def test_increments_add_up_where_branches_bring_messages(self) -> None:
        """Clients without `state_after` miss no message and get none twice."""
        await self.check_law(st.one_of(local, remote_messages, at_the_extremities), {})

    async def create_rooms(self, server: SyncServer, users: Users) -> list[str]:
        self.late: list[Event] = []
        room_id = await server.create_room(users["alice"])
        await server.rooms.memberships.join(users["bob"], room_id)
        for remote_user in (EVE, MALLORY):
            await server.remote.member(room_id, remote_user, "join")
        await self._power(server, users["alice"], room_id, 50)
        return [room_id]

    async def _power(self, server: SyncServer, alice: Requester, room_id: str, level: int) -> None:
        levels = {"users": {alice.user_id: 100, EVE: level, MALLORY: 50}}
        await server.rooms.sending.set_state(alice, room_id, "m.room.power_levels", "", levels)

    async def act(self, server: SyncServer, users: Users, rooms: list[str], action: Action) -> None:
        what, room_id = action[0], rooms[0]
        if what.startswith("they"):
            await self._act_as_remote_user(server, users, room_id, action)
            return
        if what == "power":
            await self._power(server, users["alice"], room_id, action[1])
            return
        user = users[action[1]]
        if what == "say":
            await server.say(user, room_id, "hello")
        elif what == "burst":
            for body in range(action[2]):
                await server.say(user, room_id, str(body))
        elif what == "rename":
            name = {"name": f"room {action[2]}"}
            await server.rooms.sending.set_state(user, room_id, "m.room.name", "", name)
        elif what in ("join", "leave"):
            await getattr(server.rooms.memberships, what)(user, room_id)
        else:
            change = getattr(server.rooms.memberships, what)
            await change(user, room_id, users[action[2]].user_id)

    async def _act_as_remote_user(
        self, server: SyncServer, users: Users, room_id: str, action: Action
    ) -> None:
        what, sender, back, *more = action
        remote_events = server.remote
        after: list[str] | None = None
        room = await server.core.registry.get(room_id)
        recent = [stored.event.event_id for stored in room.timeline]
        if back:
            after = [recent[-back]] if back <= len(recent) else recent[:1]
        if what == "they say":
            for body in range(more[0]):
                stored = await remote_events.say(room_id, sender, str(body), after=after)
                after = [stored.event.event_id]
        elif what == "they redact":
            content = {"redacts": recent[-1]}
            await remote_events.send(room_id, "m.room.redaction", sender, content, after=after)
        elif what == "they redact early":
            said = await remote_events.make(
                room_id, "m.room.message", sender, {"body": "-"}, after=after
            )
            content = {"redacts": said.event_id}
            await remote_events.send(room_id, "m.room.redaction", sender, content, after=after)
            self.late.append(said)
        elif what == "they catch up":
            while self.late:
                await remote_events.receive(self.late.pop())
        elif what == "they rename":
            name = {"name": f"their room {more[0]}"}
            await remote_events.send(room_id, "m.room.name", sender, name, "", after=after)
        elif what == "they go":
            await remote_events.member(room_id, sender, more[0], after=after)
        elif what == "they move":
            target = users[more[0]].user_id
            await remote_events.member(room_id, target, more[1], sender, after=after)
        else:
            rule = {"join_rule": more[0]}
            await remote_events.send(room_id, "m.room.join_rules", sender, rule, "", after=after)
