"""Signatures of texts: numbers that stand for their words, and many such numbers as a few bits.

The search index has no words. Each token of a text, and some of its beginnings, becomes a number of
16 bits; a text has a token only if it has the token's number. A *signature* stands for the numbers
of many texts, and has two bits of each of them, as a Bloom filter. Both may say yes wrongly, so
what they find is compared with the text itself. They never say no wrongly.

Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-search
"""

import struct
from array import array
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from typing import Final
from zlib import crc32

from homeserver.protocol.search.words import indexed_tokens

BEGINNINGS: Final = (3, 4, 6, 9)  # characters of the beginnings of a token that have numbers
BITS: Final = 12  # of a signature for each number: one in forty of all other numbers seems there
MIN_BYTES: Final = 8  # of a signature
MAX_CACHED: Final = 16_384  # tokens
_FACTORS: Final = (0x9E3779B1, 0x85EBCA77)  # odd, and without any pattern
_FORMATS: Final = [struct.Struct(f"={count}H") for count in range(len(BEGINNINGS) + 3)]
_MASK: Final = 0xFFFFFFFF


def text_numbers(text: str) -> bytes:
    """The numbers of a text, two bytes each; some may be there several times."""
    return b"".join(map(_numbers, set(indexed_tokens(text))))


def unpack_numbers(packed: bytes) -> "array[int]":
    """The numbers that `text_numbers` has packed."""
    return array("H", packed)


def wanted_numbers(tokens: Iterable[tuple[str, bool]]) -> frozenset[int]:
    """The numbers that a text has if it has all tokens; each may be only the beginning of one."""
    return frozenset(
        _number(_beginning(token) if is_prefix else token) for token, is_prefix in tokens
    )


def signature(numbers: Collection[int]) -> bytes:
    """The signature of different numbers."""
    bits = bytearray(max(MIN_BYTES, len(numbers) * BITS // 8))
    size = len(bits) * 8
    first, second = _FACTORS
    for number in numbers:
        place = ((number * first & _MASK) >> 8) % size
        bits[place >> 3] |= 1 << (place & 7)
        place = ((number * second & _MASK) >> 8) % size
        bits[place >> 3] |= 1 << (place & 7)
    return bytes(bits)


def signature_places(numbers: Iterable[int]) -> Iterator[int]:
    """The bits that a signature has of its numbers, modulo its size in bits.

    PostgreSQL's `get_bit` counts them in the same way.
    """
    for number in numbers:
        for factor in _FACTORS:
            yield (number * factor & _MASK) >> 8


@lru_cache(maxsize=MAX_CACHED)
def _numbers(token: str) -> bytes:
    """The numbers of a token and of its beginnings, packed."""
    size = len(token)
    parts = [token, *[token[:length] for length in BEGINNINGS if length < size]]
    if size == 2 and not token.isascii():
        parts.append(token[0])  # of a script without spaces, each character can be found
    return _FORMATS[len(parts)].pack(*[_number(part) for part in parts])


def _beginning(prefix: str) -> str:
    """The longest beginning of a prefix that has a number in each text with the prefix."""
    fitting = [length for length in BEGINNINGS if length <= len(prefix)]
    return prefix[: fitting[-1]] if fitting else prefix


def _number(part: str) -> int:
    return crc32(part.encode("utf-8", "surrogatepass")) & 0xFFFF
