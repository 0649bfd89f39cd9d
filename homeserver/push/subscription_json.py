"""Changed subscriptions to threads as clients get them.

Spec: MSC4308
"""

from typing import Any

from homeserver.push.thread_subscriptions import SubscriptionPage
from homeserver.streams.positions import SLOT_BITS


def subscription_changes(page: SubscriptionPage) -> dict[str, Any]:
    """The members `subscribed` and `unsubscribed`, both by room and root of the thread.

    The bump stamp of a change is its position without the bits of the process that made it, so that
    it is an integer in JSON.
    """
    members: dict[str, dict[str, dict[str, Any]]] = {}
    for change in page.changes:
        row = change.row
        stamp = {"bump_stamp": row.position >> SLOT_BITS}
        name = "subscribed" if row.is_subscribed else "unsubscribed"
        entry = {"automatic": row.is_automatic, **stamp} if row.is_subscribed else stamp
        members.setdefault(name, {}).setdefault(change.room_id, {})[row.root] = entry
    return dict(members)
