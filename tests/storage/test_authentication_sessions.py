"""The bounds of authentication sessions, by the names under which they are stored."""

from homeserver.storage.accounts.authentication_sessions import (
    NewSession,
    SessionLimits,
    add_authentication_session,
    find_authentication_session,
)
from tests.support.postgres import DatabaseTestCase

LIMITS = SessionLimits(b"party-of-us", of_party=2, in_all=3)


class AuthenticationSessionsTests(DatabaseTestCase):
    async def test_sessions_of_a_party_count_whatever_follows_its_tag(self) -> None:
        """Names are random: a client gets no more sessions because one begins with 0xFF."""
        names = [LIMITS.tag + rest for rest in (b"\xff\xff", b"\x00", b"\xff")]
        for expires_ms, name in enumerate(names, 1):
            session = NewSession(name, b"sealed", expires_ms)
            assert await self.db.run(add_authentication_session, session, LIMITS)

        kept = [await self.db.run(find_authentication_session, name, 0) for name in names]
        assert kept == [None, b"sealed", b"sealed"]
