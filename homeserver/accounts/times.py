"""Wall time in the unit that the protocol and the database use: milliseconds since the epoch."""

from homeserver.streams.clock import Clock, wall_seconds


def now_ms(clock: Clock) -> int:
    """The time that the wall clock shows."""
    return int(wall_seconds(clock) * 1000)
