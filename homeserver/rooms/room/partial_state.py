"""Partial state: what a room is while its members are still being fetched.

A room can be entered with all of its state but the members. It stands at once: its users read and
write, and who else is there is learnt from what they send (`EventChecker`). Until the state is
whole, what depends on all members waits, and what was judged is judged again
(`PartialStateResync`).

Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
"""

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from homeserver.concurrency.clock import Clock
from homeserver.protocol.errors import Unavailable

FULL_STATE_TIMEOUT_SECONDS = 20.0  # that a request waits for the members of a room


class PartialState:
    """How a room was entered, and who waits for its members.

    `join_id` is the event by which a user of this server came in, `servers` those that were in the
    room before it, the one that let us in first.
    """

    def __init__(self, join_id: str, servers: Sequence[str]) -> None:
        self.join_id = join_id
        self.servers = tuple(servers)
        self._waiting: list[Deferred[None]] = []

    async def wait_for_full_state(
        self, clock: Clock, seconds: float = FULL_STATE_TIMEOUT_SECONDS
    ) -> None:
        """Wait until the state is whole. Raises `Unavailable` where that takes too long."""
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        alarm = clock.callLater(seconds, _give_up, done)
        try:
            await done
        finally:
            if alarm.active():
                alarm.cancel()
            if done in self._waiting:
                self._waiting.remove(done)

    def finish(self) -> None:
        """The state is whole, or will never be: go on."""
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)


def _give_up(done: Deferred[None]) -> None:
    done.errback(Unavailable("The members of the room are still being fetched; try again later"))
