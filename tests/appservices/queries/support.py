"""Servers with bridges that are asked."""

from typing import Any

from twisted.internet.defer import Deferred

from tests.appservices.fake_bridge import TRANSACTIONS, Answer, Answering, Asked, FakeBridge
from tests.appservices.support import AppserviceTestCase, registration

USERS = "/_matrix/app/v1/users/"
ROOMS = "/_matrix/app/v1/rooms/"


class BridgedTestCase(AppserviceTestCase):
    """A server with a bridge to IRC, which listens; `more` are changes of its registration."""

    more: dict[str, Any] = {}  # noqa: RUF012  # replaced by subclasses, never changed

    async def start_server(self) -> None:
        if not hasattr(self, "bridge"):
            self.bridge = FakeBridge()
            self.bridge.answers[TRANSACTIONS] = lambda _: Answer()
            self.bridge.listen()
            self.addCleanup(lambda: Deferred.fromCoroutine(self.bridge.stop()))
        self.registrations = (registration(url=self.bridge.url, **self.more), *self.other_bridges())
        await super().start_server()

    def other_bridges(self) -> tuple[dict[str, Any], ...]:
        """The registrations of further bridges."""
        return ()

    def creates_users(self) -> Answering:
        """The answer of a bridge that creates each user whom it is asked for."""

        async def create(asked: Asked) -> Answer:
            localpart = asked.path.removeprefix(USERS)[1:].partition(":")[0]
            ghost = await self.ghost(localpart)
            await ghost.put(f"/profile/{ghost.user_id}/displayname", {"displayname": localpart})
            return Answer()

        return create

    def creates_aliases(self) -> Answering:
        """The answer of a bridge that creates each room whose alias it is asked for."""

        async def create(asked: Asked) -> Answer:
            localpart = asked.path.removeprefix(ROOMS)[1:].partition(":")[0]
            await self.bot().create_room(room_alias_name=localpart, preset="public_chat")
            return Answer()

        return create
