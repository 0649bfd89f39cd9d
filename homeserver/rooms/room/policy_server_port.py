"""The ports through which writers of rooms have events sent that they cannot append immediately.

They are implemented by `homeserver/rooms/inbound/policy_servers.py` and
`homeserver/rooms/inbound/branches.py`.
"""

from collections.abc import Callable
from typing import Any, Protocol

from homeserver.protocol.events import Event
from homeserver.rooms.events.event_draft import ClientTransaction, EventDraft
from homeserver.rooms.events.stored_event import StoredEvent


class DraftSender(Protocol):
    """Sends events that a writer cannot append by itself. A `writer` is a `RoomWriter`."""

    async def send(
        self,
        writer: Any,
        draft: EventDraft,
        transaction: ClientTransaction | None = None,
        is_wanted: Callable[[], bool] = ...,
    ) -> StoredEvent | None:
        """Send an event; `None` if it can be appended after all, or is not wanted any more."""


class PolicyServerPort(DraftSender, Protocol):
    """Has events checked by the policy servers of rooms."""

    def applies_to(self, writer: Any, draft: EventDraft) -> bool:
        """Whether the room has named a policy server that is asked about such an event."""

    async def signed(self, writer: Any, event: Event) -> Event:
        """A local event with the signature of the policy server, if the room has one."""

    async def check(self, writer: Any, event: Event) -> tuple[Event, str | None]:
        """An event of any server, signed if it was not, and the reason if it is not recommended."""
