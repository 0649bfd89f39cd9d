"""The pushers that have something to send: an object for each, found by its pusher or its user."""

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from homeserver.push.pushers.pusher import Pusher


class OfPusher(Protocol):
    """What sends for one pusher."""

    pusher: Pusher


Sender = TypeVar("Sender", bound=OfPusher)


class ActivePushers(Generic[Sender]):
    """The senders of the active pushers; `make` makes that of a pusher."""

    def __init__(self, make: Callable[[Pusher], Sender]) -> None:
        self._make = make
        self._by_number: dict[int, Sender] = {}
        self._by_user: dict[str, dict[int, Sender]] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[Sender]:
        """All senders; any may be dropped meanwhile."""
        return iter(list(self._by_number.values()))

    def find(self, number: int) -> Sender | None:
        """The sender of the pusher with a number, if it is active."""
        return self._by_number.get(number)

    def of(self, pusher: Pusher) -> Sender:
        """The sender of a pusher, which is active from now on."""
        found = self._by_number.get(pusher.number)
        if found is None:
            found = self._by_number[pusher.number] = self._make(pusher)
            self._by_user.setdefault(pusher.row.user_id, {})[pusher.number] = found
        return found

    def of_user(self, user_id: str) -> list[Sender]:
        """The senders of a user's active pushers."""
        return list(self._by_user.get(user_id, {}).values())

    def drop(self, sender: Sender) -> None:
        """A pusher has nothing to send any more."""
        number, user_id = sender.pusher.number, sender.pusher.row.user_id
        self._by_number.pop(number, None)
        of_user = self._by_user.get(user_id)
        if of_user is not None:
            of_user.pop(number, None)
            if not of_user:
                del self._by_user[user_id]
