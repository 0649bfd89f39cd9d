"""Finding and claiming keys: here those of local users, at their servers those of others.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from homeserver.encryption.device_directory import DeviceDirectory
from homeserver.encryption.one_time_keys import OneTimeKeys
from homeserver.encryption.remote.remote_key_queries import RemoteKeyQueries
from homeserver.encryption.user_devices import (
    MASTER,
    SELF_SIGNING,
    USER_SIGNING,
    UserDevices,
    object_of,
    with_signatures,
)
from homeserver.rooms.events.local_server import LocalServer
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.cross_signing import SignatureRow, signatures_by
from homeserver.storage.encryption.one_time_keys import WantedKey

Claims = Mapping[str, Mapping[str, str]]
"""Claimed keys: algorithm by user id and device id."""

KeysByDevice = Mapping[str, Mapping[str, msgspec.Raw]]
"""Claimed keys by device id and the name of the key."""

Wanted = TypeVar("Wanted")
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class QueriedKeys:
    """The answer to a query: JSON by user id."""

    device_keys: dict[str, bytes] = field(default_factory=dict)
    master_keys: dict[str, bytes] = field(default_factory=dict)
    self_signing_keys: dict[str, bytes] = field(default_factory=dict)
    user_signing_keys: dict[str, bytes] = field(default_factory=dict)
    failures: dict[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The response of the Client-Server API."""
        members = {
            "device_keys": object_of(self.device_keys),
            "failures": _encode(self.failures),
            "master_keys": object_of(self.master_keys),
            "self_signing_keys": object_of(self.self_signing_keys),
            "user_signing_keys": object_of(self.user_signing_keys),
        }
        return object_of(members)


@dataclass(frozen=True, slots=True)
class ClaimedKeys:
    """The answer to claims: keys by user id, and the servers that gave none, with the reasons."""

    keys: Mapping[str, KeysByDevice]
    failures: Mapping[str, Any]


class KeyQueries:
    """Finds and claims keys for the clients of this server."""

    def __init__(
        self,
        db: Database,
        directory: DeviceDirectory,
        one_time_keys: OneTimeKeys,
        local_server: LocalServer,
        remote: RemoteKeyQueries,
    ) -> None:
        self._db = db
        self._directory = directory
        self._one_time_keys = one_time_keys
        self._local_server = local_server
        self._remote = remote

    async def query(
        self, user_id: str, wanted: Mapping[str, Sequence[str]], seconds: float
    ) -> QueriedKeys:
        """The keys of users as one user sees them; an empty list asks for all devices.

        Other servers have so many seconds to respond.
        """
        found = QueriedKeys()
        remote = await self._remote.query(user_id, self._remote_of(wanted), seconds)
        found.failures.update(remote.failures)
        local = [each for each in wanted if self._local_server.is_local(each)]
        known = {**await self._directory.of_all(local), **remote.users}
        seen = await self._signatures_by(user_id, list(known))
        for each, devices in known.items():
            add_found(found, each, devices, wanted[each])
            master = devices.cross_signing.get(MASTER)
            if master is not None and each in seen:
                public = devices.public_key_of(MASTER)
                rows = [row for row in seen[each] if row.key_id == public]
                found.master_keys[each] = _encode(with_signatures(master, user_id, rows))
            if each == user_id and USER_SIGNING in devices.cross_signing_encoded:
                found.user_signing_keys[each] = devices.cross_signing_encoded[USER_SIGNING]
        return found

    async def _signatures_by(
        self, signer: str, user_ids: Sequence[str]
    ) -> dict[str, list[SignatureRow]]:
        rows: dict[str, list[SignatureRow]] = {}
        for row in await self._db.run(signatures_by, signer, user_ids):
            rows.setdefault(row.user_id, []).append(row)
        return rows

    async def claim(self, user_id: str, claims: Claims, seconds: float) -> ClaimedKeys:
        """A key for each claim of one user: by user, device, and key name, where there is one.

        Other servers have so many seconds to respond.
        """
        remote = await self._remote.claim(user_id, self._remote_of(claims), seconds)
        return ClaimedKeys({**await self.claim_local(claims), **remote.keys}, remote.failures)

    async def claim_local(self, claims: Claims) -> dict[str, KeysByDevice]:
        """A key for each claim of a local device that has one; other users are left out."""
        wanted = [
            WantedKey(user_id, device_id, algorithm)
            for user_id, devices in claims.items()
            if self._local_server.is_local(user_id)
            for device_id, algorithm in devices.items()
        ]
        keys: dict[str, dict[str, dict[str, msgspec.Raw]]] = {}
        for each, found in zip(wanted, await self._one_time_keys.claim(wanted), strict=True):
            if found is not None:
                devices = keys.setdefault(each.user_id, {})
                devices[each.device_id] = {
                    f"{each.algorithm}:{found.key_id}": msgspec.Raw(found.key)
                }
        return {**keys}

    def _remote_of(self, wanted: Mapping[str, Wanted]) -> dict[str, Wanted]:
        return {
            user_id: each
            for user_id, each in wanted.items()
            if not self._local_server.is_local(user_id)
        }


def add_found(
    found: QueriedKeys, user_id: str, known: UserDevices, device_ids: Sequence[str]
) -> None:
    """Add a user's devices, all or those that were asked for, and public cross-signing keys."""
    if device_ids:
        chosen = {each: known.encoded[each] for each in device_ids if each in known.encoded}
        found.device_keys[user_id] = object_of(chosen)
    else:
        found.device_keys[user_id] = known.device_keys
    for usage, keys in ((MASTER, found.master_keys), (SELF_SIGNING, found.self_signing_keys)):
        if usage in known.cross_signing_encoded:
            keys[user_id] = known.cross_signing_encoded[usage]
