"""What writers of rooms know of policy servers; `homeserver/rooms/policy_servers.py` does it."""

from collections.abc import Callable
from typing import Any, Protocol

from homeserver.protocol.events import Event
from homeserver.rooms.drafts import Draft, Transaction
from homeserver.rooms.stored_event import StoredEvent


class Policy(Protocol):
    """Who has events checked by the policy servers of rooms. A `writer` is a `RoomWriter`."""

    def guards(self, writer: Any, draft: Draft) -> bool:
        """Whether the room has named a policy server, which is asked about such an event."""

    async def send(
        self,
        writer: Any,
        draft: Draft,
        transaction: Transaction | None = None,
        is_wanted: Callable[[], bool] = ...,
    ) -> StoredEvent | None:
        """Send an event that is recommended; `None` where nobody has to, or nobody wants it."""

    async def signed(self, writer: Any, event: Event) -> Event:
        """An event of ours with the signature of the policy server, if the room has one."""

    async def check(self, writer: Any, event: Event) -> tuple[Event, str | None]:
        """An event of any server, signed where it lacked that, and why it is not recommended."""
