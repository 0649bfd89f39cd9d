"""Shards: the parts of all data that can have different owners, and the shard of each fact.

A fact of a room (events, receipts, typing) belongs to the room's shard; a fact of a user (account
data, presence, devices) to the user's. The facts of one shard have one writer at any time, so their
positions are in the order in which they are published; between shards there is no such order.

The number of shards never changes: it is in tokens that clients hold.
"""

from zlib import crc32

SHARDS = 1024


def shard_of(room_nid: int) -> int:
    """The shard of a room."""
    return room_nid % SHARDS


def shard_of_user(user_id: str) -> int:
    """The shard of a user of any server.

    By a hash of the id instead of its number in `names`: it is needed where that is not in memory,
    and for users whom the database does not know.
    """
    return crc32(user_id.encode()) % SHARDS
