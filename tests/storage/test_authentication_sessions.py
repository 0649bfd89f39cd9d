"""The bounds of authentication sessions, by the names under which they are stored."""

from homeserver.storage.accounts.authentication_sessions import (
    NewSession,
    SessionLimits,
    add_authentication_session,
)
from tests.support.postgres import DatabaseTestCase

LIMITS = SessionLimits(b"party-of-us", of_party=2, in_all=3)


class AuthenticationSessionsTests(DatabaseTestCase):
    async def test_sessions_of_a_party_count_whatever_follows_its_tag(self) -> None:
        """Names are random: a client gets no more sessions because one begins with 0xFF."""
        added = [
            await self.db.run(
                add_authentication_session, NewSession(LIMITS.tag + rest, b"sealed", 1), LIMITS
            )
            for rest in (b"\x00", b"\xff\xff", b"\xff")
        ]

        assert added == [True, True, False]
