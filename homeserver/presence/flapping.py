"""Flapping: presence that changes again within a second is published once, as it is at its end.

Each change is published to all who share a room with the user, to other servers and to application
services. The first change of a user is published at once. Of those that follow within a second only
the last one is, together with those of all other users; none, if it is what is published already.
"""

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from homeserver.concurrency.bursts import Bursts, fire_all
from homeserver.concurrency.clock import Clock

FLAP_SECONDS = 1.0


class Flapping:
    """Says when a change of a user's presence is to be published."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._bursts = Bursts(clock, self._publish, immediate=1, seconds=FLAP_SECONDS)

    def next(self, user_id: str) -> Deferred[None] | None:
        """Count one change: it is to be published when the result fires, at once for `None`."""
        if not self._bursts.wait(user_id):
            return None
        due: Deferred[None] = Deferred()
        self._bursts.add(due)
        return due

    async def _publish(self, changes: Sequence[Deferred[None]]) -> None:
        await fire_all(self._clock, ((due, None) for due in changes))
