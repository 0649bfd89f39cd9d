"""Authentication sessions: the state of user-interactive authentication between requests.

A session has the request that waits for authentication, which may contain a new password. So its
contents are encrypted with a key derived from the session id, which only the client keeps: the
database has a hash of the id, and nothing in it can be read without the client.

Any client can begin sessions, so they are bounded in size and in number: for each party, which is a
user or, before authentication, a network address, and for all together. Most are left unfinished,
as clients ask what is needed whenever they show a form; so a party with too many loses its oldest.
A session's id begins with a tag of its party, and so does the key under which it is stored: the
sessions of a party are adjacent in the database.

Spec: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api
"""

from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any

import msgspec
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from homeserver.accounts.sessions.secret_tokens import new_token
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.errors import LimitExceeded, TooLarge
from homeserver.storage.accounts.authentication_sessions import (
    NewSession,
    SessionLimits,
    add_authentication_session,
    delete_authentication_session,
    find_authentication_session,
    update_authentication_session,
)
from homeserver.storage.database.database import Database

LIFETIME_MS = 24 * 60 * 60 * 1000
MAX_OF_PARTY = 200  # unfinished sessions; many people may have one address
MAX_IN_ALL = 50_000
MAX_BYTES = 65_536  # of the contents
MAX_UNAUTHENTICATED_BYTES = 16_384  # for clients without a user
RETRY_AFTER_MS = 600_000
TAG_SIZE = 11  # characters


class SessionContent(msgspec.Struct):
    """The contents of one session.

    `operation` and `user_id` are those that the client authenticates for; `body` is the request as
    JSON without `auth`. `completed` maps each completed stage to what it proved, in order.
    `outcome` is the result of the request, where repeating it must not do it twice.
    """

    operation: str
    user_id: str | None
    body: str
    completed: dict[str, Any] = {}
    outcome: str | None = None


class AuthenticationSessions:
    """Stores sessions, encrypted."""

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

    async def save(self, session_id: str | None, content: SessionContent, address: str = "") -> str:
        """Store the contents of a session, or of a new one; returns its id.

        `address` is that of the client; it identifies the party where there is no user. Raises
        `TooLarge`, and `LimitExceeded` where all parties together have too many sessions.
        """
        encoded = msgspec.json.encode(content)
        most = MAX_UNAUTHENTICATED_BYTES if content.user_id is None else MAX_BYTES
        if len(encoded) > most:
            raise TooLarge(f"A request that needs authentication has at most {most} bytes")
        is_new = session_id is None
        if session_id is None:
            session_id = f"{_tag(content.user_id or address)}_{new_token()}"
        box, name = _keys(session_id)
        sealed = bytes(box.encrypt(encoded))
        if not is_new:
            await self._db.run(update_authentication_session, name, sealed)
            return session_id
        session = NewSession(name, sealed, now_ms(self._clock) + LIFETIME_MS)
        bounds = SessionLimits(name[:TAG_SIZE], MAX_OF_PARTY, MAX_IN_ALL)
        if not await self._db.run(add_authentication_session, session, bounds):
            raise LimitExceeded(RETRY_AFTER_MS, "Too many requests wait for authentication")
        return session_id

    async def end(self, session_id: str) -> None:
        """Delete a session."""
        await self._db.run(delete_authentication_session, _keys(session_id)[1])


def _tag(party: str) -> str:
    """The common prefix of a party's sessions, which does not reveal the party."""
    digest = sha256(b"party\0" + party.encode("utf-8", "surrogatepass")).digest()
    return urlsafe_b64encode(digest[:8]).decode().rstrip("=")


def _keys(session_id: str) -> tuple[SecretBox, bytes]:
    """The key of the contents, and the stored name; neither can be derived from the other."""
    raw = session_id.encode("utf-8", "surrogatepass")
    tag = raw[:TAG_SIZE] if raw[TAG_SIZE : TAG_SIZE + 1] == b"_" else b""
    return SecretBox(sha256(b"contents\0" + raw).digest()), tag + sha256(b"name\0" + raw).digest()
