"""The JSON of an event as the table `events` stores it: compressed, the exact bytes come back.

More than half of a message's JSON is the same in all messages, and most of the rest is base64. A
dictionary with the former, and with how frequent the characters of the latter are, halves it.

The stored form is the JSON itself, which begins with `{`, as before there were dictionaries and
where compressing gains nothing; or

- the version of the dictionary, one byte;
- the number of bytes of the JSON, three bytes, most significant first (in SQL: `event_json_size`);
- a frame of Zstandard without magic number, size and checksum.

A dictionary is never changed or removed, as stored events need it: a better one gets the next
version. `tools/event_dictionary.py` makes it.

Spec: https://www.rfc-editor.org/rfc/rfc8878
"""

from pathlib import Path

import zstandard

VERSION = 1
HEAD_BYTES = 4
MAX_BYTES = 1_048_576  # of JSON that is compressed; events have at most 65,536
LEVEL = 1  # higher ones take longer, and gain nothing

_dictionary = zstandard.ZstdCompressionDict(
    Path(__file__).with_name(f"event_dictionary_{VERSION}.zdict").read_bytes()
)
_parameters = zstandard.ZstdCompressionParameters.from_level(
    LEVEL,
    window_log=16,
    hash_log=10,  # a larger table finds hardly more in a message, and costs a cold cache more
    format=zstandard.FORMAT_ZSTD1_MAGICLESS,
    write_content_size=False,
    write_checksum=False,
    write_dict_id=False,
)
# Only the reactor's thread uses them: neither may be used by two threads at a time.
_compressor = zstandard.ZstdCompressor(dict_data=_dictionary, compression_params=_parameters)
_decompressor = zstandard.ZstdDecompressor(
    dict_data=_dictionary, format=zstandard.FORMAT_ZSTD1_MAGICLESS
)


class DamagedJson(ValueError):
    """The database has what is no stored form of any JSON."""


def pack_json(json: bytes | memoryview) -> bytes | memoryview:
    """The stored form of an event's JSON."""
    if len(json) > MAX_BYTES:
        return json
    frame = _compressor.compress(json)
    if HEAD_BYTES + len(frame) >= len(json):
        return json
    return b"%c%b%b" % (VERSION, len(json).to_bytes(3), frame)


def unpack_json(stored: bytes) -> bytes:
    """The JSON of a stored form. It has no more bytes than that says. Raises `DamagedJson`."""
    if stored.startswith(b"{"):
        return stored
    size = int.from_bytes(stored[1:HEAD_BYTES])
    if stored[:1] != b"%c" % VERSION or not 0 < size <= MAX_BYTES:
        raise DamagedJson(f"an event was stored in an unknown form: {stored[:HEAD_BYTES]!r}")
    try:
        json = _decompressor.decompress(stored[HEAD_BYTES:], max_output_size=size)
    # Of more memory than there is, if a damaged frame says that it has so many bytes.
    except (zstandard.ZstdError, MemoryError) as error:
        raise DamagedJson(f"the stored JSON of an event is damaged: {error}") from error
    if len(json) != size:
        raise DamagedJson(f"the stored JSON of an event has {len(json)} bytes instead of {size}")
    return json
