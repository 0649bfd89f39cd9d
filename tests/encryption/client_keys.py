"""Keys of devices and users, as clients make them; without the encryption that uses them."""

from hashlib import sha256
from typing import Any

from homeserver.protocol.signing.canonical_json import encode_canonical
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.protocol.signing.unpadded_base64 import encode_base64
from tests.support.actors import Actor

ALGORITHMS = ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"]


class DeviceKeys:
    """The keys of one device; `seed` makes different ones."""

    def __init__(self, actor: Actor, seed: str = "") -> None:
        self.user_id, self.device_id = actor.user_id, actor.device_id
        self._seed = f"{self.user_id} {self.device_id} {seed}".encode()
        self._key = _key(self._seed)

    @property
    def identity(self) -> dict[str, Any]:
        """The identity keys, signed."""
        return self.sign(
            {
                "user_id": self.user_id,
                "device_id": self.device_id,
                "algorithms": ALGORITHMS,
                "keys": {
                    f"curve25519:{self.device_id}": encode_base64(
                        sha256(b"c" + self._seed).digest()
                    ),
                    f"ed25519:{self.device_id}": self._key.verify_key,
                },
            }
        )

    def one_time(self, *names: str, **members: Any) -> dict[str, Any]:
        """Signed one-time keys with these ids."""
        return {
            f"signed_curve25519:{name}": self.sign(
                {"key": encode_base64(f"{name} {self.device_id}".encode()), **members}
            )
            for name in names
        }

    def fallback(self, name: str) -> dict[str, Any]:
        """A signed fallback key with this id."""
        return self.one_time(name, fallback=True)

    def sign(self, value: dict[str, Any]) -> dict[str, Any]:
        """A copy of an object with a signature by the device."""
        return _signed(value, self.user_id, self.device_id, self._key)


class CrossSigningKeys:
    """The cross-signing keys of a user; `seed` makes different ones."""

    def __init__(self, actor: Actor, seed: str = "") -> None:
        self.user_id = actor.user_id
        self._keys = {
            usage: _key(f"{usage} {self.user_id} {seed}".encode())
            for usage in ("master", "self_signing", "user_signing")
        }

    def public(self, usage: str) -> str:
        """The public key for a usage."""
        return self._keys[usage].verify_key

    def key(self, usage: str) -> dict[str, Any]:
        """The key for a usage; all but the master key are signed by it."""
        public = self.public(usage)
        key = {"user_id": self.user_id, "usage": [usage], "keys": {f"ed25519:{public}": public}}
        return key if usage == "master" else self.sign(key, "master")

    def upload(self, *usages: str) -> dict[str, Any]:
        """The body that uploads the keys for these usages, or for all."""
        return {f"{usage}_key": self.key(usage) for usage in usages or self._keys}

    def sign(self, value: dict[str, Any], usage: str) -> dict[str, Any]:
        """A copy of an object with a signature by one of the keys."""
        return _signed(value, self.user_id, self.public(usage), self._keys[usage])

    def signatures(self, value: dict[str, Any], usage: str) -> dict[str, Any]:
        """The member `signatures` of an object with a signature by one of the keys only."""
        signatures: dict[str, Any] = self.sign({**value, "signatures": {}}, usage)["signatures"]
        return signatures


def _signed(value: dict[str, Any], user_id: str, key_id: str, key: SigningKey) -> dict[str, Any]:
    signature = encode_base64(key.sign(_canonical(value)))
    signatures = {**value.get("signatures", {})}
    signatures[user_id] = {**signatures.get(user_id, {}), f"ed25519:{key_id}": signature}
    return {**value, "signatures": signatures}


def _key(seed: bytes) -> SigningKey:
    return SigningKey.from_seed("x", sha256(seed).digest())


def _canonical(value: dict[str, Any]) -> bytes:
    rest = {key: each for key, each in value.items() if key not in ("signatures", "unsigned")}
    return encode_canonical(rest)
