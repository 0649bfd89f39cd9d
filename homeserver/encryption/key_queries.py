"""Finding and claiming keys: here those of local users, at their servers those of others.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery
"""

from collections.abc import Iterable, Mapping, Sequence
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
from homeserver.protocol.errors import TooLarge
from homeserver.rooms.events.local_server import LocalServer
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.cross_signing import SignatureRow, signatures_by
from homeserver.storage.encryption.one_time_keys import WantedKey

MAX_CLAIMS = 10_000  # keys of one request
MAX_RESPONSE_BYTES = 32 * 1_048_576  # of identity keys

Claims = Mapping[str, Mapping[str, str]]
"""Claimed keys: algorithm by user id and device id."""

KeysByDevice = Mapping[str, Mapping[str, msgspec.Raw]]
"""Claimed keys by device id and the name of the key."""

Wanted = TypeVar("Wanted")
_encode = msgspec.json.Encoder().encode


class QueriedKeys(msgspec.Struct):
    """The answer to a query: JSON by user id. `size` is that of the identity keys, in bytes."""

    device_keys: dict[str, bytes] = msgspec.field(default_factory=dict)
    master_keys: dict[str, bytes] = msgspec.field(default_factory=dict)
    self_signing_keys: dict[str, bytes] = msgspec.field(default_factory=dict)
    user_signing_keys: dict[str, bytes] = msgspec.field(default_factory=dict)
    failures: dict[str, Any] = msgspec.field(default_factory=dict)
    size: int = 0

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


class ClaimedKeys(msgspec.Struct, frozen=True):
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

        Other servers have so many seconds to respond. Raises `TooLarge`.
        """
        found = QueriedKeys()
        remote = await self._remote.query(user_id, self._remote_of(wanted), seconds)
        found.failures.update(remote.failures)
        local = [each for each in wanted if self._local_server.is_local(each)]
        seen = await self._signatures_by(user_id, [*local, *remote.users])
        async for known in self._directory.in_parts(local):
            for each, devices in known.items():
                self._add(found, user_id, each, devices, wanted[each], seen.get(each, ()))
        for each, devices in remote.users.items():
            self._add(found, user_id, each, devices, wanted[each], seen.get(each, ()))
        return found

    def _add(
        self,
        found: QueriedKeys,
        seer: str,
        user_id: str,
        devices: UserDevices,
        device_ids: Sequence[str],
        signatures: Iterable[SignatureRow],
    ) -> None:
        """Add a user's keys as `seer` sees them, with the `signatures` that they made."""
        add_found(found, user_id, devices, device_ids)
        master = devices.cross_signing.get(MASTER)
        if master is not None and signatures:
            public = devices.public_key_of(MASTER)
            rows = [row for row in signatures if row.key_id == public]
            found.master_keys[user_id] = _encode(with_signatures(master, seer, rows))
        if user_id == seer and USER_SIGNING in devices.cross_signing_encoded:
            found.user_signing_keys[user_id] = devices.cross_signing_encoded[USER_SIGNING]

    async def _signatures_by(
        self, signer: str, user_ids: Sequence[str]
    ) -> dict[str, list[SignatureRow]]:
        rows: dict[str, list[SignatureRow]] = {}
        for row in await self._db.run(signatures_by, signer, user_ids):
            rows.setdefault(row.user_id, []).append(row)
        return rows

    async def claim(self, user_id: str, claims: Claims, seconds: float) -> ClaimedKeys:
        """A key for each claim of one user: by user, device, and key name, where there is one.

        Other servers have so many seconds to respond. Raises `TooLarge`.
        """
        check_number(claims)
        remote = await self._remote.claim(user_id, self._remote_of(claims), seconds)
        return ClaimedKeys({**await self.claim_local(claims), **remote.keys}, remote.failures)

    async def claim_local(self, claims: Claims) -> dict[str, KeysByDevice]:
        """A key for each claim of a local device that has one; other users are left out.

        Raises `TooLarge`.
        """
        check_number(claims)
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


def check_number(claims: Claims) -> None:
    """Raise `TooLarge` for more claims than one request may have."""
    if sum(map(len, claims.values())) > MAX_CLAIMS:
        raise TooLarge(f"One request may claim at most {MAX_CLAIMS} keys")


def add_found(
    found: QueriedKeys, user_id: str, known: UserDevices, device_ids: Sequence[str]
) -> None:
    """Add a user's devices, all or those that were asked for, and public cross-signing keys.

    Raises `TooLarge` for more than one response may have.
    """
    keys = known.device_keys
    if device_ids:
        keys = object_of(
            {each: known.encoded[each] for each in device_ids if each in known.encoded}
        )
    found.device_keys[user_id] = keys
    found.size += len(keys)
    if found.size > MAX_RESPONSE_BYTES:
        raise TooLarge("The keys of these users are too large for one response")
    for usage, shown in ((MASTER, found.master_keys), (SELF_SIGNING, found.self_signing_keys)):
        if usage in known.cross_signing_encoded:
            shown[user_id] = known.cross_signing_encoded[usage]
