"""Partial state: a room whose members are still being fetched.

A room can be joined with all of its state except the members. It is usable immediately: local users
read and write, and other members become known from what they send (`EventChecker`). Until the full
state is known, operations that need all members wait, and all checked events are checked again
(`PartialStateResync`).

Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
"""

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from homeserver.concurrency.clock import Clock
from homeserver.protocol.errors import Unavailable

FULL_STATE_TIMEOUT_SECONDS = 20.0  # that a request waits for the members of a room


class PartialState:
    """The join of a room with partial state, and the requests that wait for its members.

    `join_id` is the event by which a local user joined, `servers` those that were in the room
    before it, the one that responded to our `send_join` first.
    """

    def __init__(self, join_id: str, servers: Sequence[str]) -> None:
        self.join_id = join_id
        self.servers = tuple(servers)
        self._waiting: list[Deferred[None]] = []

    async def wait_for_full_state(
        self, clock: Clock, seconds: float = FULL_STATE_TIMEOUT_SECONDS
    ) -> None:
        """Wait for the full state. Raises `Unavailable` if that takes too long."""
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
        """End all waits: the full state is known, or will never be fetched."""
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)


def _give_up(done: Deferred[None]) -> None:
    done.errback(Unavailable("The members of the room are still being fetched; try again later"))
