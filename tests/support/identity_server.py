"""A scripted identity server: it has the users of addresses, and stores invites.

Spec: https://spec.matrix.org/v1.19/identity-service-api/
"""

from hashlib import sha256
from typing import Any

import msgspec
from twisted.web.server import Request

from homeserver.protocol.signing.signatures import SigningKey, sign_json
from homeserver.protocol.signing.unpadded_base64 import encode_base64_url_safe
from tests.support.certificates import CertificateAuthority
from tests.support.fake_server.scripted_peer import ScriptedPeer

API = "/_matrix/identity/v2"
VALID = f"{API}/pubkey/isvalid"


class IdentityServer(ScriptedPeer):
    """`bound` has users by (medium, address), `invites` the pending invites by token.

    `are_keys_valid` is its response about keys. As with any scripted peer, `answers` can be
    replaced one by one.
    """

    def __init__(self, authority: CertificateAuthority) -> None:
        super().__init__(authority)
        self.bound: dict[tuple[str, str], str] = {}
        self.invites: dict[str, dict[str, Any]] = {}
        self.pepper = "matrixrocks"
        self.are_keys_valid = True
        self.ephemeral = SigningKey.from_seed("0", b"e" * 32)
        self.answers |= {
            f"{API}/hash_details": lambda _: {
                "algorithms": ["none", "sha256"],
                "lookup_pepper": self.pepper,
            },
            f"{API}/lookup": self._lookup,
            f"{API}/store-invite": self._store_invite,
            VALID: lambda _: {"valid": self.are_keys_valid},
        }

    def signed(self, token: str, user_id: str, **more: Any) -> dict[str, Any]:
        """The proof that a user has the address that was invited."""
        return sign_json({"mxid": user_id, "token": token, **more}, self.name, self.key)

    def notification(self, medium: str, address: str, user_id: str) -> dict[str, Any]:
        """The notification to the user's server after they published an address."""
        self.bound[medium, address] = user_id
        invites = [
            {
                "medium": medium,
                "address": address,
                "mxid": user_id,
                "room_id": invite["room_id"],
                "sender": invite["sender"],
                "signed": self.signed(token, user_id),
            }
            for token, invite in self.invites.items()
            if (invite["medium"], invite["address"]) == (medium, address)
        ]
        return {"medium": medium, "address": address, "mxid": user_id, "invites": invites}

    def _lookup(self, request: Request) -> Any:
        body = msgspec.json.decode(self.seen[-1].body)
        if body["pepper"] != self.pepper:
            request.setResponseCode(400)
            return {"errcode": "M_INVALID_PEPPER", "error": "It was changed"}
        known = {self._hash(*key): user_id for key, user_id in self.bound.items()}
        found = {each: known[each] for each in body["addresses"] if each in known}
        return {"mappings": found}

    def _hash(self, medium: str, address: str) -> str:
        text = f"{address} {medium} {self.pepper}".encode()
        return encode_base64_url_safe(sha256(text).digest())

    def _store_invite(self, request: Request) -> Any:
        token = f"token{len(self.invites)}"
        self.invites[token] = msgspec.json.decode(self.seen[-1].body)
        keys = [self.key.verify_key, self.ephemeral.verify_key]
        url = f"https://{self.name}{VALID}"
        return {
            "token": token,
            "public_keys": [{"public_key": key, "key_validity_url": url} for key in keys],
            "display_name": "c...@e...",
        }
