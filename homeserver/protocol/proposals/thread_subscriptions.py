"""Subscriptions to threads: when one begins, and when it is left as it is.

A subscription is automatic if a client began it because of an event, the *cause*, such as a
mention. A device that was away for long knows nothing of an unsubscription, and would begin again
what its user has ended; so a cause from before the unsubscription has no effect.

Spec: MSC4306
"""

import msgspec

from homeserver.protocol.errors import MatrixError
from homeserver.protocol.proposals.unstable_names import THREAD_ERRORS


class NotInThread(MatrixError):
    """The cause of an automatic subscription is not in the thread, as far as the user can see."""

    errcode, status = f"{THREAD_ERRORS}M_NOT_IN_THREAD", 400


class ConflictingUnsubscription(MatrixError):
    """The user ended the subscription after the event that would begin it again."""

    errcode, status = f"{THREAD_ERRORS}M_CONFLICTING_UNSUBSCRIPTION", 409


class ThreadSubscription(msgspec.Struct, frozen=True):
    """What a user last did with a thread, at a position of the log."""

    is_subscribed: bool
    is_automatic: bool
    position: int


def is_change(known: ThreadSubscription | None, cause: int | None) -> bool:
    """Whether a request to subscribe changes something; `None` is that the user did nothing yet.

    `cause` is the position of the event that causes an automatic subscription, `None` for a manual
    one. Raises `ConflictingUnsubscription`.
    """
    if known is None:
        return True
    if known.is_subscribed:
        # A manual subscription is never made automatic.
        return known.is_automatic and cause is None
    if cause is not None and cause <= known.position:
        raise ConflictingUnsubscription("You have unsubscribed from the thread after this event")
    return True
