"""Flapping: presence that changes again within a second is published once, as it is at its end.

Each change is published to all who share a room with the user, to other servers and to application
services. The first change of a user is published at once. Of those that follow within a second only
the last one is, together with those of all other users; none, if it is what is published already.
"""

from homeserver.concurrency.bursts import Bursts
from homeserver.concurrency.clock import Clock

FLAP_SECONDS = 1.0


def flapping(clock: Clock) -> Bursts:
    """Says when a change is to be published; the keys are user ids."""
    return Bursts(clock, immediate=1, seconds=FLAP_SECONDS)
