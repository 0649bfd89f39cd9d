"""What this package asks of other servers; `federation/remote/remote_keys.py` sends the requests.

Spec: https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from homeserver.protocol.encryption.remote_keys import RemoteDeviceList, RemoteKeys

ClaimedKeys = Mapping[str, Mapping[str, Mapping[str, msgspec.Raw]]]
"""Claimed keys by user id, device id, and the name of the key."""


class KeysUnavailable(Exception):
    """A server gave no usable answer. `status` and `reason` are for clients: no addresses."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class RemoteKeysPort(Protocol):
    """Requests to other servers, with checked answers. All raise `KeysUnavailable`."""

    async def fetch_device_list(self, user_id: str) -> RemoteDeviceList:
        """All devices of a user, from their server."""

    async def query(
        self, server: str, wanted: Mapping[str, Sequence[str]]
    ) -> Mapping[str, RemoteKeys]:
        """The keys of users of a server, of all devices or some."""

    async def claim(self, server: str, claims: Mapping[str, Mapping[str, str]]) -> ClaimedKeys:
        """A key for each claim, algorithm by user id and device id, that the server can satisfy."""
