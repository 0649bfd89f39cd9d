"""The nodes of a state tree as bytes: how entries and children are packed, named and placed.

A node is a leaf, which holds entries, or a branch, which names up to sixteen nodes below it. Its
name is the hash of its bytes, and its bytes depend on its content alone, so two equal subtrees of
any two states are the same row in the database.

- A leaf is a MessagePack array of integers: the lowest event, then three columns of equal length
  in the order of the keys: types and state keys as differences from the ones before, events as
  differences from the lowest. MessagePack's short integers make an entry about nine bytes.
- A branch is the byte 0xC1 (the one that MessagePack never uses), the number of entries below it
  (4 bytes), the set of its children (2 bytes, lowest bit first) and their hashes.

Hashes have 12 bytes. Among 10^11 nodes an accidental collision has a chance below 10^-7. A
collision could be sought on purpose only by someone who foresees the integers that this server
gives to events and state keys, takes 2^48 tries, and confuses nothing but two states of a room that
they already control; to hit a node of another room takes 2^96. Four bytes more would make every
change in a large room 190 bytes larger.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate
from operator import sub

import msgspec

Key = tuple[int, int]  # (type nid, state key nid), each below 2^32
Entries = dict[Key, int]  # -> event nid

EMPTY = b""  # stands for the tree that has no entries, and for a child that is not there
HASH_BYTES = 12
LEAF_ENTRIES = 32  # a subtree is a leaf if and only if it has at most so many entries
FAN_BITS = 4
FAN_OUT = 1 << FAN_BITS
NO_CHILDREN = (EMPTY,) * FAN_OUT

_BRANCH = 0xC1
_HEAD = struct.Struct(">BIH")
_MASK = (1 << 64) - 1
_TOP = 64 - FAN_BITS
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[int]).decode


def node_hash(node: bytes) -> bytes:
    """The name of a node."""
    return blake2b(node, digest_size=HASH_BYTES).digest()


def is_branch(node: bytes) -> bool:
    """Whether the node names other nodes; otherwise it is a leaf."""
    return node[0] == _BRANCH


def pack_leaf(entries: Mapping[Key, int]) -> bytes:
    """The leaf with these entries, at least one."""
    keys = sorted(entries)
    types, state_keys = zip(*keys, strict=True)
    lowest = min(entries.values())
    events = [entries[key] - lowest for key in keys]
    return _encode([lowest, *_steps(types), *_steps(state_keys), *events])


def leaf_entries(node: bytes) -> Entries:
    """The entries of a leaf."""
    numbers = _decode(node)
    size = len(numbers) // 3
    lowest = numbers[0]
    types = accumulate(numbers[1 : size + 1])
    state_keys = accumulate(numbers[size + 1 : 2 * size + 1])
    events = [lowest + above for above in numbers[2 * size + 1 :]]
    return dict(zip(zip(types, state_keys, strict=True), events, strict=True))


def _steps(column: Sequence[int]) -> Iterable[int]:
    return map(sub, column, (0, *column))  # ends with the shorter one


def pack_branch(size: int, children: Iterable[bytes]) -> bytes:
    """The branch over `size` entries with these children, `EMPTY` or a hash for each slot."""
    present = 0
    hashes = []
    for slot, child in enumerate(children):
        if child:
            present |= 1 << slot
            hashes.append(child)
    return _HEAD.pack(_BRANCH, size, present) + b"".join(hashes)


def branch_size(node: bytes) -> int:
    """How many entries are below a branch."""
    return int.from_bytes(node[1:5])


def branch_children(node: bytes) -> list[bytes]:
    """The hashes of a branch's children by slot, `EMPTY` where there is none."""
    present = int.from_bytes(node[5:7])
    children = []
    place = _HEAD.size
    for slot in range(FAN_OUT):
        if present >> slot & 1:
            children.append(node[place : place + HASH_BYTES])
            place += HASH_BYTES
        else:
            children.append(EMPTY)
    return children


def branch_child(node: bytes, slot: int) -> bytes:
    """The hash of one child of a branch, or `EMPTY`."""
    present = int.from_bytes(node[5:7])
    if not present >> slot & 1:
        return EMPTY
    place = _HEAD.size + HASH_BYTES * (present & (1 << slot) - 1).bit_count()
    return node[place : place + HASH_BYTES]


def spread(key: Key) -> int:
    """A key's place as 64 bits, read from the top, that are even for any pattern of keys.

    No two keys have the same place: both the packing and the mixing (the finaliser of MurmurHash3)
    can be reversed. So a leaf that is too full can always be split.
    """
    bits = (key[0] << 32 ^ key[1]) & _MASK
    bits = (bits ^ bits >> 33) * 0xFF51AFD7ED558CCD & _MASK
    bits = (bits ^ bits >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
    return bits ^ bits >> 33


def slot_of(place: int, depth: int) -> int:
    """In which child of a branch at this depth (the root's is 0) a key with this place belongs."""
    return place >> _TOP - FAN_BITS * depth & FAN_OUT - 1
