"""The span of one update: from a client's token up to what is published when the update is begun.

For each shard it is a range of positions, and what is made of a room or a user sees that range
only. The client's next token has the lowest published position of all shards as its base, and names
the shards in which the update went beyond it.
"""

from collections.abc import Iterable

from homeserver.streams.shards import shard_of, shard_of_user
from homeserver.streams.sync_tokens import MAX_AHEAD, PublishedPositions, SyncToken


class SyncSpan:
    """What one update covers, above `since`, or everything where that is `None`, up to `now`.

    With one owner it is a single range, in which nothing need be named, and `even` its end.
    """

    __slots__ = ("_ahead", "_base", "_sticky", "_to_device", "even", "now", "since")

    def __init__(self, since: SyncToken | None, now: PublishedPositions) -> None:
        self.since = since
        self.now = now
        self.even = now.even if since is None or not since.ahead else None
        self._base = now.base
        self._to_device: int | None = None
        self._sticky: int | None = None
        if self.even is not None:
            return
        self._ahead: dict[int, int] = {}
        if since is not None:
            # A process that is behind the one that made the token has nothing new for the client.
            self._base = max(now.base, since.base)
            self._ahead = {shard: at for shard, at in since.ahead if at > self._base}

    @property
    def token(self) -> SyncToken:
        """The client's token after the update."""
        if self.even is not None:
            if self._to_device is None and self._sticky is None:
                return self.even
            return SyncToken(self._base, (), self._to_device, self._sticky)
        ahead = tuple(sorted(self._ahead.items()))
        return SyncToken(self._base, ahead, self._to_device, self._sticky)

    def token_upto(self, position: int) -> SyncToken:
        """The token after an update that left out all beyond a position that it reached.

        It has no messages to the device, and no sticky events.
        """
        before = SyncToken(0) if self.since is None else self.since
        base = max(before.base, min(self._base, position))
        if self.even is not None:
            return SyncToken(base, (), before.to_device, before.sticky)
        # What the base of this span covers may be ahead of the lower base.
        ahead = dict(before.ahead) | self._ahead
        reached = [(shard, max(before.at(shard), min(at, position))) for shard, at in ahead.items()]
        named = tuple(sorted(pair for pair in reached if pair[1] > base))
        return SyncToken(base, named[:MAX_AHEAD], before.to_device, before.sticky)

    def of_room(self, room_nid: int) -> tuple[int | None, int]:
        """The range of a room: above the former, up to the latter."""
        if self.even is not None:
            return None if self.since is None else self.since.base, self._base
        return self._range(shard_of(room_nid))

    def since_of_user(self, user_id: str) -> int | None:
        """The position up to which the client has the data of a user."""
        return None if self.since is None else self.since.of_user(user_id)

    def upto_of_user(self, user_id: str) -> int:
        """The position up to which the update may have the data of a user."""
        return self._base if self.even is not None else self.now.at(shard_of_user(user_id))

    def has_messages(self, upto: int) -> None:
        """Record that the update has messages to the device, but none above a position."""
        self._to_device = upto

    def leave_sticky_above(self, position: int) -> None:
        """Record that the update has no sticky events above a position."""
        self._sticky = position

    def sticky_upto(self, room_nid: int) -> int:
        """The position up to which the update may have sticky events of a room."""
        now = self.of_room(room_nid)[1]
        return now if self._sticky is None else min(now, self._sticky)

    def has_room(self, room_nid: int, upto: int) -> None:
        """Record that the update has a room, with something at position `upto` or earlier."""
        if self.even is None:
            self._name(shard_of(room_nid), upto)

    def has_user(self, user_id: str) -> None:
        """Record that the update has all data of a user."""
        if self.even is None:
            shard = shard_of_user(user_id)
            self._name(shard, self.now.at(shard))

    def has_users(self, changes: Iterable[tuple[str, int]]) -> None:
        """Record that the update has changes of users: (user id, position)."""
        if self.even is None:
            for user_id, position in changes:
                self._name(shard_of_user(user_id), position)

    def _range(self, shard: int) -> tuple[int | None, int]:
        since = None if self.since is None else self.since.at(shard)
        is_full = len(self._ahead) >= MAX_AHEAD and shard not in self._ahead
        now = self._base if is_full else max(self.now.at(shard), since or 0)
        return since, now

    def _name(self, shard: int, upto: int) -> None:
        """Name a shard in the token, if the base does not cover what the client got of it."""
        if upto > self._base and (shard in self._ahead or len(self._ahead) < MAX_AHEAD):
            # A room that was read from the database may be beyond what is published.
            at = self._range(shard)[1]
            if at > self._base:
                self._ahead[shard] = at
