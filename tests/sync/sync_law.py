"""The law of sync as a test case: plays random plans and compares the syncs of each client."""

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
from tests.support.postgres import DatabaseTestCase
from tests.sync.client_model import ClientModel
from tests.sync.sync_server import SyncServer

PEOPLE = ("alice", "bob", "carol")
Action = tuple[Any, ...]
Users = dict[str, Requester]


class SyncLawTestCase(DatabaseTestCase):
    """Plays plans of actions on a server, each user with one client that syncs now and then.

    An action is a tuple that begins with its name; the actions `sync` and `restart` are built in.
    """

    max_examples = 40
    max_actions = 30
    transcodes = False  # whether subscribers of the log see decoded entries
    may_lose_state = False  # whether a resolution may leave nothing of an entry of the state

    async def setUp(self) -> None:
        await super().setUp()
        self.numbers = count()

    async def create_rooms(self, server: SyncServer, users: Users) -> list[str]:
        """Create the rooms of a new plan."""
        raise NotImplementedError

    async def act(self, server: SyncServer, users: Users, rooms: list[str], action: Action) -> None:
        """Do what an action says. Raises `MatrixError` where a user may not do it."""
        raise NotImplementedError

    async def finish(self, server: SyncServer, users: Users) -> None:
        """Check what else must hold at the end of a plan."""

    async def check_law(self, actions: st.SearchStrategy[Action], options: dict[str, Any]) -> None:
        """Increments with these options of `/sync` add up to an initial sync, for random plans."""

        @settings(
            max_examples=self.max_examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(actions, max_size=self.max_actions))
        def law(plan: list[Action]) -> None:
            blockingCallFromThread(
                reactor, lambda: Deferred.fromCoroutine(self._play(plan, options))
            )

        await deferToThread(law)

    async def _play(self, plan: list[Action], options: dict[str, Any]) -> None:
        number = next(self.numbers)
        server = await SyncServer.start(self.db, transcodes=self.transcodes)
        users = {name: await server.user(f"{name}{number}") for name in PEOPLE}
        rooms = await self.create_rooms(server, users)
        clients = {name: ClientModel() for name in PEOPLE}
        for action in plan:
            if action[0] == "restart":
                await server.stop()
                server = await SyncServer.start(self.db, transcodes=self.transcodes)
            elif action[0] == "sync":
                await _sync(server, users, clients, options)
            else:
                # The authorisation rules refuse many actions of a random plan.
                with contextlib.suppress(MatrixError):
                    await self.act(server, users, rooms, action)
        await _sync(server, users, clients, options)
        for name, client in clients.items():
            await self._check_same(server, users[name], client, options)
        await self.finish(server, users)
        await server.stop()

    async def _check_same(
        self, server: SyncServer, user: Requester, client: ClientModel, options: dict[str, Any]
    ) -> None:
        fresh = ClientModel()
        fresh.apply(await server.update(user, None, **options))
        if self.may_lose_state:
            # There is no event for an entry that is gone, so `/sync` cannot say it.
            for room_id, state in client.state.items():
                for key in state.keys() - fresh.state.get(room_id, state).keys():
                    del state[key]
        assert client.state == fresh.state
        assert client.invited == fresh.invited
        assert client.account_data == fresh.account_data
        for room_id, timeline in fresh.timelines.items():
            known = client.timelines[room_id]
            common = min(len(timeline), len(known))
            assert known[-common:] == timeline[-common:]
        again = await server.update(user, client.since, **options)
        assert "rooms" not in again, "a client that is up to date gets nothing"


async def _sync(
    server: SyncServer, users: Users, clients: dict[str, ClientModel], options: dict[str, Any]
) -> None:
    for name, client in clients.items():
        client.apply(await server.update(users[name], client.since, **options))
