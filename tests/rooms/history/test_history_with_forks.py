"""History across branches and gaps: each visible event once, in any order of arrival.

Spec: https://spec.matrix.org/v1.19/client-server-api/#pagination
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.history import PageRequest
from homeserver.rooms.inbound.receiver import DUMMY_EVENT
from homeserver.rooms.resolution.resolver import ResolvedState
from homeserver.storage.rooms.events import events_between
from homeserver.streams.counters import Counters
from tests.rooms.inbound.remote_events import RemoteEvents
from tests.rooms.support import ALICE, BOB, RoomsTestCase

EVE = "@eve:other.example"
MANY = 1_000  # more events than any room here has
Plan = list[tuple[Any, ...]]

steps = st.one_of(
    st.tuples(st.just("say"), st.integers(1, 3)),
    # The number of events back where each branch begins, its length, and the depth that it claims.
    st.tuples(
        st.just("branch"),
        st.integers(0, 9),
        st.integers(1, 4),
        st.sampled_from([None, None, None, 1, 2, 50, 2**53 - 1]),
    ),
    st.tuples(st.just("restart")),
    st.tuples(st.just("token")),
)


class HistoryOfForksTests(RoomsTestCase):
    timeout = 240

    def build(self, counters: Counters) -> None:
        super().build(counters)
        self.remote = RemoteEvents(self.rooms, self.storage)

    async def test_paging_from_any_token_gives_each_event_once(self) -> None:
        """A client that pages back from a `/sync` token gets all events received by then, and no
        later ones.
        """

        @settings(
            max_examples=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(steps, max_size=12), st.integers(1, 7))
        def law(plan: Plan, limit: int) -> None:
            blockingCallFromThread(reactor, lambda: Deferred.fromCoroutine(self._play(plan, limit)))

        await deferToThread(law)

    async def _play(self, plan: Plan, limit: int) -> None:
        self.clock.advance(1)
        room_id = await self.create_room(version="11")
        await self.remote.member(room_id, EVE, "join")
        tokens = [self.log.position]
        for step in plan:
            if step[0] == "say":
                for number in range(step[1]):
                    await self.say(room_id, f"{self.log.position} {number}")
            elif step[0] == "branch":
                await self._branch(room_id, *step[1:])
            elif step[0] == "restart":
                await self.log.flush()
                self.restart()
            else:
                tokens.append(self.log.position)
        tokens.append(self.log.position)
        everything = await self._all_events(room_id)
        for position in {*tokens, *(stored.position or 0 for stored in everything[-3:])}:
            await self._check(room_id, everything, position, limit)

    async def _branch(self, room_id: str, back: int, length: int, depth: int | None) -> None:
        room = await self.rooms.get(room_id)
        recent = [stored.event.event_id for stored in room.timeline]
        after = [recent[max(0, len(recent) - 1 - back)]]
        for _ in range(length):
            body = str(self.log.position)
            stored = await self.remote.say(room_id, EVE, body, after=after, depth=depth)
            after = [stored.event.event_id]

    async def _all_events(self, room_id: str) -> list[StoredEvent]:
        room = await self.rooms.get(room_id)
        # After a restart a room has its newest events in memory only.
        rows = await self.db.run(events_between, room.room_nid, 0, room.timeline_from, MANY)
        older = await self.rooms.load_events_in_order(room, [number for _, number in rows[::-1]])
        return [*older, *room.timeline]

    async def _check(
        self, room_id: str, everything: Sequence[StoredEvent], position: int, limit: int
    ) -> None:
        before = [stored for stored in everything if (stored.position or 0) <= position]
        after = [stored for stored in everything if (stored.position or 0) > position]

        backwards = await self._pages(room_id, PageRequest(True, f"s{position}", limit=limit))
        forwards = await self._pages(room_id, PageRequest(False, f"s{position}", limit=limit))

        _assert_topological(backwards[::-1])
        _assert_topological(forwards)
        assert _ids(backwards) == _ids(before)
        assert _ids(forwards) == _ids(after)
        around = await self.history.context(
            ALICE.user_id, room_id, everything[0].event.event_id, PageRequest(True, limit=500)
        )
        assert len(around.before) + len(around.after) + 1 == len(everything)

    async def _pages(self, room_id: str, request: PageRequest) -> list[StoredEvent]:
        found: list[StoredEvent] = []
        while True:
            page = await self.history.page(ALICE.user_id, room_id, request)
            found += [seen.stored for seen in page.chunk]
            if page.end is None:
                return found
            request = PageRequest(request.backwards, page.end, limit=request.limit)

    async def test_paging_forwards_from_a_token_repeats_no_event(self) -> None:
        """A late event has a lower depth than events already received, and does not repeat them."""
        room_id = await self.create_room(version="11")
        joined = await self.remote.member(room_id, EVE, "join")
        for number in range(4):
            await self.say(room_id, str(number))
        token = f"s{self.log.position}"
        late = await self.remote.say(room_id, EVE, "late", after=[joined.event.event_id])
        last = await self.say(room_id, "last")

        found = await self._pages(room_id, PageRequest(False, token, limit=1))

        assert [stored.event.event_id for stored in found] == [late.event.event_id, last]

    async def test_low_depths_do_not_hide_the_history(self) -> None:
        """A server that claims low depths for the newest events hides no history from users."""
        room_id = await self.create_room(version="11")
        await self.remote.member(room_id, EVE, "join")
        for number in range(30):
            await self.say(room_id, str(number))
        everything = len(await self._all_events(room_id))
        for number in range(120):
            await self.remote.say(room_id, EVE, f"low {number}", depth=1)

        for again in (False, True):
            if again:
                await self.log.flush()
                self.restart()
            request = PageRequest(True, f"s{self.log.position}", limit=100)
            assert len(await self._pages(room_id, request)) == everything + 120

    async def test_branch_of_many_events_does_not_hide_the_history(self) -> None:
        """A hundred answers to the first message leave the newest where they are."""
        room_id = await self.create_room(version="11")
        joined = await self.remote.member(room_id, EVE, "join")
        for number in range(30):
            await self.say(room_id, str(number))
        everything = len(await self._all_events(room_id))
        after = [joined.event.event_id]
        for number in range(120):
            stored = await self.remote.say(room_id, EVE, f"old {number}", after=after)
            if number % 10 == 0:
                after = [stored.event.event_id]

        for again in (False, True):
            if again:
                await self.log.flush()
                self.restart()
            request = PageRequest(True, f"s{self.log.position}", limit=100)
            found = await self._pages(room_id, request)
            # We have joined branches meanwhile.
            written = [stored for stored in found if stored.event.type != DUMMY_EVENT]
            assert len(written) == everything + 120

    async def test_room_with_an_endless_depth_is_still_read(self) -> None:
        """Old room versions allow depths that no token has room for."""
        room_id = await self.create_room(version="1")
        await self.remote.member(room_id, EVE, "join")
        root = (await self.rooms.get(room_id)).root
        event = await self.remote.make(
            room_id, "m.room.message", EVE, {"body": "deep"}, depth=2**63 - 1
        )
        lost = ["$lost:other.example", {"sha256": ""}]
        hole = type(event).from_pdu(
            event.version, {**event.pdu, "prev_events": [*event.pdu["prev_events"], lost]}
        )
        await self.remote.receive(hole, state_before=ResolvedState(root))
        await self.say(room_id, "after it")
        total = len(await self._all_events(room_id))

        request = PageRequest(True, f"s{self.log.position}", limit=2)
        found = await self._pages(room_id, request)

        assert len(found) == total

    async def test_backfilled_history_is_shown(self) -> None:
        """A room whose timeline is in memory shows its backfilled events too."""
        room_id = await self.create_room(version="11")
        await self.remote.member(room_id, EVE, "join")
        lost = await self.remote.make(room_id, "m.room.message", EVE, {"body": "lost"})
        root = (await self.rooms.get(room_id)).root
        event = await self.remote.make(room_id, "m.room.message", EVE, {"body": "found"})
        hole = type(event).from_pdu(
            event.version,
            {**event.pdu, "prev_events": [lost.event_id], "depth": event.depth + 1},
        )
        await self.remote.receive(hole, state_before=ResolvedState(root))
        filled = await self.remote.receive(lost)

        assert filled.position is not None
        assert filled.position < 0
        for again in (False, True):
            if again:
                await self.log.flush()
                self.restart()
            request = PageRequest(True, f"s{self.log.position}", limit=3)
            found = [stored.event.event_id for stored in await self._pages(room_id, request)]
            assert found[:2] == [hole.event_id, lost.event_id]
            assert len(found) == len(set(found))

    async def test_branch_is_seen_by_its_members(self) -> None:
        """Visibility depends on the state at an event, not on the current state."""
        room_id = await self.create_room(version="11")
        await self.remote.member(room_id, EVE, "join")
        visibility = {"history_visibility": "joined"}
        key = ("m.room.history_visibility", "")
        await self.sending.set_state(ALICE, room_id, *key, visibility)
        async with self.rooms.writing(room_id) as writer:
            base = [stored.event.event_id for stored in writer.extremities.events]
        await self.memberships.join(BOB, room_id)
        after_join = await self.say(room_id, "after Bob came")

        hidden = await self.remote.say(room_id, EVE, "Bob is not here", after=base)
        seen = await self.remote.say(room_id, EVE, "Bob is here", after=[after_join])

        request = PageRequest(True, limit=50)
        for caller, all_of_it in ((ALICE, True), (BOB, False)):
            page = await self.history.page(caller.user_id, room_id, request)
            ids = {each.stored.event.event_id for each in page.chunk}
            assert seen.event.event_id in ids
            assert (hidden.event.event_id in ids) is all_of_it


def _ids(events: Sequence[StoredEvent]) -> list[str]:
    return sorted(stored.event.event_id for stored in events)


def _assert_topological(events: Sequence[StoredEvent]) -> None:
    places = {stored.event.event_id: number for number, stored in enumerate(events)}
    assert len(places) == len(events), "no event comes twice"
    for stored in events:
        for prev in stored.event.prev_event_ids:
            if prev in places:
                assert places[prev] < places[stored.event.event_id]
    for earlier, later in pairwise(events):
        assert (earlier.topological_depth, earlier.position or 0) < (
            later.topological_depth,
            later.position or 0,
        )
