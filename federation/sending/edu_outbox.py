"""Outboxes: EDUs that must reach their destination, however long it is unavailable.

Typing and presence are stale after a minute, and are dropped. Messages to devices and changes of
device lists are not: they wait in tables, in order, and are deleted once the destination has
accepted them. A queue reads them when it can send them, so nothing is in memory for a destination
that is unavailable. If the outcome of a transaction is unknown, or this process is killed, they are
sent again: receivers recognise them.

Spec: https://spec.matrix.org/v1.19/server-server-api/#edus
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import msgspec

from federation.transport.errors import RemoteError
from homeserver.protocol.signing.canonical_json import encode_canonical_loose

MAX_ITEMS = 40  # of one outbox in one transaction
REFUSALS = frozenset({400, 413})  # statuses that may be due to what was sent


class OutboxItem(msgspec.Struct, frozen=True):
    """What is stored, sent and deleted together: EDUs as canonical JSON; there may be none.

    `position` is that in the log, and unique in the outbox of a destination.
    """

    position: int
    edus: tuple[bytes, ...]


class OutboxPage(msgspec.Struct, frozen=True):
    """The oldest items for a destination, and whether others follow."""

    items: Sequence[OutboxItem]
    has_more: bool


class EduOutbox(Protocol):
    """The EDUs of some types for all destinations."""

    async def destinations(self) -> Sequence[str]:
        """The destinations for which EDUs wait."""

    def select(self, entries: Sequence[Any]) -> Iterable[str]:
        """The destinations for which published entries say that EDUs were added."""

    async def load(self, destination: str, limit: int) -> OutboxPage:
        """The oldest EDUs for a destination: as many items as may be sent together."""

    def sent(self, destination: str, items: Sequence[OutboxItem]) -> None:
        """Delete what a destination has accepted. `load` does not return it again."""


class WaitingEdus:
    """The EDUs in the outboxes for one destination.

    A destination that refuses a transaction may mean one item of it. So smaller parts are tried,
    down to a single item; if the destination accepts an empty transaction instead, that one is
    dropped. It would be refused again and again, and all others behind it would wait.
    """

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._due: dict[EduOutbox, None] = {}  # those that may have something to send, in order
        self._loaded: list[tuple[EduOutbox, Sequence[OutboxItem], bool]] = []
        self._limit = MAX_ITEMS
        self._is_loading = False

    @property
    def are_due(self) -> bool:
        """Whether there may be something to send."""
        return bool(self._due)

    @property
    def are_waiting(self) -> bool:
        """Whether there may be something that the destination does not have."""
        return bool(self._due or self._loaded or self._is_loading)

    @property
    def must_be_alone(self) -> bool:
        """Whether a destination has refused some of them, so that nothing else is sent along."""
        return self._limit < MAX_ITEMS

    @property
    def number(self) -> int:
        """The number of items that were loaded."""
        return sum(len(items) for _, items, _ in self._loaded)

    @property
    def edus(self) -> list[bytes]:
        """The EDUs that were loaded."""
        return [edu for _, items, _ in self._loaded for item in items for edu in item.edus]

    def note(self, outbox: EduOutbox) -> None:
        """Note that something was added to an outbox."""
        self._due[outbox] = None

    async def load(self) -> None:
        """Load what one transaction takes. It is due again unless it is `accepted`."""
        self._loaded = []
        self._is_loading = True
        try:
            await self._load()
        except BaseException:
            self.not_sent()
            raise
        finally:
            self._is_loading = False

    async def _load(self) -> None:
        left = self._limit
        for outbox in list(self._due):
            if not left:
                return
            # What is added from now on is noted again.
            del self._due[outbox]
            try:
                page = await outbox.load(self._destination, left)
            except BaseException:
                self._due[outbox] = None
                raise
            self._loaded.append((outbox, page.items, page.has_more))
            if self.must_be_alone:
                left -= len(page.items)

    def accepted(self) -> None:
        """The destination has what was loaded, if anything was."""
        if self._loaded:
            self._delete()
            self._limit = min(self._limit + self._limit, MAX_ITEMS)

    def not_sent(self) -> None:
        """What was loaded is still due: its outcome is unknown, or it was refused."""
        for outbox, _, _ in self._loaded:
            self._due[outbox] = None

    def refused(self) -> None:
        """Try fewer items next, and nothing else with them."""
        self._limit = max(1, min(self.number, MAX_ITEMS) // 2)

    def drop(self) -> None:
        """Delete what was loaded, although the destination does not have it."""
        self._delete()

    def _delete(self) -> None:
        for outbox, items, has_more in self._loaded:
            if items:
                outbox.sent(self._destination, items)
            if has_more:
                self._due[outbox] = None
        self._loaded = []


def is_refusal(error: Exception) -> bool:
    """Whether an error may be due to what was sent, and not to who sent it, or when."""
    return isinstance(error, RemoteError) and error.status in REFUSALS


def encode_edu(edu_type: str, content: bytes | dict[str, Any]) -> bytes:
    """An EDU as canonical JSON; so is `content`, if it is encoded already."""
    if isinstance(content, dict):
        content = encode_canonical_loose(content)
    return b'{"content":%s,"edu_type":%s}' % (content, encode_canonical_loose(edu_type))
