"""Backed up room keys: the data of one key, and which of two keys for a session a backup keeps.

The server cannot read `session_data`, which is encrypted for the user; it decides by the metadata
beside it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups
"""

from typing import Annotated

import msgspec

MAX_INTEGER = 2**53 - 1  # of canonical JSON

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]


class KeyBackupData(msgspec.Struct, frozen=True):
    """One key of a backup: `session_data` is opaque JSON, an object, byte for byte."""

    first_message_index: Count
    forwarded_count: Count
    is_verified: bool
    session_data: msgspec.Raw


KeyRank = tuple[bool, int, int]
"""The order of keys for one session: the lower one is better."""


def rank(*, is_verified: bool, first_message_index: int, forwarded_count: int) -> KeyRank:
    """The rank of a key by its metadata.

    A key of a verified device comes first, then one that decrypts more messages, then one that
    passed through fewer devices.
    """
    return (not is_verified, first_message_index, forwarded_count)


def is_replaced(stored: KeyRank, uploaded: KeyRank) -> bool:
    """Whether a backup replaces its key for a session by an uploaded one.

    Of equal ones it keeps the stored one, so that uploading a key twice changes nothing.
    """
    return uploaded < stored
