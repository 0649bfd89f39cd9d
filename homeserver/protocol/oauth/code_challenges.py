"""Proof Key for Code Exchange, by the method S256.

Source: https://datatracker.ietf.org/doc/html/rfc7636
"""

import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from hmac import compare_digest
from typing import Final

S256: Final = "S256"

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


def is_valid_challenge(challenge: str) -> bool:
    """Whether a text can be the challenge of a verifier."""
    return _CHALLENGE.fullmatch(challenge) is not None


def challenge_of(verifier: str) -> str:
    """The challenge of a verifier."""
    return urlsafe_b64encode(sha256(verifier.encode()).digest()).decode().rstrip("=")


def is_proved(verifier: str, challenge: str) -> bool:
    """Whether a verifier is valid, and has this challenge."""
    if not _VERIFIER.fullmatch(verifier):
        return False
    return compare_digest(challenge_of(verifier), challenge)
