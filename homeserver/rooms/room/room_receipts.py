"""The receipts of one room, as its readers see them: values in memory, read without waiting.

An `m.receipt` event has one place for each event, type and user, but a user can have a receipt of
the whole room and one of a thread at the same event. In that case the more general one is shown:
unthreaded before that of the main timeline before that of a thread. Nothing is lost, since a user
who has read the whole room up to an event has read the threads up to it too.

Spec: https://spec.matrix.org/v1.19/client-server-api/#mreceipt
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import msgspec

from homeserver.protocol.event_types import RECEIPT

PRIVATE = "m.read.private"
MAIN = "main"
MAX_ENCODED = 50  # encoded events that are kept for other readers

_encode = msgspec.json.Encoder().encode


class Receipt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A user has read up to an event: in a thread, or in the whole room for `thread_id=None`.

    `event_position` is the event's place in the room's timeline, `None` if it has none or is not
    known here; `ts` is milliseconds since the epoch.
    """

    user_id: str
    receipt_type: str
    thread_id: str | None
    event_id: str
    event_position: int | None
    ts: int

    def may_move_to(self, other: "Receipt") -> bool:
        """Whether another receipt may replace this one: one of an event that is not before it.

        The order of events without a known place cannot be determined; then the later receipt wins.
        """
        if self.event_id == other.event_id:
            return False
        if self.event_position is None or other.event_position is None:
            return True
        return self.event_position < other.event_position


class ReceiptsChanged(msgspec.Struct, frozen=True):
    """Receipts of one room moved together, at most one of each user, type and thread."""

    position: int
    room: int
    receipts: tuple[Receipt, ...]


_Placed = tuple[int, Receipt]  # with the position of its change in the log


class RoomReceipts:
    """All receipts of one room, least recently changed first."""

    def __init__(self) -> None:
        self._users: dict[str, dict[tuple[str, str | None], _Placed]] = {}
        self._public: dict[tuple[str, str, str | None], _Placed] = {}
        self._count = 0
        # Events with the public receipts above a position, which most readers get as they are.
        self._encoded: dict[int | None, msgspec.Raw | None] = {}

    def __len__(self) -> int:
        return self._count

    def apply(self, entry: ReceiptsChanged) -> None:
        """Replace the older receipts by those of an entry."""
        position = entry.position
        for receipt in entry.receipts:
            self.put(position, receipt)

    def put(self, position: int, receipt: Receipt) -> None:
        """Replace the user's older receipt by this one, which changed at a position of the log."""
        kind, thread = receipt.receipt_type, receipt.thread_id
        mine = self._users.setdefault(receipt.user_id, {})
        before = mine.get((kind, thread))
        if before is None:
            self._count += 1
        elif before[0] >= position:
            return  # the receipts were read from the database after this one was written
        else:
            del mine[kind, thread]
        placed = mine[kind, thread] = position, receipt
        if kind != PRIVATE:
            key = (receipt.user_id, kind, thread)
            self._public.pop(key, None)
            self._public[key] = placed
            self._encoded.clear()

    def find(self, user_id: str, receipt_type: str, thread_id: str | None) -> Receipt | None:
        """The receipt of a user, type and thread."""
        placed = self._users.get(user_id, {}).get((receipt_type, thread_id))
        return None if placed is None else placed[1]

    def of_user(self, user_id: str) -> list[Receipt]:
        """All receipts of one user, least recently changed first."""
        return [receipt for _, receipt in self._users.get(user_id, {}).values()]

    def has_moved(self, user_id: str, since: int) -> bool:
        """Whether any receipt of a user changed above a position of the log."""
        return any(position > since for position, _ in self._users.get(user_id, {}).values())

    def count_of(self, user_id: str) -> int:
        """The number of a user's receipts."""
        return len(self._users.get(user_id, ()))

    def event(self, user_id: str, since: int | None) -> msgspec.Raw | None:
        """The `m.receipt` event with what a reader has not seen; `None` for nothing."""
        mine = _above(self._users.get(user_id, {}), since)
        private = [receipt for receipt in mine if receipt.receipt_type == PRIVATE]
        if private:
            return _event([*_above(self._public, since), *private])
        if since not in self._encoded:
            if len(self._encoded) >= MAX_ENCODED:
                self._encoded.clear()
            self._encoded[since] = _event(_above(self._public, since))
        return self._encoded[since]

    def event_at(self, user_id: str, event_ids: Collection[str]) -> msgspec.Raw | None:
        """The event with a reader's own receipts, and the public ones at these events."""
        mine = self.of_user(user_id)
        others = (
            receipt
            for _, receipt in self._public.values()
            if receipt.event_id in event_ids and receipt.user_id != user_id
        )
        return _event([*mine, *others])


def _above(receipts: dict[Any, _Placed], since: int | None) -> Iterator[Receipt]:
    """Receipts above a position, most recently changed first."""
    for position, receipt in reversed(receipts.values()):
        if since is not None and position <= since:
            return
        yield receipt


def _event(receipts: Iterable[Receipt]) -> msgspec.Raw | None:
    content: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for receipt in sorted(receipts, key=_breadth):
        users = content.setdefault(receipt.event_id, {}).setdefault(receipt.receipt_type, {})
        shown: dict[str, Any] = {"ts": receipt.ts}
        if receipt.thread_id is not None:
            shown["thread_id"] = receipt.thread_id
        users[receipt.user_id] = shown
    if not content:
        return None
    return msgspec.Raw(_encode({"type": RECEIPT, "content": content}))


def _breadth(receipt: Receipt) -> int:
    """The generality of a receipt; the last one at a place of the event is shown."""
    if receipt.thread_id is None:
        return 2
    return 1 if receipt.thread_id == MAIN else 0
