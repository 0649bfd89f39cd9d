"""The log entry of a changed subscription to a thread."""

import msgspec


class ThreadSubscriptionChanged(msgspec.Struct, frozen=True):
    """A user has begun, changed or ended a subscription to the thread with this root."""

    position: int
    room: int
    root: str
    user_id: str
    is_subscribed: bool
    is_automatic: bool
