"""Waiting for the same thing as somebody else."""

from typing import Any

from twisted.internet.defer import Deferred


def joined(running: Deferred[Any]) -> Deferred[None]:
    """A Deferred of the caller's own that fires, without a value, when `running` does.

    Cancelling it leaves `running`, and all others who wait for it, alone.
    """
    done: Deferred[None] = Deferred()

    def pass_on(result: Any) -> Any:
        if not done.called:
            done.callback(None)
        return result

    running.addBoth(pass_on)
    return done
