"""What writers of rooms know of those who send events that take longer.

That is `homeserver/rooms/inbound/policy_servers.py`, and `homeserver/rooms/inbound/branches.py`.
"""

from collections.abc import Callable
from typing import Any, Protocol

from homeserver.protocol.events import Event
from homeserver.rooms.events.event_draft import ClientTransaction, EventDraft
from homeserver.rooms.events.stored_event import StoredEvent


class DraftSender(Protocol):
    """Who sends what a writer cannot append by itself. A `writer` is a `RoomWriter`."""

    async def send(
        self,
        writer: Any,
        draft: EventDraft,
        transaction: ClientTransaction | None = None,
        is_wanted: Callable[[], bool] = ...,
    ) -> StoredEvent | None:
        """Send an event; `None` where it can be appended after all, or nobody wants it."""


class PolicyServerPort(DraftSender, Protocol):
    """Who has events checked by the policy servers of rooms."""

    def applies_to(self, writer: Any, draft: EventDraft) -> bool:
        """Whether the room has named a policy server, which is asked about such an event."""

    async def signed(self, writer: Any, event: Event) -> Event:
        """An event of ours with the signature of the policy server, if the room has one."""

    async def check(self, writer: Any, event: Event) -> tuple[Event, str | None]:
        """An event of any server, signed where it lacked that, and why it is not recommended."""
