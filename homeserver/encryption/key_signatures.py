"""Uploading signatures of keys: of the user's own devices and master key, and of other users.

The self-signing key signs the user's devices, these sign the user's master key, and the
user-signing key signs the master keys of others. Everybody sees signatures of the user's own keys,
only the user those of others.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.encryption.changes import UserSignaturesChanged
from homeserver.encryption.device_directory import DeviceDirectory
from homeserver.encryption.device_lists import DeviceLists
from homeserver.encryption.user_devices import (
    MASTER,
    SELF_SIGNING,
    USER_SIGNING,
    UserDevices,
)
from homeserver.protocol.encryption.key_signatures import (
    Key,
    check_is_same,
    check_signature,
    key_name,
    signatures_by,
)
from homeserver.protocol.errors import (
    InvalidParam,
    InvalidSignature,
    MatrixError,
    NotFound,
    TooLarge,
    UserLimitExceeded,
)
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.cross_signing import (
    SET_KEY_SIGNATURE,
    SignatureRow,
    count_signatures_by,
)
from homeserver.storage.encryption.cross_signing import signatures_by as stored_signatures_by
from homeserver.streams.log import Log

MAX_SIGNATURES = 50_000  # by one user
MAX_KEYS = 200  # in one request
MAX_NEW_OF_KEY = 100  # signatures of one key in one request

SignedKeys = Mapping[str, Mapping[str, Key]]
"""Keys with signatures, by user id and key id: a device id, or the public key of a master key."""

Failures = dict[str, dict[str, dict[str, Any]]]
"""Errors by user id and key id."""


class _Signing(NamedTuple):
    """The keys of a user who signs, and of the users whose keys are signed.

    `made` are the signatures by the user of keys of others, by user id and key id, then by name.
    """

    signer: str
    known: Mapping[str, UserDevices]
    made: Mapping[tuple[str, str], Mapping[str, str]]

    def add_valid(self, new: list[SignatureRow], user_id: str, key_id: str, signed: Key) -> None:
        """Add the valid signatures of a key that are not there yet to `new`.

        Raises `NotFound`, `InvalidParam`, and `InvalidSignature` if others are not valid.
        """
        keys = self.known.get(user_id)
        if keys is None:
            raise InvalidParam("This is no user ID")
        if user_id == self.signer and key_id in keys.devices:
            stored = keys.devices[key_id].keys
            if stored is None:
                raise NotFound("The device has no keys")
            signers = self._cross_signing_key(SELF_SIGNING)
        elif key_id == keys.public_key_of(MASTER):
            stored = keys.cross_signing[MASTER]
            is_own = user_id == self.signer
            signers = self._devices() if is_own else self._cross_signing_key(USER_SIGNING)
        else:
            raise NotFound("The user has no such device or master key")
        check_is_same(signed, stored)
        present = {**signatures_by(stored, self.signer), **self.made.get((user_id, key_id), {})}
        failure: InvalidSignature | None = None
        for name, signature in self._to_check(signed, signers, present).items():
            try:
                checked = check_signature(stored, self.signer, name, signature, signers[name])
            except InvalidSignature as error:
                failure = error
            else:
                if checked != present.get(name):
                    new.append(SignatureRow(user_id, key_id, name, checked))
        if failure is not None:
            raise failure

    def _to_check(
        self, signed: Key, signers: Mapping[str, str], present: Mapping[str, str]
    ) -> dict[str, str]:
        """The signatures of a key by keys that may sign it, without those that are present."""
        given = signatures_by(signed, self.signer)
        relevant = {name: given[name] for name in signers if name in given}
        if not relevant:
            raise InvalidSignature("No key that may sign this one has signed it")
        new = {name: text for name, text in relevant.items() if text != present.get(name)}
        if len(new) > MAX_NEW_OF_KEY:
            raise InvalidParam(f"A key gets at most {MAX_NEW_OF_KEY} signatures in a request")
        return new

    def _cross_signing_key(self, usage: str) -> dict[str, str]:
        """A cross-signing key of the user: its public key by its name. Raises `NotFound`."""
        public_key = self.known[self.signer].public_key_of(usage)
        if public_key is None:
            raise NotFound(f"The user has no {usage} key")
        return {key_name(public_key): public_key}

    def _devices(self) -> dict[str, str]:
        """The public keys of the user's devices by their names."""
        found: dict[str, str] = {}
        for device_id, device in self.known[self.signer].devices.items():
            name = key_name(device_id)
            public_key = None if device.keys is None else device.keys.get("keys", {}).get(name)
            if public_key is not None:
                found[name] = public_key
        return found


class KeySignatures:
    """Checks and stores the signatures that local users upload."""

    def __init__(
        self,
        db: Database,
        log: Log,
        clock: Clock,
        directory: DeviceDirectory,
        device_lists: DeviceLists,
        key_locks: KeyedLocks[str],
    ) -> None:
        self._db = db
        self._log = log
        self._clock = clock
        self._directory = directory
        self._device_lists = device_lists
        self._key_locks = key_locks

    async def upload(self, signer: str, signed: SignedKeys) -> Failures:
        """Store a user's signatures: those that are valid. The errors of the others.

        Raises `TooLarge` and `UserLimitExceeded`; then nothing is stored.
        """
        if len(signed) + sum(map(len, signed.values())) > MAX_KEYS:
            raise TooLarge(f"A request has signatures of at most {MAX_KEYS} keys and users")
        async with self._key_locks.hold(signer):
            users = {user_id for user_id in signed if is_valid_user_id(user_id)}
            known = await self._directory.of_all({signer, *users})
            signing = _Signing(signer, known, await self._made(signer, users))
            new: list[SignatureRow] = []
            failures: Failures = {}
            time_slice = TimeSlice(self._clock)
            for user_id, keys in signed.items():
                for key_id, key in keys.items():
                    try:
                        signing.add_valid(new, user_id, key_id, key)
                    except MatrixError as error:
                        failures.setdefault(user_id, {})[key_id] = error.body()
                    if time_slice.is_over:
                        await time_slice.next()
            if new:
                await self._store(signer, new, signing.known[signer])
        return failures

    async def _made(
        self, signer: str, users: Collection[str]
    ) -> dict[tuple[str, str], dict[str, str]]:
        made: dict[tuple[str, str], dict[str, str]] = {}
        if any(user_id != signer for user_id in users):
            for row in await self._db.run(stored_signatures_by, signer, list(users)):
                of_key = made.setdefault((row.user_id, row.key_id), {})
                of_key[row.signing_key] = row.signature
        return made

    async def _store(self, signer: str, new: Sequence[SignatureRow], own: UserDevices) -> None:
        count = await self._db.run(count_signatures_by, signer, MAX_SIGNATURES)
        if count + len(new) > MAX_SIGNATURES:
            raise UserLimitExceeded(f"A user has at most {MAX_SIGNATURES} signatures of keys")
        await self._device_lists.prepare(signer)
        self._log.check_open()
        position = self._log.next_position()
        users = tuple(sorted({row.user_id for row in new}))
        rows = [SET_KEY_SIGNATURE.row(signer, *row, position) for row in new]
        written = self._log.append(UserSignaturesChanged(position, signer, users), rows)
        for key_id in dict.fromkeys(row.key_id for row in new if row.user_id == signer):
            self._device_lists.record(signer, key_id if key_id in own.devices else None)
        await written
