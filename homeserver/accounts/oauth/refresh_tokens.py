"""The form of the refresh tokens of the OAuth 2.0 API: `FAMILY.GENERATION.SECRET`.

All tokens of a session share the random family, of which the server has the hash. So an old token,
which is stored nowhere, still names its session, and shows that somebody has a copy of it. The
generation tells such a token from one that was replaced because its response was lost.

Spec: https://spec.matrix.org/v1.19/client-server-api/#refresh-token-grant
"""

import secrets

import msgspec

from homeserver.accounts.sessions.secret_tokens import new_token, token_hash

FAMILY_BYTES = 16
MAX_TOKEN = 255  # characters; tokens of this server are shorter


class RefreshTokenParts(msgspec.Struct, frozen=True):
    """What a refresh token says of itself; only its stored hash proves it."""

    family: str
    generation: int

    @property
    def family_hash(self) -> bytes:
        """The hash that is stored in place of the family."""
        return token_hash(self.family)

    def next_token(self) -> str:
        """A token of the next generation."""
        return f"{self.family}.{self.generation + 1}.{new_token()}"


def new_family() -> RefreshTokenParts:
    """A fresh family, whose first token is the next one."""
    return RefreshTokenParts(secrets.token_urlsafe(FAMILY_BYTES), -1)


def parse_refresh_token(token: str) -> RefreshTokenParts | None:
    """The parts of a token, or `None` if it has another form."""
    parts = token.split(".") if len(token) <= MAX_TOKEN and token.isascii() else []
    if len(parts) != 3 or not parts[0] or not parts[1].isdigit() or len(parts[1]) > 9:
        return None
    return RefreshTokenParts(parts[0], int(parts[1]))
