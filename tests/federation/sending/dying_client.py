"""The way to the other server, in tests that kill the sending process at a transaction."""

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from federation.transport.errors import Unreachable

Received = Callable[[dict[str, Any]], None]
"""Takes the content of a transaction that the other server has accepted."""


class DyingClient:
    """Passes transactions on until the process dies at the one with the number `dies_at`.

    The other server has received that one only `after_receipt`. It may also be unreachable.
    """

    def __init__(self, received: Received, dies_at: int | None, *, after_receipt: bool) -> None:
        self.is_reachable = True
        self.is_dead = False
        self._received = received
        self._left = dies_at
        self._after_receipt = after_receipt

    async def put(self, server: str, path: str, body: bytes, *, timeout: float) -> dict[str, Any]:
        if not self.is_reachable:
            raise Unreachable(server, "gone")
        dies = self._left == 0
        if self._left is not None:
            self._left -= 1
        if not self.is_dead and (not dies or self._after_receipt):
            self._received(msgspec.json.decode(body))
        if dies or self.is_dead:
            self.is_dead = True
            await Deferred()
        return {}
