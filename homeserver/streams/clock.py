"""The clock, for the layers above: see `homeserver/concurrency/clock.py`."""

from homeserver.concurrency.clock import Clock, DelayedCall, wall_seconds

__all__ = ["Clock", "DelayedCall", "wall_seconds"]
