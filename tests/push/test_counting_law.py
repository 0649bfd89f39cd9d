"""The law of unread counts: they depend on events and receipts, not on when they are read."""

import contextlib
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import MatrixError
from homeserver.protocol.proposals.unstable_names import THREAD_CONDITION
from homeserver.protocol.push_rules.rule_set import PushRule, RuleSet
from homeserver.push.compiled_rules import UserRules
from homeserver.push.members import Members
from homeserver.push.mentions import Mentions
from homeserver.push.push_actions import PushActions
from homeserver.push.rule_evaluation import RuleEvaluator
from homeserver.push.rules import PushRules
from homeserver.push.thread_subscribers import ThreadSubscribers
from homeserver.push.threads import Threads
from homeserver.push.unread_counter import UnreadCount
from homeserver.push.unread_counts import UnreadCounts
from homeserver.rooms.ephemeral.receipts import Receipts
from tests.support.postgres import DatabaseTestCase
from tests.sync.sync_server import SyncServer

PEOPLE = ("alice", "bob", "carol", "dave", "erin")
Action = tuple[Any, ...]
RULES: tuple[dict[str, Any], ...] = (
    {"kind": THREAD_CONDITION, "subscribed": True},
    {"kind": THREAD_CONDITION, "subscribed": False},
    {"kind": "room_member_count", "is": ">3"},
    {"kind": "contains_display_name"},
    {"kind": "event_match", "key": "content.body", "pattern": "hello"},
)

# Dave and Erin join at the start and send little, so they share unread events for long.
people = st.sampled_from(PEOPLE[:3] * 3 + PEOPLE[3:])
places = st.integers(0, 20)  # of an event in the room, from the newest backwards
actions = st.one_of(
    st.tuples(st.just("say"), people),
    st.tuples(st.just("burst"), people, st.integers(60, 130)),
    st.tuples(st.just("mention"), people, people | st.none()),
    st.tuples(
        st.just("reply"), people, places, st.sampled_from(["m.thread", "m.reference", "m.replace"])
    ),
    st.tuples(st.just("read"), people, places, st.booleans(), st.sampled_from(["main", "own", ""])),
    st.tuples(st.just("redact"), places),
    st.tuples(st.just("join"), people),
    st.tuples(st.just("leave"), people),
    st.tuples(st.just("rules"), people, st.sampled_from(RULES)),
    st.tuples(st.sampled_from(["subscribe", "unsubscribe"]), people, places),
    st.tuples(st.just("ignore"), people, people),
    st.tuples(st.just("ask"), st.none() | people | st.none()),
    st.tuples(st.just("restart")),
)


