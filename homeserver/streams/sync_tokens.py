"""Sync tokens: everything up to a position in all shards, and further in some of them.

With one owner of all shards a token is `s<position>`. With several, a client has often received
more in one shard than is published of another: `s<base>~<shard>.<position>~…` names these shards,
each with the position up to which it was received. Once the base has passed such a position, the
shard is not named any more; so few are, those in which something was received in the last seconds.

Messages to a device come at most a hundred at a time. If more wait, `_<position>` at the end of the
token says up to which position the device has received them; `__<position>` says the same of the
sticky events of rooms, of which a response has a limited number, too.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

import re
from typing import NamedTuple, Protocol

from homeserver.protocol.errors import InvalidParam
from homeserver.streams.positions import MAX_POSITION
from homeserver.streams.shards import SHARDS, shard_of, shard_of_user

MAX_AHEAD = 400  # shards that a token may name: it has to fit into the URL of a request

MAX_PLAIN = len(str(MAX_POSITION))  # fewer digits are within bounds

_TOKEN = re.compile(
    r"s(\d{1,19})((?:~\d{1,4}\.\d{1,19})*)(?:_(\d{1,19}))?(?:__(\d{1,19}))?", re.ASCII
)


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
    not received all messages to its device: the position up to which it has. So is `sticky`, if it
    has not received all sticky events of its rooms.
    """

    base: int
    ahead: tuple[tuple[int, int], ...] = ()
    to_device: int | None = None
    sticky: int | None = None

    @property
    def even(self) -> "SyncToken | None":
        """The token itself, if it is the same position in all shards."""
        return None if self.ahead else self

    @property
    def text(self) -> str:
        """The token as clients hold it."""
        if not self.ahead and self.to_device is None and self.sticky is None:
            return f"s{self.base}"
        text = "~".join([f"s{self.base}", *(f"{shard}.{at}" for shard, at in self.ahead)])
        if self.to_device is not None:
            text += f"_{self.to_device}"
        return text if self.sticky is None else f"{text}__{self.sticky}"

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

    def of_sticky(self, room_nid: int) -> int:
        """The position up to which the client has received the sticky events of a room."""
        position = self.of_room(room_nid)
        return position if self.sticky is None else min(position, self.sticky)

    def is_within(self, other: "SyncToken") -> bool:
        """Whether another token's client has received all that this one's has."""
        for own, others in ((self.to_device, other.to_device), (self.sticky, other.sticky)):
            if others is not None and (own is None or own > others):
                return False
        if not (self.ahead or other.ahead):
            return self.base <= other.base
        shards = {shard for shard, _ in (*self.ahead, *other.ahead)}
        return self.base <= other.base and all(self.at(each) <= other.at(each) for each in shards)


def parse_sync_token(text: str) -> SyncToken:
    """The token of a text. Raises `InvalidParam`."""
    base_text = text[1:]
    if len(base_text) < MAX_PLAIN and base_text.isdecimal() and text[0] == "s" and text.isascii():
        return SyncToken(int(base_text))
    match = _TOKEN.fullmatch(text)
    if match is None or match[2].count("~") > MAX_AHEAD:
        raise InvalidParam("Not a token of this server's /sync")
    base = int(match[1])
    named = [pair.split(".") for pair in match[2].split("~")[1:]]
    ahead = {int(shard): int(position) for shard, position in named}
    to_device, sticky = (None if each is None else int(each) for each in match.group(3, 4))
    if (
        len(ahead) < len(named)
        or any(shard >= SHARDS or position <= base for shard, position in ahead.items())
        or max(base, *ahead.values(), to_device or 0, sticky or 0) > MAX_POSITION
    ):
        raise InvalidParam("Not a token of this server's /sync")
    return SyncToken(base, tuple(sorted(ahead.items())), to_device, sticky)
