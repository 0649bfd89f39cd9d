"""Authentication sessions: the memory of user-interactive authentication between requests.

A session holds the request that waits for authentication, which may contain a new password. So its
contents are encrypted with a key made from the session id, which only the client keeps: the
database has a hash of the id, and nothing in it can be read without the client.

Spec: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api
"""

from hashlib import sha256
from typing import Any

import msgspec
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from homeserver.accounts.times import now_ms
from homeserver.accounts.tokens import new_token
from homeserver.storage.authentication_sessions import (
    delete_authentication_session,
    find_authentication_session,
    save_authentication_session,
)
from homeserver.storage.database import Database
from homeserver.streams.clock import Clock

LIFETIME_MS = 24 * 60 * 60 * 1000


class SessionContent(msgspec.Struct):
    """What one session remembers.

    `operation` and `user_id` say what the client wants to do, and as whom; `body` is the request as
    JSON without `auth`. `completed` maps each completed stage to what it proved, in order.
    `outcome` is what came of the request, where repeating it must not do it twice.
    """

    operation: str
    user_id: str | None
    body: str
    completed: dict[str, Any] = {}
    outcome: str | None = None


class AuthenticationSessions:
    """Stores sessions, sealed."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def find(self, session_id: str) -> SessionContent | None:
        """The contents of a session that has not expired."""
        box, session_hash = _keys(session_id)
        sealed = await self._db.run(find_authentication_session, session_hash, now_ms(self._clock))
        if sealed is None:
            return None
        try:
            return msgspec.json.decode(box.decrypt(sealed), type=SessionContent)
        except CryptoError:
            return None

    async def save(self, session_id: str | None, content: SessionContent) -> str:
        """Keep the contents of a session, or of a new one; gives its id."""
        session_id = session_id or new_token()
        box, session_hash = _keys(session_id)
        sealed = bytes(box.encrypt(msgspec.json.encode(content)))
        expires_ms = now_ms(self._clock) + LIFETIME_MS
        await self._db.run(save_authentication_session, session_hash, sealed, expires_ms)
        return session_id

    async def end(self, session_id: str) -> None:
        """Forget a session."""
        await self._db.run(delete_authentication_session, _keys(session_id)[1])


def _keys(session_id: str) -> tuple[SecretBox, bytes]:
    """What opens the contents, and what finds them; neither leads to the other."""
    raw = session_id.encode()
    return SecretBox(sha256(b"contents\0" + raw).digest()), sha256(b"name\0" + raw).digest()
