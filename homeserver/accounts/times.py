"""Wall time in the unit that the protocol and the database use: milliseconds since the epoch."""

from homeserver.streams.clock import Clock


def now_ms(clock: Clock) -> int:
    """The time that a reactor's clock shows."""
    return int(clock.seconds() * 1000)
