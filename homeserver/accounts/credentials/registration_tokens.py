"""Registration tokens, which a user needs to register on servers that require one.

Spec: https://spec.matrix.org/v1.19/client-server-api/#token-authenticated-registration
"""

from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.identifiers import is_valid_opaque_id
from homeserver.storage.accounts.registration_tokens import is_registration_token_valid
from homeserver.storage.database.database import Database

MAX_LENGTH = 64


class RegistrationTokens:
    """Checks whether tokens are valid."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def is_valid(self, token: str) -> bool:
        """Whether a token is known, not used up and not expired."""
        if len(token) > MAX_LENGTH or not is_valid_opaque_id(token):
            return False
        return await self._db.run(is_registration_token_valid, token, now_ms(self._clock))