class CountingLawTests(DatabaseTestCase):
    timeout = 120

    async def setUp(self) -> None:
        await super().setUp()
        self.numbers = count()

    async def test_counts_depend_on_events_and_receipts_alone(self) -> None:
        """No badge is wrong because of when a client synced, or because the server restarted."""

        @settings(
            max_examples=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(actions, max_size=25))
        def law(plan: list[Action]) -> None:
            blockingCallFromThread(reactor, lambda: Deferred.fromCoroutine(self._play(plan)))

        await deferToThread(law)

    async def _play(self, plan: list[Action]) -> None:
        number = next(self.numbers)
        server = await SyncServer.start(self.db)
        users = {name: await server.user(f"{name}{number}") for name in PEOPLE}
        room_id = await server.create_room(users["alice"])
        for name in PEOPLE[3:]:
            await server.rooms.memberships.join(users[name], room_id)
        events = [await self._say(server, users["alice"], room_id)]
        for action in plan:
            if action[0] == "restart":
                await server.stop()
                server = await SyncServer.start(self.db)
            else:
                # Many actions of a random plan are rejected: receipts in wrong threads, for
                # example.
                with contextlib.suppress(MatrixError):
                    event_id = await self._act(server, users, room_id, events, action)
                    events += [event_id] if event_id else []
        cached = await self._all(server, users, room_id)
        assert cached == await self._all(server, users, room_id, fresh(server))
        await server.stop()
        server = await SyncServer.start(self.db)
        assert await self._all(server, users, room_id) == cached
        await self._check_ends(server, users, room_id)
        await server.stop()

    async def _check_ends(
        self, server: SyncServer, users: dict[str, Requester], room_id: str
    ) -> None:
        """Check that a receipt at the newest event, and a user's own event, clear all counts."""
        await server.rooms.memberships.join(users["alice"], room_id)
        last = await self._say(server, users["alice"], room_id)
        room = await server.core.registry.get(room_id)
        for user in users.values():
            if room.membership(user.user_id) == "join":
                await server.sync.markers.mark(user, room_id, "m.read", last)
        counts = await self._all(server, users, room_id)
        assert all(count == UnreadCount() for count in counts.values())
        await self._say(server, users["alice"], room_id)
        assert (await self._all(server, users, room_id))["alice"] == UnreadCount()

    async def _all(
        self,
        server: SyncServer,
        users: dict[str, Requester],
        room_id: str,
        counts: UnreadCounts | None = None,
    ) -> dict[str, UnreadCount]:
        room = await server.core.registry.get(room_id)
        subjects = counts or server.sync.push.unread_counts
        return {
            name: await subjects.counts(room, user.user_id)
            for name, user in users.items()
            if room.membership(user.user_id) == "join"
        }

    async def _say(self, server: SyncServer, by: Requester, room_id: str, **content: Any) -> str:
        content = {"msgtype": "m.text", "body": "hello", **content}
        return await server.rooms.sending.send_message(
            by, room_id, "m.room.message", content, f"txn{next(self.numbers)}"
        )

    async def _ask(self, server: SyncServer, users: dict[str, Requester], room_id: str) -> None:
        cached = await self._all(server, users, room_id)
        assert cached == await self._all(server, users, room_id, fresh(server))
        together, room = fresh(server), await server.core.registry.get(room_id)
        for user in users.values():
            await together.get_ready([room], user.user_id)
        assert cached == await self._all(server, users, room_id, together)

    async def _act(
        self,
        server: SyncServer,
        users: dict[str, Requester],
        room_id: str,
        events: list[str],
        action: Action,
    ) -> str | None:
        what, *rest = action
        if what == "redact":
            return await server.rooms.sending.redact(
                users["alice"], room_id, _from(events, rest[0]), {}, f"txn{next(self.numbers)}"
            )
        if what == "ask":
            subjects = users if rest[0] is None else {rest[0]: users[rest[0]]}
            return await self._ask(server, subjects, room_id)
        user = users[rest[0]]
        if what == "burst":
            for _ in range(rest[1] - 1):
                await self._say(server, user, room_id)
        if what in ("say", "burst"):
            return await self._say(server, user, room_id)
        if what == "mention":
            named = {"room": True} if rest[1] is None else {"user_ids": [users[rest[1]].user_id]}
            return await self._say(server, user, room_id, **{"m.mentions": named})
        if what == "reply":
            relation = {"rel_type": rest[2], "event_id": _from(events, rest[1])}
            return await self._say(server, user, room_id, **{"m.relates_to": relation})
        if what == "rules":
            rule = PushRule("own", default=False, enabled=True, actions=[], conditions=[rest[1]])
            content = RuleSet().put("override", rule).content_for(user.user_id)
            await server.accounts.account_data.set(user.user_id, None, "m.push_rules", content)
        elif what == "ignore":
            ignored: dict[str, Any] = {"ignored_users": {users[rest[1]].user_id: {}}}
            await server.accounts.account_data.set(
                user.user_id, None, "m.ignored_user_list", ignored
            )
        elif what in ("subscribe", "unsubscribe"):
            subscriptions = server.sync.push.thread_subscriptions
            change = getattr(subscriptions, what)
            await change(user.user_id, room_id, _from(events, rest[1]))
        elif what == "read":
            kind, event_id = "m.read" if rest[2] else "m.read.private", _from(events, rest[1])
            thread = {"main": {"thread_id": "main"}, "own": {"thread_id": event_id}}
            await server.sync.markers.mark(user, room_id, kind, event_id, **thread.get(rest[3], {}))
        else:
            await getattr(server.rooms.memberships, what)(user, room_id)
        return None


def fresh(server: SyncServer) -> UnreadCounts:
    """New unread counts with empty caches."""
    core, log, account_data = server.core, server.log, server.accounts.account_data
    rules = UserRules(PushRules(account_data))
    threads = Threads(core.events)
    evaluator = RuleEvaluator(core.visibility, threads, ThreadSubscribers(server.db, threads))
    return UnreadCounts(
        server.db,
        core.registry,
        Receipts(server.db, log, core.names),
        Members(core.events, rules, account_data),
        PushActions(evaluator, threads),
        Mentions(server.db, core.registry),
    )


def _from(events: list[str], place: int) -> str:
    return events[max(0, len(events) - 1 - place)]
