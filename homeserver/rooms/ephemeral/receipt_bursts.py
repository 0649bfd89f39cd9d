"""Receipts of local users: the first of a room in a second at once, the others at its end.

Each message in a busy room is followed by a receipt of each reader. All that wait for the end of
the second are stored in one commit, as one log entry for each room, and only then acknowledged.
"""

from collections.abc import Collection, Sequence

import msgspec
from twisted.internet.defer import Deferred

from homeserver.concurrency.bursts import Bursts, fire_all
from homeserver.concurrency.deferreds import gather_all
from homeserver.protocol.errors import Forbidden, UserLimitExceeded
from homeserver.rooms.ephemeral.receipts import MAX_OF_USER, Receipts
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_receipts import Receipt

MAX_IMMEDIATE = 20  # requests for a room within the time of a burst
BURST_SECONDS = 1.0  # after which further ones are stored together, and only then acknowledged
MAX_TOGETHER = 2_000  # requests in one commit: its entries are published without a pause


class _Request(msgspec.Struct, frozen=True, eq=False):
    """Receipts of one user of a room that wait.

    `stored` fires when they are stored, or with what refuses them.
    """

    room_nid: int
    user_id: str
    receipts: Sequence[Receipt]
    stored: Deferred[Exception | None] = msgspec.field(default_factory=Deferred)


_Outcome = tuple[Deferred[Exception | None], Exception | None]


class ReceiptBursts:
    """Stores the receipts of local users."""

    def __init__(self, rooms: RoomRegistry, receipts: Receipts) -> None:
        self._rooms = rooms
        self._receipts = receipts
        self._clock = rooms.local_server.clock
        self._bursts = Bursts(
            self._clock, self._store_all, immediate=MAX_IMMEDIATE, seconds=BURST_SECONDS
        )

    async def move(self, room: Room, user_id: str, receipts: Sequence[Receipt]) -> None:
        """Move receipts of a member of a room forward; returns once they are stored.

        Raises `Forbidden` for a user who has left meanwhile, `UserLimitExceeded` for too many
        threads, `Unavailable` while the database is unavailable.
        """
        if not self._bursts.wait(room.room_nid):
            if await self._receipts.move(room, receipts):
                raise _too_many()
            return
        request = _Request(room.room_nid, user_id, receipts)
        self._bursts.add(request)
        refusal = await request.stored
        if refusal is not None:
            raise refusal

    async def _store_all(self, requests: Sequence[_Request]) -> None:
        for start in range(0, len(requests), MAX_TOGETHER):
            part = requests[start : start + MAX_TOGETHER]
            try:
                outcomes = await self._store(part)
            except Exception as error:
                outcomes = [(request.stored, error) for request in part]
            await fire_all(self._clock, outcomes)

    async def _store(self, requests: Sequence[_Request]) -> list[_Outcome]:
        by_room: dict[int, list[_Request]] = {}
        for request in requests:
            if not request.stored.called:  # as it is if it was cancelled
                by_room.setdefault(request.room_nid, []).append(request)
        users = {request.user_id for request in requests}
        await self._receipts.get_ready_to_move(by_room.keys(), users)
        # All append now, so that it is one commit, but where something left the memory meanwhile.
        stored = await gather_all(map(self._store_in_room, by_room, by_room.values()))
        return [outcome for of_room in stored for outcome in of_room]

    async def _store_in_room(self, room_nid: int, requests: Sequence[_Request]) -> list[_Outcome]:
        """Store the receipts of a room, whose failure does not concern those of other rooms."""
        try:
            # Users may have left during the wait, or the room may be gone.
            room = await self._rooms.by_number(room_nid)
            joined = [each for each in requests if is_joined(room, each.user_id)]
            receipts = [receipt for each in joined for receipt in each.receipts]
            refused = {*(await self._receipts.move(room, receipts) if room is not None else ())}
        except Exception as error:
            return [(request.stored, error) for request in requests]
        left = {*requests} - {*joined}
        return [(each.stored, _refusal(each, left, refused)) for each in requests]


def is_joined(room: Room | None, user_id: str) -> bool:
    """Whether a room exists here, and a user is joined to it."""
    return room is not None and room.membership(user_id) == "join"


def not_in_the_room() -> Forbidden:
    """The refusal of a user who is not joined to a room."""
    return Forbidden("You are not in the room")


def _refusal(
    request: _Request, left: Collection[_Request], refused: Collection[Receipt]
) -> Exception | None:
    if request in left:
        return not_in_the_room()
    if refused and any(receipt in refused for receipt in request.receipts):
        return _too_many()
    return None


def _too_many() -> UserLimitExceeded:
    return UserLimitExceeded(f"A user has at most {MAX_OF_USER} receipts in a room")
