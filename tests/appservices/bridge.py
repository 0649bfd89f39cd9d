"""A bridge that takes transactions, and knows what it has received."""

from collections.abc import Callable
from typing import Any

from tests.appservices.fake_bridge import TRANSACTIONS, Answer, FakeBridge, never
from tests.support.reactor import until


class Bridge(FakeBridge):
    """Answers transactions with `status` and `body`, and all else with success.

    It refuses other tokens than its own.

    `received` are the bodies of those that it has accepted, by their ids. With `hangs` it does not
    answer. `most_in_flight` is the largest number of requests that it had at a time.
    """

    def __init__(self, hs_token: str) -> None:
        super().__init__()
        self.status = 200
        self.body: Any = {}
        self.hangs = False
        self.received: dict[str, Any] = {}
        self.most_in_flight = 0
        self._in_flight = 0
        self._hs_token = hs_token

    async def answer(self, request: Any) -> Answer:
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            if self.answers:
                return await super().answer(request)
            if not request.path.startswith(TRANSACTIONS):
                return Answer()
            self.transactions.append(request)
            if request.token != self._hs_token:
                return Answer(403)
            if self.hangs:
                return await never(request)
            if self.status == 200:
                self.received.setdefault(request.path.removeprefix(TRANSACTIONS), request.body)
            return Answer(self.status, self.body)
        finally:
            self._in_flight -= 1

    def of(self, kind: str) -> list[Any]:
        """All items of one kind, in the order of their arrival."""
        return [each for body in self.received.values() for each in body.get(kind, [])]

    @property
    def events(self) -> list[Any]:
        return self.of("events")

    def messages(self) -> list[str]:
        """The bodies of all messages."""
        return [each["content"].get("body") for each in self.events if "state_key" not in each]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something was received."""
        await until(condition)
