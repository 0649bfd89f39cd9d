"""Tokens for clients, of which the server stores only the hash.

A token has 256 bits of randomness, so a plain SHA-256 is enough to make a stolen table worthless;
passwords, which people choose, need more (`passwords.py`).
"""

import secrets
import string
from hashlib import sha256

TOKEN_BYTES = 32
DEVICE_ID_LENGTH = 10


def new_token() -> str:
    """A fresh secret of URL-safe characters."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def token_hash(token: str) -> bytes:
    """The hash that is stored in place of a token."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def new_device_id() -> str:
    """A fresh device id: ten capital letters, which people can compare."""
    return "".join(secrets.choice(string.ascii_uppercase) for _ in range(DEVICE_ID_LENGTH))
