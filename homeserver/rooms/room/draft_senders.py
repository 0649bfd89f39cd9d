"""Senders of drafts that the writer of a room cannot append by itself, and policy servers.

The implementations are in `homeserver/rooms/inbound`: `PolicySender`, `BranchSender`,
`PolicyServers`.
"""

from collections.abc import Callable
from typing import Any, Protocol

from homeserver.protocol.events import Event
from homeserver.rooms.events.event_draft import ClientTransaction, EventDraft
from homeserver.rooms.events.stored_event import StoredEvent


class DraftSender(Protocol):
    """Sends drafts for which one append is not enough. A `writer` is a `RoomWriter`."""

    def applies_to(self, writer: Any, draft: EventDraft) -> bool:
        """Whether the draft needs this sender, in the present state of the room."""

    async def send(
        self,
        writer: Any,
        draft: EventDraft,
        transaction: ClientTransaction | None = None,
        is_wanted: Callable[[], bool] = ...,
    ) -> StoredEvent | None:
        """Send a draft; `None` if it can be appended after all, or `is_wanted` is false by now."""


class PolicyServerPort(Protocol):
    """Has events checked by the policy servers of rooms."""

    def applies_to(self, writer: Any, draft: EventDraft) -> bool:
        """Whether the room has named a policy server that must check the draft."""

    async def signed(self, writer: Any, event: Event) -> Event:
        """A local event with the signature of the policy server, if the room has one."""

    async def check(self, writer: Any, event: Event) -> tuple[Event, str | None]:
        """An event of any server, signed if it was not, and the reason if it is not recommended."""


class NoPolicyServers:
    """A `PolicyServerPort` without any policy server, for what runs without federation."""

    def applies_to(self, writer: Any, draft: EventDraft) -> bool:
        """Never."""
        return False

    async def signed(self, writer: Any, event: Event) -> Event:
        """The event as it is."""
        return event

    async def check(self, writer: Any, event: Event) -> tuple[Event, str | None]:
        """The event as it is: recommended."""
        return event, None
