"""Sync tokens: everything up to a position in all shards, and further in some of them.

With one owner of all shards a token is `s<position>`. With several, a client has often received
more in one shard than is published of another: `s<base>~<shard>.<position>~…` names these shards,
each with the position up to which it was received. Once the base has passed such a position, the
shard is not named any more; so few are, those in which something was received in the last seconds.

Messages to a device come at most a hundred at a time. If more wait, `_<position>` at the end of the
token says up to which position the device has received them.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

import re
from typing import NamedTuple, Protocol

from homeserver.protocol.errors import InvalidParam
from homeserver.streams.positions import MAX_POSITION
from homeserver.streams.shards import SHARDS, shard_of, shard_of_user

MAX_AHEAD = 400  # shards that a token may name: it has to fit into the URL of a request

_TOKEN = re.compile(r"s(\d{1,19})((?:~\d{1,4}\.\d{1,19})*)(?:_(\d{1,19}))?", re.ASCII)


class PublishedPositions(Protocol):
    """The position up to which each shard is published; a constant."""

    @property
    def base(self) -> int:
        """The lowest of them."""

    @property
    def even(self) -> "SyncToken | None":
        """The position as a token, if it is the same in all shards."""

    def at(self, shard: int) -> int:
        """The position of a shard."""


class SyncToken(NamedTuple):
    """What a client has received: up to `base` in all shards, and further in those of `ahead`.

    `ahead` are pairs (shard, position) in the order of shards. `to_device` is set if the client has
    not received all messages to its device: the position up to which it has.
    """

    base: int
    ahead: tuple[tuple[int, int], ...] = ()
    to_device: int | None = None

    @property
    def even(self) -> "SyncToken | None":
        """The token itself, if it is the same position in all shards."""
        return None if self.ahead else self

    @property
    def text(self) -> str:
        """The token as clients hold it."""
        if not self.ahead and self.to_device is None:
            return f"s{self.base}"
        text = "~".join([f"s{self.base}", *(f"{shard}.{at}" for shard, at in self.ahead)])
        return text if self.to_device is None else f"{text}_{self.to_device}"

    def at(self, shard: int) -> int:
        """The position up to which the client has received a shard."""
        for each, position in self.ahead:
            if each == shard:
                return position
        return self.base

    def of_room(self, room_nid: int) -> int:
        """The position up to which the client has received a room."""
        return self.at(shard_of(room_nid)) if self.ahead else self.base

    def of_user(self, user_id: str) -> int:
        """The position up to which the client has received the data of a user."""
        return self.at(shard_of_user(user_id)) if self.ahead else self.base

    def of_device(self, user_id: str) -> int:
        """The position up to which the client has received the messages to a user's device."""
        return self.of_user(user_id) if self.to_device is None else self.to_device

    def is_within(self, other: "SyncToken") -> bool:
        """Whether another token's client has received all that this one's has."""
        if other.to_device is not None and (
            self.to_device is None or self.to_device > other.to_device
        ):
            return False
        if not (self.ahead or other.ahead):
            return self.base <= other.base
        shards = {shard for shard, _ in (*self.ahead, *other.ahead)}
        return self.base <= other.base and all(self.at(each) <= other.at(each) for each in shards)


def parse_sync_token(text: str) -> SyncToken:
    """The token of a text. Raises `InvalidParam`."""
    match = _TOKEN.fullmatch(text)
    if match is None or match[2].count("~") > MAX_AHEAD:
        raise InvalidParam("Not a token of this server's /sync")
    base = int(match[1])
    named = [pair.split(".") for pair in match[2].split("~")[1:]]
    ahead = {int(shard): int(position) for shard, position in named}
    to_device = None if match[3] is None else int(match[3])
    if (
        len(ahead) < len(named)
        or any(shard >= SHARDS or position <= base for shard, position in ahead.items())
        or max(base, *ahead.values(), to_device or 0) > MAX_POSITION
    ):
        raise InvalidParam("Not a token of this server's /sync")
    return SyncToken(base, tuple(sorted(ahead.items())), to_device)
