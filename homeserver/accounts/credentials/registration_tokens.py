"""Registration tokens, which a user needs to register on servers that require one.

Spec: https://spec.matrix.org/v1.19/client-server-api/#token-authenticated-registration
"""

from secrets import token_hex

from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.errors import InvalidParam, NotFound
from homeserver.protocol.identifiers import is_valid_opaque_id
from homeserver.storage.accounts.registration_tokens import (
    RegistrationToken,
    all_registration_tokens,
    delete_registration_token,
    insert_registration_token,
    is_registration_token_valid,
)
from homeserver.storage.database.database import Database

MAX_LENGTH = 64
RANDOM_BYTES = 10  # of a token that the server makes


class RegistrationTokens:
    """Checks whether tokens are valid."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def is_valid(self, token: str) -> bool:
        """Whether a token is known, not used up and not expired."""
        if not _is_well_formed(token):
            return False
        return await self._db.run(is_registration_token_valid, token, now_ms(self._clock))


async def issue_registration_token(
    db: Database, token: str | None, uses_allowed: int | None, expires_ms: int | None
) -> str:
    """Issue a token, a random one unless it is given, and return it.

    `uses_allowed` is the number of accounts, None for any; `expires_ms` is the end, None for none.
    Raises `InvalidParam` if the token is not well-formed or exists already.
    """
    if token is None:
        token = token_hex(RANDOM_BYTES)
    elif not _is_well_formed(token):
        raise InvalidParam(
            f"a token has 1 to {MAX_LENGTH} of the characters A-Z, a-z, 0-9, '.', '_', '~' and '-'"
        )
    if not await db.run(insert_registration_token, token, uses_allowed, expires_ms):
        raise InvalidParam(f"the token {token} exists already")
    return token


async def list_registration_tokens(db: Database) -> list[RegistrationToken]:
    """All tokens, by name."""
    return await db.run(all_registration_tokens)


async def withdraw_registration_token(db: Database, token: str) -> None:
    """Remove a token. Raises `NotFound` if there is none."""
    if "\0" in token or not await db.run(delete_registration_token, token):
        raise NotFound(f"there is no token {token}")


def _is_well_formed(token: str) -> bool:
    return len(token) <= MAX_LENGTH and is_valid_opaque_id(token)
